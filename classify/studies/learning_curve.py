"""The learning curve of a run that lies on disk: its head fitted again on fewer training images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from classify.config import load_config
from classify.data.kinds import kind_of
from classify.data.tasks import Part, TaskRows
from classify.errors import ConfigError, RunError, TaskError
from classify.evaluation.bootstrap import bootstrap, units_of
from classify.evaluation.metrics import primary_metric
from classify.runs.folder import CONFIG, Run
from classify.runs.identity import check_same_data
from classify.runs.layout import lay_out, unfitted_head
from classify.runs.train import fit_head, head_scores
from features_store.schema import Task

__all__ = ["CURVE", "CurveConfig", "curve_of", "growing_subsets"]

CURVE = "curve.json"
SMALLEST = 20  # training images of the first point, at least
Fit = Callable[[NDArray[np.int64], int], NDArray[np.float64]]


@dataclass(frozen=True)
class CurveConfig:
    """How finely to look.

    Parameters
    ----------
    n_points : int
        Sizes of the training part, from 2 up.
    n_repeats : int
        Orders in which images are added, from 1 up.
    """

    n_points: int = 6
    n_repeats: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n_points", 2), ("n_repeats", 1)):
            if getattr(self, name) < least:
                message = f"{name} is {getattr(self, name)}; a learning curve takes at least {least}"
                raise ConfigError(message)


def curve_of(run: Run, config: CurveConfig | None = None) -> dict[str, Any]:
    """Fit the head of a run on growing parts of its training images.

    Raises RunError.
    """
    config = config or CurveConfig()
    asked = load_config(run.folder / CONFIG)
    if asked.tested or run.report.transfer:
        message = f"{run.folder} tests a head that was fitted elsewhere, so it has no learning curve"
        raise RunError(message)
    layout = lay_out(replace(asked, allow_split_groups=True))  # the run was scored on it already
    data = layout.data
    check_same_data(run, asked, layout.store, layout.blocks, data)
    scored = "test" if "test" in data.parts else "validation"

    def fit(chosen: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
        parts = {**data.parts, "train": _some(data.parts["train"], chosen)}
        fewer = replace(layout, data=replace(data, parts=parts))
        head = unfitted_head(replace(asked, seed=asked.seed + seed), fewer)
        heads, _, caught = fit_head(head, fewer, refit=asked.refit)
        noted.update(dict.fromkeys(f"with {len(chosen)} training images: {text}" for text in caught))
        return head_scores(heads[scored], data.task, layout.matrices[scored])

    noted: dict[str, None] = {}
    points = _points(data, fit, n_points=config.n_points, n_repeats=config.n_repeats, seed=config.seed)
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "metric": primary_metric(data.task),
        "part": scored,
        "n_repeats": config.n_repeats,
        "points": points,
        "warnings": [*([data.crossing.words()] if data.crossing else []), *noted],
    }


def _some(part: Part, chosen: NDArray[np.int64]) -> Part:
    """The part with some of its images only."""
    groups = None if part.groups is None else part.groups[chosen]
    return Part(part.name, part.rows[chosen], part.y[chosen], part.ids[chosen], groups)


def _points(
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
