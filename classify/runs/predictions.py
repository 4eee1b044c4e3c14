"""The table of predictions of a run: one row per scored image, with all digits."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.kinds import TaskKind, kind_of
from classify.data.kinds.base import finite
from classify.errors import RunError
from classify.json_file import clean_text, read_regular
from features_store.schema import MAX_ID_BYTES, PART_NAMES, Task

MAX_BYTES = 2 * 2**30
_ROUNDING = 1e-6  # by which a probability may lie beside 0 to 1


@dataclass(frozen=True)
class PartPredictions:
    """The predictions of a head for the images of one part."""

    ids: NDArray[np.str_]
    y_true: NDArray[Any]  # as `classify.evaluation.metrics.metrics` takes it
    y_score: NDArray[Any]  # probabilities, or values
    groups: NDArray[np.int64] | None = None  # images of one group belong together; -1 = alone. None = all alone
    calibrated: NDArray[np.float64] | None = None  # probabilities after the run's calibration


def write_predictions(path: Path, task: Task, parts: Mapping[str, PartPredictions]) -> None:
    """Write one row per image.

    single: ``id, part, truth, probability/CLASS...``; multi: ``truth/CLASS..., probability/CLASS...``;
    regression: ``truth/OUTPUT..., predicted/OUTPUT...``. Then, where there are any, ``group`` and
    ``calibrated/CLASS...``. Numbers have as many digits as it takes to read the same number back.
    """
    kind, some = kind_of(task), next(iter(parts.values()))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_header(kind, grouped=some.groups is not None, calibrated=some.calibrated is not None))
        for name, part in parts.items():
            columns = [part.y_score.reshape(len(part.ids), -1).tolist()]
            if part.groups is not None:
                columns.append(part.groups.reshape(-1, 1).tolist())
            if part.calibrated is not None:
                columns.append(part.calibrated.tolist())
            truth = kind.truth_cells(part.y_true)
            for image, of_truth, *cells in zip(part.ids.tolist(), truth, *columns, strict=True):
                writer.writerow([image, name, *of_truth, *itertools.chain(*cells)])


def _header(kind: TaskKind, *, grouped: bool, calibrated: bool) -> list[str]:
    extras = ["group"] * grouped + [f"calibrated/{name}" for name in kind.task.classes] * calibrated
    return ["id", "part", *kind.truth_columns, *kind.score_columns, *extras]


def read_rows(path: Path, limit: int, *, clean: Callable[[str], str] = str) -> Iterator[list[str]]:
    """Yield the rows of a table, first its titles; one of another length ends it, before a million are read."""
    data = read_regular(path, limit)
    if b"\0" in data:  # a file of holes takes no space, and would become four times as large in memory
        raise ValueError("it holds zero bytes, so it is no table")
    lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    reader = csv.reader(map(clean, lines), strict=True)
    yield (header := next(reader, []))
    for row in reader:
        if len(row) != len(header):
            raise ValueError(f"line {reader.line_num} has {len(row)} cells; its header has {len(header)} titles")
        yield row


def read_predictions(path: Path, task: Task) -> dict[str, PartPredictions]:
    """Read what `write_predictions` wrote."""
    try:
        return _parts(kind_of(task), read_rows(path, MAX_BYTES, clean=clean_text))
    except FileNotFoundError as error:
        raise RunError(f"cannot read the predictions {path}: there is no such file") from error
    except (ValueError, OverflowError, csv.Error) as error:
        raise RunError(f"cannot read the predictions {path}: {str(error)[:200]}") from error


def _parts(kind: TaskKind, rows: Iterator[list[str]]) -> dict[str, PartPredictions]:
    header = next(rows)
    n_truths, n_scores = len(kind.truth_columns), len(kind.score_columns)
    extras = header[2 + n_truths + n_scores :]
    grouped, calibrated = "group" in extras[:1], any(name.startswith("calibrated/") for name in extras)
    if header != _header(kind, grouped=grouped, calibrated=calibrated):
        raise ValueError(f"its columns are not those of predictions of task {kind.task.name!r}")
    by_part: dict[str, list[list[str]]] = {}
    for row in rows:
        if row[1] not in PART_NAMES or len(row[0]) > MAX_ID_BYTES:
            raise ValueError(f"it holds the id {row[0][:80]!r} and the part {row[1][:80]!r}, which no run has")
        by_part.setdefault(row[1], []).append(row)
    found = {}
    for name, part in by_part.items():
        score = finite([row[2 + n_truths : 2 + n_truths + n_scores] for row in part])
        if kind.has_classes and not (score.min() >= -_ROUNDING and score.max() <= 1 + _ROUNDING):
            raise ValueError(f"its probabilities run from {score.min()} to {score.max()}")
        place = 2 + n_truths + n_scores
        found[name] = PartPredictions(
            np.array([row[0] for row in part]),
            kind.read_truth([row[2 : 2 + n_truths] for row in part]),
            kind.shaped(score),
            np.array([int(row[place]) for row in part], dtype=np.int64) if grouped else None,
            finite([row[place + grouped :] for row in part]) if calibrated else None,
        )
    return found
