"""The table of predictions of a run: one row per scored image, with all digits."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import RunError
from classify.json_file import clean_text, read_regular
from features_store.schema import PART_NAMES, Task

__all__ = ["PartPredictions", "read_predictions", "write_predictions"]

MAX_BYTES = 2 * 2**30
_ROUNDING = 1e-6  # by which a probability may lie beside 0 to 1


@dataclass(frozen=True)
class PartPredictions:
    """What a head said of the images of one part.

    Parameters
    ----------
    y_true, y_score : ndarray
        Targets and probabilities (or values), as `classify.evaluation.metrics.metrics` takes them.
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

    Raises RunError.
    """
    try:
        text = clean_text(read_regular(path, MAX_BYTES).decode("utf-8"))
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        return _parts(task, header, rows)
    except FileNotFoundError as error:
        message = f"can't read the predictions {path}: there is no such file"
        raise RunError(message) from error
    except (ValueError, csv.Error) as error:
        message = f"can't read the predictions {path}: {str(error)[:200]}"
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
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header) or row[1] not in PART_NAMES:
            message = f"line {line} has {len(row)} cells and the part {row[1:2]}; the header has {len(header)} titles"
            raise ValueError(message)
        by_part.setdefault(row[1], []).append(row)
    found = {}
    for name, part in by_part.items():
        cells = [row[len(needed) :] for row in part]
        groups = np.array([int(cell.pop(0)) for cell in cells], dtype=np.int64) if grouped else None
        after = _numbers(cells) if calibrated else None
        required = _part_of(task, [row[: len(needed)] for row in part], len(truths))
        found[name] = replace(required, groups=groups, calibrated=after)
    return found


def _numbers(cells: list[list[str]]) -> NDArray[np.float64]:
    values = np.array(cells, dtype=np.float64)
    if not np.isfinite(values).all():
        message = "it holds a number that isn't finite"
        raise ValueError(message)
    return values


def _part_of(task: Task, rows: list[list[str]], n_truths: int) -> PartPredictions:
    ids = np.array([row[0] for row in rows])
    truth = [row[2 : 2 + n_truths] for row in rows]
    score = _numbers([row[2 + n_truths :] for row in rows])
    if task.kind != "regression" and not (score.min() >= -_ROUNDING and score.max() <= 1 + _ROUNDING):
        message = f"its probabilities run from {score.min()} to {score.max()}"
        raise ValueError(message)
    if task.kind == "single":
        codes = {name: code for code, name in enumerate(task.classes)}
        unknown = next((cell for (cell,) in truth if cell not in codes), None)
        if unknown is not None:
            message = f"it holds the class {unknown[:80]!r}, which task {task.name!r} hasn't"
            raise ValueError(message)
        return PartPredictions(ids, np.array([codes[cell] for (cell,) in truth]), score)
    if task.kind == "multi":
        given = _numbers(truth)
        if not np.isin(given, (0, 1)).all():
            message = "it holds a label that is neither 0 nor 1"
            raise ValueError(message)
        return PartPredictions(ids, given.astype(np.uint8), score)
    y_true = _numbers(truth).astype(np.float32).astype(np.float64)
    one = len(task.classes) == 1
    return PartPredictions(ids, y_true[:, 0] if one else y_true, score[:, 0] if one else score)
