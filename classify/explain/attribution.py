"""Attribution on vectors: Shapley values of blocks, the contribution of single features, the gradient of the head.

All are in log-odds of one class (of a regression, in units of its value), relative to the mean training image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.kinds import kind_of
from classify.data.standardizer import Standardizer
from classify.inference.model import Model
from classify.runs.folder import Run
from classify.runs.layout import lay_out
from features_store.schema import Task

Floats = NDArray[np.float64]
Vector = NDArray[np.float32]
Logits = Callable[[Vector], Floats]  # (n, n_features) to (n,)
MAX_SUBSETS = 10  # blocks of which every subset is evaluated: 1,024
_CHUNK_VALUES = 2**22  # of vectors held at once


@dataclass(frozen=True)
class Target:
    """The class or output of a task that is explained."""

    task: Task
    column: int  # its place among the classes
    sign: float = 1.0  # -1 for a value below that of the mean image, so that what draws it from the mean is positive

    @property
    def name(self) -> str:
        """Name of the class or output."""
        return self.task.classes[self.column]

    def logits(self, scores: NDArray[Any]) -> Floats:
        """Return log-odds of the class, or the value times `sign`: (n_images, n_classes) to (n_images,)."""
        return self.sign * kind_of(self.task).logits(np.asarray(scores)[:, self.column])


def choose_target(task: Task, scores: Floats, centre: Floats) -> Target:
    """Return the most probable class; of a regression the first output.

    Shapes: scores, centre (n_classes,), of the image and of the mean training image.
    """
    has_classes = kind_of(task).has_classes
    column = int(scores.argmax()) if has_classes else 0
    return Target(task, column, -1.0 if not has_classes and scores[column] < centre[column] else 1.0)


def training_mean(model: Model, run: Run) -> Vector:
    """Return the mean vector of the training images, (n_features,): the head's own, else that of the store."""
    standardizer = getattr(model.head, "standardizer_", None)
    if standardizer is not None and np.any(standardizer.mean):
        return np.asarray(standardizer.mean, dtype=np.float32)
    config = replace(run.config, allow_split_groups=True)  # nothing is scored
    return Standardizer.fit(lay_out(config).matrices["train"], standardize=True).mean


def block_values(logits: Logits, vector: Vector, centre: Vector, columns: Mapping[str, slice]) -> dict[str, float]:
    """Return the Shapley value (1953) of each block; they sum to the logit of the image less that of the mean image.

    With more than 10 blocks, what the logit loses when the block alone is set to the mean.

    Shapes: vector, centre (n_features,).
    """
    names, n = list(columns), len(columns)
    if n > MAX_SUBSETS:
        without = _mixed(logits, vector, centre, [[c for b, c in columns.items() if b != name] for name in names])
        return dict(zip(names, (logits(vector[None])[0] - without).tolist(), strict=True))
    subsets = [s for size in range(n + 1) for s in itertools.combinations(range(n), size)]
    found = _mixed(logits, vector, centre, [[columns[names[i]] for i in subset] for subset in subsets])
    value = dict(zip(subsets, found.tolist(), strict=True))
    return {
        name: sum(
            (value[tuple(sorted((*subset, i)))] - value[subset]) / (n * math.comb(n - 1, len(subset)))
            for subset in subsets
            if i not in subset
        )
        for i, name in enumerate(names)
    }


def block_shares(values: Mapping[str, float]) -> dict[str, float]:
    """Return each block's share of what speaks for a decision, from 0 to 1; 0 for blocks that speak against it."""
    positive = {name: max(value, 0.0) for name, value in values.items()}
    total = sum(positive.values())
    return {name: value / total if total else 0.0 for name, value in positive.items()}


def _mixed(logits: Logits, vector: Vector, centre: Vector, kept: Sequence[Sequence[slice]]) -> Floats:
    """Return the logits of mixtures: some columns of the image, the rest of the mean image."""
    rows = np.repeat(centre[None], len(kept), axis=0)
    for row, slices in zip(rows, kept, strict=True):
        for columns in slices:
            row[columns] = vector[columns]
    return logits(rows)


def feature_values(logits: Logits, vector: Vector, centre: Vector, columns: slice) -> Floats:
    """Return what the logit loses when each feature of a block alone is set to the mean, (n_block_features,)."""
    without = []
    size = max(1, _CHUNK_VALUES // len(vector))
    for start in range(columns.start, columns.stop, size):
        some = np.arange(start, min(start + size, columns.stop))
        rows = np.repeat(vector[None], len(some), axis=0)
        rows[np.arange(len(some)), some] = centre[some]
        without.append(logits(rows))
    return logits(vector[None])[0] - np.concatenate(without)


def gradient(model: Model, vector: Vector, target: Target) -> Vector | None:
    """Return the gradient of the target's logit, (n_features,); None for heads without one (trees, constants)."""
    classes = getattr(model.head, "classes_", np.arange(len(target.task.classes)))
    places = np.flatnonzero(classes == target.column)
    slope = model.head.gradient(vector, int(places[0])) if len(places) else None
    return None if slope is None else np.asarray(target.sign * slope, dtype=np.float32)
