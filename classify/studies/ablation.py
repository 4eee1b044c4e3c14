"""Which network pays: every subset of blocks by cross-validation, and what each block adds to the others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.config import RunConfig, user_path
from classify.data.folds import deal_strata
from classify.data.kinds import kind_of
from classify.data.seen import find_trained, refuse_trained
from classify.data.tasks import choose_blocks, joined, task_rows
from classify.errors import ConfigError
from classify.evaluation.baselines import constant_scores
from classify.evaluation.bootstrap import LEVEL, Spread, intervals
from classify.evaluation.comparison import difference
from classify.evaluation.metrics import find_metric, greater_is_better, metrics, primary_metric
from classify.evaluation.verdict import deals, movable
from classify.runs.record import plain
from classify.studies.subset_scores import PATHS, Images, Subset, path_scores, path_values
from features_store import open_store

Step = tuple[float, NDArray[np.float64], int]  # a difference, what it is without each unit, and of how many units
MAX_BLOCKS = 6  # up to so many blocks every subset is tried: 63 of them
_BLIND_DEALS = 20  # of the scores of all blocks, which stand for knowing nothing


def ablate(
    config: RunConfig,
    *,
    folds: int = 5,
    notify: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, Any]:
    """Score every subset of blocks on the same images and folds, and work out what each block adds.

    The train and validation parts are dealt to *folds*; the test part is left alone. ``svm`` and ``ridge`` share their
    work over subsets; any other head of the table is fitted anew each time. ``C`` of ``svm`` and ``alpha`` of ``ridge``
    may be a list: each subset is shown with the value that is best on the folds, which is a choice by the very images
    that it is scored on.
    """
    if folds < 2:
        raise ConfigError(f"folds is {folds}; an image can only be predicted from others with at least 2")
    store = open_store(user_path(config.store))
    blocks = choose_blocks(store, config.blocks)
    allow = config.allow_split_groups
    data = task_rows(store, config.task, split=config.split, blocks=blocks, allow_split_groups=allow)
    part = joined(data.parts[name] for name in ("train", "validation") if name in data.parts)
    refuse_trained(store, find_trained(store, blocks), {"cross-validated": part.rows})
    y, groups = part.y, part.groups
    fold_of = deal_strata(kind_of(data.task).strata(y), groups=groups, n_folds=folds, seed=config.seed)
    images, subsets = Images(store, data.task, part.rows, y, fold_of, groups), subsets_of(blocks)
    if len(blocks) > MAX_BLOCKS:
        notify(
            f"{len(blocks)} blocks: each alone, all together and all but one; every subset is tried up to {MAX_BLOCKS}"
        )
    values, done = path_values(config), itertools.count(1)  # one step is atomic: threads may count at once
    total = len(subsets) * folds
    paths = path_scores(images, subsets, config, advance=lambda: progress(next(done), total))
    resampling: dict[str, Any] = {"n_resamples": config.resamples, "seed": config.seed}
    spreads, chosen = {}, {}
    for subset, path in paths.items():
        at = _best_of(path, images)
        chosen[subset] = values[at]
        spreads[subset] = Spread.of(data.task, y, images.kind.shaped(path[at]), groups, **resampling)
    constant = constant_scores(data.task, y, len(y))
    majority = Spread.of(data.task, y, constant, groups, **resampling)
    metric = primary_metric(data.task)
    spreads[()] = _blind(images, groups, spreads[tuple(blocks)], majority, metric, resampling)
    return plain(
        {
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "corpus": config.corpus,
            "task": data.task.name,
            "kind": data.task.kind,
            "classes": data.task.classes,
            "head": config.head,
            "settings": config.settings,
            "split": config.split,
            "crossing": data.crossing and {**data.crossing.as_json(), "words": data.crossing.words_on_folds()},
            "folds": folds,
            "seed": config.seed,
            "n_images": len(part),
            "metric": metric,
            "greater_is_better": greater_is_better(metric),
            "interval": {"level": LEVEL, "resamples": config.resamples},
            "blocks": {name: store.block(name).n_features for name in blocks},
            "subsets": _ranked(config, spreads, metric, chosen),
            "n_tried": len(subsets) * len(values),
            "path": {"option": PATHS[config.head], "values": values} if len(values) > 1 else None,
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


def _best_of(path: Sequence[np.ndarray], images: Images) -> int:
    """Return which scores of a path are best on the folds; the first, where some are equal."""
    if len(path) == 1:
        return 0
    metric = primary_metric(images.task)
    sign = 1 if greater_is_better(metric) else -1
    scores = [sign * metrics(images.task, images.y, images.kind.shaped(one))[metric] for one in path]
    return 0 if np.isnan(scores).all() else int(np.nanargmax(scores))


def _blind(
    images: Images,
    groups: np.ndarray | None,
    whole: Spread,
    majority: Spread,
    metric: str,
    resampling: Mapping[str, Any],
) -> Spread:
    """What knowing nothing scores: the mean label of a regression, else the scores of all blocks dealt at random.

    The most common label would be no measure by F1: it scores below a blind guess there.
    """
    if find_metric(metric).constant_may_win or movable(len(images.y), groups) < 0.5:
        return majority
    orders = np.concatenate(list(deals(len(images.y), groups, n_deals=_BLIND_DEALS, seed=resampling["seed"])))
    dealt = [Spread.of(images.task, images.y, whole.y_score[order], groups, **resampling) for order in orders]
    values = {metric: float(np.mean([one.values[metric] for one in dealt]))}
    left_out = {metric: np.mean([one.left_out[metric] for one in dealt], axis=0)}
    return replace(whole, values=values, left_out=left_out, by_class={})


def _metrics(config: RunConfig, spread: Spread) -> dict[str, dict[str, Any]]:
    """Metrics with intervals; scores that are no probabilities are not judged as such."""
    scored = config.head in ("svm", "ridge")
    found = intervals(spread, part="training and validation")
    return {
        name: one.as_json() for name, one in found.items() if not (scored and find_metric(name).needs_probabilities)
    }


def _ranked(
    config: RunConfig, spreads: Mapping[Subset, Spread], metric: str, chosen: Mapping[Subset, Any]
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
    value, left_out, n_units = step
    sign = 1 if greater_is_better(metric) else -1
    return difference(sign * value, sign * left_out, n_units).as_json()


def _step(one: Spread, other: Spread, metric: str) -> Step:
    return one.values[metric] - other.values[metric], one.left_out[metric] - other.left_out[metric], one.n_units


def _mean(steps: Sequence[Step]) -> Step:
    values, left_out, units = zip(*steps, strict=True)
    return float(np.mean(values)), np.mean(left_out, axis=0), units[0]


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
