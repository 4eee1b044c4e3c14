"""Emotion6 and EmotionROI: the 1,980 images of Peng et al., by ratings and by category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.emotions import class_folders, emotion_labels, left_out_of_folders
from extract.corpora.partition import stratified
from extract.corpora.pictures import Pictures
from extract.corpora.texts import find_one, lines_of, misfit, table_of
from extract.corpora.vocabulary import EKMAN, majority, ratings, single
from extract.inputs.trees import Tree, open_tree
from features_store import Index, Split

PROBABILITIES = (*EKMAN, "neutral")
_LAYOUT_6 = "images/<emotion>/<n>.jpg and ground_truth.txt, parted by tabs"
_FIRST_TEST = 232  # images 232 ... 330 of each class are the official test part
_SOURCE_6 = "Emotion6: mean of ratings on AMT"


def read_emotion6(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read ``ground_truth.txt``; ids are as it names them, ``disgust/1.jpg``."""
    tree = open_tree(data)
    table = table_of(tree, find_one(tree, ["ground_truth.txt"], layout=_LAYOUT_6), delimiter="\t")
    remedy = "the header is [image_filename] [valence] [arousal] [prob. anger] ..., with or without brackets"
    titles = [title.strip("[] ").removeprefix("prob.").strip().lower() for title in table.header]
    wanted = ("image_filename", "valence", "arousal", *PROBABILITIES)
    missing = [name for name in wanted if name not in titles]
    if missing:
        found = ", ".join(table.header)
        raise table.misfit(None, expected=f"the columns {', '.join(missing)}", found=found, remedy=remedy)
    names = table.cells(titles.index("image_filename"))
    numbers = np.stack([table.numbers(titles.index(one), remedy=remedy) for one in wanted[1:]], axis=1)
    table.refuse_twice(names, remedy)
    keywords = [name.partition("/")[0].lower() for name in names]
    for row, keyword in enumerate(keywords):
        if keyword not in EKMAN:
            table.refuse(row, f"'<emotion>/<n>.jpg' with one of {', '.join(EKMAN)}", names[row])
    folder = np.array([EKMAN.index(keyword) for keyword in keywords], dtype=np.int16)
    most = majority(numbers[:, 2:])
    labels = emotion_labels(EKMAN, folder, "the keyword that the image was searched by: its folder")
    for more in (
        single("majority", PROBABILITIES, most, f"{_SOURCE_6}; the most probable of seven"),
        ratings(numbers[:, :2], (1.0, 9.0), _SOURCE_6),
        ratings(numbers[:, 2:], (0.0, 1.0), _SOURCE_6, name="distribution", outputs=PROBABILITIES),
    ):
        labels[more.task.name] = more
    parts = stratified(names, folder.tolist(), seed=options["seed"])
    origin = {"name": "emotion6", "options": dict(options)}
    index = Index(np.array(names), labels, {"default": Split("default", parts, source="made")}, corpus=origin)
    n_other = int((most != folder).sum())
    notes = (f"the folder is not the majority of the ratings for {n_other} of {len(names)} images",)
    return Reading(index, Pictures(tree, ("images",)).source(names), notes)


def read_emotionroi(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read the class folders and the official lists."""
    tree = open_tree(data)
    root, names, values, n_others = class_folders(tree, EKMAN)
    official, notes = _official(tree, names)
    thesis = stratified(names, values.tolist(), seed=options["seed"], validation=0.15, test=0.05)
    index = Index(
        np.array(names),
        emotion_labels(EKMAN, values, "the folder: the keyword that the image was searched by"),
        {"default": Split("default", official, source="published"), "thesis": Split("thesis", thesis, source="made")},
        corpus={"name": "emotionroi", "options": dict(options)},
    )
    left_out = left_out_of_folders(tree, n_others)
    return Reading(index, tree.below(root).source(index.ids), notes, left_out)


def _official(tree: Tree, names: Sequence[str]) -> tuple[NDArray[np.int8], tuple[str, ...]]:
    row_of = {name: row for row, name in enumerate(names)}
    parts = np.full(len(names), -1, dtype=np.int8)
    n_absent = 0
    for file, part in (("training.txt", 0), ("testing.txt", 2)):
        found = tree.find(file)
        if not found:
            numbers = [name.rpartition("/")[2].partition(".")[0] for name in names]
            test = [number.isdecimal() and int(number) >= _FIRST_TEST for number in numbers]
            note = (
                f"{file} is not there: images from number {_FIRST_TEST} on are the test part, as in the official lists"
            )
            return np.where(test, 2, 0).astype(np.int8), (note,)
        for number, line in enumerate(lines_of(tree, found[0]), start=1):
            name = line.removeprefix("./")
            if name and name.count("/") != 1:
                raise misfit(tree, found[0], number, expected="'<emotion>/<n>.jpg'", found=line)
            if name in row_of:
                parts[row_of[name]] = part
            n_absent += bool(name) and name not in row_of
    notes = (f"{n_absent} images of the official lists are not there",) if n_absent else ()
    return parts, notes


_OBTAIN = "chenlab.ece.cornell.edu/people/kuanchuan/publications/{}.zip; give the zip or the folder it unpacks to"
_LICENCE = "for academic research only; the images belong to their owners"
EMOTION6 = Corpus(
    name="emotion6",
    title="Emotion6: 1,980 images with valence, arousal and the probabilities of seven emotions",
    obtain=_OBTAIN.format("Emotion6"),
    licence=_LICENCE,
    citation="Peng, Chen, Sadovnik, Gallagher, A Mixed Bag of Emotions: Model, Predict, and Transfer Emotion "
    "Distributions, CVPR 2015",
    reader=read_emotion6,
    tasks={
        "valence_arousal": "regression: means, 1 to 9",
        "distribution": "regression: probabilities of six emotions and neutral",
        "majority": "single: the most probable of the seven; a tie is no label",
        "emotion": "single: the folder, which is the keyword of the search",
        "polarity": "single: negative, positive; from the folder, joy and surprise are positive",
    },
    splits={"default": "70/10/20, stratified by folder, seeded; there is no official one"},
    defects=("the folder is the search keyword; for many images the ratings say another emotion, or neutral",),
    options={"seed": Option(0, "seed of the split", minimum=0)},
    published={"images": 1980, **{f"emotion/{one}": 330 for one in EKMAN}},
)
EMOTIONROI = Corpus(
    name="emotionroi",
    title="EmotionROI: 1,980 images in six emotions",
    obtain=_OBTAIN.format("EmotionROI"),
    licence=_LICENCE,
    citation="Peng, Sadovnik, Gallagher, Chen, Where do emotions come from? Predicting the Emotion Stimuli Map, "
    "ICIP 2016",
    reader=read_emotionroi,
    tasks={
        "emotion": "single: anger, disgust, fear, joy, sadness, surprise",
        "polarity": "single: negative, positive; joy and surprise are positive",
    },
    splits={
        "default": "the official lists: train and test, no validation",
        "thesis": "80/15/5, stratified, seeded",
    },
    defects=("stimuli maps have the names of the images: ground_truth/ is left out",),
    options={"seed": Option(0, "seed of the split 'thesis'", minimum=0)},
    published={
        "images": 1980,
        "default/train": 1386,
        "default/test": 594,
        **{f"emotion/{one}": 330 for one in EKMAN},
    },
)
