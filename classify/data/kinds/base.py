"""What depends on the kind of a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from classify.errors import TaskError
from features_store import Task

Floats = NDArray[np.float64]
_TINY = 1e-12  # probabilities nearer to 0 or 1 have no finite log-odds


class TaskKind:
    """A task, seen by what its kind decides. Truth is ``y``, as in `Part`; scores are what a head returns.

    ``y``: single (n,) codes; multi (n, n_classes) of 0 and 1; regression (n,) or (n, n_outputs) values.
    Scores: (n, n_classes) probabilities; regression as ``y``. ``KINDS[name]`` has the class
    attributes and static methods for the name of a kind alone. A kind that is derived from another has its metrics and
    heads.
    """

    name: ClassVar[str]
    has_classes: ClassVar[bool] = True  # scores are probabilities; else values
    exclusive: ClassVar[bool] = False  # exactly one class an image: probabilities sum to 1
    independent: ClassVar[bool] = False  # every label is a decision of its own, at a threshold
    primary_metric: ClassVar[str] = "weighted_f1"  # ranks heads
    predicted_as: ClassVar[str] = "any of"  # what a model card says before the classes
    score_word: ClassVar[str] = "probability"  # heads the columns of predictions
    scores_word: ClassVar[str] = "probabilities"
    unit: ClassVar[str] = " log-odds"  # of `logits`
    summary_keys: ClassVar[tuple[str, ...]] = ("n",)  # of `summary`

    def __init__(self, task: Task) -> None:
        self.task = task

    @classmethod
    def names(cls) -> frozenset[str]:
        """Return its name, and those of the kinds that it is derived from."""
        return frozenset(vars(one)["name"] for one in cls.__mro__ if "name" in vars(one))

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

    def bounded(self, scores: Floats) -> Floats:
        """Return scores within the scale of the task."""
        return scores

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
        return np.asarray(np.log(bounded) - np.log1p(-bounded))

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
        """Return ``y`` from the cells of `truth_cells`."""
        raise NotImplementedError

    def checked(self, y_true: Any, y_score: Any) -> tuple[NDArray[Any], Floats]:
        """Return truth and scores (n, n_columns) as arrays; refuse what cannot be scored."""
        truth, score = self._as_arrays(y_true, y_score)
        if score.shape[1:] != (self.n_columns,) or truth.shape != self._truth_shape(len(score)) or not len(score):
            raise TaskError(
                f"cannot score task {self.task.name!r} ({self.name}): got truth of shape {truth.shape} and scores of "
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


def finite(cells: Sequence[Sequence[str]]) -> Floats:
    """Return numbers from cells of text."""
    values = np.array(cells, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds a number that is not finite")
    return values
