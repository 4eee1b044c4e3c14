"""Twitter I (DeepSent): 1,269 images of tweets, labelled by five people each; and the 603 photo tweets of VSO."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Dataset, labelled
from extract.corpora.labels import BINARY, POLARITY, groups_of, single
from extract.corpora.pictures import Pictures
from extract.corpora.splits import published_split, seeded_split
from extract.corpora.texts import find_one, misfit, no_file, read_labelled_list
from extract.errors import CorpusError
from extract.inputs.trees import Tree, open_tree
from features_store import Split
from features_store.schema import repeated_name

SUBSETS = ("three", "four", "five")
N_FOLDS = 5
_LAYOUT = "Agg_AMT_Candidates/*.jpg with twitter_three_agrees.txt, twitter_four_agrees.txt, twitter_five_agrees.txt"
_LINE = "'<user>_<tweet>_<media>.jpg <code>' (0 negative, 1 positive)"
_CODES = {"0": 0, "1": 1}


def read(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read the lists of the images on which at least three, four and five people agreed."""
    tree = open_tree(data)
    lists = _read_subsets(tree)
    names = list(dict.fromkeys(image for found in lists.values() for image in found))
    row_of = {image: row for row, image in enumerate(names)}
    labels = [
        single(
            subset, BINARY, [found.get(image, -1) for image in names], f"at least {subset} of five people agree (AMT)"
        )
        for subset, found in lists.items()
    ]
    groups = groups_of([media_of(image) for image in names])
    folds, notes = _read_folds(tree, row_of)
    missing = ", ".join(subset for subset in SUBSETS if subset not in lists)
    seeded = seeded_split("default", names, labels[0].values, seed=options["seed"], groups=groups)
    return labelled(
        name,
        options,
        names,
        Pictures(tree, ("Agg_AMT_Candidates", "images")).files(names),
        labels=labels,
        splits=[seeded, *_first_fifths(lists, row_of), *folds],
        groups=groups,
        notes=[f"there is no list of the images on which {missing} agree" if missing else "", *notes],
    )


def _read_subsets(tree: Tree) -> dict[str, dict[str, int]]:
    lists: dict[str, dict[str, int]] = {}
    for subset in SUBSETS:
        paths = [path for path in tree.find(f"*{subset}_agree*.txt") if "/test" not in f"/{path}"]
        if paths:
            names, values = read_labelled_list(tree, paths[0], _CODES, expected=_LINE)
            files = [name.rpartition("/")[2] for name in names]
            if (again := repeated_name(files)) is not None:
                raise misfit(tree.place / paths[0], 0, expected="each image once, whatever its folder", found=again)
            lists[subset] = dict(zip(files, values.tolist(), strict=True))
    if not lists:
        raise no_file(tree, "twitter_five_agrees.txt (nor four, nor three)", layout=_LAYOUT)
    return lists


def _first_fifths(lists: Mapping[str, Mapping[str, int]], row_of: Mapping[str, int]) -> list[Split]:
    """Make the split of Keras' ``validation_split=0.2`` for each list: its first fifth validates, no image tests."""
    splits = []
    for subset, found in lists.items():
        rows = [row_of[image] for image in found]
        parts: NDArray[np.int8] = np.full(len(row_of), -1, dtype=np.int8)
        parts[rows] = 0
        parts[rows[: int(0.2 * len(rows))]] = 1
        splits.append(Split(f"first-fifth-{subset}", parts, source="published"))
    return splits


def _read_folds(tree: Tree, row_of: Mapping[str, int]) -> tuple[list[Split], list[str]]:
    """Read the public five folds, ``SUBSET_agrees/test{1..5}/test.txt``; images that they leave out are unused."""
    lists: dict[str, dict[int, list[str]]] = {}
    for path in tree.find("test.txt"):
        found = re.search(rf"(three|four|five)_agrees/test([1-{N_FOLDS}])/test\.txt$", path)
        if found:
            names, _ = read_labelled_list(tree, path, _CODES, expected=_LINE)
            if int(found[2]) - 1 in lists.get(found[1], {}):
                raise CorpusError(f"{tree.place} holds the fold {found[0]} twice, one of them at {path}; keep one")
            lists.setdefault(found[1], {})[int(found[2]) - 1] = [name.rpartition("/")[2] for name in names]
    splits, notes = [], []
    for subset, folds in lists.items():
        name = f"folds-{subset}"
        split, note = published_split(name, sorted(folds.items()), row_of, len(row_of), folds=True)
        absent = ", ".join(f"test{fold + 1}/test.txt" for fold in range(N_FOLDS) if fold not in folds)
        splits.append(split)
        notes += [f"split {name!r}: {absent} of {subset}_agrees/ are not there" if absent else "", note]
    if not lists:
        notes.append("the public five folds (five_agrees/test1/test.txt ...) are not there; split 'default' is seeded")
    elif absent := ", ".join(subset for subset in SUBSETS if subset not in lists):
        notes.append(f"the public five folds of {absent} are not there")
    return splits, notes


def media_of(name: str) -> str:
    """Return the media id in ``<user id>_<tweet id>_<media id>.jpg``, which may hold ``_`` and ``-`` itself."""
    pieces = PurePosixPath(name).stem.split("_", 2)
    return pieces[2] if len(pieces) == 3 else ""


def read_photo_tweets(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read a list of image and label that the user names."""
    tree = open_tree(data)
    patterns = [options["list"]] if options["list"] else ["ground_truth.*", "labels.*", "*.csv", "*.txt"]
    path = find_one(tree, patterns, layout="a list of lines '<image> <label>' that you name with --option list=FILE")
    codes = dict.fromkeys(options["negative"].split("|"), 0) | dict.fromkeys(options["positive"].split("|"), 1)
    remedy = "name the list with --option list=FILE and its codes with --option negative=A|B --option positive=C|D"
    names, values = read_labelled_list(tree, path, codes, expected="'<image> <label>'", remedy=remedy)
    source = "people on AMT, 603 photo tweets"
    groups = groups_of([media_of(image) for image in names])
    return labelled(
        name,
        options,
        names,
        Pictures(tree).files(names),
        labels=[
            single("polarity", POLARITY, values * 2, f"{source}; no image is neutral"),
            single("binary", BINARY, values, source),
        ],
        splits=[
            Split("default", np.full(len(names), 2), source="made"),
            seeded_split("seeded", names, values, seed=options["seed"], groups=groups),
        ],
        groups=groups,
    )
