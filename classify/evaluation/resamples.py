"""A head's metrics on all images and on each bootstrap resample: what intervals and comparisons are made of."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from classify.evaluation.metrics import mean_over_classes, metrics_of, relative_errors, resampled_columns
from features_store.schema import Task

__all__ = ["Spread", "draws", "units_of"]

Floats = NDArray[np.float64]
_CHUNK = 4_000_000  # weights held at once, 32 MB
_QUICK = 20_000_000  # fewer weights than these take about a second, and need no progress bar


@dataclass(frozen=True)
class Spread:
    """The metrics of one head, and what they are on each resample of the images, or of the groups they come in.

    Parameters
    ----------
    values : mapping of str to float
        On all images; NaN where undefined.
    by_class : mapping of str to (ndarray of shape (n_classes,), ndarray of shape (n_resamples, n_classes))
        The same of each class, for the metrics that are means over classes.
    studentized : mapping of str to (float, ndarray of shape (n_resamples,))
        Of the metrics that are means of something positive: the standard error of the logarithm, and for each resample
        how many of its own standard errors its logarithm lies from that of all images.
    answers : ndarray
        What the head said: probabilities or values.
    units : ndarray of shape (n_images,), int64
        The unit that each image is drawn with.
    grouped : bool
        Whether units are groups, rather than images.
    class_units : ndarray of shape (n_classes,), int64
        Units with an image of each class; empty for a regression.
    """

    task: Task
    values: Mapping[str, float]
    resampled: Mapping[str, Floats]
    by_class: Mapping[str, tuple[Floats, Floats]]
    studentized: Mapping[str, tuple[float, Floats]]
    answers: Floats
    units: NDArray[np.int64]
    grouped: bool
    class_units: NDArray[np.int64]

    @property
    def n_units(self) -> int:
        """Independent units: groups, or images where there are none."""
        return int(self.units.max()) + 1

    @classmethod
    def of(
        cls,
        task: Task,
        y_true: NDArray[Any],
        scores: NDArray[Any],
        groups: NDArray[np.int64] | None = None,
        *,
        n_resamples: int = 1000,
        seed: int = 0,
    ) -> Spread:
        """Score a head on all images and on each resample; equal seeds draw equal resamples.

        Shapes: groups (n_images,) int64.
        """
        y_true, scores = np.asarray(y_true), np.asarray(scores, dtype=np.float64)
        units = np.arange(len(y_true)) if groups is None else units_of(groups)
        n_units = int(units.max(initial=-1)) + 1
        of_images = None if n_units == len(units) else units
        if of_images is None:
            units = np.arange(n_units)
        whole = resampled_columns(task, y_true, scores, np.ones((1, len(y_true))))
        logs = relative_errors(task, y_true, scores, np.ones((1, n_units)), units=of_images)
        chunks, far = [], []
        with tqdm(total=n_resamples, desc="intervals", leave=False, disable=n_units * n_resamples < _QUICK) as bar:
            for weights in draws(n_units, n_resamples, seed=seed):
                chunks.append(resampled_columns(task, y_true, scores, weights, units=of_images))
                drawn_logs = relative_errors(task, y_true, scores, weights, units=of_images)
                with np.errstate(divide="ignore", invalid="ignore"):
                    far.append({name: (log - logs[name][0]) / error for name, (log, error) in drawn_logs.items()})
                bar.update(len(weights))
        every = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in whole}
        averaged = [name for name, metric in metrics_of(task).items() if metric.averaged]
        by_class = {name: (whole[name][0], every[name]) for name in averaged}
        for found in (whole, every):
            found.update({name: mean_over_classes(found[name]) for name in averaged})
        values = {name: float(value[0]) for name, value in whole.items()}
        grouped = groups is not None and n_units < len(units)
        studentized = {
            name: (float(error[0]), np.concatenate([one[name] for one in far])) for name, (_, error) in logs.items()
        }
        return cls(
            task, values, every, by_class, studentized, scores, units, grouped, _class_units(task, y_true, units)
        )


def _class_units(task: Task, y_true: NDArray[Any], units: NDArray[np.int64]) -> NDArray[np.int64]:
    if task.kind == "regression":
        return np.zeros(0, dtype=np.int64)
    if task.kind == "single":
        images = [y_true == k for k in range(len(task.classes))]
    else:
        images = [y_true[:, k] > 0 for k in range(len(task.classes))]
    return np.array([len(np.unique(units[of_class])) for of_class in images])


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


@functools.lru_cache(maxsize=4)
def _drawn_once(n_units: int, n_resamples: int, seed: int) -> Floats:
    """The same for a head and each baseline beside it."""
    weights = _draw(np.random.default_rng(seed), n_resamples, n_units)
    weights.flags.writeable = False
    return weights


def _draw(random: np.random.Generator, n_resamples: int, n_units: int) -> Floats:
    weights = np.empty((n_resamples, n_units))
    for row in weights:  # one at a time: the counts of one resample fit the cache, those of many don't
        row[:] = np.bincount(random.integers(n_units, size=n_units), minlength=n_units)
    return weights


def units_of(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups from 0; an image that is alone is a group of its own.

    Shapes: groups (n_images,) int64; returns (n_images,) int64.
    """
    groups = np.array(groups, dtype=np.int64)
    alone = groups < 0
    groups[alone] = groups.max(initial=-1) + 1 + np.arange(alone.sum())
    return np.unique(groups, return_inverse=True)[1]
