"""The sums over images that metrics follow from: of weighted images, and with the scores dealt to other images.

A bootstrap resample is a weight per unit: how often it was drawn. Almost all metrics are functions of a few sums over
images (the hits of each class, the size of the errors), so all resamples are one matrix product, ``weights @ columns``,
and a formula on short rows. Average precision needs the order of the scores instead.

Truth is as `classify.data.kinds.TaskKind.checked` returns it; ``deals[row, i]`` is the image whose scores image ``i``
is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.kinds import kind_of
from features_store.schema import Task

Floats = NDArray[np.float64]
Deals = NDArray[np.int64]
Units = NDArray[np.int64] | None
_TINY = float(np.finfo(np.float64).eps)
_ROWS = 200_000  # images of dealt scores at once


class Additive:
    """Sums of columns that each image has by itself; the last column is 1."""

    def columns(self, task: Task, truth: NDArray[Any], score: Floats) -> Floats:
        """Return the columns of each image, (n_images, n_sums)."""
        raise NotImplementedError

    def by_unit(self, task: Task, truth: NDArray[Any], score: Floats, units: Units) -> Floats:
        """Return the sums of each unit, (n_units, n_sums); None: each image is a unit."""
        table = self.columns(task, truth, score)
        if units is None:
            return table
        return np.stack([np.bincount(units, weights=column) for column in table.T], axis=1)

    def weighted(self, task: Task, truth: NDArray[Any], score: Floats, weights: Floats, units: Units) -> Floats:
        """Return the sums of each row of *weights* (n_resamples, n_units)."""
        summed: Floats = weights @ self.by_unit(task, truth, score, units)
        return summed

    def dealt(self, task: Task, truth: NDArray[Any], score: Floats, deals: Deals) -> Floats:
        """Return the sums of each row of *deals* (n_deals, n_images)."""
        n, step = len(truth), max(1, _ROWS // len(truth))
        found = []
        for start in range(0, len(deals), step):
            some = deals[start : start + step]
            table = self.columns(task, np.concatenate([truth] * len(some)), score[some.ravel()])
            found.append(table.reshape(len(some), n, -1).sum(axis=1))
        return np.concatenate(found)


class _Counts(Additive):
    """Hits, truths and predictions of each class."""

    def columns(self, task: Task, truth: NDArray[Any], score: Floats) -> Floats:
        kind = kind_of(task)
        true, predicted = kind.indicators(truth), kind.decided(score)
        every = [true & predicted, true, predicted, np.ones((len(true), 1), dtype=bool)]
        return np.concatenate(every, axis=1).astype(np.float64)

    def dealt(self, task: Task, truth: NDArray[Any], score: Floats, deals: Deals) -> Floats:
        kind = kind_of(task)
        true, predicted = kind.indicators(truth), kind.decided(score)
        hits = np.empty((len(deals), true.shape[1]))  # dealing changes nothing else
        if kind.exclusive:
            codes = kind.decide(score)
            for row, deal in zip(hits, deals, strict=True):
                row[:] = np.bincount(truth[truth == codes[deal]], minlength=len(row))
        else:
            for k in range(true.shape[1]):
                hits[:, k] = predicted[:, k][deals[:, np.flatnonzero(true[:, k])]].sum(axis=1)
        rest = np.concatenate([true.sum(axis=0), predicted.sum(axis=0), [len(true)]]).astype(np.float64)
        return np.concatenate([hits, np.broadcast_to(rest, (len(deals), len(rest)))], axis=1)


class _Loss(Additive):
    """Minus the logarithm of the probability of the true class."""

    def columns(self, task: Task, truth: NDArray[Any], score: Floats) -> Floats:
        of_truth = np.take_along_axis(score, truth[:, None], axis=1)[:, 0] / score.sum(axis=1)
        return np.column_stack([-np.log(np.clip(of_truth, _TINY, 1.0)), np.ones(len(truth))])

    def dealt(self, task: Task, truth: NDArray[Any], score: Floats, deals: Deals) -> Floats:
        losses = -np.log(np.clip(score / score.sum(axis=1, keepdims=True), _TINY, 1.0))
        sums = np.array([losses[row, truth].sum() for row in deals])
        return np.column_stack([sums, np.full(len(deals), float(len(truth)))])


class _Mistakes(Additive):
    """Whether every label is right, and the share of wrong ones."""

    def columns(self, task: Task, truth: NDArray[Any], score: Floats) -> Floats:
        wrong = truth.astype(bool) != (score >= 0.5)
        return np.column_stack([~wrong.any(axis=1), wrong.mean(axis=1), np.ones(len(truth))])

    def dealt(self, task: Task, truth: NDArray[Any], score: Floats, deals: Deals) -> Floats:
        true, predicted = truth.astype(bool), score >= 0.5
        found = np.empty((len(deals), 3))
        for row, deal in zip(found, deals, strict=True):
            wrong = true != predicted[deal]
            row[:] = (~wrong.any(axis=1)).sum(), wrong.sum() / wrong.shape[1], len(true)
        return found


class _Errors(Additive):
    """Squared and absolute error of each output."""

    def columns(self, task: Task, truth: NDArray[Any], score: Floats) -> Floats:
        error = score - truth
        return np.column_stack([error**2, np.abs(error), np.ones(len(truth))])


class _Agreement(Additive):
    """Whether truth and value lie on one side of the middle of the scale, by output."""

    def columns(self, task: Task, truth: NDArray[Any], score: Floats) -> Floats:
        low, high = task.range or (-1.0, 1.0)
        sides = [np.sign(values - (low + high) / 2) for values in (truth, score)]
        return np.column_stack([sides[0] == sides[1], np.ones(len(truth))]).astype(np.float64)


class _Products(Additive):
    """First and second moments of each output, then of all outputs as one."""

    def columns(self, task: Task, truth: NDArray[Any], score: Floats) -> Floats:
        # Sums of squares lose digits far from zero, so each output is centred, and all outputs by one number.
        t, p = _centred(truth, axis=0), _centred(score, axis=0)
        tt, pp = _centred(truth), _centred(score)
        pooled = [a.sum(axis=1) for a in (tt, pp, tt * tt, pp * pp, tt * pp)]
        return np.column_stack([t, p, t * t, p * p, t * p, *pooled, np.ones(len(truth))])


class Ranked:
    """The average precision of each class: precision times gain in recall, summed over the thresholds.

    Equal scores share one threshold. A class without an image is NaN.
    """

    def weighted(self, task: Task, truth: NDArray[Any], score: Floats, weights: Floats, units: Units) -> Floats:
        """Return the average precision of each class, a row for each row of *weights*."""
        # An image to a row: sorting and summing down the images moves whole rows, much quicker than along them.
        drawn = np.ascontiguousarray((weights if units is None else weights[:, units]).T)
        columns = [_average_precision(truth[:, k], score[:, k], drawn) for k in range(truth.shape[1])]
        return np.stack(columns, axis=1)

    def dealt(self, task: Task, truth: NDArray[Any], score: Floats, deals: Deals) -> Floats:
        """Return the average precision of each class, a row for each row of *deals*."""
        columns = []
        for k in range(truth.shape[1]):
            order, ends = _thresholds(score[:, k])
            end_of = np.empty(len(order), dtype=np.int64)  # the last place of the run of equal scores of each image
            end_of[order] = np.repeat(ends, np.diff(ends, prepend=-1))
            found = np.sort(end_of[deals[:, np.flatnonzero(truth[:, k])]], axis=1)
            if not found.shape[1]:
                columns.append(np.full(len(deals), np.nan))
                continue
            last = np.diff(found, axis=1, append=len(order)) > 0
            hits = np.where(last, np.arange(1, found.shape[1] + 1), found.shape[1])
            hits = np.minimum.accumulate(hits[:, ::-1], axis=1)[:, ::-1]
            columns.append((hits / (found + 1)).mean(axis=1))
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


def _centred(values: Floats, axis: int | None = None) -> Floats:
    """Subtract the mean; what is left of a constant by rounding becomes zero, so that it stays a constant."""
    left: Floats = values - values.mean(axis=axis)
    left[np.abs(left) <= 1e-12 * np.abs(values).max(axis=axis)] = 0.0
    return left


COUNTS, LOSS, MISTAKES = _Counts(), _Loss(), _Mistakes()
ERRORS, AGREEMENT, PRODUCTS = _Errors(), _Agreement(), _Products()
RANKS = Ranked()
