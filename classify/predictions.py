"""The table of predictions of a run: one row per scored image, with all digits."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import RunError
from features_store.schema import Task

__all__ = ["PartPredictions", "read_predictions", "write_predictions"]


@dataclass(frozen=True)
class PartPredictions:
    """What a head said of the images of one part.

    Parameters
    ----------
    ids : ndarray of shape (n_images,), str
    y_true, y_score : ndarray
        Targets and probabilities (or values), as `classify.evidence.metrics.metrics` takes them.
    groups : ndarray of shape (n_images,), int64, or None
        Images of one group belong together; -1 = alone. None = all alone.
    calibrated : ndarray of shape (n_images, n_classes), or None
        Probabilities after the run's calibration.
    """

    ids: NDArray[np.str_]
    y_true: NDArray[Any]
    y_score: NDArray[Any]
    groups: NDArray[np.int64] | None = None
    calibrated: NDArray[np.float64] | None = None


def write_predictions(path: Path, task: Task, parts: Mapping[str, PartPredictions]) -> None:
    """Write one row per image.

    single: ``id, part, truth, probability/CLASS...``; multi: ``truth/CLASS..., probability/CLASS...``;
    regression: ``truth/OUTPUT..., predicted/OUTPUT...``. Then, where there are any, ``group`` and
    ``calibrated/CLASS...``. Numbers have as many digits as it takes to read the same number back.

    Parameters
    ----------
    path : Path
    task : Task
    parts : mapping of str to PartPredictions
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        truths, scores = _columns(task)
        some = next(iter(parts.values()))
        grouped, calibrated = some.groups is not None, some.calibrated is not None
        writer.writerow(["id", "part", *truths, *scores, *_extras(task, grouped=grouped, calibrated=calibrated)])
        for name, part in parts.items():
            truth = _truth_cells(task, part.y_true)
            columns = [part.y_score.reshape(len(part.ids), -1).tolist()]
            if part.groups is not None:
                columns.append(part.groups.reshape(-1, 1).tolist())
            if part.calibrated is not None:
                columns.append(part.calibrated.tolist())
            for image, of_truth, *cells in zip(part.ids.tolist(), truth, *columns, strict=True):
                writer.writerow([image, name, *of_truth, *itertools.chain(*cells)])


def _columns(task: Task) -> tuple[list[str], list[str]]:
    said = "predicted" if task.kind == "regression" else "probability"
    truths = ["truth"] if task.kind == "single" else [f"truth/{name}" for name in task.classes]
    return truths, [f"{said}/{name}" for name in task.classes]


def _extras(task: Task, *, grouped: bool, calibrated: bool) -> list[str]:
    """The columns that a table may have besides."""
    return ["group"] * grouped + [f"calibrated/{name}" for name in task.classes] * calibrated


def _truth_cells(task: Task, y_true: NDArray[Any]) -> Sequence[Sequence[Any]]:
    if task.kind == "single":
        return [[task.classes[code]] for code in y_true]
    if task.kind == "regression":
        y_true = y_true.astype(np.float32).astype(str)  # the store keeps float32: its digits, and no more
    return y_true.reshape(len(y_true), -1).tolist()


def read_predictions(path: Path, task: Task) -> dict[str, PartPredictions]:
    """Read what `write_predictions` wrote.

    Parameters
    ----------
    path : Path
    task : Task

    Returns
    -------
    dict of str to PartPredictions

    Raises
    ------
    RunError
        The file is missing, or isn't a table of predictions of *task*.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        return _parts(task, header, rows)
    except (OSError, ValueError, IndexError, UnicodeDecodeError) as error:
        message = f"can't read the predictions {path}: {error}"
        raise RunError(message) from error


def _parts(task: Task, header: list[str], rows: list[list[str]]) -> dict[str, PartPredictions]:
    truths, scores = _columns(task)
    needed = ["id", "part", *truths, *scores]
    extras = header[len(needed) :]
    grouped, calibrated = "group" in extras[:1], any(name.startswith("calibrated/") for name in extras)
    if header != [*needed, *_extras(task, grouped=grouped, calibrated=calibrated)]:
        message = f"its columns aren't those of predictions of task {task.name!r}"
        raise ValueError(message)
    by_part: dict[str, list[list[str]]] = {}
    for row in rows:
        by_part.setdefault(row[1], []).append(row)
    found = {}
    for name, part in by_part.items():
        cells = [row[len(needed) :] for row in part]
        groups = np.array([cell.pop(0) for cell in cells], dtype=np.int64) if grouped else None
        after = np.array(cells, dtype=np.float64) if calibrated else None
        required = _part_of(task, [row[: len(needed)] for row in part], len(truths))
        found[name] = replace(required, groups=groups, calibrated=after)
    return found


def _part_of(task: Task, rows: list[list[str]], n_truths: int) -> PartPredictions:
    ids = np.array([row[0] for row in rows])
    truth = [row[2 : 2 + n_truths] for row in rows]
    score = np.array([row[2 + n_truths :] for row in rows], dtype=np.float64)
    if task.kind == "single":
        return PartPredictions(ids, np.array([task.classes.index(cell) for (cell,) in truth]), score)
    if task.kind == "multi":
        return PartPredictions(ids, np.array(truth, dtype=np.uint8), score)
    y_true = np.array(truth, dtype=np.float32).astype(np.float64)
    one = len(task.classes) == 1
    return PartPredictions(ids, y_true[:, 0] if one else y_true, score[:, 0] if one else score)
