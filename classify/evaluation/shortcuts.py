"""What an image's name gives away: a shallow tree on its id and its place in the index, that sees no picture.

Corpora are collected in order: by class, by query, by session. Where a name alone beats the majority baseline, the
way in which the corpus was gathered is tied to its labels, and a result has to be read beside this number too.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.evaluation.folds import count_units, deal
from classify.evaluation.metrics import greater_is_better, metrics, primary_metric
from features_store.schema import Task

__all__ = ["id_features", "id_scores"]

DEPTHS = (1, 2, 3, 5, 8)
MIN_LEAF = 5
N_FOLDS = 5

Floats = NDArray[np.float64]


def id_features(task: Task, ids: NDArray[np.str_], parts: NDArray[np.int64]) -> Floats:
    """Turn ids into numbers: digits, folders, place within the part, and the name as a hexadecimal number.

    Folders and order are left out where they name the class outright (`features_store.leakage.traces_of_ids`).

    Shapes: ids (n_images,) str; parts (n_images,) int64.
    """
    from features_store.leakage import traces_of_ids

    classes = () if task.kind == "regression" else task.classes
    traces = traces_of_ids(ids, classes=classes, parts=parts)
    points = np.array([_hexadecimal(str(name).rpartition("/")[2]) for name in ids])
    return np.column_stack([traces.matrix(), points])


def _hexadecimal(name: str) -> float:
    """The value of a name that begins with a hexadecimal number, as code points and digests do."""
    found = re.match(r"[0-9A-Fa-f]{2,12}(?![0-9A-Za-z])", name)
    return float(int(found.group(), 16)) if found else -1.0


def id_scores(
    task: Task,
    features: NDArray[np.float64],
    y: NDArray[Any],
    *,
    train: NDArray[np.int64],
    groups: NDArray[np.int64] | None = None,
    class_weight: Any = None,
    seed: int = 0,
) -> Floats:
    """Fit a shallow tree on the names of the training images, and say what it makes of all of them.

    Its depth (1, 2, 3, 5 or 8) is chosen by cross-validation within the training images.

    Shapes: features (n_images, n_features); y (n_train, ...); train (n_train,) int64; groups (n_train,) int64.
    """
    known, name = features[train], primary_metric(task)
    options: dict[str, Any] = {"random_state": seed}
    if task.kind != "regression" and class_weight is not None:
        options["class_weight"] = class_weight
    n_folds = min(N_FOLDS, count_units(y, groups))
    if n_folds < 2:  # nothing can be held out: the shallowest tree
        return _fitted_scores(task, known, y, features, depth=DEPTHS[0], options=options)
    folds = deal(task, y, groups=groups, n_folds=n_folds, seed=seed)
    sign = 1 if greater_is_better(name) else -1

    def worth(depth: int) -> float:
        said = np.zeros(y.shape if task.kind == "regression" else (len(y), len(task.classes)))
        for fold in np.unique(folds):
            held = folds == fold
            said[held] = _fitted_scores(task, known[~held], y[~held], known[held], depth=depth, options=options)
        return sign * metrics(task, y, said)[name]

    best = max(DEPTHS, key=worth)  # the shallowest of equals
    return _fitted_scores(task, known, y, features, depth=best, options=options)


def _fitted_scores(
    task: Task, x: Floats, y: NDArray[Any], asked: Floats, *, depth: int, options: Mapping[str, Any]
) -> Floats:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    options = {"max_depth": depth, "min_samples_leaf": MIN_LEAF, **options}
    if task.kind == "regression":
        values: Floats = DecisionTreeRegressor(**options).fit(x, y).predict(asked)
        return values
    if task.kind == "multi" and "class_weight" in options:  # each label is weighed by itself
        trees = [DecisionTreeClassifier(**options).fit(x, y[:, k]) for k in range(y.shape[1])]
        return np.column_stack([_of_ones(tree.predict_proba(asked), tree.classes_) for tree in trees])
    with warnings.catch_warnings():  # a task may have nearly as many classes as images
        warnings.filterwarnings("ignore", message="The number of unique classes")
        tree = DecisionTreeClassifier(**options).fit(x, y)
    if task.kind == "single":
        spread = np.zeros((len(asked), len(task.classes)))
        spread[:, tree.classes_] = tree.predict_proba(asked)
        return spread
    one = len(task.classes) == 1
    said, classes = ([a] if one else a for a in (tree.predict_proba(asked), tree.classes_))
    return np.column_stack([_of_ones(p, c) for p, c in zip(said, classes, strict=True)])


def _of_ones(probabilities: Floats, classes: NDArray[Any]) -> Floats:
    """The column for 1; a label that no training image has is never said."""
    return probabilities[:, list(classes).index(1)] if 1 in classes else np.zeros(len(probabilities))
