"""Labels to look at: images whose label a judge disagrees with that the other images taught.

Disagreement isn't error: of labels none of which is wrong, a judge of accuracy .65 doubts a fifth. So the number that
would be listed where none is wrong stands beside the list, and a judge that knows nothing of the images doubts none.

Confident learning (Northcutt, Jiang and Chuang 2021), written with scikit-learn's cross-validation. The package of its
authors, cleanlab, isn't used: its licence (AGPL) would reach into everything that imports it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.rows import RowMatrix
from classify.evaluation.calibration import fit_calibration
from classify.evaluation.knowledge import N_DEALS, SHOWN, deals, movable
from classify.evaluation.metrics import dealt_metrics, metrics, primary_metric
from classify.evaluation.thresholds import known_labels
from features_store.schema import Task

__all__ = ["LabelError", "expected_count", "improbable_values", "judge_knows", "out_of_fold", "probable_errors"]

N_FOLDS = 5
N_WORLDS = 20  # sets of labels of which none is wrong
OUTLIER = 3.5  # robust standard deviations (Iglewicz and Hoaglin 1993)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelError:
    """A label that the rest of the corpus speaks against.

    Parameters
    ----------
    position : int
        Of the image among those that were looked at.
    output : int
        multi and regression: the class or output that it is about; single: 0.
    given, suggested : float
        single: codes of the classes; multi: 0 or 1; regression: values.
    p_given, p_suggested : float or None
        Out-of-fold probabilities; None for a regression.
    score : float
        The higher, the more certain: difference of the two probabilities, or robust standard deviations.
    """

    position: int
    output: int
    given: float
    suggested: float
    p_given: float | None
    p_suggested: float | None
    score: float


def out_of_fold(
    task: Task,
    matrix: RowMatrix | NDArray[Any],
    y: NDArray[Any],
    *,
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Floats:
    """Say of each image what a cheap head says that was fitted without it and without its group.

    The head is `linear`, logistic or ridge regression; five folds, stratified by class where there are classes.

    Shapes: matrix (n_images, n_features); groups (n_images,) int64.
    """
    from classify.evaluation.folds import count_units, deal
    from classify.heads import make_head

    folds = deal(task, y, groups=groups, n_folds=min(N_FOLDS, count_units(y, groups)), seed=seed)
    said = np.zeros(y.shape if task.kind == "regression" else (len(y), len(task.classes)))
    for fold in range(N_FOLDS):
        held = folds == fold
        if not held.any():
            continue
        head = make_head("linear", task.kind, random_state=seed).fit(matrix[~held], y[~held])
        if task.kind == "regression":
            said[held] = head.predict(matrix[held])
        elif task.kind == "multi":
            said[held] = head.predict_proba(matrix[held])
        else:
            said[np.ix_(held, head.classes_)] = head.predict_proba(matrix[held])
    return said


def probable_errors(task: Task, y: NDArray[Any], probabilities: Floats) -> list[LabelError]:
    """List the labels that confident learning doubts, those first that the judge is surest of.

    A class's threshold is the mean probability of that class over the images labelled so (equation 2 of the paper).
    An image belongs to the class of the highest probability among those that reach their threshold; where that isn't
    its label, and is the most probable class of all besides, the label is doubted. (The second condition isn't in the
    paper: without it, a weak head on uneven classes doubts a third of a corpus.) They are ranked by how much more
    probable the other class is, the normalised margin. Each label of a multi-label task is a task of two classes.

    Shapes: probabilities (n_images, n_classes).
    """
    if task.kind == "single":
        found = _doubted(np.asarray(y), probabilities, output=0)
    else:
        found = []
        for k in range(len(task.classes)):
            p = probabilities[:, k]
            found += _doubted(np.asarray(y)[:, k].astype(int), np.column_stack([1 - p, p]), output=k)
    return sorted(found, key=lambda error: (-error.score, error.position, error.output))


def _doubted(given: NDArray[Any], p: Floats, *, output: int) -> list[LabelError]:
    n = p.shape[1]
    count = np.bincount(given, minlength=n)
    of_given = p[np.arange(len(p)), given]
    means = np.bincount(given, weights=of_given, minlength=n) / np.maximum(count, 1)
    thresholds = np.where(count > 0, means, np.inf)  # a class without an image can't be suggested
    reached = np.where(p >= thresholds, p, -1.0)
    suggested = reached.argmax(axis=1)
    places = np.flatnonzero((reached.max(axis=1) >= 0) & (suggested != given) & (suggested == p.argmax(axis=1)))
    return [
        LabelError(
            position=int(i),
            output=output,
            given=float(given[i]),
            suggested=float(suggested[i]),
            p_given=float(of_given[i]),
            p_suggested=float(p[i, suggested[i]]),
            score=float(p[i, suggested[i]] - of_given[i]),
        )
        for i in places
    ]


def improbable_values(task: Task, y: NDArray[Any], said: Floats) -> list[LabelError]:
    """List the values of a regression that lie far from what the rest of the corpus says, the farthest first.

    Far is beyond 3.5 robust standard deviations of the residuals (1.4826 times their median absolute deviation).

    Shapes: y, said (n_images,) or (n_images, n_outputs).
    """
    truth, values = (np.asarray(a, dtype=np.float64).reshape(len(y), -1) for a in (y, said))
    residual = truth - values
    residual = residual - np.median(residual, axis=0)
    spread = 1.4826 * np.median(np.abs(residual), axis=0)
    far = np.abs(residual) / np.where(spread > 0, spread, np.inf)
    found = [
        LabelError(int(i), int(k), float(truth[i, k]), float(values[i, k]), None, None, float(far[i, k]))
        for i, k in np.argwhere(far > OUTLIER)
    ]
    return sorted(found, key=lambda error: (-error.score, error.position, error.output))


def judge_knows(
    task: Task, y: NDArray[Any], said: Floats, groups: NDArray[np.int64] | None = None, *, seed: int = 0
) -> bool:
    """Tell whether the judge's answers are better than the same answers dealt to the images at random.

    By the task's ranking metric; for a multi-label task it is enough to rank the images of one label better; for a
    regression, to correlate with one output.
    """
    if movable(len(y), groups) < 0.5:
        return False
    if task.kind == "multi":
        return bool(known_labels(np.asarray(y).astype(bool), said, groups).any())
    names = [primary_metric(task)] if task.kind == "single" else [f"cc/{name}" for name in task.classes]
    real = metrics(task, y, said)
    chunks = [dealt_metrics(task, y, said, some) for some in deals(len(y), groups, n_deals=N_DEALS, seed=seed)]
    for name in names:
        as_good = (~(np.concatenate([chunk[name] for chunk in chunks]) < real[name] - 1e-9)).sum()
        if (1 + as_good) / (1 + N_DEALS) * len(names) <= SHOWN:
            return True
    return False


def expected_count(task: Task, y: NDArray[Any], said: Floats, *, seed: int = 0) -> int:
    """Return how many images would be listed where no label is wrong.

    Labels are drawn from the judge's own probabilities, after a temperature where they need one; of a regression, the
    residuals are taken as normal.
    """
    random, n = np.random.default_rng(seed), len(y)
    if task.kind == "regression":
        columns = np.asarray(y).reshape(n, -1).shape[1]
        beyond = math.erfc(OUTLIER / math.sqrt(2))
        return round(n * (1 - (1 - beyond) ** columns))
    calibration, _ = fit_calibration(task, y, said)
    p = said if calibration is None else calibration.apply(said)
    counts = []
    for _ in range(N_WORLDS):
        if task.kind == "single":
            drawn = (p.cumsum(axis=1) < random.random((n, 1)) * p.sum(axis=1, keepdims=True)).sum(axis=1)
            drawn = drawn.clip(max=len(task.classes) - 1)
        else:
            drawn = (random.random(p.shape) < p).astype(np.uint8)
        counts.append(len({error.position for error in probable_errors(task, drawn, said)}))
    return round(float(np.mean(counts)))
