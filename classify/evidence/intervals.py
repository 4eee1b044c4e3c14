"""Bootstrap intervals of every metric: resample the images, or the groups they come in, and see the spread."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from classify.evidence.metrics import metrics
from classify.evidence.resamples import resampled_metrics
from features_store.schema import Task

__all__ = ["LEVEL", "Interval", "bootstrap", "draws", "units_of"]

LEVEL = 0.95
_CHUNK = 4_000_000  # weights held at once, 32 MB
_QUICK = 20_000_000  # fewer weights than these take about a second, and need no progress bar


@dataclass(frozen=True)
class Interval:
    """A metric with the ends of its bootstrap interval; NaN where it isn't defined."""

    value: float
    low: float
    high: float

    def covers(self, other: float) -> bool:
        """Whether *other* lies within the interval; False where anything is NaN."""
        return self.low <= other <= self.high

    def as_json(self) -> dict[str, float | None]:
        """Return the three numbers, None for NaN: JSON has no other word for it."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: float(number) if math.isfinite(number) else None for name, number in numbers.items()}


def bootstrap(
    task: Task,
    y_true: NDArray[Any],
    y_score: NDArray[Any],
    *,
    groups: NDArray[np.int64] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Score once on all images, and give each metric a 95% percentile interval.

    The percentile bootstrap of Efron (1979). Two calls on the same images with the same seed draw the same
    resamples, so their results may be compared resample by resample.

    Parameters
    ----------
    task : Task
    y_true, y_score : ndarray
        As `classify.evidence.metrics.metrics` takes them.
    groups : ndarray of shape (n_images,), int64, optional
        Images of one group are drawn together; -1 = alone. None: each image by itself.
    n_resamples : int
    seed : int

    Returns
    -------
    dict of str to Interval
        One for each metric of the task's kind.
    """
    values = metrics(task, y_true, y_score)
    units = None if groups is None else units_of(groups)
    n_units = len(y_true) if units is None else int(units.max()) + 1
    chunks = []
    with tqdm(total=n_resamples, desc="intervals", leave=False, disable=n_units * n_resamples < _QUICK) as bar:
        for weights in draws(n_units, n_resamples, seed=seed):
            chunks.append(resampled_metrics(task, y_true, y_score, weights, units=units))
            bar.update(len(weights))
    tail = (1 - LEVEL) / 2
    intervals = {}
    for name, value in values.items():
        spread = np.concatenate([chunk[name] for chunk in chunks])
        spread = spread[~np.isnan(spread)]
        low, high = np.quantile(spread, [tail, 1 - tail]) if len(spread) else (math.nan, math.nan)
        intervals[name] = Interval(float(value), float(low), float(high))
    return intervals


def draws(n_units: int, n_resamples: int, *, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each unit is drawn, for a few resamples at a time.

    Parameters
    ----------
    n_units, n_resamples : int
    seed : int

    Yields
    ------
    ndarray of shape (n, n_units), float64
        Each row sums to *n_units*; *n* adds up to *n_resamples*.
    """
    random = np.random.default_rng(seed)
    step = max(1, _CHUNK // n_units)
    for start in range(0, n_resamples, step):
        weights = np.empty((min(step, n_resamples - start), n_units))
        for row in weights:  # one at a time: the counts of one resample fit the cache, those of many don't
            row[:] = np.bincount(random.integers(n_units, size=n_units), minlength=n_units)
        yield weights


def units_of(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups from 0; an image that is alone is a group of its own.

    Parameters
    ----------
    groups : ndarray of shape (n_images,), int64
        -1 = alone.

    Returns
    -------
    ndarray of shape (n_images,), int64
    """
    groups = np.array(groups, dtype=np.int64)
    alone = groups < 0
    groups[alone] = groups.max(initial=-1) + 1 + np.arange(alone.sum())
    return np.unique(groups, return_inverse=True)[1]
