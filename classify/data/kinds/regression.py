"""Regressions: real values, on the scale of the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.kinds.base import Floats, TaskKind, finite
from classify.errors import TaskError


class Regression(TaskKind):
    """Real values, on the scale of the task."""

    name = "regression"
    has_classes = False
    primary_metric = "rmse"
    predicted_as = "a value of"
    score_word = "predicted"
    scores_word = "values"
    unit = ""
    summary_keys = ("mean", "std", "min", "max")

    def targets(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return float64, (n,) for one output, else (n, n_outputs)."""
        return np.asarray(self.shaped(values.astype(np.float64)))

    @staticmethod
    def mapped(values: NDArray[Any], places: NDArray[np.int64], n_classes: int) -> NDArray[Any]:
        """Return the values: outputs are not merged."""
        return values

    def blank(self, n: int) -> Floats:
        """Return values of 0."""
        return np.asarray(self.shaped(super().blank(n)))

    def scores(self, head: Any, X: Any) -> Floats:
        """Return values."""
        return np.asarray(head.predict(X), dtype=np.float64)

    def bounded(self, scores: Floats) -> Floats:
        """Return values cut to the scale."""
        return scores if self.task.range is None else np.clip(scores, *self.task.range)

    def shaped(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Return one output as (n,)."""
        return scores[:, 0] if self.n_columns == 1 else scores

    def decide(self, scores: NDArray[Any], thresholds: Sequence[float] | None = None) -> NDArray[Any]:
        """Return the values."""
        return np.asarray(scores)

    def decided(self, scores: NDArray[Any], thresholds: Sequence[float] | None = None) -> NDArray[np.bool_]:
        """Return false."""
        return np.zeros(np.shape(scores), dtype=bool)

    def indicators(self, y: NDArray[Any]) -> NDArray[np.bool_]:
        """Return no column: there are no classes."""
        return np.zeros((len(y), 0), dtype=bool)

    def class_counts(self, y: NDArray[Any]) -> dict[str, int]:
        """Return nothing."""
        return {}

    @staticmethod
    def strata(y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the fifth of the first output that each image is in."""
        first = np.asarray(y).reshape(len(y), -1)[:, 0]
        return np.searchsorted(np.quantile(first, [0.2, 0.4, 0.6, 0.8]), first).astype(np.int64)

    def summary(self, y: NDArray[Any]) -> dict[str, dict[str, float]]:
        """Return mean, deviation and ends of each output."""
        columns = np.asarray(y, dtype=np.float64).reshape(len(y), -1).T
        found = zip(self.task.classes, columns, strict=True)
        return {
            name: {"mean": float(v.mean()), "std": float(v.std()), "min": float(v.min()), "max": float(v.max())}
            for name, v in found
        }

    @staticmethod
    def logits(values: NDArray[Any]) -> Floats:
        """Return the values."""
        return np.asarray(values, dtype=np.float64)

    def truth_text(self, row: Any) -> list[str]:
        """Return each output with its value."""
        return [f"{n} {v:.2f}" for n, v in zip(self.task.classes, np.atleast_1d(row).tolist(), strict=True)]

    def truth_cells(self, y: NDArray[Any]) -> list[list[Any]]:
        """Return the digits of float32, which is what a store holds."""
        return super().truth_cells(np.asarray(y).astype(np.float32).astype(str))

    def read_truth(self, cells: Sequence[Sequence[str]]) -> NDArray[Any]:
        """Return the values of float32, as float64."""
        return np.asarray(self.shaped(finite(cells).astype(np.float32).astype(np.float64)))

    def _as_arrays(self, y_true: Any, y_score: Any) -> tuple[NDArray[Any], Floats]:
        arrays = (np.asarray(each, dtype=np.float64) for each in (y_true, y_score))
        truth, score = (each[:, None] if each.ndim == 1 else each for each in arrays)
        return truth, score

    def _check_values(self, truth: NDArray[Any]) -> None:
        if self.task.range is None:
            raise TaskError(f"cannot score task {self.task.name!r}: a regression needs its range (SAGR: its midpoint)")
