"""The learning curve of a run: its head fitted again on fewer training images, scored on the same test images."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from classify.data.folds import units_of
from classify.data.kinds import kind_of
from classify.errors import ConfigError, TaskError
from classify.evaluation.bootstrap import Interval, bootstrap
from classify.evaluation.metrics import primary_metric
from classify.runs.folder import Run
from classify.runs.identity import lay_out_again
from classify.runs.layout import unfitted_head
from classify.runs.train import fit_head, head_scores
from features_store.errors import check_seed
from features_store.schema import Task

SMALLEST = 20  # training images of the first point, at least
MOST = 1000  # sizes, and orders
_RESAMPLES = 300


def check_sizes(n_points: int, n_repeats: int) -> None:
    """Refuse too few or too many sizes of the training part, or orders in which images are added."""
    for name, value, least in (("n_points", n_points, 2), ("n_repeats", n_repeats, 1)):
        if not least <= value <= MOST:
            raise ConfigError(f"{name} is {value}; a learning curve takes at least {least}, and at most {MOST}")


def fit_learning_curve(run: Run, *, n_points: int = 6, n_repeats: int = 3, seed: int = 0) -> dict[str, Any]:
    """Fit the head of a run again on growing parts of its training images, added in *n_repeats* orders."""
    check_sizes(n_points, n_repeats)
    check_seed(seed)
    config, layout = lay_out_again(run)
    data = layout.data
    part, train = data.parts["test" if "test" in data.parts else "validation"], data.parts["train"]
    metric = primary_metric(data.task)
    warnings: dict[str, None] = {}
    found: dict[int, list[Interval]] = {}
    with tqdm(total=n_points * n_repeats, desc="learning curve", leave=False, disable=None, delay=2) as bar:
        for repeat in range(n_repeats):
            for chosen in growing_subsets(data.task, train.y, n_points, groups=train.groups, seed=seed + repeat):
                if len(chosen) == len(train) and repeat:
                    break  # all images in another order are the same images
                parts = {**data.parts, "train": train.some(chosen)}
                fewer = replace(layout, data=replace(data, parts=parts))
                head = unfitted_head(replace(config, seed=(config.seed + seed + repeat) % 2**32), fewer)
                heads, _, caught = fit_head(head, fewer, refit=config.refit)
                warnings.update(dict.fromkeys(f"with {len(chosen)} training images: {text}" for text in caught))
                scores = head_scores(heads[part.name], data.task, layout.matrices[part.name])
                options: dict[str, Any] = {"n_resamples": _RESAMPLES, "seed": seed, "part": part.name}
                interval = bootstrap(data.task, part.y, scores, groups=part.groups, **options)[metric]
                found.setdefault(len(chosen), []).append(interval)
                bar.update()
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "metric": metric,
        "part": part.name,
        "n_repeats": n_repeats,
        "points": [_point(n, found[n]) for n in sorted(found)],
        "warnings": [*([data.crossing.words()] if data.crossing else []), *warnings],
    }


def _point(n: int, repeats: list[Interval]) -> dict[str, float | None]:
    values, lows, highs = np.array([(one.value, one.low, one.high) for one in repeats]).T
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
    """
    n_images = len(y)
    if n_images < 2 * SMALLEST:
        raise TaskError(f"{n_images} training images are too few for a learning curve; it takes {2 * SMALLEST}")
    units = np.arange(n_images) if groups is None else units_of(groups)
    random = np.random.default_rng(seed)
    order = random.permutation(int(units.max()) + 1)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    members = [np.flatnonzero(has) for has in kind_of(task).indicators(y).T]
    rank[[int(min(units[rows], key=lambda unit: rank[unit])) for rows in members if len(rows)]] = -1
    placed = np.lexsort((np.arange(n_images), rank[units]))
    ends = np.flatnonzero(np.append(np.diff(units[placed]) != 0, True)) + 1
    sizes = np.geomspace(max(SMALLEST, n_images // 32), n_images, n_points)
    cuts = np.unique([ends[np.argmin(np.abs(ends - size))] for size in sizes])
    return [np.sort(placed[:cut]) for cut in cuts]
