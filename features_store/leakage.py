"""What can be guessed of the labels without any pixel: shallow trees on ids, folders and the order of the images.

An id may leak its label: the ids of tweets hold the time, and the rarer class of a corpus was collected for longer. A
head never sees an id, but pictures of another season look different too, so a result on such a corpus has to be read
beside what the id alone gives away. scikit-learn is imported when a tree is fitted.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store.schema import Labels, Task

MAX_DEPTH = 4
MAX_RUNS = 4  # runs of digits in an id that are looked at
N_FOLDS = 5
_LONGEST = 38  # digits of a number that float32 still holds, in which trees compare
_PREFIX = 5  # leading digits of a number: half a day to a few weeks in the ids of tweets, by their age


Families = dict[str, NDArray[np.float64]]


def traces_of_ids(
    ids: NDArray[Any] | Sequence[str], *, classes: Sequence[str] = (), parts: Any = None
) -> tuple[Families, tuple[str, ...]]:
    """Return columns of numbers, (n_images, n) by family, that ids and their order hold; -1 = not there.

    Folder and order are left out where they would name the class in so many words; the second result names what is
    left out. The order counts within each part, `parts` being (n_images,).
    """
    listed = np.asarray(ids).tolist()
    families = {"digits": _digits(listed)}
    left_out: tuple[str, ...] = ("folder", "order")
    if not _name_classes(listed[:: max(1, len(listed) // 1000)], classes):
        folders = np.unique([one.rpartition("/")[0] for one in listed], return_inverse=True)[1]
        families |= {"folder": folders.reshape(-1, 1).astype(np.float64), "order": _order(len(listed), parts)}
        left_out = ()
    families["hexadecimal"] = _hexadecimal(listed)
    return families, left_out


def _name_classes(ids: Sequence[str], classes: Sequence[str]) -> bool:
    """Tell whether most ids hold the name of a class: a folder of that name, or the name (or its stem) in a file's."""
    exact = {one.lower() for one in classes}
    words = {word for one in exact for word in (one, one.removesuffix("ness")) if len(word) > 2}
    named = [
        any(word in one.lower() for word in words) or not exact.isdisjoint(one.lower().split("/")[:-1]) for one in ids
    ]
    return sum(named) > len(named) / 2


def _digits(ids: Sequence[str]) -> NDArray[np.float64]:
    """Return for each run of digits its value and its leading digits: (n_images, 2 * MAX_RUNS + 1)."""
    values = np.full((len(ids), 2 * MAX_RUNS + 1), -1.0)
    find = re.compile("[0-9]+").findall
    for row, one in enumerate(ids):
        runs = find(one)
        for at, run in enumerate(runs[:MAX_RUNS]):
            values[row, 2 * at] = float(run[:_LONGEST])
            values[row, 2 * at + 1] = float(run[:_PREFIX])
        if runs:
            values[row, -1] = float(runs[-1][:_LONGEST])  # the number of the photo within its tweet, for example
    return values


def _order(n_images: int, parts: Any) -> NDArray[np.float64]:
    values = np.empty((n_images, 1))
    keys = np.zeros(n_images, dtype=np.int64) if parts is None else np.asarray(parts)
    for key in np.unique(keys):
        rows = np.flatnonzero(keys == key)
        values[rows, 0] = (np.arange(len(rows)) + 0.5) / len(rows)
    return values


def _hexadecimal(ids: Sequence[str]) -> NDArray[np.float64]:
    """Return the value of names that begin with a hexadecimal number, as code points and digests do: (n_images, 1)."""
    begin = re.compile(r"[0-9A-Fa-f]{2,12}(?![0-9A-Za-z])")
    found = [begin.match(one.rpartition("/")[2]) for one in ids]
    return np.array([[float(int(match.group(), 16)) if match else -1.0] for match in found])


def probe(values: NDArray[Any], labels: Labels, groups: NDArray[Any] | None = None) -> dict[str, float] | None:
    """Cross-validate a shallow tree on columns, (n_images, n); whole groups, (n_images,), stay in one fold.

    Returns the score and what chance reaches: balanced accuracy against 1 / n_classes or 0.5 (single, and the mean over
    the labels of multi), explained variance R2 against 0 (regression, the mean over its outputs); the accuracy (single;
    else NaN); and the number of images. None if there is too little to probe.
    """
    rows = np.flatnonzero(labels.known)
    target = labels.values[rows]
    if len(rows) < 2 * N_FOLDS or len(np.unique(target, axis=0)) < 2:
        return None
    keys = -1 - np.arange(len(rows)) if groups is None else np.where(groups[rows] >= 0, groups[rows], -1 - rows)
    folds = _folds(target if target.ndim == 1 else np.zeros(len(rows), np.int64), keys)
    if folds is None:
        return None
    scores = np.zeros((len(rows), len(labels.task.classes)))
    inside = np.asarray(values, dtype=np.float64)[rows]
    for fold in range(N_FOLDS):
        train, test = folds != fold, folds == fold
        least = max(5, int(train.sum()) // 50)  # leaves of a fiftieth and more: a probe, not a memory
        scores[test] = tree_scores(labels.task, inside[train], target[train], inside[test], min_leaf=least)
    return _judged(labels.task, target, scores)


def _folds(strata: NDArray[Any], keys: NDArray[Any]) -> NDArray[np.int64] | None:
    """Deal groups out to folds: within each stratum in a seeded random order, one after the other."""
    unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(unique) < N_FOLDS:
        return None
    order = np.random.default_rng(0).permutation(len(unique))
    order = order[np.argsort(strata[first][order], kind="stable")]
    fold_of = np.empty(len(unique), dtype=np.int64)
    fold_of[order] = np.arange(len(unique)) % N_FOLDS
    return fold_of[inverse]


def tree_scores(
    task: Task,
    x: NDArray[Any],
    y: NDArray[Any],
    wanted: NDArray[Any],
    *,
    depth: int = MAX_DEPTH,
    min_leaf: int = 5,
    class_weight: Any = "balanced",
    seed: int = 0,
) -> NDArray[np.float64]:
    """Fit a shallow tree, or one for each label where labels are weighed; score other rows: (n_wanted, n_columns)."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    options: dict[str, Any] = {"max_depth": depth, "min_samples_leaf": min_leaf, "random_state": seed}
    if not task.form.has_classes:
        return np.asarray(DecisionTreeRegressor(**options).fit(x, y).predict(wanted), float).reshape(len(wanted), -1)
    options["class_weight"] = class_weight
    with warnings.catch_warnings():  # a task may have nearly as many classes as images
        warnings.filterwarnings("ignore", message="The number of unique classes")
        if y.ndim == 1:
            tree = DecisionTreeClassifier(**options).fit(x, y)
            scores = np.zeros((len(wanted), len(task.classes)))
            scores[:, tree.classes_] = tree.predict_proba(wanted)
            return scores
        if class_weight is not None or y.shape[1] == 1:
            trees = [DecisionTreeClassifier(**options).fit(x, column) for column in y.T]
            found, classes = [tree.predict_proba(wanted) for tree in trees], [tree.classes_ for tree in trees]
        else:
            tree = DecisionTreeClassifier(**options).fit(x, y)
            found, classes = tree.predict_proba(wanted), tree.classes_
    columns = [p[:, list(c).index(1)] if 1 in c else np.zeros(len(wanted)) for p, c in zip(found, classes, strict=True)]
    return np.stack(columns, axis=1)


def _judged(task: Task, truth: NDArray[Any], scores: NDArray[np.float64]) -> dict[str, float]:
    accuracy = float("nan")
    if truth.ndim == 1:
        guess, present = scores.argmax(axis=1), np.unique(truth)
        score, chance = float(np.mean([(guess[truth == one] == one).mean() for one in present])), 1 / len(present)
        accuracy = float((guess == truth).mean())
    elif task.form.has_classes:
        both = []
        for column, one in zip(truth.T, scores.T, strict=True):
            if 0 < column.sum() < len(column):
                right = (one >= 0.5) == column
                both.append((right[column == 1].mean() + right[column == 0].mean()) / 2)
        score, chance = float(np.mean(both)) if both else 0.5, 0.5
    else:
        residual = ((truth - scores) ** 2).sum(axis=0)
        total = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
        explained = 1 - np.divide(residual, total, out=np.ones_like(residual), where=total > 0)
        score, chance = float(explained.mean()), 0.0
    return {"score": score, "chance": chance, "accuracy": accuracy, "n_images": len(truth)}
