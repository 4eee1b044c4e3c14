"""MediaEval 2021, Visual Sentiment Analysis: images of natural disasters, three subtasks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.content import equal_files
from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.partition import grouped
from extract.corpora.pictures import Pictures
from extract.corpora.texts import Table, find_one, table_of
from extract.corpora.vocabulary import POLARITY, single
from extract.errors import CorpusError
from extract.inputs.trees import open_tree
from features_store import Index, Labels, Split, Task

SUBTASK2 = ("joy", "sadness", "fear", "disgust", "anger", "surprise", "neutral")
SUBTASK3 = (
    *("anger", "anxiety", "craving", "empathic pain", "fear"),
    *("horror", "joy", "relief", "sadness", "surprise"),
)
_LAYOUT = "devset.csv, testset.csv where it was released, and images/<id>.jpg"
_REMEDY = "the titles are 'T1', 'T2.1: Joy' ... 'T3.10: surprise'; spelling after the number does not matter"
_SOURCE = "majority of at least five people (Microworkers)"


@dataclass(frozen=True)
class _Rows:
    names: list[str]
    polarity: NDArray[np.int16]
    second: NDArray[np.uint8]
    third: NDArray[np.uint8]


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read the development set, and the test set where its labels are there.

    Raises CorpusError.
    """
    if options["all_zero"] not in ("keep", "unlabelled"):
        msg = f"option 'all_zero' of corpus 'mediaeval21' is keep or unlabelled; got {options['all_zero']!r}"
        raise CorpusError(msg)
    tree = open_tree(data)
    paths = [find_one(tree, ["devset.csv"], layout=_LAYOUT), *tree.find(options["test"])[:1]]
    parts = [_rows(table_of(tree, path)) for path in paths]
    names = [name for part in parts for name in part.names]
    n_dev, polarity = len(parts[0].names), np.concatenate([part.polarity for part in parts])
    labels = {
        "subtask1": single("subtask1", POLARITY, polarity, _SOURCE),
        "subtask2": _multi("subtask2", SUBTASK2, [part.second for part in parts], options["all_zero"]),
        "subtask3": _multi("subtask3", SUBTASK3, [part.third for part in parts], options["all_zero"]),
    }
    files = Pictures(tree, ("images",)).paths(names, suffix=".jpg")
    groups = np.full(len(names), -1, dtype=np.int64)
    for number, rows in enumerate(equal_files(tree, files)):
        groups[rows] = number
    index = Index(
        np.array(names),
        labels,
        _splits(names, polarity, groups, n_dev, options["seed"]),
        groups,
        corpus={"name": "mediaeval21", "options": dict(options)},
    )
    notes = () if len(paths) > 1 else ("testset.csv is not there: the test part of split 'default' is drawn, seeded",)
    return Reading(index, tree.source(np.array(files)), notes)


def _rows(table: Table) -> _Rows:
    titles = [re.sub(r"\s+", " ", title.strip().lower()) for title in table.header]
    key = next((at for at, title in enumerate(titles) if title in ("id", "filename")), -1)
    columns = {"t1": _column(table, titles, "t1")}
    for task, classes in (("t2", SUBTASK2), ("t3", SUBTASK3)):
        for number in range(1, len(classes) + 1):
            columns[f"{task}.{number}"] = _column(table, titles, f"{task}.{number}")
    if key < 0:
        found = ", ".join(table.header)
        raise table.misfit(None, expected="a column 'id' or 'filename'", found=found, remedy=_REMEDY)
    names = [re.sub(r"\.(jpe?g|png)$", "", cell, flags=re.IGNORECASE) for cell in table.cells(key)]
    table.refuse_twice(names, _REMEDY)
    words = [cell.lower() for cell in table.cells(columns["t1"])]
    for row, word in enumerate(words):
        if word not in POLARITY:
            table.refuse(row, f"T1 to be one of {', '.join(POLARITY)}", word, _REMEDY)
    polarity = np.array([POLARITY.index(word) for word in words], dtype=np.int16)
    second, third = (_zeros_and_ones(table, columns, task, n) for task, n in (("t2", 7), ("t3", 10)))
    return _Rows(names, polarity, second, third)


def _column(table: Table, titles: Sequence[str], prefix: str) -> int:
    """Find a column by its number: the words behind it are misspelt in the official header."""
    fits = [at for at, title in enumerate(titles) if re.fullmatch(rf"{re.escape(prefix)}(\s*[:_ ].*)?", title)]
    if len(fits) != 1:
        expected = f"one column whose title starts with '{prefix.upper()}'"
        raise table.misfit(None, expected=expected, found=", ".join(table.header), remedy=_REMEDY)
    return fits[0]


def _zeros_and_ones(table: Table, columns: Mapping[str, int], task: str, n_classes: int) -> NDArray[np.uint8]:
    values = np.zeros((len(table.rows), n_classes), dtype=np.uint8)
    for at in range(n_classes):
        for row, cell in enumerate(table.cells(columns[f"{task}.{at + 1}"])):
            if cell not in ("0", "1", "0.0", "1.0"):
                table.refuse(row, f"0 or 1 in column '{table.header[columns[f'{task}.{at + 1}']]}'", cell, _REMEDY)
            values[row, at] = cell.startswith("1")
    return values


def _multi(name: str, classes: Sequence[str], values: Sequence[NDArray[np.uint8]], all_zero: str) -> Labels:
    joined = np.concatenate(values)
    if all_zero == "unlabelled":
        joined[~joined.any(axis=1)] = 255
    return Labels(Task(name, "multi", tuple(classes), source=_SOURCE), joined)


def _splits(
    names: Sequence[str], polarity: NDArray[np.int16], groups: NDArray[np.int64], n_dev: int, seed: int
) -> dict[str, Split]:
    deal = partial(grouped, names[:n_dev], polarity[:n_dev].tolist(), groups[:n_dev], seed=seed)
    test = np.full(len(names) - n_dev, 2, dtype=np.int8)
    eighty = deal(validation=0.2, test=0.0)
    default = eighty if len(test) else deal()
    source = "published" if len(test) else "made"  # groups of dev and the released test set may cross
    return {
        "default": Split("default", np.concatenate([default, test]), source=source),
        "dev-80-20": Split("dev-80-20", np.concatenate([eighty, test]), source=source),
    }


CORPUS = Corpus(
    name="mediaeval21",
    title="MediaEval 2021 Visual Sentiment Analysis: 3,631 images of natural disasters",
    obtain="from the organisers, under the usage agreement of MediaEval; give the folder with devset.csv and images/",
    licence="the usage agreement of MediaEval",
    citation="Hassan et al., Visual Sentiment Analysis: A Natural Disaster Use-case Task at MediaEval 2021",
    reader=read,
    tasks={
        "subtask1": "single: negative, neutral, positive",
        "subtask2": f"multi: {', '.join(SUBTASK2)}",
        "subtask3": f"multi: {', '.join(SUBTASK3)}",
    },
    splits={
        "default": "dev 80/20 into train and validation, testset as test; without it 70/10/20 of dev; seeded",
        "dev-80-20": "dev 80/20 into train and validation; testset, where it is there, as test; seeded",
    },
    defects=(
        "eight pairs of equal images in the development set have different labels of subtask 1: they form groups",
        "some rows have no label of subtask 2 or 3 at all; public loaders drop them (--option all_zero=unlabelled)",
        "the official header says 'Emphatic pain' and 'T3.10:surprise': columns are found by their numbers",
    ),
    options={
        "all_zero": Option("keep", "rows of zeros: keep, or unlabelled"),
        "test": Option("testset.csv", "the released labels of the test set"),
        "seed": Option(0, "seed of the splits", minimum=0),
    },
    published={"images": 3631},
)
