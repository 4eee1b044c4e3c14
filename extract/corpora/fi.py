"""FI: Flickr and Instagram images in Mikels' eight emotions, in the layouts that are about."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.content import equal_files
from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.emotions import class_folders, emotion_labels, left_out_of_folders, rows_of
from extract.corpora.folders import PARTS
from extract.corpora.partition import grouped
from extract.corpora.pictures import Pictures
from extract.corpora.texts import labelled_list, misfit, table_of
from extract.corpora.vocabulary import MIKELS, spelled
from extract.errors import CorpusError
from extract.inputs.files import ImageFiles
from extract.inputs.trees import Tree, open_tree
from features_store import Index, Split

PLACEHOLDER = 5  # equal files from which on they are taken for a site's "no longer available" picture
_VOTES = "'<number>,<url>,<disagree>,<agree>'"


@dataclass(frozen=True)
class _Found:
    names: list[str]
    values: NDArray[np.int16]
    paths: list[str]
    tree: Tree
    given: NDArray[np.int8] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def at(self, rows: Sequence[int]) -> _Found:
        """Return only these rows."""
        pick = list(rows)
        names, paths = [self.names[row] for row in pick], [self.paths[row] for row in pick]
        given = None if self.given is None else self.given[pick]
        return _Found(names, self.values[pick], paths, self.tree, given, self.left_out)

    def source(self) -> ImageFiles:
        return self.tree.source(np.array(self.paths))


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read class folders, class folders below train/ and val/, or the tables of votes.

    Raises CorpusError.
    """
    if options["equal"] not in ("drop", "keep"):
        msg = f"option 'equal' of corpus 'fi' is drop or keep; got {options['equal']!r}"
        raise CorpusError(msg)
    tree = open_tree(data)
    tables = [path for emotion in MIKELS for path in tree.find(f"{emotion}_*.csv")]
    found = _of_votes(tree, tables) if tables else _of_folders(tree)
    if tables and tree.images() and not any(tree.has(path) for path in found.paths):
        found = _of_folders(tree)  # the archive numbers its images, and the votes name urls: they don't meet
    notes: tuple[str, ...] = ()
    groups: NDArray[np.int64] | None = None
    if options["equal"] == "drop":
        found, notes = _without_equal(found)
    else:
        groups = np.full(len(found.names), -1, dtype=np.int64)
        for number, rows in enumerate(equal_files(found.tree, found.paths)):
            groups[rows] = number
    index = Index(
        np.array(found.names),
        emotion_labels(MIKELS, found.values, "searched by keyword, kept by a majority of five people on AMT"),
        _splits(tree, found, groups, options["seed"]),
        groups,
        corpus={"name": "fi", "options": dict(options)},
    )
    return Reading(index, found.source(), notes, found.left_out)


def _of_folders(tree: Tree) -> _Found:
    parts = sorted(part for part in PARTS if any(path.startswith(f"{part}/") for path in tree.images()))
    if not parts:
        root, names, values, n_others = class_folders(tree, MIKELS)
        return _Found(names, values, names, tree.below(root), left_out=left_out_of_folders(tree, n_others))
    given: list[NDArray[np.int8]] = []
    codes_of: list[NDArray[np.int16]] = []
    names = []
    for part in parts:
        root, inside, codes, _ = class_folders(tree.below(part), MIKELS)
        names += [f"{part}/{root}/{name}".replace("//", "/") for name in inside]
        codes_of.append(codes)
        given.append(np.full(len(inside), PARTS[part], dtype=np.int8))
    left_out = left_out_of_folders(tree, len(tree.images()) - len(names))
    return _Found(names, np.concatenate(codes_of), names, tree, np.concatenate(given), left_out)


def _of_votes(tree: Tree, tables: Sequence[str]) -> _Found:
    """Keep the images with more people for the emotion than against it; ids are ``EMOTION/<last part of the url>``."""
    names: list[str] = []
    values: list[int] = []
    for path in sorted(tables):
        emotion = spelled(path.rpartition("/")[2].split("_")[0])
        # There is no header; a row of four cells with two numbers at its end is a row.
        table = table_of(tree, path, is_header=lambda _: True, expected=_VOTES, ragged=True)
        for line, cells in zip([1, *table.lines], [table.header, *table.rows], strict=True):
            if len(cells) != 4 or not (cells[2].strip().isdecimal() and cells[3].strip().isdecimal()):
                if line == 1 and len(cells) == 4:
                    continue
                raise misfit(tree, path, line, expected=_VOTES, found=",".join(cells))
            if int(cells[3]) > int(cells[2]):
                file = re.split(r"[?#]", cells[1].strip())[0].rstrip("/").rpartition("/")[2]
                names.append(f"{emotion}/{file}")
                values.append(MIKELS.index(emotion))
    firsts = list({name: row for row, name in reversed(list(enumerate(names)))}.values())
    firsts.sort()
    kept = [names[row] for row in firsts]
    codes = np.array(values, dtype=np.int16)[firsts]
    return _Found(kept, codes, Pictures(tree, ("images", "emotion_dataset")).paths(kept), tree)


def _without_equal(found: _Found) -> tuple[_Found, tuple[str, ...]]:
    """Leave out every copy of a placeholder, and all but the first copy of any other image."""
    drop: set[int] = set()
    n_placeholders = n_copies = 0
    for rows in equal_files(found.tree, found.paths):
        if len(rows) >= PLACEHOLDER:
            drop.update(rows)
            n_placeholders += len(rows)
        else:
            drop.update(rows[1:])
            n_copies += len(rows) - 1
    if not drop:
        return found, ()
    left = [row for row in range(len(found.names)) if row not in drop]
    if not left:
        msg = f"{found.tree.place}: all images are equal; keep them with --option equal=keep"
        raise CorpusError(msg)
    note = (
        f"{n_placeholders} copies of placeholder pictures and {n_copies} second copies of images were left out; "
        f"{len(left)} images remain (--option equal=keep keeps all)"
    )
    return found.at(left), (note,)


def _splits(tree: Tree, found: _Found, groups: NDArray[np.int64] | None, seed: int) -> dict[str, Split]:
    deal = partial(grouped, found.names, found.values.tolist(), groups, seed=seed)
    seeded = deal(validation=0.05, test=0.15)
    poster = deal(validation=0.1, test=0.1)
    splits = {
        "default": Split("default", seeded, source="made")
        if found.given is None
        else Split("default", found.given, source="published"),
        "poster": Split("poster", poster, source="made"),
    }
    row_of = {"/".join(name.split("/")[-2:]): row for row, name in enumerate(found.names)}
    for path in tree.find("FI_train.csv"):
        number = re.search(r"split_(\d+)/", path)
        folder = path.rpartition("/")[0]
        values = np.full(len(found.names), -1, dtype=np.int8)
        for part, value in (("train", 0), ("val", 1), ("test", 2)):
            file = f"{folder}/FI_{part}.csv".lstrip("/")
            if tree.has(file):
                # 0 negative, 2 positive here, unlike in the other lists of the same authors; the class is known anyway.
                listed, _ = labelled_list(tree, file, {"0": 0, "2": 1}, expected="'<path>,<0 or 2>'")
                short = ["/".join(name.split("/")[-2:]) for name in listed]
                values = np.maximum(values, rows_of(short, row_of, size=len(values), value=value))
        name = f"serra-{number[1]}" if number else "serra"
        splits[name] = Split(name, values, source="published")
    return splits


CORPUS = Corpus(
    name="fi",
    title="FI: about 23,000 Flickr and Instagram images in eight emotions",
    obtain="qzyou.github.io links an archive of images, and tables of urls and votes; give the folder or its archive",
    licence="no licence is known to us; the images belong to their owners",
    citation="You, Luo, Jin, Yang, Building a Large Scale Dataset for Image Emotion Recognition: The Fine Print and "
    "The Benchmark, AAAI 2016",
    reader=read,
    tasks={
        "emotion": "single: amusement, anger, awe, contentment, disgust, excitement, fear, sadness",
        "polarity": "single: negative, positive; amusement, awe, contentment and excitement are positive",
    },
    splits={
        "default": "train/, val/, test/ where they are there; else 80/5/15, stratified, seeded",
        "poster": "80/10/10, stratified, seeded",
        "serra-1 ... serra-5": "the five public ones, where split_<k>/FI_train.csv and so on are there",
    },
    defects=(
        "many urls are dead, and archives hold the sites' placeholder pictures in their place: they are left out",
        "published counts run from 23,166 (votes) to 23,308 (paper): every copy is another one",
    ),
    options={
        "equal": Option("drop", "drop: leave out placeholders and second copies; keep: keep all"),
        "seed": Option(0, "seed of the splits", minimum=0),
    },
    published={
        "images": 23_166,
        "emotion/amusement": 4923,
        "emotion/anger": 1255,
        "emotion/awe": 3133,
        "emotion/contentment": 5356,
        "emotion/disgust": 1650,
        "emotion/excitement": 2918,
        "emotion/fear": 1029,
        "emotion/sadness": 2902,
    },
)
