"""Temperature scaling: the log loss of probabilities by their temperature, and what it says of the temperature."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from classify.evaluation.resamples import units_of

__all__ = ["RANGE", "Temperature", "tempered"]

RANGE = (0.05, 20.0)  # a temperature beyond these means that the validation part can't tell
_CHI_SQUARE = 3.841458820694124  # exceeded by chance in 5 of 100, one degree of freedom
_TINY = 1e-7

Floats = NDArray[np.float64]


class Temperature:
    """The log loss of probabilities by their temperature, and what it says of the temperature."""

    def __init__(
        self, truth: NDArray[np.bool_], scores: Floats, *, single: bool, groups: NDArray[np.int64] | None
    ) -> None:
        self.truth, self.scores, self.single = truth, scores, single
        self.units = np.arange(len(truth)) if groups is None else units_of(groups)

    def losses(self, log_temperature: float) -> Floats:
        """Return the log loss of each image."""
        said = np.clip(tempered(self.scores, float(np.exp(log_temperature)), single=self.single), _TINY**2, 1.0)
        if self.single:
            return -np.log(said[self.truth])
        of_label = np.where(self.truth, np.log(said), np.log1p(-np.minimum(said, 1 - _TINY)))
        found: Floats = -of_label.sum(axis=1)
        return found

    def best(self) -> float:
        """Return the temperature of the lowest loss."""
        from scipy.optimize import minimize_scalar

        bounds, options = tuple(np.log(RANGE)), {"xatol": 1e-6}
        loss = lambda x: float(self.losses(x).mean())  # noqa: E731
        return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options=options).x))

    def interval(self, temperature: float) -> tuple[float, float]:
        """Return the temperatures that the likelihood doesn't tell from the best one at 95%."""
        from scipy.optimize import brentq

        middle, least = float(np.log(temperature)), float(self.losses(np.log(temperature)).sum())
        share = self._independent(middle)
        rise = lambda x: 2 * share * (float(self.losses(x).sum()) - least) - _CHI_SQUARE  # noqa: E731
        ends = []
        for bound in np.log(RANGE):
            ends.append(float(brentq(rise, middle, bound, xtol=1e-6)) if rise(bound) > 0 else float(bound))
        return float(np.exp(ends[0])), float(np.exp(ends[1]))

    def _independent(self, middle: float) -> float:
        """Return by how much the likelihood must count less, because labels of an image and images of a group agree.

        The curvature of the loss over the variance of its slope (Kent 1982); 1 where everything is independent.
        """
        if self.single and len(np.unique(self.units)) == len(self.units):
            return 1.0
        step = 1e-3
        below, here, above = (self.losses(middle + shift) for shift in (-step, 0.0, step))
        slopes = np.bincount(self.units, weights=(above - below) / (2 * step))
        curvature = float((above - 2 * here + below).sum()) / step**2
        return float(np.clip(curvature / max(float(slopes @ slopes), 1e-12), 0.0, 1.0))


def tempered(given: Floats, temperature: float, *, single: bool) -> Floats:
    """Divide the logits of probabilities (n_images, n_classes): of the classes together, or of each label."""
    if single:
        logits = np.log(np.clip(given, _TINY, 1.0)) / temperature
        grown = np.exp(logits - logits.max(axis=1, keepdims=True))
        tempered: Floats = grown / grown.sum(axis=1, keepdims=True)
        return tempered
    clipped = np.clip(given, _TINY, 1 - _TINY)
    squeezed: Floats = 1 / (1 + np.exp(-(np.log(clipped) - np.log1p(-clipped)) / temperature))
    return squeezed
