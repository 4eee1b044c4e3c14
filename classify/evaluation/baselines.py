"""What a result has to beat: the most common label, a guess, and what the images' names give away.

Each is fitted on the images that the head was fitted on: for the test part of a run with a refit those are training and
validation together. Where the head weighs classes, the tree on names weighs them alike. Corpora are collected in order
(by class, by query, by session): where names alone beat the majority, the way in which the corpus was gathered is tied
to its labels, and a result has to be read beside this number too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.folds import count_units, cuts, deal_strata
from classify.data.kinds import kind_of
from classify.data.tasks import Part, TaskRows, joined
from classify.evaluation.bootstrap import LEVEL, Interval
from classify.evaluation.metrics import find_metric, greater_is_better, metrics, primary_metric
from classify.heads import make_head
from features_store.leakage import traces_of_ids, tree_scores
from features_store.schema import Task

BASELINES = {
    "majority": "always the most common label of the images that the head was fitted on",
    "chance": "the label of such an image drawn at random; brackets: 95% of guesses on these images, not an interval",
    "id-only": "a shallow tree on file names and order, which sees no picture",
}
N_DRAWS = 200
DEPTHS = (1, 2, 3, 5, 8)
N_FOLDS = 5

Floats = NDArray[np.float64]
Scores = Mapping[str, Floats]  # by part


def fitted_part(data: TaskRows, part: str, *, refit: bool) -> Part:
    """Return the images that the head which scores *part* was fitted on."""
    both = refit and part == "test" and "validation" in data.parts
    return joined([data.parts["train"], data.parts["validation"]]) if both else data.parts["train"]


def majority_scores(data: TaskRows, *, refit: bool = False) -> Scores:
    """Return the scores of the constant head on each part."""
    return {
        name: constant_scores(data.task, fitted_part(data, name, refit=refit).y, len(part))
        for name, part in data.parts.items()
    }


def constant_scores(task: Task, y: NDArray[Any], n_images: int) -> Floats:
    """Return the scores of the head `dummy`, fitted on labels *y*: the shares of the classes, or the mean."""
    dummy = make_head("dummy", task.kind).fit(np.zeros((len(y), 1), np.float32), y)
    return kind_of(task).scores(dummy, np.zeros((n_images, 1), np.float32))


def chance(
    task: Task, y_train: NDArray[Any], y_true: NDArray[Any], *, n_draws: int = N_DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Score guesses: the label of a training image drawn at random, for each image anew."""
    random, kind = np.random.default_rng(seed), kind_of(task)
    draws = []
    for _ in range(n_draws):
        guess = y_train[random.integers(len(y_train), size=len(y_true))]
        score = kind.indicators(guess) if kind.has_classes else guess
        draws.append(metrics(task, y_true, np.asarray(score, dtype=np.float64)))
    decided = [name for name in draws[0] if not find_metric(name).needs_probabilities]
    return {name: _middle([draw[name] for draw in draws] if name in decided else []) for name in draws[0]}


def _middle(values: list[float]) -> Interval:
    known = np.array(values)[~np.isnan(values)]
    if not len(known):
        return Interval(np.nan)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(known.mean()), float(low), float(high))


def id_only_scores(data: TaskRows, *, refit: bool = False, class_weight: Any = None, seed: int = 0) -> Scores:
    """Return the scores of a shallow tree on ids and order, on each part but training.

    Its depth is chosen by cross-validation within the images that it is fitted on.
    """
    parts, every = data.parts, joined(data.parts.values())
    codes = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    order = np.argsort(every.rows)
    classes = data.task.classes if kind_of(data.task).has_classes else ()
    families, _ = traces_of_ids(every.ids[order], classes=classes, parts=codes[order])
    ordered = np.concatenate([*families.values()], axis=1)  # (n_images, n)
    features = np.empty_like(ordered)
    features[order] = ordered
    places = {name: np.flatnonzero(codes == code) for code, name in enumerate(parts)}
    options = {"seed": seed, "class_weight": class_weight}
    found: dict[str, Floats] = {}
    depths: dict[str, int] = {}
    for name in parts:
        if name == "train":
            continue
        fitted = fitted_part(data, name, refit=refit)
        x = features[np.isin(every.rows, fitted.rows)]
        if fitted.name not in depths:
            depths[fitted.name] = _best_depth(data.task, x, fitted, options)
        depth = depths[fitted.name]
        scores = tree_scores(data.task, x, fitted.y, features[places[name]], depth=depth, **options)
        found[name] = kind_of(data.task).shaped(scores)
    return found


def _best_depth(task: Task, x: Floats, part: Part, options: Mapping[str, Any]) -> int:
    y, kind, metric = part.y, kind_of(task), primary_metric(task)
    n_folds = min(N_FOLDS, count_units(y, part.groups))
    if n_folds < 2:  # nothing can be held out
        return DEPTHS[0]
    folds = cuts(deal_strata(kind.strata(y), groups=part.groups, n_folds=n_folds, seed=options["seed"]))
    sign = 1 if greater_is_better(metric) else -1

    def held_out(depth: int) -> float:
        scores = kind.blank(len(y))
        for train, held in folds:
            found = tree_scores(task, x[train], y[train], x[held], depth=depth, **options)
            scores[held] = kind.shaped(found).reshape(scores[held].shape)
        return sign * metrics(task, y, scores)[metric]

    return max(DEPTHS, key=held_out)  # the shallowest of equals
