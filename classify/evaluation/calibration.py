"""Calibration: reliability curves, expected calibration error, temperature scaling, isotonic regression.

A calibration is fitted on the validation part only. The run keeps its own probabilities, and the calibrated ones stand
beside them under their own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from classify.data.folds import units_of
from classify.data.kinds import KINDS, TaskKind, kind_of
from classify.errors import ConfigError, TaskError
from features_store.schema import Task

Method = Literal["temperature", "isotonic"]
METHODS: tuple[Method, ...] = ("temperature", "isotonic")
N_BINS = 10
MIN_IMAGES = 20  # on fewer, a fit says more about them than about the head
MIN_ISOTONIC = 1000  # a free curve through fewer costs more log loss than it saves
TEMPERATURES = (0.05, 20.0)  # a temperature beyond these means that the validation part cannot tell
_CHI_SQUARE = 3.841458820694124  # exceeded by chance in 5 of 100, one degree of freedom
_TINY = 1e-7

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Curves = tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]


@dataclass(frozen=True)
class Calibration:
    """A map from a head's probabilities to calibrated ones."""

    method: Method
    kind: str  # of the task
    temperature: float | None  # divides the logits; above 1 the head was too sure of itself
    curves: Curves  # isotonic: the knots of each class, predicted probability and observed frequency
    n_images: int  # validation images that it was fitted on
    interval: tuple[float, float] | None = None  # of the temperature, 95%, by profile likelihood; 1 lies outside
    unseen: tuple[int, ...] = ()  # classes without a training image: a probability of 0 for them stays 0

    def apply(self, scores: NDArray[Any]) -> Floats:
        """Return calibrated probabilities, (n_images, n_classes) as *scores*; rows of a single-label task sum to 1."""
        given, kind = np.asarray(scores, dtype=np.float64), KINDS[self.kind]
        if self.temperature is not None:
            mapped = _tempered(given, self.temperature, exclusive=kind.exclusive)
        else:
            mapped = np.column_stack([np.interp(given[:, k], x, y) for k, (x, y) in enumerate(self.curves)])
        for k in self.unseen:
            mapped[given[:, k] == 0, k] = 0.0
        return kind.normalized(mapped)

    @property
    def sound(self) -> bool:
        """Whether a fit can have given it: a temperature above 0, curves of rising knots from 0 to 1."""
        if self.temperature is not None:
            return 1e-6 < self.temperature < 1e6
        return all(
            len(x) == len(y) > 0 and np.all(np.diff(x) >= 0) and min(*x, *y) >= -1e-6 and max(*x, *y) <= 1 + 1e-6
            for x, y in self.curves
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain values, which `from_json` takes back."""
        return {**asdict(self), "fitted_on": "validation"}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Take back what `as_json` gave."""
        try:
            temperature = None if values["temperature"] is None else float(values["temperature"])
            curves = tuple((tuple(map(float, x)), tuple(map(float, y))) for x, y in values["curves"])
            whole = (temperature is None) == (values["method"] == "isotonic")
            ends = values.get("interval")
            interval = None if ends is None else (float(ends[0]), float(ends[1]))
            unseen = tuple(int(k) for k in values.get("unseen", ()))
            if values["method"] in METHODS and KINDS[values["kind"]].has_classes and whole:
                n_images = int(values["n_images"])
                return cls(values["method"], values["kind"], temperature, curves, n_images, interval, unseen)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ConfigError(f"these values are not a calibration: {error!r}") from error
        raise ConfigError(f"these values are not a calibration: method {values['method']!r} of kind {values['kind']!r}")


def fit_calibration(
    task: Task,
    y_true: NDArray[Any],
    scores: NDArray[Any],
    *,
    method: Method = "temperature",
    groups: NDArray[np.int64] | None = None,
    unseen: Sequence[int] = (),
) -> tuple[Calibration | None, str]:
    """Fit a calibration on the validation part, where that part shows that one is needed; else say why there is none.

    Temperature scaling (Guo et al. 2017, section 4.2) has one parameter, found by the lowest log loss; for a
    multi-label task the logit of each label is divided by it. It is kept only if its 95% interval by profile likelihood
    excludes 1: on fewer images it harms a calibrated head more often than it helps an uncalibrated one.
    Isotonic regression (Zadrozny and Elkan 2002) bends each class's probabilities freely, takes 1,000 images, and stays
    within ``1 / (n + 2)`` and its complement (Laplace's rule).
    """
    kind, n = kind_of(task), len(y_true)
    if not kind.has_classes:
        raise TaskError(f"task {task.name!r} is a regression: it has no probabilities to calibrate")
    scores, truth = np.asarray(scores, dtype=np.float64), kind.indicators(y_true)
    if method == "isotonic":
        if n < MIN_ISOTONIC:
            return None, f"isotonic regression takes {MIN_ISOTONIC:,} validation images, and there are {n}"
        return Calibration("isotonic", kind.name, None, _isotonic(truth, scores), n, None, tuple(unseen)), ""
    if n < MIN_IMAGES:
        return None, f"a temperature takes {MIN_IMAGES} validation images, and there are {n}"
    if (kind.decided(scores) == truth).all():
        return None, f"the head is right on all {n} validation images: any lower temperature fits better, without end"
    units = np.arange(n) if groups is None else units_of(groups)
    temperature, (low, high) = _fit_temperature(kind, truth, scores, units)
    if low <= 1 <= high:
        return None, f"{n} images do not tell T from 1: T = {temperature:.2f} [{low:.2f}, {high:.2f}]"
    return Calibration("temperature", kind.name, temperature, (), n, (low, high), tuple(unseen)), ""


def _isotonic(truth: Bools, scores: Floats) -> Curves:
    from sklearn.isotonic import IsotonicRegression

    curves, least = [], 1 / (len(truth) + 2)
    for k in range(scores.shape[1]):
        fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores[:, k], truth[:, k])
        ends = np.clip(fitted.y_thresholds_, least, 1 - least)
        curves.append((tuple(fitted.X_thresholds_.tolist()), tuple(ends.tolist())))
    return tuple(curves)


def _fit_temperature(
    kind: TaskKind, truth: Bools, scores: Floats, units: NDArray[np.int64]
) -> tuple[float, tuple[float, float]]:
    """Return the temperature of the lowest log loss, and those that the likelihood does not tell from it at 95%."""
    from scipy.optimize import brentq, minimize_scalar

    def losses(log_temperature: float) -> Floats:
        tempered = _tempered(scores, float(np.exp(log_temperature)), exclusive=kind.exclusive)
        predicted = np.clip(tempered, _TINY**2, 1.0)
        if kind.exclusive:
            return -np.log(predicted[truth])
        of_label = np.where(truth, np.log(predicted), np.log1p(-np.minimum(predicted, 1 - _TINY)))
        found: Floats = -of_label.sum(axis=1)
        return found

    ends = tuple(np.log(TEMPERATURES))
    best = minimize_scalar(lambda x: float(losses(x).mean()), bounds=ends, method="bounded", options={"xatol": 1e-6}).x
    temperature = float(np.exp(best))
    if not 1.01 * TEMPERATURES[0] < temperature < 0.99 * TEMPERATURES[1]:
        return temperature, TEMPERATURES
    middle, least = float(np.log(temperature)), float(losses(np.log(temperature)).sum())
    dependent = not kind.exclusive or len(np.unique(units)) < len(units)
    share = _independent_share(losses, middle, units) if dependent else 1.0
    rise = lambda x: 2 * share * (float(losses(x).sum()) - least) - _CHI_SQUARE  # noqa: E731
    low, high = (brentq(rise, middle, end, xtol=1e-6) if rise(end) > 0 else end for end in ends)
    return temperature, (float(np.exp(low)), float(np.exp(high)))


def _independent_share(losses: Any, middle: float, units: NDArray[np.int64]) -> float:
    """Return by how much the likelihood must count less, because labels of an image and images of a group agree.

    The curvature of the loss over the variance of its slope (Kent 1982); 1 where everything is independent.
    """
    step = 1e-3
    below, here, above = (losses(middle + shift) for shift in (-step, 0.0, step))
    slopes = np.bincount(units, weights=(above - below) / (2 * step))
    curvature = float((above - 2 * here + below).sum()) / step**2
    return float(np.clip(curvature / max(float(slopes @ slopes), 1e-12), 0.0, 1.0))


def _tempered(given: Floats, temperature: float, *, exclusive: bool) -> Floats:
    """Divide the logits of probabilities (n_images, n_classes): of the classes together, or of each label."""
    if exclusive:
        logits = np.log(np.clip(given, _TINY, 1.0)) / temperature
        grown = np.exp(logits - logits.max(axis=1, keepdims=True))
        tempered: Floats = grown / grown.sum(axis=1, keepdims=True)
        return tempered
    clipped = np.clip(given, _TINY, 1 - _TINY)
    squeezed: Floats = 1 / (1 + np.exp(-(np.log(clipped) - np.log1p(-clipped)) / temperature))
    return squeezed


def _binned(predicted: Floats, n_bins: int) -> NDArray[np.int64]:
    return np.clip((predicted * n_bins).astype(np.int64), 0, n_bins - 1)


def reliability(
    task: Task, y_true: NDArray[Any], scores: NDArray[Any], *, n_bins: int = N_BINS
) -> list[dict[str, float]]:
    """Return by bin of equal width the mean predicted probability (``said``) and the observed frequency (``true``)."""
    kind = kind_of(task)
    predicted, observed = kind.confidence(scores), kind.observed(y_true, scores)
    bins = _binned(predicted, n_bins)
    return [
        {
            "low": float(i / n_bins),
            "high": float((i + 1) / n_bins),
            "n": int((bins == i).sum()),
            "said": float(predicted[bins == i].mean()),
            "true": float(observed[bins == i].mean()),
        }
        for i in np.unique(bins)
    ]


def calibration_error(curve: Sequence[Mapping[str, float]]) -> float:
    """Return the expected calibration error (Naeini et al. 2015): the mean gap of the bins, weighed by their counts."""
    n = sum(row["n"] for row in curve)
    return float(sum(row["n"] * abs(row["said"] - row["true"]) for row in curve) / n)


def expected_errors(
    task: Task, scores: NDArray[Any], *, n_bins: int = N_BINS, n_draws: int = 400, seed: int = 0
) -> tuple[float, float]:
    """Return mean and 95% point of the calibration error that these probabilities would show if each were exact.

    The error of a small test part is never 0; this is how much of it chance alone explains (the consistency
    resampling of Bröcker and Smith 2007).
    """
    predicted = kind_of(task).confidence(scores)
    bins = _binned(predicted, n_bins)
    random = np.random.default_rng(seed)
    total = np.bincount(bins, weights=predicted, minlength=n_bins)
    gaps = []
    for _ in range(n_draws):
        observed = np.bincount(bins, weights=random.random(len(predicted)) < predicted, minlength=n_bins)
        gaps.append(np.abs(total - observed).sum() / len(predicted))
    return float(np.mean(gaps)), float(np.quantile(gaps, 0.95))
