"""The learning curve of a run: what its head would have scored with fewer training images, on the same test images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from classify.data.kinds import kind_of
from classify.data.tasks import TaskRows
from classify.errors import TaskError
from classify.evaluation.bootstrap import bootstrap, units_of
from classify.evaluation.metrics import primary_metric
from features_store.schema import Task

__all__ = ["growing_subsets", "learning_curve"]

Fit = Callable[[NDArray[np.int64], int], NDArray[np.float64]]
SMALLEST = 20  # training images of the first point, at least


def learning_curve(
    data: TaskRows,
    fit: Fit,
    *,
    n_points: int = 6,
    n_repeats: int = 3,
    seed: int = 0,
) -> list[dict[str, float | None]]:
    """Fit on growing parts of the training images, and score each on the part that the run is read off."""
    part = data.parts["test" if "test" in data.parts else "validation"]
    train, name = data.parts["train"], primary_metric(data.task)
    found: dict[int, list[tuple[float, float, float]]] = {}
    with tqdm(total=n_points * n_repeats, desc="learning curve", leave=False) as bar:
        for repeat in range(n_repeats):
            orders = growing_subsets(data.task, train.y, n_points, groups=train.groups, seed=seed + repeat)
            for chosen in orders:
                if len(chosen) == len(train) and repeat:
                    break  # all images in another order are the same images
                scores = fit(chosen, seed + repeat)
                options: dict[str, Any] = {"groups": part.groups, "n_resamples": 300, "seed": seed, "part": part.name}
                interval = bootstrap(data.task, part.y, scores, **options)[name]
                found.setdefault(len(chosen), []).append((interval.value, interval.low, interval.high))
                bar.update()
    return [_point(n, found[n]) for n in sorted(found)]


def _point(n: int, repeats: list[tuple[float, float, float]]) -> dict[str, float | None]:
    values, lows, highs = np.array(repeats).T
    return {
        "n": n,
        "value": float(values.mean()),
        "lowest": float(values.min()),
        "highest": float(values.max()),
        "low": float(lows.mean()) if np.isfinite(lows).all() else None,
        "high": float(highs.mean()) if np.isfinite(highs).all() else None,
    }


def growing_subsets(
    task: Task, y: NDArray[Any], n_points: int, *, groups: NDArray[np.int64] | None = None, seed: int = 0
) -> list[NDArray[np.int64]]:
    """Choose training images for each size; a smaller set lies in every larger one.

    Groups come whole. The first images are one of each class (or as near to it as groups allow), so that no set
    lacks a class that a larger one has.

    Shapes: groups (n_images,) int64.
    Raises TaskError.
    """
    n_images = len(y)
    if n_images < 2 * SMALLEST:
        raise TaskError(f"{n_images} training images are too few for a learning curve; it takes {2 * SMALLEST}")
    units = np.arange(n_images) if groups is None else units_of(groups)
    random = np.random.default_rng(seed)
    order = random.permutation(int(units.max()) + 1)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    rank[_one_of_each(task, y, units, rank)] = -1
    placed = np.lexsort((np.arange(n_images), rank[units]))
    ends = np.flatnonzero(np.append(np.diff(units[placed]) != 0, True)) + 1
    sizes = np.geomspace(max(SMALLEST, n_images // 32), n_images, n_points)
    cuts = np.unique([ends[np.argmin(np.abs(ends - size))] for size in sizes])
    return [np.sort(placed[:cut]) for cut in cuts]


def _one_of_each(task: Task, y: NDArray[Any], units: NDArray[np.int64], rank: NDArray[np.int64]) -> list[int]:
    """Return the first group in the random order that holds each class."""
    members = [np.flatnonzero(has) for has in kind_of(task).indicators(y).T]
    return [int(min(units[m], key=lambda unit: rank[unit])) for m in members if len(m)]
