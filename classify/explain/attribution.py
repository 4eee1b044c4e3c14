"""What a decision rests on, seen from the vectors: the share of each block, the features that weigh, the gradient.

Everything is told in log-odds of one class (of a regression, in units of its value), against an image whose vectors are
the mean of the training images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.inference.model import Model
from classify.runs.folder import CONFIG, Run
from features_store.schema import Task

__all__ = ["Target", "block_parts", "centre_of", "choose_target", "feature_parts", "gradient", "shares_of"]

Floats = NDArray[np.float64]
Vector = NDArray[np.float32]
Worth = Callable[[Vector], Floats]
MAX_SUBSETS = 10  # blocks of which every subset is asked: 1,024
_CHUNK_VALUES = 2**22  # of vectors held at once
_TINY = 1e-12
_STEP = 0.02  # of a feature's deviation, for a difference


@dataclass(frozen=True)
class Target:
    """What is explained: one class or output of a model.

    Parameters
    ----------
    name : str
        Of the class or output.
    at : int
        Its place among the task's classes.
    kind : str
        Of the task.
    sign : {1, -1}
        regression: 1 where the value lies above that of the mean image, -1 where below; what draws it away is positive.
    """

    name: str
    at: int
    kind: str
    sign: float = 1.0

    def worth(self, scores: NDArray[Any]) -> Floats:
        """Return log-odds of the class, or the value, (n_images,), from (n_images, n_classes)."""
        found = np.asarray(scores, dtype=np.float64)[:, self.at]
        if self.kind == "regression":
            return self.sign * found
        bounded = np.clip(found, _TINY, 1 - _TINY)
        odds: Floats = np.log(bounded) - np.log1p(-bounded)
        return odds


def choose_target(task: Task, scores: Floats, centre: Floats, name: str | None = None) -> Target:
    """Return the target of one image: the named class, else the most probable; of a regression the first output.

    Shapes: scores, centre (n_classes,).
    """
    regression = task.kind == "regression"
    at = task.classes.index(name) if name else 0 if regression else int(scores.argmax())
    sign = -1.0 if regression and scores[at] < centre[at] else 1.0
    return Target(task.classes[at], at, task.kind, sign)


def centre_of(model: Model, run: Run) -> Vector:
    """Return the mean vector of the training images, (n_features,): the head's own, else that of the store.

    Raises AffectoryError.
    """
    standardizer = getattr(model.head, "standardizer_", None)
    if standardizer is not None and np.any(standardizer.mean):
        return np.asarray(standardizer.mean, dtype=np.float32)
    from classify.config import load_config
    from classify.data.standardizer import Standardizer
    from classify.runs.layout import lay_out

    config = replace(load_config(run.folder / CONFIG), allow_split_groups=True)  # nothing is scored
    rows = lay_out(config).matrices["train"]
    return Standardizer.fit(rows, standardize=True).mean


def block_parts(worth: Worth, vector: Vector, centre: Vector, columns: Mapping[str, slice]) -> dict[str, float]:
    """Return what each block adds to the worth of an image over that of the mean image.

    The Shapley values (1953) of the blocks: what a block adds to some of the others, averaged over all orders in which
    they can join; their sum is the whole difference. With more than 10 blocks, what the image loses without the block.

    Shapes: vector, centre (n_features,).
    """
    names, n = list(columns), len(columns)
    if n > MAX_SUBSETS:
        without = _mixed(worth, vector, centre, [[c for b, c in columns.items() if b != name] for name in names])
        whole = float(worth(vector[None])[0])
        return {name: whole - float(value) for name, value in zip(names, without, strict=True)}
    subsets = [s for size in range(n + 1) for s in itertools.combinations(range(n), size)]
    found = _mixed(worth, vector, centre, [[columns[names[i]] for i in subset] for subset in subsets])
    value = dict(zip(subsets, map(float, found), strict=True))
    parts = {}
    for i, name in enumerate(names):
        gains = [
            (value[tuple(sorted((*subset, i)))] - value[subset]) / (n * math.comb(n - 1, len(subset)))
            for subset in subsets
            if i not in subset
        ]
        parts[name] = float(sum(gains))
    return parts


def shares_of(parts: Mapping[str, float]) -> dict[str, float]:
    """Return each block's part of what speaks for a decision, from 0 to 1; 0 for blocks that speak against it."""
    positive = {name: max(value, 0.0) for name, value in parts.items()}
    total = sum(positive.values())
    return {name: value / total if total else 0.0 for name, value in positive.items()}


def _mixed(worth: Worth, vector: Vector, centre: Vector, kept: Sequence[Sequence[slice]]) -> Floats:
    """Return the worth of mixtures: some columns of the image, the rest of the mean image."""
    rows = np.repeat(centre[None], len(kept), axis=0)
    for row, slices in zip(rows, kept, strict=True):
        for columns in slices:
            row[columns] = vector[columns]
    return worth(rows)


def feature_parts(worth: Worth, vector: Vector, centre: Vector, columns: slice) -> Floats:
    """Return what the image loses with each feature of a block put to the training mean, (n_block_features,)."""
    places = np.arange(columns.start, columns.stop)
    lost = []
    for some in _chunks(places, len(vector)):
        rows = np.repeat(vector[None], len(some), axis=0)
        rows[np.arange(len(some)), some] = centre[some]
        lost.append(worth(rows))
    return worth(vector[None])[0] - np.concatenate(lost)


def _chunks(places: NDArray[np.int64], width: int) -> list[NDArray[np.int64]]:
    size = max(1, _CHUNK_VALUES // width)
    return [places[start : start + size] for start in range(0, len(places), size)]


def gradient(model: Model, vector: Vector, target: Target) -> Vector | None:
    """Return the slope of the target's worth at an image, (n_features,); None for heads that have none (trees).

    By backward differentiation where the head is a network, by central differences elsewhere.
    """
    head = model.head
    if hasattr(head, "boosters_"):
        return None
    if hasattr(head, "traced"):
        return _backward(model, vector, target)
    standardizer = getattr(head, "standardizer_", None)
    if standardizer is None:
        return np.zeros_like(vector)  # it looks at no feature
    step = _STEP * standardizer.scale
    slope = np.empty_like(vector)
    for some in _chunks(np.arange(len(vector)), 2 * len(vector)):
        rows = np.repeat(vector[None], 2 * len(some), axis=0)
        at = np.arange(len(some))
        rows[at, some] += step[some]
        rows[at + len(some), some] -= step[some]
        width = rows[at, some] - rows[at + len(some), some]  # as float32 has it
        above, below = np.split(target.worth(model.scores(rows)), 2)
        slope[some] = (above - below) / width
    return slope


def _backward(model: Model, vector: Vector, target: Target) -> Vector:
    import torch

    x = torch.from_numpy(vector[None].copy()).requires_grad_()
    said = model.head.traced(x)[0]
    if target.kind == "regression":
        worth = target.sign * said[target.at]
    else:
        at = int(np.flatnonzero(model.head.classes_ == target.at)[0])
        others = said.sum() - said[at] if target.kind == "single" else 1 - said[at]
        worth = said[at].clamp_min(_TINY).log() - others.clamp_min(_TINY).log()
    (found,) = torch.autograd.grad(worth, x)
    return np.asarray(found[0].numpy(), dtype=np.float32)
