"""EmoSet-118K, Flickr-LDL and Twitter-LDL: Mikels' eight emotions in the order of their authors."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.dataset import Dataset, labelled
from extract.corpora.labels import emotion_votes, emotion_word, emotions, majority
from extract.corpora.pictures import Pictures
from extract.corpora.splits import published_split, seeded_split
from extract.corpora.tables import read_table
from extract.corpora.texts import find_one, misfit, read_text
from extract.errors import CorpusError
from extract.inputs.images import SUFFIXES
from extract.inputs.trees import Tree, open_tree
from features_store import Split

CLASSES = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
_LAYOUT = "train.json, val.json, test.json and image/<emotion>/<emotion>_00001.jpg"
_LAYOUT_LDL = "images/ and ground_truth.txt, separated by blanks"
_ROW = "[emotion, image path, annotation path], perhaps with a fourth element"


def read_emoset(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read the three JSON lists; ids are the image paths in them."""
    tree = open_tree(data)
    rows: list[tuple[str, int, int]] = []
    folder = ""
    for part, file in enumerate(("train.json", "val.json", "test.json")):
        path = find_one(tree, [file], layout=_LAYOUT)
        folder = path.rpartition("/")[0]
        rows += [(*one, part) for one in _read_json_list(tree, path)]
    names, values, parts = zip(*rows, strict=True)
    ids = np.array(names)
    return labelled(
        name,
        options,
        ids,
        tree.below(folder).source(ids),
        labels=emotions(CLASSES, values, "ten annotators; kept where they agree"),
        splits=[Split("default", np.array(parts), source="published")],
    )


def _read_json_list(tree: Tree, path: str) -> list[tuple[str, int]]:
    """Return the image path and the class of each row."""
    place = tree.place / path
    try:
        rows = json.loads(read_text(tree, path))
    except (json.JSONDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise misfit(place, line, expected="a JSON list", found=str(error)) from error
    if not isinstance(rows, list) or not rows:
        raise misfit(place, 1, expected=f"a JSON list of {_ROW}", found=str(rows)[:80])
    found = []
    for number, row in enumerate(rows, start=1):
        # The distributed lists have three elements a row and the README shows four: each is known by what it is.
        cells = [cell for cell in row if isinstance(cell, str)] if isinstance(row, list) else []
        image = next((cell for cell in cells if os.path.splitext(cell)[1].lower() in SUFFIXES), None)
        emotion = next((word for word in map(emotion_word, cells) if word in CLASSES), None)
        if image is None or emotion is None:
            raise misfit(place, 0, expected=f"in row {number} {_ROW}", found=json.dumps(row)[:120])
        found.append((image.removeprefix("./"), CLASSES.index(emotion)))
    return found


def read_distributions(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read the votes of Flickr-LDL or Twitter-LDL, and the official parts where their .mat file is there."""
    tree = open_tree(data)
    table = read_table(tree, find_one(tree, ["ground_truth.txt"], layout=_LAYOUT_LDL), delimiter="")
    titles = [emotion_word(title) for title in table.header]
    if missing := [one for one in CLASSES if one not in titles]:
        expected = f"the header images-name Amusement Awe ... (missing: {', '.join(missing)})"
        raise table.misfit(None, expected=expected, found=" ".join(table.header))
    names = table.cells(0)
    table.refuse_twice(names)
    columns = [table.numbers(titles.index(one), remedy="votes are whole numbers") for one in CLASSES]
    votes = np.nan_to_num(np.stack(columns, axis=1))
    split, note = _official_split(tree, names)
    return labelled(
        name,
        options,
        names,
        Pictures(tree, ("images",)).files(names, suffix=".jpg"),
        labels=emotion_votes(CLASSES, votes, "most of the votes; a tie is no label"),
        splits=[split or seeded_split("default", names, majority(votes), seed=options["seed"])],
        notes=[note],
    )


def _official_split(tree: Tree, names: list[str]) -> tuple[Split | None, str]:
    paths = tree.find("*_ldl_config.mat")
    if not paths:
        return None, "the official parts (*_ldl_config.mat) are not there; split 'default' is 70/10/20, seeded"
    from scipy.io import loadmat

    try:
        content = loadmat(io.BytesIO(tree.read(paths[0])), variable_names=["imgname", "train_ind", "test_ind"])
        listed = [str(np.ravel(one)[0]).strip() for one in np.ravel(content["imgname"])]
        wanted = [np.ravel(content[key]).astype(np.int64) for key in ("train_ind", "test_ind")]
    except Exception as error:  # a damaged file makes loadmat raise errors of many kinds
        raise CorpusError(
            f"{tree.place / paths[0]}: expected the variables imgname, train_ind, test_ind in MATLAB's version 5; "
            f"found: {error}; remove the file to have a seeded split"
        ) from error
    # MATLAB counts from 1, unless an index is 0.
    first = 0 if min((int(one.min()) for one in wanted if len(one)), default=1) == 0 else 1
    inside = [rows[(rows >= first) & (rows < len(listed) + first)] - first for rows in wanted]
    lists = [(part, [listed[row] for row in rows.tolist()]) for part, rows in zip((0, 2), inside, strict=True)]
    return published_split("default", lists, {name: row for row, name in enumerate(names)}, len(names))
