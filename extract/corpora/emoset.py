"""EmoSet-118K, Flickr-LDL and Twitter-LDL: Mikels' eight emotions in the order of their authors."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.emotions import emotion_labels, rows_of
from extract.corpora.partition import stratified
from extract.corpora.pictures import Pictures
from extract.corpora.texts import find_one, misfit, table_of, text_of
from extract.corpora.vocabulary import majority, ratings, shares, spelled
from extract.errors import CorpusError
from extract.inputs.images import SUFFIXES
from extract.inputs.trees import Tree, open_tree
from features_store import Index, Split

CLASSES = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
_LAYOUT = "train.json, val.json, test.json and image/<emotion>/<emotion>_00001.jpg"
_ROW = "[emotion, image path, annotation path], perhaps with a fourth element"
_LAYOUT_LDL = "images/ and ground_truth.txt, parted by blanks"


def read_emoset(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read the three JSON lists; ids are the image paths in them."""
    tree = open_tree(data)
    names: list[str] = []
    values: list[int] = []
    parts: list[int] = []
    folder = ""
    for part, file in enumerate(("train.json", "val.json", "test.json")):
        path = find_one(tree, [file], layout=_LAYOUT)
        folder = path.rpartition("/")[0]
        for number, row in enumerate(_json_rows(tree, path), start=1):
            name, value = _image_and_class(tree, path, number, row)
            names.append(name)
            values.append(value)
            parts.append(part)
    index = Index(
        np.array(names),
        emotion_labels(CLASSES, values, "ten annotators; kept where they agree"),
        {"default": Split("default", np.array(parts), source="published")},
        corpus={"name": "emoset", "options": dict(options)},
    )
    return Reading(index, tree.below(folder).source(index.ids))


def _json_rows(tree: Tree, path: str) -> list[Any]:
    try:
        rows = json.loads(text_of(tree, path))
    except (json.JSONDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise misfit(tree, path, line, expected="a JSON list", found=str(error)) from error
    if not isinstance(rows, list) or not rows:
        raise misfit(tree, path, 1, expected=f"a JSON list of {_ROW}", found=str(rows)[:80])
    return rows


def _image_and_class(tree: Tree, path: str, number: int, row: Any) -> tuple[str, int]:
    # The distributed lists have three elements a row, the README shows four: told apart by what the elements are.
    cells = [cell for cell in row if isinstance(cell, str)] if isinstance(row, list) else []
    image = next((cell for cell in cells if os.path.splitext(cell)[1].lower() in SUFFIXES), None)
    emotion = next((spelled(cell) for cell in cells if spelled(cell) in CLASSES), None)
    if image is None or emotion is None:
        shown = json.dumps(row)[:120]
        raise misfit(tree, path, 0, expected=f"in row {number} {_ROW}", found=shown)
    return image.removeprefix("./"), CLASSES.index(emotion)


def read_distributions(data: Path, options: Mapping[str, Any], name: str) -> Reading:
    """Read the votes of Flickr-LDL or Twitter-LDL, and the official parts where their .mat file is there."""
    tree = open_tree(data)
    path = find_one(tree, ["ground_truth.txt"], layout=_LAYOUT_LDL)
    table = table_of(tree, path, delimiter="")
    titles = [spelled(title) for title in table.header]
    if missing := [one for one in CLASSES if one not in titles]:
        expected = f"the header images-name Amusement Awe ... (missing: {', '.join(missing)})"
        raise table.misfit(None, expected=expected, found=" ".join(table.header))
    names = table.cells(0)
    table.refuse_twice(names)
    columns = [table.numbers(titles.index(one), remedy="votes are whole numbers") for one in CLASSES]
    votes = np.nan_to_num(np.stack(columns, axis=1))
    values = majority(votes)
    labels = emotion_labels(CLASSES, values, "most of the votes; a tie is no label")
    spread = ratings(shares(votes), (0.0, 1.0), "shares of the votes", name="distribution", outputs=CLASSES)
    official, notes = _official(tree, names)
    parts = official if official is not None else stratified(names, values.tolist(), seed=options["seed"])
    index = Index(
        np.array(names),
        {**labels, "distribution": spread},
        {"default": Split("default", parts, source="made" if official is None else "published")},
        corpus={"name": name, "options": dict(options)},
    )
    return Reading(index, Pictures(tree, ("images",)).source(names, suffix=".jpg"), notes)


def _official(tree: Tree, names: list[str]) -> tuple[NDArray[np.int8] | None, tuple[str, ...]]:
    found = tree.find("*_ldl_config.mat")
    if not found:
        return None, ("the official parts (*_ldl_config.mat) are not there; split 'default' is 70/10/20, seeded",)
    from scipy.io import loadmat

    try:
        content = loadmat(io.BytesIO(tree.read(found[0])), variable_names=["imgname", "train_ind", "test_ind"])
        listed = [str(np.ravel(one)[0]).strip() for one in np.ravel(content["imgname"])]
        wanted = [np.ravel(content[key]).astype(np.int64) for key in ("train_ind", "test_ind")]
    except Exception as error:  # a damaged file meets loadmat with errors of many kinds
        msg = (
            f"{tree.place / found[0]}: expected the variables imgname, train_ind, test_ind in MATLAB's version 5; "
            f"found: {error}; remove the file to have a seeded split"
        )
        raise CorpusError(msg) from error
    row_of = {name: row for row, name in enumerate(names)}
    # MATLAB counts from 1, unless an index is 0.
    first = 0 if min((int(one.min()) for one in wanted if len(one)), default=1) == 0 else 1
    parts = np.full(len(names), -1, dtype=np.int8)
    for value, rows in ((0, wanted[0]), (2, wanted[1])):
        inside = rows[(rows >= first) & (rows < len(listed) + first)] - first
        parts = np.maximum(
            parts, rows_of([listed[row] for row in inside.tolist()], row_of, size=len(names), value=value)
        )
    return parts, ()


EMOSET = Corpus(
    name="emoset",
    title="EmoSet-118K: 118,102 images in eight emotions",
    obtain="the repository JingyuanYY/EmoSet links a download; give the folder it unpacks to",
    licence="its repository states the terms; the images belong to their owners",
    citation="Yang et al., EmoSet: A Large-scale Visual Emotion Dataset with Rich Attributes, ICCV 2023",
    reader=read_emoset,
    tasks={
        "emotion": f"single: {', '.join(CLASSES)} (the official order)",
        "polarity": "single: negative, positive; amusement, awe, contentment and excitement are positive",
    },
    splits={"default": "the official lists: train, val, test"},
    defects=(
        "rows of the distributed lists have three elements and those of the README four: both are read",
        "the official code of two classes is inverted (positive 0, negative 1); here negative is first, as elsewhere",
    ),
    published={
        "images": 118_102,
        "default/train": 94_481,
        "default/validation": 5_905,
        "default/test": 17_716,
    },
)
_LDL: dict[str, Any] = {
    "obtain": "from its authors; give the folder with ground_truth.txt and images/",
    "licence": "no licence is known to us; the images belong to their owners",
    "citation": "Yang, Sun, Sun, Learning Visual Sentiment Distributions via Augmented Conditional Probability Neural "
    "Network, AAAI 2017",
    "tasks": {
        "distribution": "regression: shares of the votes for eight emotions, 0 to 1",
        "emotion": "single: the most votes; a tie is no label",
        "polarity": "single: negative, positive; from the emotion",
    },
    "splits": {"default": "the official train and test, where *_ldl_config.mat is there; else 70/10/20, seeded"},
    "defects": ("each line of ground_truth.txt ends in an empty field",),
    "options": {"seed": Option(0, "seed of the split, where there is no official one", minimum=0)},
}
FLICKR_LDL = Corpus(
    name="flickr-ldl",
    title="Flickr-LDL: Flickr images with votes for eight emotions",
    reader=partial(read_distributions, name="flickr-ldl"),
    **_LDL,
)
TWITTER_LDL = Corpus(
    name="twitter-ldl",
    title="Twitter-LDL: images of tweets with votes for eight emotions",
    reader=partial(read_distributions, name="twitter-ldl"),
    **_LDL,
)
