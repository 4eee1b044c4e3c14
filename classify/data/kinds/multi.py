"""Multi-label tasks: any number of classes an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.kinds.base import Floats, TaskKind, finite


class Multi(TaskKind):
    """Any number of classes an image."""

    name = "multi"
    independent = True

    def targets(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return 0 and 1, uint8 (n, n_classes)."""
        return values

    @staticmethod
    def mapped(values: NDArray[Any], places: NDArray[np.int64], n_classes: int) -> NDArray[Any]:
        """Give a new class to an image that has any of its old ones; a row of 255, without labels, stays so."""
        columns = [values[:, places == k].max(axis=1, initial=0) for k in range(n_classes)]
        found = np.stack(columns, axis=1)
        found[(values == 255).any(axis=1)] = 255
        return found

    def decide(self, scores: NDArray[Any], thresholds: Sequence[float] | None = None) -> NDArray[Any]:
        """Return 0 and 1, at one half or at a threshold for each label."""
        return (np.asarray(scores) >= np.asarray(thresholds if thresholds else 0.5)).astype(np.uint8)

    @staticmethod
    def strata(y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the rarest label of each image."""
        rarity = np.argsort(np.argsort(y.sum(axis=0)))
        ranked = np.where(y > 0, rarity, y.shape[1])
        return ranked.min(axis=1).astype(np.int64)

    def confidence(self, scores: NDArray[Any]) -> Floats:
        """Return the probability of every label: (n * n_classes,)."""
        return np.asarray(scores, dtype=np.float64).ravel()

    def observed(self, y: NDArray[Any], scores: NDArray[Any]) -> NDArray[np.bool_]:
        """Return every label: (n * n_classes,)."""
        return np.asarray(y).astype(bool).ravel()

    def draw(self, probabilities: Floats, random: np.random.Generator) -> NDArray[Any]:
        """Draw each label by itself."""
        return (random.random(probabilities.shape) < probabilities).astype(np.uint8)

    def read_truth(self, cells: Sequence[Sequence[str]]) -> NDArray[Any]:
        """Return 0 and 1, uint8."""
        given = finite(cells)
        if not np.isin(given, (0, 1)).all():
            raise ValueError("it holds a label that is neither 0 nor 1")
        return given.astype(np.uint8)
