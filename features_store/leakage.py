"""What can be guessed of the labels without any pixel: shallow trees on ids, folders and the order of the images.

An id may leak its label: the ids of tweets hold the time, and the rarer class of a corpus was collected for longer. A
head never sees an id, but pictures of another season look different too, so a result on such a corpus has to be read
beside what the id alone gives away. scikit-learn is imported when a tree is fitted.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store.schema import Labels, Task

MAX_DEPTH = 4
MAX_RUNS = 4  # runs of digits in an id that are looked at
N_FOLDS = 5
_LONGEST = 38  # digits of a number that float32 still holds, in which trees compare
_PREFIX = 5  # leading digits of a number: half a day to a few weeks in the ids of tweets, by their age


@dataclass(frozen=True)
class Traces:
    """What an image carries besides its pixels.

    Parameters
    ----------
    families : mapping of str to ndarray of shape (n_images, n), float64
        Columns by what they come from: ``digits``, ``folder``, ``order``, and what a caller adds. -1 = not there.
    left_out : tuple of str
        Families that would name the class in so many words, hence say nothing about a leak.
    """

    families: Mapping[str, NDArray[np.float64]]
    left_out: tuple[str, ...] = ()

    def matrix(self, *names: str) -> NDArray[np.float64]:
        """Return the columns of these families, or of all: (n_images, n_columns)."""
        return np.concatenate([self.families[name] for name in names or self.families], axis=1)


def traces_of_ids(ids: NDArray[Any] | Sequence[str], *, classes: Sequence[str] = (), parts: Any = None) -> Traces:
    """Return what the ids and their order say.

    Shapes: parts (n_images,) int.
    """
    listed = np.asarray(ids).tolist()
    families = {"digits": _digits(listed)}
    if _name_classes(listed[:: max(1, len(listed) // 1000)], classes):
        return Traces(families, ("folder", "order"))
    folders = np.unique([one.rpartition("/")[0] for one in listed], return_inverse=True)[1]
    families["folder"] = folders.reshape(-1, 1).astype(np.float64)
    families["order"] = _order(len(listed), parts)
    return Traces(families)


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


def id_only_scores(
    ids: NDArray[Any] | Sequence[str], labels: Labels, fit_rows: NDArray[Any], score_rows: NDArray[Any]
) -> NDArray[np.float64]:
    """Fit a shallow tree on what ids and order say of some images, and score others: the baseline ``id-only``."""
    parts = np.full(len(labels.values), -1)
    parts[fit_rows], parts[score_rows] = 0, 1
    values = traces_of_ids(ids, classes=_class_names(labels.task), parts=parts).matrix()
    return _fit_and_score(labels.task, values[fit_rows], labels.values[fit_rows], values[score_rows])


def _class_names(task: Task) -> tuple[str, ...]:
    return () if task.kind == "regression" else task.classes


@dataclass(frozen=True)
class Probe:
    """What a shallow tree reaches by cross-validation, and what it would reach by chance.

    Parameters
    ----------
    score, chance : float
        single and multi: balanced accuracy (multi: mean over the classes), chance 1 / n_classes or 0.5;
        regression: explained variance R2 (mean over the outputs), chance 0.
    accuracy : float
        single: share of right answers; others: NaN.
    n_images : int
        Images with a label.
    """

    score: float
    chance: float
    accuracy: float
    n_images: int


def probe(values: NDArray[Any], labels: Labels, groups: NDArray[Any] | None = None) -> Probe | None:
    """Cross-validate a shallow tree; whole groups stay in one fold.

    Shapes: values (n_images, n_columns); groups (n_images,) int.
    """
    rows = np.flatnonzero(labels.known)
    target = labels.values[rows]
    if len(rows) < 2 * N_FOLDS or len(np.unique(target, axis=0)) < 2:
        return None
    keys = -1 - np.arange(len(rows)) if groups is None else np.where(groups[rows] >= 0, groups[rows], -1 - rows)
    folds = _folds(target if labels.task.kind == "single" else np.zeros(len(rows), np.int64), keys)
    if folds is None:
        return None
    scores = np.zeros((len(rows), len(labels.task.classes)))
    inside = np.asarray(values, dtype=np.float64)[rows]
    for fold in range(N_FOLDS):
        train, test = folds != fold, folds == fold
        scores[test] = _fit_and_score(labels.task, inside[train], target[train], inside[test])
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


def _fit_and_score(task: Task, x: NDArray[Any], y: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    least = max(5, len(x) // 50)  # leaves of a fiftieth and more: a probe, not a memory
    settings = {"max_depth": MAX_DEPTH, "min_samples_leaf": least, "random_state": 0}
    if task.kind == "regression":
        return np.asarray(DecisionTreeRegressor(**settings).fit(x, y).predict(wanted), float).reshape(len(wanted), -1)
    with warnings.catch_warnings():  # a task may have nearly as many classes as images
        warnings.filterwarnings("ignore", message="The number of unique classes")
        tree = DecisionTreeClassifier(class_weight="balanced", **settings).fit(x, y)
    if task.kind == "single":
        scores = np.zeros((len(wanted), len(task.classes)))
        scores[:, tree.classes_] = tree.predict_proba(wanted)
        return scores
    found = tree.predict_proba(wanted)
    found = found if isinstance(found, list) else [found]
    classes = tree.classes_ if isinstance(tree.classes_, list) else [tree.classes_]
    columns = [
        one[:, list(known).index(1)] if 1 in known else np.zeros(len(wanted))
        for one, known in zip(found, classes, strict=True)
    ]
    return np.stack(columns, axis=1)


def _judged(task: Task, truth: NDArray[Any], scores: NDArray[np.float64]) -> Probe:
    if task.kind == "single":
        guess = scores.argmax(axis=1)
        present = np.unique(truth)
        recalls = [float((guess[truth == one] == one).mean()) for one in present]
        return Probe(float(np.mean(recalls)), 1 / len(present), float((guess == truth).mean()), len(truth))
    if task.kind == "multi":
        both = []
        for column, one in zip(truth.T, scores.T, strict=True):
            if 0 < column.sum() < len(column):
                right = (one >= 0.5) == column
                both.append((right[column == 1].mean() + right[column == 0].mean()) / 2)
        return Probe(float(np.mean(both)) if both else 0.5, 0.5, float("nan"), len(truth))
    residual = ((truth - scores) ** 2).sum(axis=0)
    total = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    explained = 1 - np.divide(residual, total, out=np.ones_like(residual), where=total > 0)
    return Probe(float(explained.mean()), 0.0, float("nan"), len(truth))
