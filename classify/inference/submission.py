"""What a file of answers must hold, and the check that a written file holds it.

The file is read back from the disk as a stranger would read it, held against the index of the store (each image once,
in order, the official titles, the right kinds of values), scored again, and compared cell by cell with what the run
said.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import RunError, SubmissionError
from classify.evaluation.metrics import metrics, primary_metric
from classify.inference.model import decisions
from classify.inference.official import columns_of
from classify.json_file import read_regular
from features_store.schema import Task

__all__ = ["Answers", "Submission", "check_ids", "check_submission", "read_table"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What one run says of the images of a submission.

    Parameters
    ----------
    scores : ndarray of shape (n_images, n_classes)
        In the order of the submission.
    thresholds : tuple of float or None
        multi: from which probability on a class is given; None = one half.
    truth : mapping of str to value
        By id, the label, for the images that have one.
    name : str
        The run, for messages.
    """

    task: Task
    scores: Floats
    thresholds: tuple[float, ...] | None
    truth: Mapping[str, Any]
    name: str

    @property
    def titles(self) -> tuple[str, ...]:
        """The titles of its columns."""
        return columns_of(self.task)

    def cells(self) -> list[list[str]]:
        """Return the answers as text, a row for each image."""
        if self.task.kind == "regression":
            return [[repr(value) for value in row] for row in self.scores.tolist()]
        given = decisions(self.task, self.scores, self.thresholds)
        if self.task.kind == "single":
            return [[self.task.classes[code]] for code in given.argmax(axis=1)]
        return [[str(int(yes)) for yes in row] for row in given]


@dataclass(frozen=True)
class Submission:
    """What a file must hold.

    Parameters
    ----------
    ids : tuple of str
        Each image, in the order of its row.
    key : str
        Title of the first column.
    """

    ids: tuple[str, ...]
    answers: tuple[Answers, ...]
    key: str = "id"

    @property
    def titles(self) -> list[str]:
        """All titles."""
        return [self.key, *(title for one in self.answers for title in one.titles)]


def check_submission(path: Path, plan: Submission) -> dict[str, dict[str, Any]]:
    """Read a file back and see that it is what it must be.

    Raises SubmissionError.
    """
    header, rows = read_table(path)
    if header != plan.titles:
        message = f"{path} has the titles {', '.join(header)}; they must be {', '.join(plan.titles)}, in this order"
        raise SubmissionError(message)
    check_ids(path, [row[0] for row in rows], plan.ids, ordered=True)
    found: dict[str, dict[str, Any]] = {}
    start = 1
    for one in plan.answers:
        cells = [row[start : start + len(one.titles)] for row in rows]
        start += len(one.titles)
        values = _values(path, one, cells, plan.ids)
        found[one.task.name] = _same_score(path, one, values, plan.ids)
        for image, theirs, ours in zip(plan.ids, cells, one.cells(), strict=True):
            if theirs != ours:
                message = f"{path} says {', '.join(theirs)} of {image!r}, and {one.name} says {', '.join(ours)}"
                raise SubmissionError(message)
    return found


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Read a CSV file: its titles, and its rows, each as long as they are many.

    Raises SubmissionError.
    """
    try:
        text = read_regular(path.resolve()).decode("utf-8-sig")
        header, *rows = csv.reader(io.StringIO(text, newline=""))
    except (OSError, ValueError, RunError) as error:
        message = f"can't read {path} as a table: {error}"
        raise SubmissionError(message) from error
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            message = f"{path}, line {number}, has {len(row)} cells; its header has {len(header)}"
            raise SubmissionError(message)
    return header, rows


def check_ids(path: Path, ids: Sequence[str], expected: Sequence[str], *, ordered: bool) -> None:
    """Refuse ids that don't name each expected image once, and where asked in their order."""
    twice = {image for image in ids if ids.count(image) > 1} if len(set(ids)) != len(ids) else set()
    problems = {
        "names an image twice": sorted(twice),
        "lacks an image": sorted(set(expected) - set(ids)),
        "names an image that isn't one of the part": sorted(set(ids) - set(expected)),
    }
    for words, images in problems.items():
        if images:
            message = f"{path} {words}: {images[0]!r} ({len(images)} in all); it must name each of {len(expected)} once"
            raise SubmissionError(message)
    if ordered and list(ids) != list(expected):
        at = next(i for i, pair in enumerate(zip(ids, expected, strict=True)) if pair[0] != pair[1])
        message = f"{path} has {ids[at]!r} in row {at + 1}, where {expected[at]!r} must stand: its order is another"
        raise SubmissionError(message)


def _values(path: Path, one: Answers, cells: Sequence[Sequence[str]], ids: Sequence[str]) -> Floats:
    """Return the answers of a file as scores: 1 for a class that is given, or values."""
    task, valid = one.task, one.task.classes if one.task.kind == "single" else ("0", "1")
    for image, row in zip(ids, cells, strict=True):
        for title, cell in zip(one.titles, row, strict=True):
            if task.kind != "regression" and cell not in valid:
                message = f"{path} says {cell!r} of {image!r} in column {title!r}; valid: {', '.join(valid)}"
                raise SubmissionError(message)
    if task.kind == "single":
        return np.eye(len(task.classes))[[task.classes.index(row[0]) for row in cells]]
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError as error:
        message = f"{path} has a cell in the columns {', '.join(one.titles)} that is no number: {error}"
        raise SubmissionError(message) from error
    if not np.isfinite(values).all():
        message = f"{path} has a value in the columns {', '.join(one.titles)} that isn't finite"
        raise SubmissionError(message)
    return values


def _same_score(path: Path, one: Answers, values: Floats, ids: Sequence[str]) -> dict[str, Any]:
    """Score the file, joined to the labels by id, and hold that against the score of what the run said."""
    task, metric = one.task, primary_metric(one.task)
    known = [at for at, image in enumerate(ids) if image in one.truth]
    if not known:
        return {"metric": metric, "n_images": 0}
    y = np.array([one.truth[ids[at]] for at in known])
    said = one.scores if task.kind == "regression" else decisions(task, one.scores, one.thresholds).astype(np.float64)
    by_id = dict(zip(ids, said, strict=True))
    shape = y.shape if task.kind == "regression" else (len(y), len(task.classes))
    theirs = metrics(task, y, values[known].reshape(shape))[metric]
    ours = metrics(task, y, np.array([by_id[ids[at]] for at in known]).reshape(shape))[metric]
    if theirs != ours:
        message = f"{path} scores {metric} {theirs!r}, and what {one.name} said scores {ours!r}: it isn't that"
        raise SubmissionError(message)
    return {"metric": metric, "value": theirs, "run": ours, "n_images": len(known)}
