"""From which probability on a label is given: chosen on the validation part, one for each label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import TaskError
from features_store.schema import Task

__all__ = ["MIN_POSITIVES", "at_thresholds", "best_thresholds"]

MIN_POSITIVES = 5  # a label with fewer validation images keeps one half

Floats = NDArray[np.float64]


def best_thresholds(task: Task, y_true: NDArray[Any], scores: NDArray[Any]) -> list[float]:
    """Choose for each label the threshold of the highest F1 on the validation part.

    Among thresholds of equal F1 the one nearest to one half is taken: it lies in the middle of a gap between two
    scores, so that it doesn't hang on a single image.

    Parameters
    ----------
    task : Task
        Multi-label.
    y_true, scores : ndarray of shape (n_images, n_classes)
        Truth and probabilities on the validation part.

    Returns
    -------
    list of float
        In the order of the task's classes, each in (0, 1); 0.5 for a label with fewer than 5 images.

    Raises
    ------
    TaskError
        The task isn't multi-label.
    """
    if task.kind != "multi":
        message = f"task {task.name!r} is {task.kind}; thresholds are for multi-label tasks"
        raise TaskError(message)
    truth, scores = np.asarray(y_true).astype(bool), np.asarray(scores, dtype=np.float64)
    return [_best(truth[:, k], scores[:, k]) for k in range(truth.shape[1])]


def _best(truth: NDArray[np.bool_], score: Floats) -> float:
    if truth.sum() < MIN_POSITIVES or truth.all():
        return 0.5
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.flatnonzero(np.append(np.diff(ranked) < 0, True))
    hits, found = np.cumsum(truth[order])[last], last + 1
    f1 = 2 * hits / (found + truth.sum())
    below = np.append(ranked[last[1:]], 0.0)
    middle = (ranked[last] + below) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    chosen = best[np.argmin(np.abs(middle[best] - 0.5))]
    low, high = float(below[chosen]), float(ranked[last[chosen]])
    threshold = 0.5 if low < 0.5 <= high else float(middle[chosen])
    return float(np.clip(threshold, 1e-6, 1 - 1e-6))


def at_thresholds(scores: NDArray[Any], thresholds: list[float]) -> Floats:
    """Bend probabilities so that each label's threshold comes to lie at one half, keeping their order.

    Everything that decides at one half then decides at the thresholds; what only looks at the order of the scores
    (the average precision) is left as it was.

    Parameters
    ----------
    scores : ndarray of shape (n_images, n_classes)
    thresholds : list of float
        One for each class, in (0, 1).

    Returns
    -------
    ndarray of float64, shape (n_images, n_classes)
    """
    given, at = np.asarray(scores, dtype=np.float64), np.asarray(thresholds, dtype=np.float64)
    above = 0.5 + 0.5 * (given - at) / (1 - at)
    bent: Floats = np.where(given >= at, above, np.minimum(0.5 * given / at, np.nextafter(0.5, 0)))
    return bent
