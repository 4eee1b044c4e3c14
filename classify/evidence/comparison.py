"""Whether two runs differ: paired bootstrap of every metric, McNemar's test, and Holm's correction for many pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import TaskError
from classify.evidence.intervals import LEVEL, draws, units_of
from classify.evidence.metrics import decide, metrics
from classify.evidence.resamples import resampled_metrics
from features_store.schema import Task

__all__ = ["Difference", "McNemar", "Spread", "holm", "mcnemar", "paired_bootstrap"]


@dataclass(frozen=True)
class Difference:
    """A metric of one run less that of another on the same images; NaN where it isn't defined.

    Parameters
    ----------
    value, low, high : float
        The difference, and the ends of its 95% interval.
    p : float
        Two-sided: how often a resample puts the difference on the other side of zero.
    """

    value: float
    low: float
    high: float
    p: float

    def as_json(self) -> dict[str, float | None]:
        """Return the numbers, None for NaN."""
        numbers = {"value": self.value, "low": self.low, "high": self.high, "p": self.p}
        return {name: float(number) if math.isfinite(number) else None for name, number in numbers.items()}


@dataclass(frozen=True)
class McNemar:
    """The images that only one of two runs gets right, and how likely so uneven a count is if both are equally good.

    Parameters
    ----------
    only_first, only_second : int
        Images that one run decides wholly right and the other doesn't.
    p : float
        Exact, two-sided.
    """

    only_first: int
    only_second: int
    p: float


def paired_bootstrap(
    task: Task,
    y_true: NDArray[Any],
    scores: tuple[NDArray[Any], NDArray[Any]],
    *,
    groups: NDArray[np.int64] | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Give the difference of two runs in each metric an interval and a p-value.

    Both runs are scored on the same resamples, so that what makes an image hard for both cancels out. The interval
    is the percentile interval of the difference (Efron and Tibshirani 1993, chapter 13); p is twice the smaller
    share of resamples on either side of zero, each share with one added above and below so that it is never 0.

    Parameters
    ----------
    task : Task
    y_true : ndarray
    scores : (ndarray, ndarray)
        Of the first and the second run, on the same images in the same order.
    groups : ndarray of shape (n_images,), int64, optional
        Images of one group are drawn together; -1 = alone.
    n_resamples : int
    seed : int

    Returns
    -------
    dict of str to Difference
        First less second, for each metric of the task's kind.
    """
    one, other = (Spread.of(task, y_true, said, groups, n_resamples=n_resamples, seed=seed) for said in scores)
    return {name: one.less(other, name) for name in one.values}


@dataclass(frozen=True)
class Spread:
    """The metrics of one run, and what they are on each resample: made once for a run that is compared with many.

    Parameters
    ----------
    values : mapping of str to float
    resampled : mapping of str to ndarray of shape (n_resamples,)
    """

    values: Mapping[str, float]
    resampled: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(
        cls,
        task: Task,
        y_true: NDArray[Any],
        scores: NDArray[Any],
        groups: NDArray[np.int64] | None = None,
        *,
        n_resamples: int = 2000,
        seed: int = 0,
    ) -> Spread:
        """Score one run on all images and on each resample; equal seeds draw equal resamples.

        Parameters
        ----------
        task : Task
        y_true, scores : ndarray
        groups : ndarray of shape (n_images,), int64, optional
        n_resamples : int
        seed : int
        """
        units = None if groups is None else units_of(groups)
        n_units = len(y_true) if units is None else int(units.max()) + 1
        chunks = [
            resampled_metrics(task, y_true, scores, weights, units=units)
            for weights in draws(n_units, n_resamples, seed=seed)
        ]
        return cls(metrics(task, y_true, scores), {n: np.concatenate([c[n] for c in chunks]) for n in chunks[0]})

    def less(self, other: Spread, name: str) -> Difference:
        """Return by how much this run is above *other* in the metric *name*."""
        return _difference(self.values[name] - other.values[name], self.resampled[name] - other.resampled[name])


def _difference(value: float, spread: NDArray[np.float64]) -> Difference:
    spread = spread[~np.isnan(spread)]
    if not len(spread) or math.isnan(value):
        return Difference(value, math.nan, math.nan, math.nan)
    spread = np.where(np.abs(spread) < 1e-12, 0.0, spread)  # what rounding leaves of equal numbers
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(spread, [tail, 1 - tail])
    sides = min(int((spread <= 0).sum()), int((spread >= 0).sum()))
    return Difference(float(value), float(low), float(high), min(1.0, 2 * (sides + 1) / (len(spread) + 1)))


def mcnemar(task: Task, y_true: NDArray[Any], scores: tuple[NDArray[Any], NDArray[Any]]) -> McNemar:
    """Test whether two runs are right on equally many images (McNemar 1947, exact binomial form).

    For a multi-label task an image is right when all its labels are. The test takes images as independent: where
    they come in groups, its p is too small, and the paired bootstrap over groups is the one to trust.

    Parameters
    ----------
    task : Task
        Not a regression.
    y_true : ndarray
    scores : (ndarray, ndarray)

    Returns
    -------
    McNemar

    Raises
    ------
    TaskError
        The task is a regression: its values are never simply right.
    """
    if task.kind == "regression":
        message = f"McNemar's test counts right answers, and task {task.name!r} is a regression; use the bootstrap"
        raise TaskError(message)
    from scipy.stats import binomtest

    truth = np.asarray(y_true)
    right = [decide(task, score) == truth for score in scores]
    one, other = (hit.all(axis=1) if hit.ndim == 2 else hit for hit in right)
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    apart = only_first + only_second
    p = float(binomtest(only_first, apart, 0.5).pvalue) if apart else 1.0
    return McNemar(only_first, only_second, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for being many, by the step-down method of Holm (1979).

    Parameters
    ----------
    p_values : sequence of float
        NaN stays NaN and doesn't count as a test.

    Returns
    -------
    list of float
        In the same order; at or below a level, the difference stands with that chance of any false one among all.
    """
    raw = np.asarray(list(p_values), dtype=np.float64)
    corrected = np.full(len(raw), np.nan)
    order = [i for i in np.argsort(raw, kind="stable") if not np.isnan(raw[i])]
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, float(raw[i]) * (len(order) - rank)))
        corrected[i] = highest
    return corrected.tolist()
