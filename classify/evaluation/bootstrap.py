"""Bootstrap resamples of the test images, and the 95% interval of every metric that follows from them.

The standard deviation of a metric is that of its bootstrap resamples (whole groups where images come in groups). The
interval is ``g^-1(g(v) ± t[n - 1] · sd · g'(v))`` for ``n`` independent units, with the logit for shares and Fisher's z
for correlations; for the logarithm of errors and losses, whose tails are long, the quantiles of Student's t give way to
those of the resamples' own t. Shares of things that are right or wrong have Wilson's interval, with as many images as
the resamples show to be independent. Where simulation shows that no interval covers what it promises, there is none,
but the reason; ``python -m tests.bench coverage`` prints the coverage of each.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from classify.data.folds import units_of
from classify.data.kinds import kind_of
from classify.evaluation.metrics import Metric, mean_over_classes, metrics_of, relative_errors, resampled_columns
from features_store.schema import Task

LEVEL = 0.95
LEAST_UNITS = 10  # independent images or groups; the spread of fewer says nothing
_UNDEFINED = 0.05  # share of resamples in which a metric may be undefined
_NAMED = 4  # classes that a sentence names
MAX_LEFT_OUT = 500
_CHUNK = 4_000_000  # weights held at once, 32 MB
SECONDS = 2.0  # work that takes longer shows a progress bar, on a terminal

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A metric, or the difference of two runs in one, with the ends of its 95% interval; NaN where undefined."""

    value: float
    low: float = math.nan
    high: float = math.nan
    reason: str = ""  # why there is no interval, where there is a value and none
    # Of a mean over classes of which some have too few images: the mean over the others with its interval, by the names
    # ``n_classes``, ``value``, ``low``, ``high``.
    over: dict[str, float] | None = None
    p: float | None = None  # of a difference: two-sided

    def as_json(self) -> dict[str, Any]:
        """Return plain values, None for NaN: JSON has no other word for it."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        numbers |= {} if self.p is None else {"p": self.p}
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
    """Score once on all images, and give each metric a 95% interval where one can be had."""
    return intervals(Spread.of(task, y_true, y_score, groups, n_resamples=n_resamples, seed=seed), part=part)


def intervals(spread: Spread, *, part: str = "test") -> dict[str, Interval]:
    """Give each metric of a head its interval, or the reason why it has none."""
    found = {
        name: _interval(spread, name, metric, part)
        for name, metric in metrics_of(spread.task).items()
        if name in spread.values
    }
    if len(spread.task.classes) == 1:  # every average over one class is the same number, so it has one interval
        averages = {name: name.replace("weighted_", "macro_").replace("micro_", "macro_") for name in found}
        found = {name: found.get(averages[name], interval) for name, interval in found.items()}
    return found


def too_few(n_units: int, *, grouped: bool, part: str) -> str:
    """Say that units are too few for any interval; empty where they are not."""
    if n_units >= LEAST_UNITS:
        return ""
    if grouped:
        groups = f"{n_units} group{'s' if n_units > 1 else ''}"
        return f"the {part} images come from {groups}; the spread between groups cannot be told from so few"
    return f"there are only {n_units} {part} images; the spread between images cannot be told from so few"


@functools.cache
def student(freedom: float, level: float = LEVEL) -> float:
    """Return the number of standard deviations on either side that cover *level* of Student's distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def _interval(spread: Spread, name: str, metric: Metric, part: str) -> Interval:
    value = spread.values[name]
    if math.isnan(value):
        return Interval(value)
    few = too_few(spread.n_units, grouped=spread.grouped, part=part)
    if not few and spread.n_units < metric.least_units:
        units = "groups" if spread.grouped else f"{part} images"
        few = f"{metric.title} takes {metric.least_units} {units} for one, and there are {spread.n_units}"
    if few:
        return Interval(value, reason=f"No interval: {few}.")
    if metric.unsimulated:
        return Interval(value, reason=f"No interval: none is known to cover {metric.title}.")
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
    return Interval(value, reason=_rare(spread, name, metric, rare, part), over=over)


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
        pooled = not kind_of(spread.task).has_classes and not metric.per_output
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
    outputs = spread.y_score.shape[-1] if pooled and spread.y_score.ndim > 1 else 1
    n: float = len(spread.units) * outputs
    if spread.grouped or outputs > 1:
        n = min(n, p * (1 - p) / sd**2) if sd > 1e-12 else spread.n_units
    middle = (p + t * t / (2 * n)) / (1 + t * t / n)
    half = t / (1 + t * t / n) * math.sqrt(p * (1 - p) / n + t * t / (4 * n * n))
    return min(max(middle - half, 0.0), p), max(min(middle + half, 1.0), p)


@dataclass(frozen=True)
class Spread:
    """The metrics of one head on all images and on each resample; equal seeds draw equal resamples."""

    task: Task
    values: Mapping[str, float]  # on all images; NaN where undefined
    resampled: Mapping[str, Floats]  # (n_resamples,) each
    left_out: Mapping[str, Floats]  # without each unit in turn, or each of MAX_LEFT_OUT random sets of units
    by_class: Mapping[str, tuple[Floats, Floats]]  # of averaged metrics, the same of each class: (.., n_classes)
    # Of the metrics of scale "positive": the standard error of the logarithm, and for each resample how many of its
    # own standard errors its logarithm lies from that of all images.
    studentized: Mapping[str, tuple[float, Floats]]
    y_score: Floats
    units: NDArray[np.int64]  # the unit that each image is drawn with, (n_images,)
    grouped: bool  # units are groups, rather than images
    class_units: NDArray[np.int64]  # units with an image of each class; empty for a regression

    @property
    def n_units(self) -> int:
        """Independent units: groups, or images where there are none."""
        return int(self.units.max()) + 1

    @classmethod
    def of(
        cls,
        task: Task,
        y_true: NDArray[Any],
        y_score: NDArray[Any],
        groups: NDArray[np.int64] | None = None,
        *,
        n_resamples: int = 1000,
        seed: int = 0,
    ) -> Spread:
        """Score a head; groups (n_images,) int64."""
        y_true, y_score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
        units = np.arange(len(y_true)) if groups is None else units_of(groups)
        n_units = int(units.max(initial=-1)) + 1
        of_images = None if n_units == len(units) else units
        if of_images is None:
            units = np.arange(n_units)
        whole = resampled_columns(task, y_true, y_score, np.ones((1, len(y_true))))
        chunks = [resampled_columns(task, y_true, y_score, weights, units=of_images) for weights in leave_out(n_units)]
        left_out = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in whole}
        logs = relative_errors(task, y_true, y_score, np.ones((1, n_units)), units=of_images)
        chunks, far = [], []
        with tqdm(total=n_resamples, desc="intervals", leave=False, disable=None, delay=SECONDS) as bar:
            for weights in draws(n_units, n_resamples, seed=seed):
                chunks.append(resampled_columns(task, y_true, y_score, weights, units=of_images))
                drawn_logs = relative_errors(task, y_true, y_score, weights, units=of_images)
                with np.errstate(divide="ignore", invalid="ignore"):
                    far.append({name: (log - logs[name][0]) / error for name, (log, error) in drawn_logs.items()})
                bar.update(len(weights))
        every = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in whole}
        averaged = [name for name, metric in metrics_of(task).items() if metric.averaged]
        by_class = {name: (whole[name][0], every[name]) for name in averaged}
        for found in (whole, every, left_out):
            found.update({name: mean_over_classes(found[name]) for name in averaged})
        values = {name: float(value[0]) for name, value in whole.items()}
        grouped = groups is not None and n_units < len(units)
        studentized = {
            name: (float(error[0]), np.concatenate([one[name] for one in far])) for name, (_, error) in logs.items()
        }
        of_class = [len(np.unique(units[images])) for images in kind_of(task).indicators(y_true).T]
        class_units = np.array(of_class, dtype=np.int64)
        return cls(task, values, every, left_out, by_class, studentized, y_score, units, grouped, class_units)


def draws(n_units: int, n_resamples: int, *, seed: int) -> Iterator[Floats]:
    """Yield how often each unit is drawn, for a few resamples at a time.

    Shapes: yields (n, n_units) float64.
    """
    if n_units * n_resamples <= _CHUNK:
        yield _drawn_once(n_units, n_resamples, seed)
        return
    random = np.random.default_rng(seed)
    step = max(1, _CHUNK // n_units)
    for start in range(0, n_resamples, step):
        yield _draw(random, min(step, n_resamples - start), n_units)


def leave_out(n_units: int) -> Iterator[Floats]:
    """Yield weights without each unit in turn, or without each of `MAX_LEFT_OUT` random sets of them.

    Shapes: yields (n, n_units) float64, a few rows at a time.
    """
    sets = np.random.default_rng(0).permutation(n_units) % MAX_LEFT_OUT
    n_sets = min(n_units, MAX_LEFT_OUT)
    step = max(1, _CHUNK // max(1, n_units))
    for start in range(0, n_sets, step):
        yield (sets != np.arange(start, min(start + step, n_sets))[:, None]).astype(np.float64)


@functools.lru_cache(maxsize=4)
def _drawn_once(n_units: int, n_resamples: int, seed: int) -> Floats:
    """The same for a head and each baseline beside it."""
    weights = _draw(np.random.default_rng(seed), n_resamples, n_units)
    weights.flags.writeable = False
    return weights


def _draw(random: np.random.Generator, n_resamples: int, n_units: int) -> Floats:
    weights = np.empty((n_resamples, n_units))
    for row in weights:  # one at a time: the counts of one resample fit the cache, those of many do not
        row[:] = np.bincount(random.integers(n_units, size=n_units), minlength=n_units)
    return weights
