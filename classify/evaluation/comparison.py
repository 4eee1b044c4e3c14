"""Whether two runs differ: Student's t of a metric's difference, McNemar's test, Holm's correction for many pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from classify.data.kinds import kind_of
from classify.errors import TaskError
from classify.evaluation.bootstrap import LEAST_UNITS, Interval, Spread, student
from classify.evaluation.metrics import metrics_of
from classify.evaluation.sums import Ranked
from features_store.schema import Task


class McNemar(NamedTuple):
    """The images that only one of two runs predicts wholly right, and the exact two-sided p of so uneven a count."""

    only_first: int
    only_second: int
    p: float


def less(one: Spread, other: Spread, name: str) -> Interval:
    """Return one run less another in the metric *name*: value, interval and p, on the same images and resamples.

    p is never below what the images (groups) on which the two differ could show at most, ``2 ** (1 - m)``.
    """
    value = one.values[name] - other.values[name]
    metric = metrics_of(one.task)[name]
    differing = _count_differing(one, other, exact=metric.needs_probabilities or isinstance(metric.sums, Ranked))
    return difference(value, one.resampled[name] - other.resampled[name], one.n_units, differing)


def difference(value: float, resampled: NDArray[np.float64], n_units: int, differing: int | None = None) -> Interval:
    """Give a difference its interval and two-sided p, ``d ± t[n - 1] · sd`` of what it is on resamples."""
    known = resampled[~np.isnan(resampled)]
    nothing = Interval(value, p=math.nan)
    if math.isnan(value) or len(known) < 2 or n_units < LEAST_UNITS:
        return nothing
    sd = float(known.std(ddof=1))
    if sd <= 1e-12 * max(1.0, float(np.abs(known).max())):  # the two predict the same, or differ by a constant
        return Interval(0.0, 0.0, 0.0, p=1.0) if abs(value) <= 1e-12 else nothing
    from scipy.special import stdtr

    half = student(n_units - 1) * sd
    p = 2 * float(stdtr(n_units - 1, -abs(value) / sd))
    floor = 0.0 if differing is None else 2.0 ** (1 - differing)
    return Interval(float(value), float(value - half), float(value + half), p=min(1.0, max(p, floor)))


def _count_differing(one: Spread, other: Spread, *, exact: bool) -> int:
    """Count the units with an image for which the two predict different things."""
    kind = kind_of(one.task)
    first, second = (s.y_score if exact else kind.decide(s.y_score) for s in (one, other))
    apart = first != second
    return len(np.unique(one.units[apart.any(axis=1) if apart.ndim > 1 else apart]))


def mcnemar(task: Task, y_true: NDArray[Any], scores: tuple[NDArray[Any], NDArray[Any]]) -> McNemar:
    """Test whether two runs are right on equally many images (McNemar 1947, exact binomial form).

    For a multi-label task an image is right when all its labels are. The test takes images as independent: where
    they come in groups, its p is too small, and it is not for them.
    """
    kind = kind_of(task)
    if not kind.has_classes:
        raise TaskError(
            f"McNemar's test counts right predictions, and task {task.name!r} is a regression; use the bootstrap"
        )
    from scipy.stats import binomtest

    truth = np.asarray(y_true)
    right = [kind.decide(score) == truth for score in scores]
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
