"""Emotion6 and EmotionROI: the 1,980 images of Peng et al., by ratings and by category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.dataset import Dataset, labelled
from extract.corpora.labels import (
    EKMAN,
    emotions,
    find_class_folders,
    left_out_of_folders,
    majority,
    ratings,
    single,
)
from extract.corpora.pictures import Pictures
from extract.corpora.splits import published_split, seeded_split
from extract.corpora.tables import read_table
from extract.corpora.texts import find_one, misfit, read_lines
from extract.inputs.trees import Tree, open_tree
from features_store import Split

PROBABILITIES = (*EKMAN, "neutral")
_LAYOUT_6 = "images/<emotion>/<n>.jpg and a tab-separated ground_truth.txt"
_REMEDY_6 = "the header is [image_filename] [valence] [arousal] [prob. anger] ..., with or without brackets"
_SOURCE_6 = "Emotion6: mean of ratings on AMT"
_FIRST_TEST = 232  # images 232 ... 330 of each class are the official test part


def read_emotion6(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read ``ground_truth.txt``; ids are as it names them, ``disgust/1.jpg``."""
    tree = open_tree(data)
    table = read_table(tree, find_one(tree, ["ground_truth.txt"], layout=_LAYOUT_6), delimiter="\t")
    titles = [title.strip("[] ").removeprefix("prob.").strip().lower() for title in table.header]
    wanted = ("image_filename", "valence", "arousal", *PROBABILITIES)
    if missing := [title for title in wanted if title not in titles]:
        expected, found = f"the columns {', '.join(missing)}", ", ".join(table.header)
        raise table.misfit(None, expected=expected, found=found, remedy=_REMEDY_6)
    names = table.cells(titles.index("image_filename"))
    numbers = np.stack([table.numbers(titles.index(one), remedy=_REMEDY_6) for one in wanted[1:]], axis=1)
    table.refuse_twice(names, _REMEDY_6)
    keywords = [image.partition("/")[0].lower() for image in names]
    for row, keyword in enumerate(keywords):
        if keyword not in EKMAN:
            table.refuse(row, f"'<emotion>/<n>.jpg' with one of {', '.join(EKMAN)}", names[row])
    folder = np.array([EKMAN.index(keyword) for keyword in keywords], dtype=np.int16)
    most = majority(numbers[:, 2:])
    n_other = int((most != folder).sum())
    return labelled(
        name,
        options,
        names,
        Pictures(tree, ("images",)).files(names),
        labels=[
            *emotions(EKMAN, folder, "the keyword that the image was searched by: its folder"),
            single("majority", PROBABILITIES, most, f"{_SOURCE_6}; the most probable of seven"),
            ratings(numbers[:, :2], (1.0, 9.0), _SOURCE_6),
            ratings(numbers[:, 2:], (0.0, 1.0), _SOURCE_6, name="distribution", outputs=PROBABILITIES),
        ],
        splits=[seeded_split("default", names, folder, seed=options["seed"])],
        notes=[f"the folder is not the majority of the ratings for {n_other} of {len(names)} images"],
    )


def read_emotionroi(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read the class folders and the official lists."""
    tree = open_tree(data)
    root, names, values = find_class_folders(tree, EKMAN)
    official, note = _official_split(tree, names)
    ids = np.array(names)
    return labelled(
        name,
        options,
        ids,
        tree.below(root).source(ids),
        labels=emotions(EKMAN, values, "the folder: the keyword that the image was searched by"),
        splits=[official, seeded_split("thesis", names, values, seed=options["seed"], validation=0.15, test=0.05)],
        notes=[note],
        left_out=left_out_of_folders(tree, len(names)),
    )


def _official_split(tree: Tree, names: Sequence[str]) -> tuple[Split, str]:
    lists: list[tuple[int, list[str]]] = []
    for file, part in (("training.txt", 0), ("testing.txt", 2)):
        paths = tree.find(file)
        if not paths:
            numbers = [name.rpartition("/")[2].partition(".")[0] for name in names]
            test = [number.isdecimal() and int(number) >= _FIRST_TEST for number in numbers]
            note = (
                f"{file} is not there: images from number {_FIRST_TEST} on are the test part, as in the official lists"
            )
            return Split("default", np.where(test, 2, 0), source="published"), note
        listed = [line.removeprefix("./") for line in read_lines(tree, paths[0])]
        for number, line in enumerate(listed, start=1):
            if line and line.count("/") != 1:
                raise misfit(tree.place / paths[0], number, expected="'<emotion>/<n>.jpg'", found=line)
        lists.append((part, [line for line in listed if line]))
    return published_split("default", lists, {name: row for row, name in enumerate(names)}, len(names))
