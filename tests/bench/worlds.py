"""Worlds of which the truth is known: heads of fixed quality on images without end, alone or five to a group.

Labels follow from normal numbers, and what a head says from the label and more of them; with groups, half of the
variance of each is shared by the five images of a group. What a head would reach on endlessly many images is read off
200,000.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from features_store import Task

GROUP = 5
SHARED = 0.5
ENDLESS = 200_000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """One kind of task, and a head on it.

    Parameters
    ----------
    task : Task
    shares : tuple of float
        Of the classes, or of the images that have each label; () for a regression.
    signal : float
        How much the head knows; 0 = nothing.
    """

    task: Task
    shares: tuple[float, ...] = ()
    signal: float = 1.0

    def draw(self, n: int, seed: int, *, grouped: bool) -> tuple[NDArray, Floats, NDArray[np.int64] | None]:
        """Return the truth and the head's answers on *n* images, and their groups."""
        random = np.random.default_rng(seed)
        n_groups = -(-n // GROUP)
        width = len(self.task.classes)

        def normal(k: int) -> Floats:
            own = random.normal(size=(n, k))
            if not grouped:
                return own
            of_group = np.repeat(random.normal(size=(n_groups, k)), GROUP, axis=0)[:n]
            return np.sqrt(SHARED) * of_group + np.sqrt(1 - SHARED) * own

        truth, score = getattr(self, f"_{self.task.kind}")(normal, width)
        return truth, score, np.repeat(np.arange(n_groups), GROUP)[:n] if grouped else None

    def _single(self, normal, width):
        truth = np.searchsorted(np.cumsum(self.shares)[:-1], ndtr(normal(1)[:, 0])).astype(np.int64)
        logits = np.log(self.shares) + self.signal * np.eye(width)[truth] + normal(width)
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return truth, raised / raised.sum(axis=1, keepdims=True)

    def _multi(self, normal, width):
        shares = np.array(self.shares)
        truth = (ndtr(normal(width)) < shares).astype(np.uint8)
        logits = np.log(shares / (1 - shares)) + self.signal * (truth - shares) + normal(width)
        return truth, 1 / (1 + np.exp(-logits))

    def _regression(self, normal, width):
        if self.task.name == "shares":  # seven shares that add up to 1
            hidden = normal(width)
            said = 0.6 * self.signal * hidden + 0.5 * normal(width)
            truth, score = (np.exp(a) / np.exp(a).sum(axis=1, keepdims=True) for a in (hidden, said))
            return truth, score
        hidden = 0.4 * normal(width)
        score = 0.6 * self.signal * hidden + 0.2 * normal(width)
        truth = np.tanh(hidden)
        return (truth[:, 0], score[:, 0]) if width == 1 else (truth, score)


def _classes(n: int) -> tuple[str, ...]:
    return tuple(f"c{i}" for i in range(n))


def _zipf(n: int) -> tuple[float, ...]:
    raw = 1 / np.arange(1, n + 1)
    return tuple((raw / raw.sum()).tolist())


NOVELTY_WORLDS = {
    "6 columns": (6, 1),
    "20 columns": (20, 1),
    "400 columns": (400, 1),
    "3 blocks of 60": (60, 3),
}


def vectors(width: int, seed: int) -> Callable[[int], NDArray[np.float32]]:
    """Return a source of Gaussian rows: eight strong directions, and noise, in columns of all sizes and places."""
    random = np.random.default_rng(seed)
    weights, size = random.normal(size=(8, width)), 10 ** random.uniform(-2, 2, width)
    place = random.normal(size=width) * size * 3

    def draw(n: int) -> NDArray[np.float32]:
        rows = random.normal(size=(n, 8)) @ weights + random.normal(size=(n, width))
        return (rows * size + place).astype(np.float32)

    return draw


WORLDS: dict[str, World] = {
    "3 classes": World(Task("bal3", "single", _classes(3)), (1 / 3, 1 / 3, 1 / 3), 2.0),
    "3 skewed": World(Task("skew3", "single", _classes(3)), (0.1, 0.22, 0.68), 2.0),
    "28 classes": World(Task("zipf28", "single", _classes(28)), _zipf(28), 2.5),
    "3 labels": World(Task("multi3", "multi", _classes(3)), (0.45, 0.35, 0.25), 2.0),
    "28 labels": World(Task("multi28", "multi", _classes(28)), tuple(np.geomspace(0.5, 0.01, 28).tolist()), 2.5),
    "valence": World(Task("valence", "regression", ("valence",), (-1.0, 1.0))),
    "shares": World(Task("shares", "regression", _classes(7), (0.0, 1.0))),
}


@functools.cache
def endless(name: str) -> tuple[dict[str, float], dict[str, Floats]]:
    """Return what a world's head reaches on endlessly many images: by metric, and by class for means over them."""
    from classify.evaluation.metrics import mean_over_classes, metrics_of, resampled_columns

    world = WORLDS[name]
    truth, score, _ = world.draw(ENDLESS, 987_654_321, grouped=False)
    found = resampled_columns(world.task, truth, score, np.ones((1, len(score))))
    averaged = {metric for metric, record in metrics_of(world.task).items() if record.averaged}
    values = {
        metric: float((mean_over_classes(found[metric]) if metric in averaged else found[metric])[0])
        for metric in found
    }
    return values, {metric: found[metric][0] for metric in averaged}
