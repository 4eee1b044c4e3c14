"""What guessing scores: answers drawn at random from the training labels, many times over."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.evaluation.intervals import LEVEL, Interval
from classify.evaluation.metrics import find_metric, metrics
from features_store.schema import Task

__all__ = ["chance"]

N_DRAWS = 200


def chance(
    task: Task, y_train: NDArray[Any], y_true: NDArray[Any], *, n_draws: int = N_DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Score guesses: the label of a training image drawn at random, for each image anew."""
    random = np.random.default_rng(seed)
    draws = [_scored(task, y_true, y_train[random.integers(len(y_train), size=len(y_true))]) for _ in range(n_draws)]
    return {name: _interval([draw[name] for draw in draws]) for name in draws[0]}


def _scored(task: Task, y_true: NDArray[Any], guess: NDArray[Any]) -> dict[str, float]:
    said = np.eye(len(task.classes))[guess] if task.kind == "single" else guess.astype(np.float64)
    found = metrics(task, y_true, said)
    return {name: np.nan if find_metric(name).needs_probabilities else value for name, value in found.items()}


def _interval(values: list[float]) -> Interval:
    known = np.array(values)[~np.isnan(values)]
    if not len(known):
        return Interval(np.nan, np.nan, np.nan)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(known.mean()), float(low), float(high))
