"""MediaEval 2021, Visual Sentiment Analysis: images of natural disasters, three subtasks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Dataset, labelled
from extract.corpora.labels import POLARITY, single
from extract.corpora.pictures import Pictures, equal_file_groups
from extract.corpora.splits import draw_parts
from extract.corpora.tables import Table, read_table
from extract.corpora.texts import find_one
from extract.errors import CorpusError
from extract.inputs.trees import open_tree
from features_store import Labels, Split, Task

SUBTASK2 = ("joy", "sadness", "fear", "disgust", "anger", "surprise", "neutral")
SUBTASK3 = (
    *("anger", "anxiety", "craving", "empathic pain", "fear"),
    *("horror", "joy", "relief", "sadness", "surprise"),
)
_LAYOUT = "devset.csv, testset.csv where it was released, and images/<id>.jpg"
_REMEDY = "the titles are 'T1', 'T2.1: Joy' ... 'T3.10: surprise'; spelling after the number does not matter"
_SOURCE = "majority of at least five people (Microworkers)"


def read(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read the development set, and the test set where its labels are there."""
    if options["all_zero"] not in ("keep", "unlabelled"):
        raise CorpusError(
            f"option 'all_zero' of corpus 'mediaeval21' is keep or unlabelled; got {options['all_zero']!r}"
        )
    tree = open_tree(data)
    paths = [find_one(tree, ["devset.csv"], layout=_LAYOUT), *tree.find(options["test"])[:1]]
    tables = [read_table(tree, path) for path in paths]
    names_of = [_read_names(table) for table in tables]
    names = [image for listed in names_of for image in listed]
    polarity = np.concatenate([_read_polarity(table) for table in tables])
    files = Pictures(tree, ("images",)).paths(names, suffix=".jpg")
    groups = equal_file_groups(tree, files)
    return labelled(
        name,
        options,
        names,
        tree.source(np.array(files)),
        labels=[
            single("subtask1", POLARITY, polarity, _SOURCE),
            _read_multi("subtask2", SUBTASK2, tables, options["all_zero"]),
            _read_multi("subtask3", SUBTASK3, tables, options["all_zero"]),
        ],
        splits=_splits(names, polarity, groups, len(names_of[0]), options["seed"]),
        groups=groups,
        notes=["" if len(paths) > 1 else "testset.csv is not there: the test part of split 'default' is drawn, seeded"],
    )


def _read_names(table: Table) -> list[str]:
    column = table.position("id", "filename", remedy=_REMEDY)
    names = [re.sub(r"\.(jpe?g|png)$", "", cell, flags=re.IGNORECASE) for cell in table.cells(column)]
    table.refuse_twice(names, _REMEDY)
    return names


def _read_polarity(table: Table) -> NDArray[np.int16]:
    words = [cell.lower() for cell in table.cells(_column(table, "t1"))]
    for row, word in enumerate(words):
        if word not in POLARITY:
            table.refuse(row, f"T1 to be one of {', '.join(POLARITY)}", word, _REMEDY)
    return np.array([POLARITY.index(word) for word in words], dtype=np.int16)


def _read_multi(task: str, classes: Sequence[str], tables: Sequence[Table], all_zero: str) -> Labels:
    prefix = f"t{task[-1]}"
    joined = np.concatenate([_read_flags(table, prefix, len(classes)) for table in tables])
    if all_zero == "unlabelled":
        joined[~joined.any(axis=1)] = 255
    return Labels(Task(task, "multi", tuple(classes), source=_SOURCE), joined)


def _read_flags(table: Table, prefix: str, n_classes: int) -> NDArray[np.uint8]:
    values = np.zeros((len(table), n_classes), dtype=np.uint8)
    for at in range(n_classes):
        column = _column(table, f"{prefix}.{at + 1}")
        for row, cell in enumerate(table.cells(column)):
            if cell not in ("0", "1", "0.0", "1.0"):
                table.refuse(row, "0 or 1", cell, _REMEDY, column=column)
            values[row, at] = cell.startswith("1")
    return values


def _column(table: Table, prefix: str) -> int:
    """Find a column by its number: the words behind it are misspelt in the official header."""
    titles = [re.sub(r"\s+", " ", title.strip().lower()) for title in table.header]
    fits = [at for at, title in enumerate(titles) if re.fullmatch(rf"{re.escape(prefix)}(\s*[:_ ].*)?", title)]
    if len(fits) != 1:
        expected = f"one column whose title starts with '{prefix.upper()}'"
        raise table.misfit(None, expected=expected, found=", ".join(table.header), remedy=_REMEDY)
    return fits[0]


def _splits(
    names: Sequence[str], polarity: NDArray[np.int16], groups: NDArray[np.int64], n_dev: int, seed: int
) -> list[Split]:
    draw = partial(draw_parts, names[:n_dev], polarity[:n_dev].tolist(), groups[:n_dev], seed=seed)
    test = np.full(len(names) - n_dev, 2, dtype=np.int8)
    eighty = draw(validation=0.2, test=0.0)
    source = "published" if len(test) else "made"  # groups may cross from dev to the released test set
    return [
        Split("default", np.concatenate([eighty if len(test) else draw(), test]), source=source),
        Split("dev-80-20", np.concatenate([eighty, test]), source=source),
    ]
