"""The sums over images that metrics follow from: weighted as resamples draw them, or with the answers dealt anew.

A bootstrap resample is a weight per unit: how often it was drawn. Almost all metrics are functions of a few sums over
images (how many of each class were hit, how large the errors are). The sums of all resamples are one matrix product,
``weights @ columns``; the rest is a formula on short rows. Average precision needs the order of the scores instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features_store.schema import Task

__all__ = ["AGREEMENT", "COUNTS", "ERRORS", "LOSS", "MISTAKES", "PRODUCTS", "RANKS", "Additive", "Ranked", "Sums"]

Floats = NDArray[np.float64]
_TINY = float(np.finfo(np.float64).eps)
_ROWS = 200_000  # images of dealt answers that are scored at once


class Sums(Protocol):
    """What a metric's formula is given: a row for each resample, or for each deal."""

    def weighted(
        self, task: Task, truth: NDArray[Any], score: Floats, weights: Floats, units: NDArray[np.int64] | None
    ) -> Floats:
        """Return the sums of each row of *weights*, (n_resamples, n_sums)."""

    def dealt(self, task: Task, truth: NDArray[Any], score: Floats, deals: NDArray[np.int64]) -> Floats:
        """Return the sums of each row of *deals*, in which image ``i`` has the answer of image ``deals[row, i]``."""


@dataclass(frozen=True, eq=False)
class Additive:
    """Sums of *columns*, which each image has by itself."""

    columns: Callable[[Task, NDArray[Any], Floats], Floats]  # (n_images, n_sums)

    def weighted(
        self, task: Task, truth: NDArray[Any], score: Floats, weights: Floats, units: NDArray[np.int64] | None
    ) -> Floats:
        """Return the sums of each row of *weights*."""
        summed: Floats = weights @ self.by_unit(task, truth, score, units)
        return summed

    def by_unit(self, task: Task, truth: NDArray[Any], score: Floats, units: NDArray[np.int64] | None) -> Floats:
        """Return the sums of each unit, (n_units, n_sums); None: each image is its own."""
        table = self.columns(task, truth, score)
        if units is None:
            return table
        return np.stack([np.bincount(units, weights=column) for column in table.T], axis=1)

    def dealt(self, task: Task, truth: NDArray[Any], score: Floats, deals: NDArray[np.int64]) -> Floats:
        """Return the sums of each row of *deals*."""
        n, found = len(truth), []
        step = max(1, _ROWS // n)
        for start in range(0, len(deals), step):
            some = deals[start : start + step]
            truths = np.concatenate([truth] * len(some))
            table = self.columns(task, truths, score[some.ravel()])
            found.append(table.reshape(len(some), n, -1).sum(axis=1))
        return np.concatenate(found)


class Ranked:
    """The average precision of each class: precision times gain in recall, summed over the thresholds.

    Equal scores share one threshold. A class without an image is NaN.
    """

    def weighted(
        self, task: Task, truth: NDArray[Any], score: Floats, weights: Floats, units: NDArray[np.int64] | None
    ) -> Floats:
        """Return the average precision of each class, a row for each row of *weights*."""
        # An image to a row: sorting and summing down the images moves whole rows, much quicker than along them.
        drawn = np.ascontiguousarray((weights if units is None else weights[:, units]).T)
        columns = [_average_precision(truth[:, k], score[:, k], drawn) for k in range(truth.shape[1])]
        return np.stack(columns, axis=1)

    def dealt(self, task: Task, truth: NDArray[Any], score: Floats, deals: NDArray[np.int64]) -> Floats:
        """Return the average precision of each class, a row for each row of *deals*."""
        reached = np.argsort(deals, axis=1)  # the image that each answer goes to
        columns = []
        for k in range(truth.shape[1]):
            order, ends = _thresholds(score[:, k])
            hits = np.cumsum(truth[:, k][reached[:, order]] > 0, axis=1)[:, ends].astype(np.float64)
            gains = np.diff(hits, axis=1, prepend=0.0)
            with np.errstate(invalid="ignore"):
                columns.append((gains * (hits / (ends + 1))).sum(axis=1) / hits[:, -1])
        return np.stack(columns, axis=1)


def _thresholds(score: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the order of falling scores, and the last place of each run of equal ones."""
    order = np.argsort(-score, kind="stable")
    return order, np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)


def _average_precision(truth: NDArray[Any], score: Floats, drawn: Floats) -> Floats:
    order, ends = _thresholds(score)
    positive = truth[order] > 0
    # A threshold that adds no positive image adds nothing to the area, so only those that do are summed up to.
    hits_by_end = np.cumsum(positive)[ends]
    ends = ends[np.diff(hits_by_end, prepend=0) > 0]
    if not len(ends):
        return np.full(drawn.shape[1], np.nan)
    starts = np.append(0, ends[:-1] + 1)
    above = np.cumsum(np.add.reduceat(drawn[order[: ends[-1] + 1]], starts, axis=0), axis=0)
    found = order[: ends[-1] + 1][positive[: ends[-1] + 1]]
    firsts = np.append(0, np.cumsum(positive)[ends[:-1]])
    gains = np.add.reduceat(drawn[found], firsts, axis=0)
    hits = np.cumsum(gains, axis=0)
    np.divide(hits, above, out=above, where=above > 0)
    area: Floats = np.einsum("ij,ij->j", gains, above)
    with np.errstate(invalid="ignore"):
        return np.where(hits[-1] > 0, area / hits[-1], np.nan)


def _hits(truth: NDArray[Any], decided: NDArray[Any]) -> Floats:
    return np.concatenate([truth & decided, truth, decided, np.ones((len(truth), 1), dtype=bool)], axis=1).astype(float)


def _counts(task: Task, truth: NDArray[Any], score: Floats) -> Floats:
    """Hits, truths and decisions of each class, and 1."""
    if task.kind == "multi":
        return _hits(truth.astype(bool), score >= 0.5)
    codes = np.arange(len(task.classes))
    return _hits(truth[:, None] == codes, score.argmax(axis=1)[:, None] == codes)


def _loss(task: Task, truth: NDArray[Any], score: Floats) -> Floats:
    """Minus the logarithm of what was said of the truth, and 1."""
    of_truth = np.take_along_axis(score, truth[:, None].astype(np.int64), axis=1)[:, 0] / score.sum(axis=1)
    return np.column_stack([-np.log(np.clip(of_truth, _TINY, 1.0)), np.ones(len(truth))])


def _mistakes(task: Task, truth: NDArray[Any], score: Floats) -> Floats:
    """Whether every label is right, the share of wrong ones, and 1."""
    wrong = truth.astype(bool) != (score >= 0.5)
    return np.column_stack([~wrong.any(axis=1), wrong.mean(axis=1), np.ones(len(truth))])


def _errors(task: Task, truth: NDArray[Any], score: Floats) -> Floats:
    """Squared and absolute error of each output, and 1."""
    error = score - truth
    return np.column_stack([error**2, np.abs(error), np.ones(len(truth))])


def _agreement(task: Task, truth: NDArray[Any], score: Floats) -> Floats:
    """Whether truth and value lie on one side of the middle of the scale, by output, and 1."""
    low, high = task.range or (-1.0, 1.0)
    middle = (low + high) / 2
    return np.column_stack([np.sign(truth - middle) == np.sign(score - middle), np.ones(len(truth))]).astype(np.float64)


def _products(task: Task, truth: NDArray[Any], score: Floats) -> Floats:
    """First and second moments of each output, then of all outputs as one, and 1."""
    # Sums of squares lose digits far from zero, so each output is centred, and all outputs by one number.
    t, p = _centred(truth, axis=0), _centred(score, axis=0)
    tt, pp = _centred(truth), _centred(score)
    pooled = [a.sum(axis=1) for a in (tt, pp, tt * tt, pp * pp, tt * pp)]
    return np.column_stack([t, p, t * t, p * p, t * p, *pooled, np.ones(len(truth))])


def _centred(values: Floats, axis: int | None = None) -> Floats:
    """Subtract the mean; what is left of a constant by rounding becomes zero, so that it stays a constant."""
    left: Floats = values - values.mean(axis=axis)
    left[np.abs(left) <= 1e-12 * np.abs(values).max(axis=axis)] = 0.0
    return left


COUNTS, LOSS, MISTAKES = Additive(_counts), Additive(_loss), Additive(_mistakes)
ERRORS, AGREEMENT, PRODUCTS = Additive(_errors), Additive(_agreement), Additive(_products)
RANKS = Ranked()
