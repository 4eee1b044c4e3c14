"""What depends on the kind of a task: a class for each of single-label tasks, multi-label tasks and regressions.

Nothing else compares ``task.kind``. Adding a kind is a class here and a line in ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from classify.errors import TaskError
from features_store import Task

__all__ = ["KINDS", "Multi", "Regression", "Single", "TaskKind", "kind_of"]

Floats = NDArray[np.float64]
_TINY = 1e-12  # probabilities nearer to 0 or 1 have no finite log-odds


@dataclass(frozen=True)
class TaskKind:
    """A task, seen by what its kind decides. Truth is ``y``, as in `Part`; scores are what a head answers.

    ``y``: single (n,) codes; multi (n, n_classes) of 0 and 1; regression (n,) or (n, n_outputs) values.
    Scores: (n, n_classes) probabilities; regression as ``y``. With the name of a kind alone, ``KINDS[name]`` answers
    for the class attributes and static methods.
    """

    task: Task

    name: ClassVar[str]
    has_classes: ClassVar[bool] = True  # scores are probabilities; else values
    exclusive: ClassVar[bool] = False  # exactly one class an image: probabilities sum to 1
    independent: ClassVar[bool] = False  # every label is a decision of its own, at a threshold
    primary_metric: ClassVar[str] = "weighted_f1"  # ranks heads
    score_word: ClassVar[str] = "probability"  # heads the columns of predictions
    scores_word: ClassVar[str] = "probabilities"
    unit: ClassVar[str] = " log-odds"  # of `logits`
    summary_keys: ClassVar[tuple[str, ...]] = ("n",)  # of `summary`

    @property
    def n_columns(self) -> int:
        """Columns of scores: classes or outputs."""
        return len(self.task.classes)

    @property
    def truth_columns(self) -> list[str]:
        """Titles of the columns of truth in ``predictions.csv``."""
        return [f"truth/{name}" for name in self.task.classes]

    @property
    def score_columns(self) -> list[str]:
        """Titles of the columns of scores in ``predictions.csv``."""
        return [f"{self.score_word}/{name}" for name in self.task.classes]

    def targets(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return labels of a store, all of them known, as ``y``."""
        raise NotImplementedError

    @staticmethod
    def mapped(values: NDArray[Any], places: NDArray[np.int64], n_classes: int) -> NDArray[Any]:
        """Return labels of a store in *n_classes* other classes: class k goes to ``places[k]``, -1 = to none."""
        raise NotImplementedError

    def blank(self, n: int) -> Floats:
        """Return scores of 0."""
        return np.zeros((n, self.n_columns))

    def scores(self, head: Any, X: Any) -> Floats:
        """Return the scores that a fitted head gives; a class that it never saw has probability 0."""
        return np.asarray(head.predict_proba(X), dtype=np.float64)

    def shaped(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Return scores (n, n_columns) in the shape that a head gives."""
        return scores

    def decide(self, scores: NDArray[Any], thresholds: Sequence[float] | None = None) -> NDArray[Any]:
        """Return what the scores amount to, in the form of ``y``."""
        raise NotImplementedError

    def decided(self, scores: NDArray[Any], thresholds: Sequence[float] | None = None) -> NDArray[np.bool_]:
        """Return which classes each image is given: (n, n_classes); of a regression none."""
        return self.indicators(self.decide(scores, thresholds))

    def indicators(self, y: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which classes each image has: (n, n_classes); of a regression (n, 0)."""
        return np.asarray(y).astype(bool)

    def class_counts(self, y: NDArray[Any]) -> dict[str, int]:
        """Return the number of images of each class; of a regression nothing."""
        return dict(zip(self.task.classes, self.indicators(y).sum(axis=0).tolist(), strict=True))

    @staticmethod
    def strata(y: NDArray[Any]) -> NDArray[np.int64]:
        """Return a code for each image, so that folds with equal shares of the codes are alike: (n,)."""
        raise NotImplementedError

    def summary(self, y: NDArray[Any]) -> dict[str, dict[str, float]]:
        """Return by class what the labels are: the number of images, or the spread of an output."""
        return {name: {"n": count} for name, count in self.class_counts(y).items()}

    def confidence(self, scores: NDArray[Any]) -> Floats:
        """Return the predicted probabilities that calibration judges: of the decided class, or of every label."""
        raise NotImplementedError

    def observed(self, y: NDArray[Any], scores: NDArray[Any]) -> NDArray[np.bool_]:
        """Return for each value of `confidence` whether it is so."""
        raise NotImplementedError

    @staticmethod
    def normalized(values: Floats) -> Floats:
        """Return numbers from 0 to 1 as probabilities: rows of a single-label task sum to 1, none of them even."""
        return values

    @staticmethod
    def logits(values: NDArray[Any]) -> Floats:
        """Return log-odds of probabilities, or the values of a regression as they are."""
        bounded = np.clip(np.asarray(values, dtype=np.float64), _TINY, 1 - _TINY)
        found: Floats = np.log(bounded) - np.log1p(-bounded)
        return found

    def draw(self, probabilities: Floats, random: np.random.Generator) -> NDArray[Any]:
        """Draw a ``y`` from probabilities."""
        raise NotImplementedError

    def truth_text(self, row: Any) -> list[str]:
        """Return the truth of one image in words: its classes, or each output with its value."""
        return [name for name, has in zip(self.task.classes, row, strict=True) if has] or ["none"]

    def truth_cells(self, y: NDArray[Any]) -> list[list[Any]]:
        """Return the truth as cells of ``predictions.csv``, a row for each image."""
        rows: list[list[Any]] = np.asarray(y).reshape(len(y), -1).tolist()
        return rows

    def read_truth(self, cells: Sequence[Sequence[str]]) -> NDArray[Any]:
        """Return ``y`` from the cells of `truth_cells`.

        Raises ValueError.
        """
        raise NotImplementedError

    def checked(self, y_true: Any, y_score: Any) -> tuple[NDArray[Any], Floats]:
        """Return truth and scores (n, n_columns) as arrays; refuse what cannot be scored.

        Raises TaskError.
        """
        truth, score = self._as_arrays(y_true, y_score)
        if score.shape[1:] != (self.n_columns,) or truth.shape != self._truth_shape(len(score)) or not len(score):
            raise TaskError(
                f"can't score task {self.task.name!r} ({self.name}): got truth of shape {truth.shape} and scores of "
                f"shape {score.shape}; expected at least one row and a column of scores for each of "
                f"{list(self.task.classes)}"
            )
        self._check_values(truth)
        return truth, score

    def _as_arrays(self, y_true: Any, y_score: Any) -> tuple[NDArray[Any], Floats]:
        return np.asarray(y_true), np.asarray(y_score, dtype=np.float64)

    def _truth_shape(self, n: int) -> tuple[int, ...]:
        return n, self.n_columns

    def _check_values(self, truth: NDArray[Any]) -> None:
        """Refuse truth that the task cannot have."""


class Single(TaskKind):
    """One class an image."""

    name = "single"
    exclusive = True

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
                raise ValueError(f"it holds the class {cell[:80]!r}, which task {self.task.name!r} hasn't")
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
                f"can't score task {self.task.name!r}: the truth must be codes 0..{self.n_columns - 1}, found "
                f"{truth[wrong][0].item()!r}"
            )


class Multi(TaskKind):
    """Any number of classes an image."""

    name = "multi"
    independent = True

    def targets(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return 0 and 1, uint8 (n, n_classes)."""
        return values

    @staticmethod
    def mapped(values: NDArray[Any], places: NDArray[np.int64], n_classes: int) -> NDArray[Any]:
        """Give a new class to an image that has any of its old ones; a row of 255, without labels, stays so."""
        columns = [values[:, places == k].max(axis=1, initial=0) for k in range(n_classes)]
        found = np.stack(columns, axis=1)
        found[(values == 255).any(axis=1)] = 255
        return found

    def decide(self, scores: NDArray[Any], thresholds: Sequence[float] | None = None) -> NDArray[Any]:
        """Return 0 and 1, at one half or at a threshold for each label."""
        return (np.asarray(scores) >= np.asarray(thresholds if thresholds else 0.5)).astype(np.uint8)

    @staticmethod
    def strata(y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the rarest label of each image."""
        rarity = np.argsort(np.argsort(y.sum(axis=0)))
        ranked = np.where(y > 0, rarity, y.shape[1])
        return ranked.min(axis=1).astype(np.int64)

    def confidence(self, scores: NDArray[Any]) -> Floats:
        """Return the probability of every label: (n * n_classes,)."""
        return np.asarray(scores, dtype=np.float64).ravel()

    def observed(self, y: NDArray[Any], scores: NDArray[Any]) -> NDArray[np.bool_]:
        """Return every label: (n * n_classes,)."""
        return np.asarray(y).astype(bool).ravel()

    def draw(self, probabilities: Floats, random: np.random.Generator) -> NDArray[Any]:
        """Draw each label by itself."""
        return (random.random(probabilities.shape) < probabilities).astype(np.uint8)

    def read_truth(self, cells: Sequence[Sequence[str]]) -> NDArray[Any]:
        """Return 0 and 1, uint8."""
        given = _finite(cells)
        if not np.isin(given, (0, 1)).all():
            raise ValueError("it holds a label that is neither 0 nor 1")
        return given.astype(np.uint8)


class Regression(TaskKind):
    """Real values, on the scale of the task."""

    name = "regression"
    has_classes = False
    primary_metric = "rmse"
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
        return np.asarray(self.shaped(_finite(cells).astype(np.float32).astype(np.float64)))

    def _as_arrays(self, y_true: Any, y_score: Any) -> tuple[NDArray[Any], Floats]:
        arrays = (np.asarray(each, dtype=np.float64) for each in (y_true, y_score))
        truth, score = (each[:, None] if each.ndim == 1 else each for each in arrays)
        return truth, score

    def _check_values(self, truth: NDArray[Any]) -> None:
        if self.task.range is None:
            raise TaskError(f"can't score task {self.task.name!r}: a regression needs its range (SAGR: its midpoint)")


KINDS: dict[str, type[TaskKind]] = {kind.name: kind for kind in (Single, Multi, Regression)}
"""Every kind of task, by the name that a store gives it."""


def kind_of(task: Task) -> TaskKind:
    """Return a task, seen by its kind."""
    return KINDS[task.kind](task)


def _finite(cells: Sequence[Sequence[str]]) -> Floats:
    values = np.array(cells, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds a number that isn't finite")
    return values
