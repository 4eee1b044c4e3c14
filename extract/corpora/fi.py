"""FI: Flickr and Instagram images in Mikels' eight emotions, in the layouts that are in circulation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Dataset, labelled
from extract.corpora.labels import MIKELS, emotion_word, emotions, find_class_folders, left_out_of_folders
from extract.corpora.pictures import Pictures, equal_file_groups, find_equal_files
from extract.corpora.splits import PARTS, published_split, seeded_split
from extract.corpora.tables import read_table
from extract.corpora.texts import misfit, read_labelled_list
from extract.errors import CorpusError
from extract.inputs.trees import Tree, open_tree
from features_store import Split

PLACEHOLDER = 5  # so many equal files are taken for copies of a site's "no longer available" picture
N_SPLITS = 5  # public ones
_SOURCES = {
    "majority": "searched by keyword, kept by a majority of five people on AMT",
    "all": "searched by keyword, whatever five people on AMT said",
}
_VOTES = "'<number>,<url>,<disagree>,<agree>'"


def read(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read class folders, class folders below train/ and val/, or the tables of votes."""
    if options["equal"] not in ("drop", "keep"):
        raise CorpusError(f"option 'equal' of corpus 'fi' is drop or keep; got {options['equal']!r}")
    if options["candidates"] not in ("majority", "all"):
        raise CorpusError(f"option 'candidates' of corpus 'fi' is majority or all; got {options['candidates']!r}")
    tree = open_tree(data)
    tables = sorted(path for emotion in MIKELS for path in tree.find(f"{emotion}_*.csv"))
    names, values, paths = (
        _read_votes(tree, tables, every=options["candidates"] == "all") if tables else ([], np.zeros(0, np.int16), [])
    )
    parts: NDArray[np.int8] | None = None
    left_out: dict[str, int] = {}
    # The archive numbers its images, and the votes name urls: the two do not meet.
    if not tables or (tree.images() and not any(map(tree.has, paths))):
        names, values, paths, parts = _read_folders(tree)
        left_out = left_out_of_folders(tree, len(paths))
    groups, notes = None, []
    if options["equal"] == "drop":
        rows, note = _rows_without_equal(tree, paths)
        names, paths, values = [names[row] for row in rows], [paths[row] for row in rows], values[rows]
        parts = None if parts is None else parts[rows]
        notes.append(note)
    else:
        groups = equal_file_groups(tree, paths)
    seeded = partial(seeded_split, ids=names, strata=values, seed=options["seed"], groups=groups)
    default = (
        seeded("default", validation=0.05, test=0.15) if parts is None else Split("default", parts, source="published")
    )
    published, split_notes = _read_published_splits(tree, names)
    return labelled(
        name,
        options,
        names,
        tree.source(np.array(paths)),
        labels=emotions(MIKELS, values, _SOURCES[options["candidates"]]),
        splits=[default, seeded("poster", validation=0.1, test=0.1), *published],
        groups=groups,
        notes=[*notes, *split_notes],
        left_out=left_out,
    )


def _read_folders(tree: Tree) -> tuple[list[str], NDArray[np.int16], list[str], NDArray[np.int8] | None]:
    """Return names, values and paths of the images in class folders, and their parts where those are folders too."""
    parts = sorted(part for part in PARTS if any(path.startswith(f"{part}/") for path in tree.images()))
    if not parts:
        root, names, values = find_class_folders(tree, MIKELS)
        return names, values, [f"{root}/{name}".lstrip("/") for name in names], None
    names, values_of, codes = [], [], []
    for part in parts:
        root, inside, values = find_class_folders(tree.below(part), MIKELS)
        names += [f"{part}/{root}/{name}".replace("//", "/") for name in inside]
        values_of.append(values)
        codes.append(np.full(len(inside), PARTS[part], dtype=np.int8))
    return names, np.concatenate(values_of), names, np.concatenate(codes)


def _read_votes(tree: Tree, tables: Sequence[str], *, every: bool) -> tuple[list[str], NDArray[np.int16], list[str]]:
    """Keep the images with more people for the emotion than against it, or *every* one that was searched for.

    Ids are ``EMOTION/<last part of the url>``.
    """
    found: dict[str, int] = {}
    for path in tables:
        emotion = emotion_word(path.rpartition("/")[2].split("_")[0])
        table = read_table(tree, path, titled=False, expected=_VOTES)
        for line, cells in zip(table.lines, table.rows, strict=True):
            if len(cells) != 4 or not (cells[2].strip().isdecimal() and cells[3].strip().isdecimal()):
                if line == 1 and len(cells) == 4:
                    continue  # a header
                raise misfit(table.place, line, expected=_VOTES, found=",".join(cells))
            if every or int(cells[3]) > int(cells[2]):
                file = re.split(r"[?#]", cells[1].strip())[0].rstrip("/").rpartition("/")[2]
                found.setdefault(f"{emotion}/{file}", MIKELS.index(emotion))
    if not found:
        raise misfit(
            tree.place, 0, expected=f"more people for an emotion than against it in rows {_VOTES}", found="none"
        )
    names = list(found)
    paths = Pictures(tree, ("images", "emotion_dataset")).paths(names)
    return names, np.array([*found.values()], dtype=np.int16), paths


def _rows_without_equal(tree: Tree, paths: Sequence[str]) -> tuple[list[int], str]:
    """Leave out every copy of a placeholder, and all but the first copy of any other image."""
    drop: set[int] = set()
    n_placeholders = n_copies = 0
    for rows in find_equal_files(tree, paths):
        if len(rows) >= PLACEHOLDER:
            drop.update(rows)
            n_placeholders += len(rows)
        else:
            drop.update(rows[1:])
            n_copies += len(rows) - 1
    kept = [row for row in range(len(paths)) if row not in drop]
    if not kept:
        raise CorpusError(f"{tree.place}: all images are equal; keep them with --option equal=keep")
    note = (
        f"{n_placeholders} copies of placeholder pictures and {n_copies} second copies of images were left out; "
        f"{len(kept)} images remain (--option equal=keep keeps all)"
    )
    return kept, note if drop else ""


def _read_published_splits(tree: Tree, names: Sequence[str]) -> tuple[list[Split], list[str]]:
    """Read ``split_<k>/FI_{train,val,test}.csv``, the public splits of Serra et al."""
    row_of = {"/".join(name.split("/")[-2:]): row for row, name in enumerate(names)}
    splits: list[Split] = []
    notes: list[str] = []
    for path in tree.find("FI_train.csv"):
        number, folder = re.search(r"split_(\d+)/", path), path.rpartition("/")[0]
        files = [f"{folder}/FI_{part}.csv".lstrip("/") for part in ("train", "val", "test")]
        lists = []
        for part, file in enumerate(files):
            if tree.has(file):
                # Here 0 is negative and 2 positive, unlike in other lists of these authors; the emotion decides anyway.
                listed, _ = read_labelled_list(tree, file, {"0": 0, "2": 1}, expected="'<path>,<0 or 2>'")
                lists.append((part, ["/".join(one.split("/")[-2:]) for one in listed]))
        name = f"serra-{number[1]}" if number else "serra"
        if name in {split.name for split in splits}:
            raise CorpusError(
                f"{tree.place} holds two lists of the public split {name!r}, one of them {path}; keep one"
            )
        split, note = published_split(name, lists, row_of, len(names))
        absent = ", ".join(file for file in files if not tree.has(file))
        splits.append(split)
        notes += [f"split {name!r}: {absent} is not there, so its part is empty" if absent else "", note]
    wanted = [f"serra-{number}" for number in range(1, N_SPLITS + 1)]
    if missing := [name for name in wanted if name not in {split.name for split in splits}]:
        notes.append(f"the public splits {', '.join(missing)} (split_<k>/FI_train.csv ...) are not there")
    return splits, notes
