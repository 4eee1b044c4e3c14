"""Which network pays: every subset of blocks by cross-validation, and what each block adds to the others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.config import RunConfig, user_path
from classify.data.folds import deal
from classify.data.tasks import choose_blocks, task_rows
from classify.errors import ConfigError
from classify.evaluation.baselines import constant_scores
from classify.evaluation.bootstrap import LEVEL, Spread, intervals
from classify.evaluation.comparison import difference
from classify.evaluation.metrics import find_metric, greater_is_better, metrics, primary_metric
from classify.evaluation.verdict import deals, movable
from classify.runs.record import plain
from classify.studies.subset_scores import PATHS, Images, Paths, Plan, Scores, Subset, path_scores
from features_store import open_store
from features_store.schema import Task

__all__ = ["AblationConfig", "ablate", "ablation_folder", "subsets_of"]

Step = tuple[float, NDArray[np.float64], int]  # a difference, what it is on resamples, and of how many units
MAX_BLOCKS = 6  # up to so many blocks every subset is tried: 63 of them
_BLIND_DEALS = 20  # of the answers of all blocks, which stand for knowing nothing


@dataclass(frozen=True)
class AblationConfig:
    """What to try.

    Parameters
    ----------
    head : str
        ``svm`` and ``ridge`` share their work over subsets; any other head of the table is fitted anew each time.
    blocks : tuple of str
        Empty: every block of vectors.
    split : str
        Its train and validation parts are dealt to folds; its test part is left alone.
    settings : mapping
        Options of the head. ``C`` of ``svm`` and ``alpha`` of ``ridge`` may be a list: each subset is shown with the
        value that is best on the folds, which is a choice by the very images that it is scored on.
    resamples : int
        Bootstrap resamples behind each interval.
    allow_split_groups : bool
        Whether the split may part groups although it was not published so.
    """

    store: str
    task: str
    head: str = "svm"
    blocks: tuple[str, ...] = ()
    split: str = "default"
    folds: int = 5
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    resamples: int = 1000
    allow_split_groups: bool = False

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ConfigError(f"folds is {self.folds}; an image can only be answered for by others with at least 2")
        if self.resamples < 20:
            raise ConfigError(f"resamples is {self.resamples}; an interval of 95% needs at least 20")


def ablation_folder(config: AblationConfig) -> Path:
    """Return where the runs of the task lie by default: ``runs/CORPUS/TASK``."""
    return RunConfig(config.store, config.task, "dummy").folder.parent


def ablate(
    config: AblationConfig,
    *,
    notify: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, Any]:
    """Score every subset of blocks on the same images and folds, and work out what each block adds.

    Raises AffectoryError.
    """
    path = user_path(config.store)
    store = open_store(path)
    blocks = choose_blocks(store, config.blocks)
    allow = config.allow_split_groups
    data = task_rows(store, config.task, split=config.split, blocks=blocks, allow_split_groups=allow)
    parts = [data.parts[name] for name in ("train", "validation") if name in data.parts]
    rows, y = np.concatenate([part.rows for part in parts]), np.concatenate([part.y for part in parts])
    groups = None if parts[0].groups is None else np.concatenate([part.groups for part in parts])
    folds = deal(data.task, y, groups=groups, n_folds=config.folds, seed=config.seed)
    images, subsets = Images(store, data.task, rows, y, folds, groups), subsets_of(blocks)
    if len(blocks) > MAX_BLOCKS:
        notify(
            f"{len(blocks)} blocks: each alone, all together and all but one; every subset is tried up to {MAX_BLOCKS}"
        )
    plan = Plan(config.head, config.settings, config.seed)
    paths = path_scores(images, subsets, plan, advance=_counted(progress, len(subsets) * config.folds))
    said, chosen = _best_of(paths, plan, images)
    spreads = _spreads(config, images, groups, said)
    constant = constant_scores(data.task, y, len(y))
    majority = Spread.of(data.task, y, constant, groups, n_resamples=config.resamples, seed=config.seed)
    metric = primary_metric(data.task)
    spreads[()] = _blind(config, images, groups, spreads[tuple(blocks)], majority, metric)
    return plain(
        {
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "corpus": RunConfig(config.store, config.task, "dummy").corpus,
            "task": data.task.name,
            "kind": data.task.kind,
            "classes": data.task.classes,
            "head": config.head,
            "settings": config.settings,
            "split": config.split,
            "crossing": data.crossing and {**data.crossing.as_json(), "words": data.crossing.words_on_folds()},
            "folds": config.folds,
            "seed": config.seed,
            "n_images": len(rows),
            "metric": metric,
            "greater_is_better": greater_is_better(metric),
            "interval": {"level": LEVEL, "resamples": config.resamples},
            "blocks": {name: store.block(name).n_features for name in blocks},
            "subsets": _ranked(config, spreads, metric, chosen),
            "n_tried": len(subsets) * len(plan.values),
            "path": {"option": PATHS[config.head], "values": plan.values} if len(plan.values) > 1 else None,
            "baseline": _metrics(config, majority),
            "blind": spreads[()].values[metric],
            "gains": {name: _gain(spreads, name, metric) for name in blocks},
            "pairs": _pairs(spreads, blocks, metric),
            "passports": {name: store.block(name).passport for name in blocks},
            "index_digest": store.index_digest,
        }
    )


def subsets_of(blocks: Sequence[str]) -> list[Subset]:
    """Return every subset of up to six blocks, by size; of more, each alone, all but one, and all."""
    n = len(blocks)
    sizes = range(1, n + 1) if n <= MAX_BLOCKS else (1, n - 1, n)
    return [subset for size in sizes for subset in itertools.combinations(blocks, size)]


def _counted(progress: Callable[[int, int], object], total: int) -> Callable[[int], object]:
    done = itertools.count(1)  # one step is atomic: threads may count at once
    return lambda n: [progress(next(done), total) for _ in range(n)]


def _best_of(paths: Paths, plan: Plan, images: Images) -> tuple[Scores, dict[Subset, Any]]:
    """Take for each subset the value of the path that scores best on the folds; the first, where some are equal."""
    values, metric = plan.values, primary_metric(images.task)
    sign = 1 if greater_is_better(metric) else -1
    said, chosen = {}, {}
    for subset, path in paths.items():
        at = 0
        if len(path) > 1:
            scores = [metrics(images.task, images.y, _shaped(images, one))[metric] for one in path]
            at = int(np.nanargmax([sign * score for score in scores])) if not np.isnan(scores).all() else 0
        said[subset], chosen[subset] = path[at], values[at]
    return said, chosen


def _shaped(images: Images, scores: np.ndarray) -> np.ndarray:
    """Return answers in the form of the targets: one column for one output of a regression."""
    return images.kind.shaped(scores)


def _spreads(config: AblationConfig, images: Images, groups: np.ndarray | None, said: Scores) -> dict[Subset, Spread]:
    task: Task = images.task
    spreads = {}
    for subset, scores in said.items():
        y_score = _shaped(images, scores)
        spreads[subset] = Spread.of(task, images.y, y_score, groups, n_resamples=config.resamples, seed=config.seed)
    return spreads


def _blind(
    config: AblationConfig, images: Images, groups: np.ndarray | None, whole: Spread, majority: Spread, metric: str
) -> Spread:
    """What knowing nothing scores: the mean label of a regression, else the answers of all blocks dealt at random.

    The most common answer would be no measure by F1: it scores below a blind guess there.
    """
    if find_metric(metric).constant_may_win or movable(len(images.y), groups) < 0.5:
        return majority
    orders = np.concatenate(list(deals(len(images.y), groups, n_deals=_BLIND_DEALS, seed=config.seed)))
    options: dict[str, Any] = {"n_resamples": config.resamples, "seed": config.seed}
    dealt = [Spread.of(images.task, images.y, whole.y_score[order], groups, **options) for order in orders]
    values = {metric: float(np.mean([one.values[metric] for one in dealt]))}
    resampled = {metric: np.mean([one.resampled[metric] for one in dealt], axis=0)}
    return replace(whole, values=values, resampled=resampled, by_class={})


def _metrics(config: AblationConfig, spread: Spread) -> dict[str, dict[str, Any]]:
    """Metrics with intervals; scores that are no probabilities aren't judged as such."""
    scored = config.head in ("svm", "ridge")
    found = intervals(spread, part="training and validation")
    return {
        name: one.as_json() for name, one in found.items() if not (scored and find_metric(name).needs_probabilities)
    }


def _ranked(
    config: AblationConfig, spreads: Mapping[Subset, Spread], metric: str, chosen: Mapping[Subset, Any]
) -> list[dict[str, Any]]:
    sign = -1 if greater_is_better(metric) else 1
    subsets = sorted((s for s in spreads if s), key=lambda s: (sign * spreads[s].values[metric], len(s), s))
    name = PATHS.get(config.head, "")
    return [
        {
            "blocks": list(subset),
            "metrics": _metrics(config, spreads[subset]),
            "chosen": {name: chosen[subset]} if name and isinstance(config.settings.get(name), list | tuple) else {},
        }
        for subset in subsets
    ]


def _gain(spreads: Mapping[Subset, Spread], block: str, metric: str) -> dict[str, Any]:
    """By how much a block makes nothing, all others, and on average the subsets without it, better.

    The average weighs subsets of each size alike (Shapley 1953), so that the gains of all blocks add up to the whole.
    """
    with_it = {frozenset(s): spreads[s] for s in spreads}
    by_size: dict[int, list[tuple[Spread, Spread]]] = {}
    for subset in map(frozenset, spreads):
        if block not in subset and subset | {block} in with_it:
            by_size.setdefault(len(subset), []).append((with_it[subset | {block}], with_it[subset]))
    first, last = min(by_size), max(by_size)
    mean = _mean([_mean([_step(*pair, metric) for pair in pairs]) for pairs in by_size.values()])
    alone, on_top = (_step(*by_size[size][0], metric) for size in (first, last))
    return {
        "alone": _improvement(alone, metric),
        "on_top_of_the_others": _improvement(on_top, metric),
        "on_average": _improvement(mean, metric),
    }


def _improvement(step: Step, metric: str) -> dict[str, float | None]:
    """Return by how much a step is for the better: above 0 whichever way the metric points."""
    value, resampled, n_units = step
    sign = 1 if greater_is_better(metric) else -1
    return difference(sign * value, sign * resampled, n_units).as_json()


def _step(one: Spread, other: Spread, metric: str) -> Step:
    return one.values[metric] - other.values[metric], one.resampled[metric] - other.resampled[metric], one.n_units


def _mean(steps: Sequence[Step]) -> Step:
    values, resampled, units = zip(*steps, strict=True)
    return float(np.mean(values)), np.mean(resampled, axis=0), units[0]


def _pairs(spreads: Mapping[Subset, Spread], blocks: Sequence[str], metric: str) -> list[dict[str, Any]]:
    """By how much adding one block makes one other better, for every ordered pair that was tried."""
    known = {frozenset(s): spreads[s] for s in spreads}
    return [
        {
            "to": one,
            "added": other,
            **_improvement(_step(known[frozenset((one, other))], known[frozenset((one,))], metric), metric),
        }
        for one, other in itertools.permutations(blocks, 2)
        if frozenset((one, other)) in known
    ]
