"""Whether two runs differ: the jackknife of a metric's difference, McNemar's test, Holm's correction for many pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
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
    """Return one run less another in the metric *name*: value, interval and p, on the same images.

    p is never below what the images (groups) on which the two differ could show at most, ``2 ** (1 - m)``.
    """
    metric = metrics_of(one.task)[name]
    exact = metric.needs_probabilities or isinstance(metric.sums, Ranked)
    predicted = [s.y_score if exact else kind_of(s.task).decide(s.y_score) for s in (one, other)]
    apart = (predicted[0] != predicted[1]).reshape(len(one.units), -1).any(axis=1)
    found = difference(one.values[name] - other.values[name], one.left_out[name] - other.left_out[name], one.n_units)
    if found.p is None or math.isnan(found.p):
        return found
    return replace(found, p=max(found.p, 2.0 ** (1 - max(1, len(np.unique(one.units[apart]))))))


def difference(value: float, left_out: NDArray[np.float64], n_units: int) -> Interval:
    """Give a difference its interval and two-sided p, ``d ± t[f] · s``, from what it is without each unit in turn.

    ``s`` is the jackknife's standard error. Its degrees of freedom ``f = 2n / (k - (n - 3) / (n - 1))`` follow from the
    kurtosis ``k`` of what each of *n* units adds: where a few decide, as those of a rare class do in macro F1, ``s``
    is known only as well as from these few.
    """
    nothing, n = Interval(value, p=math.nan), len(left_out)
    if math.isnan(value) or n_units < LEAST_UNITS or np.isnan(left_out).any():
        return nothing
    added = left_out - left_out.mean()
    variance = float((added**2).mean())
    if math.sqrt(variance) * n <= 1e-9:  # the two predict the same, or differ by a constant
        return Interval(0.0, 0.0, 0.0, p=1.0) if abs(value) <= 1e-9 else nothing
    kurtosis = float((added**4).mean()) / variance**2
    freedom = min(n - 1, 2 * n / (kurtosis - (n - 3) / (n - 1)))
    from scipy.special import stdtr

    error = math.sqrt((n - 1) * variance)
    half = student(freedom) * error
    return Interval(value, value - half, value + half, p=2 * float(stdtr(freedom, -abs(value) / error)))


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
