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
from features_store.schema import Task

__all__ = ["METHODS", "Calibration", "calibration_error", "expected_error", "fit_calibration", "reliability"]

Method = Literal["temperature", "isotonic"]
METHODS: tuple[Method, ...] = ("temperature", "isotonic")
N_BINS = 10
MIN_IMAGES = 20  # on fewer, a fit says more about them than about the head
_TINY = 1e-7
_RANGE = (0.05, 20.0)  # a temperature beyond these means that the validation part can't tell

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """A map from a head's probabilities to calibrated ones.

    Parameters
    ----------
    method : {"temperature", "isotonic"}
    kind : {"single", "multi"}
        Of the task.
    temperature : float or None
        Divides the logits; above 1 the head was too sure of itself.
    curves : tuple of (tuple of float, tuple of float)
        isotonic: for each class the knots, probability and what became of it.
    n_images : int
        Validation images that it was fitted on.
    """

    method: Method
    kind: str
    temperature: float | None
    curves: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    n_images: int

    def apply(self, scores: NDArray[Any]) -> Floats:
        """Return calibrated probabilities, (n_images, n_classes) as *scores*; rows of a single-label task sum to 1."""
        given = np.asarray(scores, dtype=np.float64)
        if self.temperature is not None:
            return _tempered(given, self.temperature, single=self.kind == "single")
        mapped = np.column_stack([np.interp(given[:, k], x, y) for k, (x, y) in enumerate(self.curves)])
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
            "fitted_on": "validation",
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Take back what `as_json` gave.

        Raises
        ------
        ConfigError
            The values aren't a calibration.
        """
        try:
            temperature = None if values["temperature"] is None else float(values["temperature"])
            curves = tuple((tuple(map(float, x)), tuple(map(float, y))) for x, y in values["curves"])
            whole = (temperature is None) == (values["method"] == "isotonic")
            if values["method"] in METHODS and values["kind"] in ("single", "multi") and whole:
                return cls(values["method"], values["kind"], temperature, curves, int(values["n_images"]))
        except (KeyError, TypeError, ValueError) as error:
            message = f"these values aren't a calibration: {error!r}"
            raise ConfigError(message) from error
        message = f"these values aren't a calibration: method {values['method']!r} of kind {values['kind']!r}"
        raise ConfigError(message)


def _tempered(given: Floats, temperature: float, *, single: bool) -> Floats:
    if single:
        logits = np.log(np.clip(given, _TINY, 1.0)) / temperature
        grown = np.exp(logits - logits.max(axis=1, keepdims=True))
        tempered: Floats = grown / grown.sum(axis=1, keepdims=True)
        return tempered
    clipped = np.clip(given, _TINY, 1 - _TINY)
    squeezed: Floats = 1 / (1 + np.exp(-(np.log(clipped) - np.log1p(-clipped)) / temperature))
    return squeezed


def fit_calibration(
    task: Task, y_true: NDArray[Any], scores: NDArray[Any], *, method: Method = "temperature"
) -> Calibration | None:
    """Fit a calibration on the validation part.

    Temperature scaling (Guo et al. 2017, section 4.2) has one parameter, found by the lowest log loss; for a
    multi-label task the logit of each label is divided by it. Isotonic regression (Zadrozny and Elkan 2002) bends each
    class's probabilities freely, and wants a thousand images or more.

    Parameters
    ----------
    task : Task
    y_true, scores : ndarray
        Truth and the head's probabilities on the validation part.
    method : {"temperature", "isotonic"}

    Returns
    -------
    Calibration or None
        None where the part can't tell: under 20 images, no mistake among them, or a temperature at an end of its range.

    Raises
    ------
    TaskError
        The task is a regression.
    """
    if task.kind == "regression":
        message = f"task {task.name!r} is a regression: it has no probabilities to calibrate"
        raise TaskError(message)
    scores = np.asarray(scores, dtype=np.float64)
    truth = _indicators(task, y_true)
    if len(truth) < MIN_IMAGES:
        return None
    if method == "isotonic":
        return Calibration("isotonic", task.kind, None, _isotonic(truth, scores), len(truth))
    said, came = _confidences(task, y_true, scores)
    if ((said >= 0.5) == came).all() if task.kind == "multi" else came.all():
        return None  # without a mistake, the surer the better, without end
    temperature = _best_temperature(truth, scores, single=task.kind == "single")
    if not 1.01 * _RANGE[0] < temperature < 0.99 * _RANGE[1]:
        return None
    return Calibration("temperature", task.kind, temperature, (), len(truth))


def _indicators(task: Task, y_true: NDArray[Any]) -> NDArray[np.bool_]:
    truth = np.asarray(y_true)
    return truth[:, None] == np.arange(len(task.classes)) if task.kind == "single" else truth.astype(bool)


def _best_temperature(truth: NDArray[np.bool_], scores: Floats, *, single: bool) -> float:
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        said = np.clip(_tempered(scores, float(np.exp(log_temperature)), single=single), _TINY**2, 1.0)
        if single:
            return float(-np.log(said[truth]).mean())
        return float(-np.where(truth, np.log(said), np.log1p(-np.minimum(said, 1 - _TINY))).mean())

    bounds = tuple(np.log(_RANGE))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def _isotonic(truth: NDArray[np.bool_], scores: Floats) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]:
    from sklearn.isotonic import IsotonicRegression

    curves = []
    for k in range(scores.shape[1]):
        fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores[:, k], truth[:, k])
        curves.append((tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist())))
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
    """Sort what was said into bins of equal width, and see how often it came true in each.

    Parameters
    ----------
    task : Task
        single: the probability of the decided class is what counts; multi: that of every label of every image.
    y_true, scores : ndarray
    n_bins : int

    Returns
    -------
    list of dict
        ``low``, ``high`` (ends of the bin), ``n``, ``said`` (mean probability), ``true`` (share that came true), for
        the bins that hold something.
    """
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


def expected_error(
    task: Task, scores: NDArray[Any], *, n_bins: int = N_BINS, n_draws: int = 200, seed: int = 0
) -> float:
    """Return the calibration error that these probabilities would show, on average, if each of them were exact.

    The error of a small test part is never 0; this is how much of it chance alone explains (the consistency
    resampling of Bröcker and Smith 2007).

    Parameters
    ----------
    task : Task
    scores : ndarray
    n_bins, n_draws, seed : int

    Returns
    -------
    float
    """
    said, _ = _confidences(task, np.zeros(np.shape(scores)[: 1 if task.kind == "single" else 2]), scores)
    bins = np.clip((said * n_bins).astype(int), 0, n_bins - 1)
    random = np.random.default_rng(seed)
    total = np.bincount(bins, weights=said, minlength=n_bins)
    gaps = []
    for _ in range(n_draws):
        came = np.bincount(bins, weights=random.random(len(said)) < said, minlength=n_bins)
        gaps.append(np.abs(total - came).sum() / len(said))
    return float(np.mean(gaps))
