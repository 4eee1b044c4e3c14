"""What an image's name gives away: a shallow tree on its id and its place in the index, that sees no picture.

Corpora are collected in order: by class, by query, by session. Where a name alone beats the majority baseline, the
way in which the corpus was gathered is tied to its labels, and a result has to be read beside this number too.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.evidence.folds import deal
from classify.evidence.metrics import greater_is_better, metrics, primary_metric
from features_store.schema import Task

__all__ = ["id_features", "id_scores"]

DEPTHS = (1, 2, 3, 5, 8)
MIN_LEAF = 5
N_FOLDS = 5
N_NUMBERS = 3  # of the numbers in a name
N_FOLDERS = 3  # of the folders above it

Floats = NDArray[np.float64]


def id_features(ids: NDArray[np.str_], rows: NDArray[np.int64]) -> Floats:
    """Turn ids into numbers: place in the index, length, numbers in the name, folders, ending.

    Parameters
    ----------
    ids : ndarray of shape (n_images,), str
    rows : ndarray of shape (n_images,), int64
        Their places in the index.

    Returns
    -------
    ndarray of float64, shape (n_images, 4 + 3 + 3)
        -1 where there is no such thing. Folders and endings are numbered in alphabetical order.
    """
    names = [str(name).split("/") for name in ids]
    stems = [parts[-1].rpartition(".") for parts in names]
    columns = [
        rows.astype(np.float64),
        np.array([len(name) for name in ids], dtype=np.float64),
        np.array([_hexadecimal(stem or ending) for stem, _, ending in stems]),
        _codes([ending for stem, _, ending in stems]),
    ]
    numbers = [[float(digits[:15]) for digits in re.findall(r"\d+", parts[-1])] for parts in names]
    columns += [np.array([(*found, *[-1.0] * N_NUMBERS)[i] for found in numbers]) for i in range(N_NUMBERS)]
    columns += [_codes([parts[i] if i < len(parts) - 1 else None for parts in names]) for i in range(N_FOLDERS)]
    return np.column_stack(columns)


def _hexadecimal(stem: str) -> float:
    """The value of the first word of a name that is a hexadecimal number, as code points and digests are."""
    found = re.match(r"[0-9A-Fa-f]{2,12}(?![0-9A-Za-z])", stem)
    return float(int(found.group(), 16)) if found else -1.0


def _codes(words: list[str | None]) -> Floats:
    known = {word: code for code, word in enumerate(sorted({word for word in words if word is not None}))}
    return np.array([-1.0 if word is None else float(known[word]) for word in words])


def id_scores(
    task: Task,
    features: NDArray[np.float64],
    y: NDArray[Any],
    *,
    train: NDArray[np.int64],
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Floats:
    """Fit a shallow tree on the names of the training images, and say what it makes of all of them.

    Its depth (1, 2, 3, 5 or 8) is chosen by cross-validation within the training images.

    Parameters
    ----------
    task : Task
    features : ndarray of shape (n_images, n_features)
        Of all images, as `id_features` gives them.
    y : ndarray of shape (n_train, ...)
        Labels of the training images.
    train : ndarray of shape (n_train,), int64
        Their positions in *features*.
    groups : ndarray of shape (n_train,), int64, optional
        -1 = alone.
    seed : int

    Returns
    -------
    ndarray of float64
        Probabilities (n_images, n_classes), or values shaped as *y*.
    """
    known, name = features[train], primary_metric(task)
    folds = deal(task, y, groups=groups, n_folds=min(N_FOLDS, len(y)), seed=seed)
    sign = 1 if greater_is_better(name) else -1

    def worth(depth: int) -> float:
        said = np.zeros(y.shape if task.kind == "regression" else (len(y), len(task.classes)))
        for fold in np.unique(folds):
            held = folds == fold
            said[held] = _fitted_scores(task, known[~held], y[~held], known[held], depth=depth, seed=seed)
        return sign * metrics(task, y, said)[name]

    best = max(DEPTHS, key=worth)  # the shallowest of equals
    return _fitted_scores(task, known, y, features, depth=best, seed=seed)


def _fitted_scores(task: Task, x: Floats, y: NDArray[Any], asked: Floats, *, depth: int, seed: int) -> Floats:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    options = {"max_depth": depth, "min_samples_leaf": MIN_LEAF, "random_state": seed}
    if task.kind == "regression":
        values: Floats = DecisionTreeRegressor(**options).fit(x, y).predict(asked)
        return values
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
