"""95% intervals of every metric: Student's t on the metric's own scale, with the freedom of the images or their groups.

The standard deviation of a metric is that of its bootstrap resamples (whole groups where images come in groups). The
interval is ``g^-1(g(v) ± t[n - 1] · sd · g'(v))`` for ``n`` independent units, with the logit for shares and Fisher's z
for correlations; for the logarithm of errors and losses, whose tails are long, the quantiles of Student's t give way to
those of the resamples' own t. Shares of things that are right or wrong take Wilson's interval, with as many images as
the resamples show to be independent. Where simulation shows that no interval covers what it
promises, none is given, and the reason is; ``python -m tests.bench coverage`` prints the coverage of each.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.evaluation.metrics import Metric, mean_over_classes, metrics_of
from classify.evaluation.resamples import Spread, draws, units_of
from features_store.schema import Task

__all__ = ["LEAST_UNITS", "LEVEL", "Interval", "bootstrap", "draws", "intervals", "student", "too_few", "units_of"]

LEVEL = 0.95
LEAST_UNITS = 10  # independent images or groups; the spread of fewer says nothing
_UNDEFINED = 0.05  # share of resamples in which a metric may be undefined
_NAMED = 4  # classes that a sentence names
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A metric with the ends of its 95% interval; NaN where it isn't defined.

    Parameters
    ----------
    reason : str
        Why there is no interval, where there is a value and none.
    over : dict or None
        Of a mean over classes of which some have too few images: the mean over the others with its interval,
        ``n_classes``, ``value``, ``low``, ``high``.
    """

    value: float
    low: float
    high: float
    reason: str = ""
    over: dict[str, float] | None = None

    def covers(self, other: float) -> bool:
        """Whether *other* lies within the interval; False where anything is NaN."""
        return self.low <= other <= self.high

    def as_json(self) -> dict[str, Any]:
        """Return plain values, None for NaN: JSON has no other word for it."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        found: dict[str, Any] = {
            name: float(number) if math.isfinite(number) else None for name, number in numbers.items()
        }
        if self.reason and found["value"] is not None:
            found["reason"] = self.reason
        if self.over is not None:
            found["over"] = self.over
        return found


def bootstrap(
    task: Task,
    y_true: NDArray[Any],
    y_score: NDArray[Any],
    *,
    groups: NDArray[np.int64] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    part: str = "test",
) -> dict[str, Interval]:
    """Score once on all images, and give each metric a 95% interval where one can be had.

    Shapes: groups (n_images,) int64.
    """
    return intervals(Spread.of(task, y_true, y_score, groups, n_resamples=n_resamples, seed=seed), part=part)


def intervals(spread: Spread, *, part: str = "test") -> dict[str, Interval]:
    """Give each metric of a head its interval, or the reason why it has none."""
    return {
        name: _interval(spread, name, metric, part)
        for name, metric in metrics_of(spread.task).items()
        if name in spread.values
    }


def too_few(n_units: int, *, grouped: bool, part: str) -> str:
    """Say that units are too few for any interval; empty where they aren't."""
    if n_units >= LEAST_UNITS:
        return ""
    if grouped:
        groups = f"{n_units} group{'s' if n_units > 1 else ''}"
        return f"the {part} images come from {groups}; the spread between groups can't be told from so few"
    return f"there are only {n_units} {part} images; the spread between images can't be told from so few"


@functools.cache
def student(freedom: int, level: float = LEVEL) -> float:
    """Return the number of standard deviations on either side that cover *level* of Student's distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def _interval(spread: Spread, name: str, metric: Metric, part: str) -> Interval:
    value = spread.values[name]
    if math.isnan(value):
        return Interval(value, math.nan, math.nan)
    few = too_few(spread.n_units, grouped=spread.grouped, part=part)
    if not few and spread.n_units < metric.least_units:
        units = "groups" if spread.grouped else f"{part} images"
        few = f"{metric.title} takes {metric.least_units} {units} for one, and there are {spread.n_units}"
    if few:
        return Interval(value, math.nan, math.nan, f"No interval: {few}.")
    if metric.averaged:
        return _averaged(spread, name, metric, part)
    low, high = _ends(spread, name, value, spread.resampled[name], [spread.n_units])
    return Interval(value, low, high, "" if math.isfinite(low) else _CONSTANT)


_CONSTANT = "No interval: the resamples of these images all but agree, or leave it undefined."


def _averaged(spread: Spread, name: str, metric: Metric, part: str) -> Interval:
    """A mean over classes: over those that have images enough, and of all only where all have."""
    of_class, resampled = spread.by_class[name]
    kept = np.flatnonzero(spread.class_units >= metric.least_of_class)
    counted = [int(n) for n in spread.class_units[kept]]
    value = spread.values[name]
    if len(kept) == len(spread.class_units):
        low, high = _ends(spread, name, value, spread.resampled[name], counted)
        return Interval(value, low, high, "" if math.isfinite(low) else _CONSTANT)
    over = None
    if len(kept):
        mean = float(mean_over_classes(of_class[None, kept])[0])
        low, high = _ends(spread, name, mean, mean_over_classes(resampled[:, kept]), counted)
        if math.isfinite(low):
            over = {"n_classes": len(kept), "value": mean, "low": low, "high": high}
    rare = [spread.task.classes[k] for k in np.flatnonzero(spread.class_units < metric.least_of_class)]
    return Interval(value, math.nan, math.nan, _rare(spread, name, metric, rare, part), over)


def _rare(spread: Spread, name: str, metric: Metric, rare: Sequence[str], part: str) -> str:
    units = f"{part} images" if not spread.grouped else f"groups of {part} images"
    if name == "mean_average_precision":
        text = f"No interval: {len(rare)} label{'s have' if len(rare) > 1 else ' has'} fewer than "
        text += f"{metric.least_of_class} {units}; average precision is too high on so few."
    else:
        named = ", ".join(rare[:_NAMED]) + (f" and {len(rare) - _NAMED} more" if len(rare) > _NAMED else "")
        text = f"No interval for {metric.title} over all {len(spread.class_units)} classes: {named} "
        text += f"{'have' if len(rare) > 1 else 'has'} fewer than {metric.least_of_class} {units}."
    return text


def _ends(spread: Spread, name: str, value: float, resampled: Floats, counted: Sequence[int]) -> tuple[float, float]:
    """Return the ends of the interval of one number; *counted* are the units behind each class of a mean."""
    metric, known = metrics_of(spread.task)[name], resampled[~np.isnan(resampled)]
    if len(known) < max(2, (1 - _UNDEFINED) * len(resampled)):
        return math.nan, math.nan
    t, sd, n = student(spread.n_units - 1), float(known.std(ddof=1)), len(spread.units)
    if metric.scale == "positive":
        return _bootstrap_t(value, *spread.studentized[name])
    if metric.scale == "proportion":
        pooled = spread.task.kind == "regression" and not metric.per_output
        return _wilson(value, sd, t, spread, pooled=pooled)
    if sd <= 1e-12 * max(1.0, abs(value)):  # no image, or every image, is wrong
        if metric.scale != "share" or 1e-9 < value < 1 - 1e-9:
            return math.nan, math.nan
        far = float(np.mean([t * t / (k + t * t) for k in counted]))
        return (0.0, far) if value < 0.5 else (1 - far, 1.0)
    if metric.scale == "share":
        centre = value
        if metric.averaged:  # F1 is too low, and average precision too high, on the few images of a rare class
            centre = 2 * value - float(known.mean())
        v = min(max(centre, 0.5 / n), 1 - 0.5 / n)
        step, middle = t * sd / (v * (1 - v)), math.log(v / (1 - v))
        low, high = (_expit(middle - step), _expit(middle + step))
    else:
        v = min(max(value, -1 + 1e-9), 1 - 1e-9)
        step, middle = t * sd / (1 - v * v), math.atanh(v)
        low, high = math.tanh(middle - step), math.tanh(middle + step)
    return min(low, value), max(high, value)


def _bootstrap_t(value: float, error: float, far: Floats) -> tuple[float, float]:
    """Return the bootstrap-t interval of the logarithm: errors and losses have long tails, which Student's t misses."""
    known = far[np.isfinite(far)]
    if value <= 0 or not error > 1e-12 or len(known) < (1 - _UNDEFINED) * len(far):
        return math.nan, math.nan
    least, most = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = value * math.exp(-min(error * most, 50.0)), value * math.exp(min(-error * least, 50.0))
    return min(low, value), max(high, value)


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _wilson(p: float, sd: float, t: float, spread: Spread, *, pooled: bool) -> tuple[float, float]:
    """Return Wilson's interval of a share, with as many images as its resamples show to be independent."""
    answers = spread.answers.shape[-1] if pooled and spread.answers.ndim > 1 else 1
    n: float = len(spread.units) * answers
    if spread.grouped or answers > 1:
        n = min(n, p * (1 - p) / sd**2) if sd > 1e-12 else spread.n_units
    middle = (p + t * t / (2 * n)) / (1 + t * t / n)
    half = t / (1 + t * t / n) * math.sqrt(p * (1 - p) / n + t * t / (4 * n * n))
    return min(max(middle - half, 0.0), p), max(min(middle + half, 1.0), p)
