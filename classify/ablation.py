"""Which network pays: every subset of blocks by cross-validation, and what each block adds to the others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from classify.config import RunConfig
from classify.errors import ConfigError
from classify.evidence.comparison import Spread
from classify.evidence.folds import deal
from classify.evidence.intervals import LEVEL
from classify.evidence.metrics import greater_is_better, primary_metric
from classify.inputs.tasks import choose_blocks, task_rows
from classify.record import plain
from classify.solvers.crossfit import Answers, Images, Plan, Subset, answers
from features_store import open_store
from features_store.schema import Task

__all__ = ["AblationConfig", "ablate", "ablation_folder", "subsets_of"]

MAX_BLOCKS = 6  # up to so many blocks every subset is tried: 63 of them
_UNCALIBRATED = ("log_loss",)  # what scores that are no probabilities can't be judged by


@dataclass(frozen=True)
class AblationConfig:
    """What to try.

    Parameters
    ----------
    store, task : str
    head : str
        ``svm`` and ``ridge`` share their work over subsets; any other head of the table is fitted anew each time.
    blocks : tuple of str
        Empty: every block of vectors.
    split : str
        Its train and validation parts are dealt to folds; its test part is left alone.
    folds : int
    settings : mapping
        Options of the head.
    seed : int
    resamples : int
        Bootstrap resamples behind each interval.
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

    def __post_init__(self) -> None:
        if self.folds < 2:
            message = f"folds is {self.folds}; an image can only be answered for by others with at least 2"
            raise ConfigError(message)
        if self.resamples < 20:
            message = f"resamples is {self.resamples}; an interval of 95% needs at least 20"
            raise ConfigError(message)


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

    Parameters
    ----------
    config : AblationConfig
    notify : callable
        Called with a line of text when there is something to tell.
    progress : callable
        Called with the number of fits done, and of all fits.

    Returns
    -------
    dict
        Plain values: ``subsets`` (the best first), ``gains`` by block, ``pairs`` by two blocks, and where they come
        from.

    Raises
    ------
    AffectoryError
        A name is unknown, or the task can't be run.
    """
    path = Path(config.store).expanduser()
    store = open_store(path)
    blocks = choose_blocks(store, config.blocks)
    data = task_rows(store, config.task, split=config.split, blocks=blocks)
    parts = [data.parts[name] for name in ("train", "validation") if name in data.parts]
    rows, y = np.concatenate([part.rows for part in parts]), np.concatenate([part.y for part in parts])
    groups = None if parts[0].groups is None else np.concatenate([part.groups for part in parts])
    folds = deal(data.task, y, groups=groups, n_folds=config.folds, seed=config.seed)
    images, subsets = Images(store, data.task, rows, y, folds), subsets_of(blocks)
    if len(blocks) > MAX_BLOCKS:
        notify(
            f"{len(blocks)} blocks: each alone, all together and all but one; every subset is tried up to {MAX_BLOCKS}"
        )
    plan = Plan(config.head, config.settings, config.seed)
    said = answers(images, subsets, plan, advance=_counted(progress, len(subsets) * config.folds))
    said[()] = answers(images, [blocks[:1]], Plan("dummy", seed=config.seed))[blocks[:1]]
    spreads = _spreads(config, images, groups, said)
    metric = primary_metric(data.task)
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
            "folds": config.folds,
            "seed": config.seed,
            "n_images": len(rows),
            "metric": metric,
            "greater_is_better": greater_is_better(metric),
            "interval": {"level": LEVEL, "resamples": config.resamples},
            "blocks": {name: store.block(name).n_features for name in blocks},
            "subsets": _ranked(spreads, metric),
            "baseline": _metrics(spreads[()]),
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


def _spreads(config: AblationConfig, images: Images, groups: np.ndarray | None, said: Answers) -> dict[Subset, Spread]:
    task: Task = images.task
    spreads = {}
    for subset, scores in said.items():
        y_score = scores[:, 0] if images.y.ndim == 1 and task.kind == "regression" else scores
        found = Spread.of(task, images.y, y_score, groups, n_resamples=config.resamples, seed=config.seed)
        kept = [name for name in found.values if config.head not in ("svm", "ridge") or name not in _UNCALIBRATED]
        spreads[subset] = Spread({n: found.values[n] for n in kept}, {n: found.resampled[n] for n in kept})
    return spreads


def _metrics(spread: Spread) -> dict[str, dict[str, float]]:
    tail = (1 - LEVEL) / 2
    found = {}
    for name, value in spread.values.items():
        drawn = spread.resampled[name][~np.isnan(spread.resampled[name])]
        low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (np.nan, np.nan)
        found[name] = {"value": value, "low": low, "high": high}
    return found


def _ranked(spreads: Mapping[Subset, Spread], metric: str) -> list[dict[str, Any]]:
    sign = -1 if greater_is_better(metric) else 1
    subsets = sorted((s for s in spreads if s), key=lambda s: (sign * spreads[s].values[metric], len(s), s))
    return [{"blocks": list(subset), "metrics": _metrics(spreads[subset])} for subset in subsets]


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
    nothing = Spread({metric: 0.0}, {metric: np.zeros_like(mean.resampled[metric])})
    found = {"alone": by_size[first][0], "on_top_of_the_others": by_size[last][0], "on_average": (mean, nothing)}
    return {name: _improvement(*pair, metric) for name, pair in found.items()}


def _improvement(one: Spread, other: Spread, metric: str) -> dict[str, float | None]:
    """Return by how much *one* is better than *other*: above 0 whichever way the metric points."""
    better = (one, other) if greater_is_better(metric) else (other, one)
    return better[0].less(better[1], metric).as_json()


def _step(one: Spread, other: Spread, metric: str) -> Spread:
    return Spread(
        {metric: one.values[metric] - other.values[metric]}, {metric: one.resampled[metric] - other.resampled[metric]}
    )


def _mean(steps: Sequence[Spread]) -> Spread:
    (metric,) = steps[0].values
    values = float(np.mean([step.values[metric] for step in steps]))
    return Spread({metric: values}, {metric: np.mean([step.resampled[metric] for step in steps], axis=0)})


def _pairs(spreads: Mapping[Subset, Spread], blocks: Sequence[str], metric: str) -> list[dict[str, Any]]:
    """By how much adding one block makes one other better, for every ordered pair that was tried."""
    known = {frozenset(s): spreads[s] for s in spreads}
    return [
        {"to": one, "added": other, **_improvement(known[frozenset((one, other))], known[frozenset((one,))], metric)}
        for one, other in itertools.permutations(blocks, 2)
        if frozenset((one, other)) in known
    ]
