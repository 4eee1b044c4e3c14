"""The table of predictions of a run: one row per scored image, with all digits."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """

    ids: NDArray[np.str_]
    y_true: NDArray[Any]
    y_score: NDArray[Any]


def write_predictions(path: Path, task: Task, parts: Mapping[str, PartPredictions]) -> None:
    """Write one row per image.

    single: ``id, part, truth, probability/CLASS...``; multi: ``truth/CLASS..., probability/CLASS...``;
    regression: ``truth/OUTPUT..., predicted/OUTPUT...``. Numbers have as many digits as it takes to read the
    same number back.

    Parameters
    ----------
    path : Path
    task : Task
    parts : mapping of str to PartPredictions
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        truths, scores = _columns(task)
        writer.writerow(["id", "part", *truths, *scores])
        for name, part in parts.items():
            truth = _truth_cells(task, part.y_true)
            score = part.y_score.reshape(len(part.ids), -1).tolist()
            for image, of_truth, of_score in zip(part.ids.tolist(), truth, score, strict=True):
                writer.writerow([image, name, *of_truth, *of_score])


def _columns(task: Task) -> tuple[list[str], list[str]]:
    said = "predicted" if task.kind == "regression" else "probability"
    truths = ["truth"] if task.kind == "single" else [f"truth/{name}" for name in task.classes]
    return truths, [f"{said}/{name}" for name in task.classes]


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
    truths, scores = _columns(task)
    rows: dict[str, list[list[str]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if next(reader, None) != ["id", "part", *truths, *scores]:
                message = f"{path} isn't a table of predictions of task {task.name!r}: its columns are others"
                raise RunError(message)
            for row in reader:
                rows.setdefault(row[1], []).append(row)
        return {name: _part_of(task, part, len(truths)) for name, part in rows.items()}
    except RunError:
        raise
    except (OSError, ValueError, IndexError, UnicodeDecodeError) as error:
        message = f"can't read the predictions {path}: {error}"
        raise RunError(message) from error


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
