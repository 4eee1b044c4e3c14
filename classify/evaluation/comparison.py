"""Whether two runs differ: Student's t of a metric's difference, McNemar's test, Holm's correction for many pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import TaskError
from classify.evaluation.intervals import LEAST_UNITS, student
from classify.evaluation.metrics import decide, metrics_of
from classify.evaluation.resamples import Spread
from classify.evaluation.sums import Ranked
from features_store.schema import Task

__all__ = ["Difference", "McNemar", "difference_of", "holm", "less", "mcnemar", "paired_bootstrap"]


@dataclass(frozen=True)
class Difference:
    """A metric of one run less that of another on the same images; NaN where it isn't defined.

    Parameters
    ----------
    value, low, high : float
        The difference, and the ends of its 95% interval.
    p : float
        Two-sided, of Student's t; never below what the images (groups) on which the two differ could show at most.
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

    Both runs are scored on the same resamples, so that what makes an image hard for both cancels out. The interval is
    ``d ± t[n - 1] · sd`` with the deviation of the resampled differences and ``n`` images (groups); p belongs to the
    same t. Under 10 of them there is neither.

    Shapes: scores (ndarray, ndarray); groups (n_images,) int64.
    """
    one, other = (Spread.of(task, y_true, said, groups, n_resamples=n_resamples, seed=seed) for said in scores)
    return {name: less(one, other, name) for name in one.values}


def less(one: Spread, other: Spread, name: str) -> Difference:
    """Return by how much one run is above another in the metric *name*, on the same images and resamples."""
    value = one.values[name] - other.values[name]
    metric = metrics_of(one.task)[name]
    differing = _differing(one, other, exact=metric.needs_probabilities or isinstance(metric.sums, Ranked))
    return difference_of(value, one.resampled[name] - other.resampled[name], one.n_units, differing)


def difference_of(
    value: float, resampled: NDArray[np.float64], n_units: int, differing: int | None = None
) -> Difference:
    """Give a difference its interval and p from what it is on resamples.

    Shapes: resampled (n_resamples,).
    """
    known = resampled[~np.isnan(resampled)]
    nothing = Difference(value, math.nan, math.nan, math.nan)
    if math.isnan(value) or len(known) < 2 or n_units < LEAST_UNITS:
        return nothing
    sd = float(known.std(ddof=1))
    if sd <= 1e-12 * max(1.0, float(np.abs(known).max())):  # the two say the same, or differ by a constant
        return Difference(0.0, 0.0, 0.0, 1.0) if abs(value) <= 1e-12 else nothing
    from scipy.special import stdtr

    half = student(n_units - 1) * sd
    p = 2 * float(stdtr(n_units - 1, -abs(value) / sd))
    floor = 0.0 if differing is None else 2.0 ** (1 - differing)
    return Difference(float(value), float(value - half), float(value + half), min(1.0, max(p, floor)))


def _differing(one: Spread, other: Spread, *, exact: bool) -> int:
    """Count the units with an image of which the two say different things."""
    task = one.task
    said = [s.answers if exact else np.asarray(decide(task, s.answers)) for s in (one, other)]
    apart = said[0] != said[1]
    return len(np.unique(one.units[apart.any(axis=1) if apart.ndim > 1 else apart]))


def mcnemar(task: Task, y_true: NDArray[Any], scores: tuple[NDArray[Any], NDArray[Any]]) -> McNemar:
    """Test whether two runs are right on equally many images (McNemar 1947, exact binomial form).

    For a multi-label task an image is right when all its labels are. The test takes images as independent: where
    they come in groups, its p is too small, and it isn't for them.

    Shapes: scores (ndarray, ndarray).
    Raises TaskError.
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
    """Correct p-values for being many, by the step-down method of Holm (1979)."""
    raw = np.asarray(list(p_values), dtype=np.float64)
    corrected = np.full(len(raw), np.nan)
    order = [i for i in np.argsort(raw, kind="stable") if not np.isnan(raw[i])]
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, float(raw[i]) * (len(order) - rank)))
        corrected[i] = highest
    return corrected.tolist()
