"""Single-label tasks: one class an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.kinds.base import Floats, TaskKind
from classify.errors import TaskError


class Single(TaskKind):
    """One class an image."""

    name = "single"
    exclusive = True
    predicted_as = "one of"

    @property
    def truth_columns(self) -> list[str]:
        """One column, of class names."""
        return ["truth"]

    def targets(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return codes, int64 (n,)."""
        return values.astype(np.int64)

    @staticmethod
    def mapped(values: NDArray[Any], places: NDArray[np.int64], n_classes: int) -> NDArray[Any]:
        """Return new codes; -1 stays -1."""
        return np.where(values < 0, -1, places[values.clip(min=0)]).astype(values.dtype)

    def scores(self, head: Any, X: Any) -> Floats:
        """Return probabilities (n, n_classes)."""
        probabilities = super().scores(head, X)
        spread = self.blank(len(probabilities))
        spread[:, head.classes_] = probabilities
        return spread

    def decide(self, scores: NDArray[Any], thresholds: Sequence[float] | None = None) -> NDArray[Any]:
        """Return the code of the most probable class."""
        return np.argmax(scores, axis=1)

    def indicators(self, y: NDArray[Any]) -> NDArray[np.bool_]:
        """Return one true value a row."""
        return np.asarray(y)[:, None] == np.arange(self.n_columns)

    def class_counts(self, y: NDArray[Any]) -> dict[str, int]:
        """Count codes."""
        return dict(zip(self.task.classes, np.bincount(y, minlength=self.n_columns).tolist(), strict=True))

    @staticmethod
    def strata(y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the codes."""
        return np.asarray(y).astype(np.int64)

    def confidence(self, scores: NDArray[Any]) -> Floats:
        """Return the probability of the decided class: (n,)."""
        return np.asarray(scores, dtype=np.float64).max(axis=1)

    def observed(self, y: NDArray[Any], scores: NDArray[Any]) -> NDArray[np.bool_]:
        """Return whether the decided class is the true one: (n,)."""
        return np.asarray(self.decide(scores) == np.asarray(y))

    @staticmethod
    def normalized(values: Floats) -> Floats:
        """Divide each row by its sum."""
        total = values.sum(axis=1, keepdims=True)
        even = np.full_like(values, 1 / values.shape[1])
        return np.where(total > 0, np.divide(values, total, out=even, where=total > 0), even)

    def draw(self, probabilities: Floats, random: np.random.Generator) -> NDArray[Any]:
        """Draw a code for each row."""
        below = random.random((len(probabilities), 1)) * probabilities.sum(axis=1, keepdims=True)
        return (probabilities.cumsum(axis=1) < below).sum(axis=1).clip(max=self.n_columns - 1)

    def truth_text(self, row: Any) -> list[str]:
        """Return the name of the class."""
        return [self.task.classes[int(row)]]

    def truth_cells(self, y: NDArray[Any]) -> list[list[Any]]:
        """Return class names."""
        return [[self.task.classes[code]] for code in y]

    def read_truth(self, cells: Sequence[Sequence[str]]) -> NDArray[Any]:
        """Return the codes of class names."""
        codes = {name: code for code, name in enumerate(self.task.classes)}
        for (cell,) in cells:
            if cell not in codes:
                raise ValueError(f"it holds the class {cell[:80]!r}, which task {self.task.name!r} has not")
        return np.array([codes[cell] for (cell,) in cells])

    def checked(self, y_true: Any, y_score: Any) -> tuple[NDArray[Any], Floats]:
        """Return codes as int64."""
        truth, score = super().checked(y_true, y_score)
        return truth.astype(np.int64), score

    def _truth_shape(self, n: int) -> tuple[int, ...]:
        return (n,)

    def _check_values(self, truth: NDArray[Any]) -> None:
        wrong = ~np.isin(truth, np.arange(self.n_columns))
        if wrong.any():
            raise TaskError(
                f"cannot score task {self.task.name!r}: the truth must be codes 0..{self.n_columns - 1}, found "
                f"{truth[wrong][0].item()!r}"
            )
