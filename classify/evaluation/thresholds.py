"""From which probability on a label is given: chosen on the validation part, one for each label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import TaskError
from classify.evaluation.knowledge import SHOWN, deals, movable
from features_store.schema import Task

__all__ = ["MIN_POSITIVES", "at_thresholds", "best_thresholds", "known_labels"]

MIN_POSITIVES = 10  # a label with fewer validation images (or as few without it) keeps one half
SHRINKAGE = 20  # images at which a threshold goes half of the way from one half
N_DEALS = 200

Floats = NDArray[np.float64]


def best_thresholds(
    task: Task, y_true: NDArray[Any], scores: NDArray[Any], groups: NDArray[np.int64] | None = None
) -> list[float]:
    """Choose for each label a threshold of high F1 on the validation part.

    Among thresholds of equal F1 the one nearest to one half is taken: it lies in the middle of a gap between two
    scores, so that it doesn't hang on a single image. A head that knows nothing of a label reaches the highest F1 by
    giving it to every image; so a label whose scores rank the validation images no better than the same scores dealt to
    them at random keeps one half. The others are drawn towards one half on the scale of log-odds, by a half of the way
    at 20 images with the label (or without it, where those are fewer).

    Shapes: y_true, scores (n_images, n_classes); groups (n_images,) int64.
    Raises TaskError.
    """
    if task.kind != "multi":
        message = f"task {task.name!r} is {task.kind}; thresholds are for multi-label tasks"
        raise TaskError(message)
    truth, scores = np.asarray(y_true).astype(bool), np.asarray(scores, dtype=np.float64)
    known = known_labels(truth, scores, groups)
    return [_shrunk(truth[:, k], scores[:, k]) if known[k] else 0.5 for k in range(truth.shape[1])]


def known_labels(
    truth: NDArray[np.bool_], scores: Floats, groups: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Tell for each label whether its scores rank images better than dealt to them at random, p <= 0.025.

    Shapes: truth, scores (n_images, n_labels); groups (n_images,) int64; returns (n_labels,) bool.
    """
    from scipy.stats import rankdata

    if movable(len(truth), groups) < 0.5:
        return np.zeros(truth.shape[1], dtype=bool)
    ranks = rankdata(scores, axis=0)
    reached = (ranks * truth).sum(axis=0)
    as_good = np.ones(truth.shape[1])
    for some in deals(len(truth), groups, n_deals=N_DEALS):
        for k in range(truth.shape[1]):
            as_good[k] += (ranks[some, k] @ truth[:, k] >= reached[k] - 1e-9).sum()
    known: NDArray[np.bool_] = as_good / (1 + N_DEALS) <= SHOWN
    return known


def _shrunk(truth: NDArray[np.bool_], score: Floats) -> float:
    fewest = min(int(truth.sum()), int((~truth).sum()))
    if fewest < MIN_POSITIVES:
        return 0.5
    best = _best(truth, score)
    odds = np.log(best / (1 - best)) * fewest / (fewest + SHRINKAGE)
    return float(np.clip(1 / (1 + np.exp(-odds)), 1e-6, 1 - 1e-6))


def _best(truth: NDArray[np.bool_], score: Floats) -> float:
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

    Shapes: scores (n_images, n_classes).
    """
    given, at = np.asarray(scores, dtype=np.float64), np.asarray(thresholds, dtype=np.float64)
    above = 0.5 + 0.5 * (given - at) / (1 - at)
    bent: Floats = np.where(given >= at, above, np.minimum(0.5 * given / at, np.nextafter(0.5, 0)))
    return bent
