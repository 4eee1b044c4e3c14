"""Whether a probability of 0.8 comes true four times in five, and what to do where it doesn't.

A calibration is fitted on the validation part only. It changes what is said of an image, never what is found in it:
the run keeps its own probabilities, and the calibrated ones stand beside them under their own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from classify.errors import ConfigError, TaskError
from classify.evaluation.temperature import RANGE, Temperature, tempered
from features_store.schema import Task

__all__ = ["METHODS", "Calibration", "calibration_error", "expected_errors", "fit_calibration", "reliability"]

Method = Literal["temperature", "isotonic"]
METHODS: tuple[Method, ...] = ("temperature", "isotonic")
N_BINS = 10
MIN_IMAGES = 20  # on fewer, a fit says more about them than about the head
MIN_ISOTONIC = 1000  # a free curve through fewer costs more log loss than it saves

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """A map from a head's probabilities to calibrated ones.

    Parameters
    ----------
    kind : {"single", "multi"}
        Of the task.
    temperature : float or None
        Divides the logits; above 1 the head was too sure of itself.
    curves : tuple of (tuple of float, tuple of float)
        isotonic: for each class the knots, probability and what became of it.
    n_images : int
        Validation images that it was fitted on.
    interval : (float, float) or None
        Of the temperature, 95%, by profile likelihood; 1 lies outside.
    unseen : tuple of int
        Classes that training had no image of: a probability of 0 for them stays 0.
    """

    method: Method
    kind: str
    temperature: float | None
    curves: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    n_images: int
    interval: tuple[float, float] | None = None
    unseen: tuple[int, ...] = ()

    def apply(self, scores: NDArray[Any]) -> Floats:
        """Return calibrated probabilities, (n_images, n_classes) as *scores*; rows of a single-label task sum to 1."""
        given = np.asarray(scores, dtype=np.float64)
        if self.temperature is not None:
            mapped = tempered(given, self.temperature, single=self.kind == "single")
        else:
            mapped = np.column_stack([np.interp(given[:, k], x, y) for k, (x, y) in enumerate(self.curves)])
        for k in self.unseen:
            mapped[given[:, k] == 0, k] = 0.0
        if self.kind == "multi":
            return mapped
        total = mapped.sum(axis=1, keepdims=True)
        even = np.full_like(mapped, 1 / mapped.shape[1])
        return np.where(total > 0, np.divide(mapped, total, out=even, where=total > 0), even)

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
        return {
            "method": self.method,
            "kind": self.kind,
            "temperature": self.temperature,
            "curves": [[list(x), list(y)] for x, y in self.curves],
            "n_images": self.n_images,
            "interval": None if self.interval is None else list(self.interval),
            "unseen": list(self.unseen),
            "fitted_on": "validation",
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Take back what `as_json` gave.

        Raises ConfigError.
        """
        try:
            temperature = None if values["temperature"] is None else float(values["temperature"])
            curves = tuple((tuple(map(float, x)), tuple(map(float, y))) for x, y in values["curves"])
            whole = (temperature is None) == (values["method"] == "isotonic")
            ends = values.get("interval")
            interval = None if ends is None else (float(ends[0]), float(ends[1]))
            unseen = tuple(int(k) for k in values.get("unseen", ()))
            if values["method"] in METHODS and values["kind"] in ("single", "multi") and whole:
                n_images = int(values["n_images"])
                return cls(values["method"], values["kind"], temperature, curves, n_images, interval, unseen)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            message = f"these values aren't a calibration: {error!r}"
            raise ConfigError(message) from error
        message = f"these values aren't a calibration: method {values['method']!r} of kind {values['kind']!r}"
        raise ConfigError(message)


def fit_calibration(
    task: Task,
    y_true: NDArray[Any],
    scores: NDArray[Any],
    *,
    method: Method = "temperature",
    groups: NDArray[np.int64] | None = None,
    unseen: Sequence[int] = (),
) -> tuple[Calibration | None, str]:
    """Fit a calibration on the validation part, where that part shows that one is needed.

    Temperature scaling (Guo et al. 2017, section 4.2) has one parameter, found by the lowest log loss; for a
    multi-label task the logit of each label is divided by it. It is kept only if its 95% interval by profile likelihood
    excludes 1: on fewer images it harms a head that is right about itself more often than it helps one that isn't.
    Isotonic regression (Zadrozny and Elkan 2002) bends each class's probabilities freely, takes 1,000 images, and never
    says 0 or 1 (``1 / (n + 2)`` and the rest of it, as Laplace's rule has it).

    Shapes: groups (n_images,) int64.
    Raises TaskError.
    """
    if task.kind == "regression":
        message = f"task {task.name!r} is a regression: it has no probabilities to calibrate"
        raise TaskError(message)
    scores, truth, n = np.asarray(scores, dtype=np.float64), _indicators(task, y_true), len(y_true)
    if method == "isotonic":
        if n < MIN_ISOTONIC:
            return None, f"isotonic regression takes {MIN_ISOTONIC:,} validation images, and there are {n}"
        found = Calibration("isotonic", task.kind, None, _isotonic(truth, scores), n, None, tuple(unseen))
        return found, ""
    if n < MIN_IMAGES:
        return None, f"a temperature takes {MIN_IMAGES} validation images, and there are {n}"
    said, came = _confidences(task, y_true, scores)
    if ((said >= 0.5) == came).all() if task.kind == "multi" else came.all():
        return None, f"the head is right on all {n} validation images: the surer the better, without end"
    fit = Temperature(truth, scores, single=task.kind == "single", groups=groups)
    temperature = fit.best()
    settled = 1.01 * RANGE[0] < temperature < 0.99 * RANGE[1]
    low, high = fit.interval(temperature) if settled else RANGE
    if low <= 1 <= high:
        return None, f"{n} images don't tell T from 1: T = {temperature:.2f} [{low:.2f}, {high:.2f}]"
    return Calibration("temperature", task.kind, temperature, (), n, (low, high), tuple(unseen)), ""


def _indicators(task: Task, y_true: NDArray[Any]) -> NDArray[np.bool_]:
    truth = np.asarray(y_true)
    return truth[:, None] == np.arange(len(task.classes)) if task.kind == "single" else truth.astype(bool)


def _isotonic(truth: NDArray[np.bool_], scores: Floats) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]:
    from sklearn.isotonic import IsotonicRegression

    curves, least = [], 1 / (len(truth) + 2)
    for k in range(scores.shape[1]):
        fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores[:, k], truth[:, k])
        ends = np.clip(fitted.y_thresholds_, least, 1 - least)
        curves.append((tuple(fitted.X_thresholds_.tolist()), tuple(ends.tolist())))
    return tuple(curves)


def _confidences(task: Task, y_true: NDArray[Any], scores: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """What was said and whether it came true: of the decided class (single), or of every label (multi)."""
    scores = np.asarray(scores, dtype=np.float64)
    if task.kind == "multi":
        return scores.ravel(), np.asarray(y_true).astype(bool).ravel()
    return scores.max(axis=1), scores.argmax(axis=1) == np.asarray(y_true)


def reliability(
    task: Task, y_true: NDArray[Any], scores: NDArray[Any], *, n_bins: int = N_BINS
) -> list[dict[str, float]]:
    """Sort what was said into bins of equal width, and see how often it came true in each."""
    said, came = _confidences(task, y_true, scores)
    bins = np.clip((said * n_bins).astype(int), 0, n_bins - 1)
    return [
        {
            "low": float(i / n_bins),
            "high": float((i + 1) / n_bins),
            "n": int((bins == i).sum()),
            "said": float(said[bins == i].mean()),
            "true": float(came[bins == i].mean()),
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
    """Return the calibration error that these probabilities would show if each of them were exact.

    The error of a small test part is never 0; this is how much of it chance alone explains (the consistency
    resampling of Bröcker and Smith 2007).
    """
    said, _ = _confidences(task, np.zeros(np.shape(scores)[: 1 if task.kind == "single" else 2]), scores)
    bins = np.clip((said * n_bins).astype(int), 0, n_bins - 1)
    random = np.random.default_rng(seed)
    total = np.bincount(bins, weights=said, minlength=n_bins)
    gaps = []
    for _ in range(n_draws):
        came = np.bincount(bins, weights=random.random(len(said)) < said, minlength=n_bins)
        gaps.append(np.abs(total - came).sum() / len(said))
    return float(np.mean(gaps)), float(np.quantile(gaps, 0.95))
