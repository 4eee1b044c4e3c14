"""Labels to look at: images whose label disagrees with a judge that was fitted on the other images.

Disagreement is not error: of labels none of which is wrong, a judge of accuracy .65 doubts a fifth. So the number that
would be listed where none is wrong stands beside the list, and a judge that knows nothing of the images doubts none.

Confident learning (Northcutt, Jiang and Chuang 2021), written with scikit-learn's cross-validation. The package of its
authors, cleanlab, is not used: its licence (AGPL) would reach into everything that imports it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from classify.data.folds import count_units, cuts, deal_strata
from classify.data.kinds import kind_of
from classify.data.rows import RowMatrix
from classify.evaluation.calibration import fit_calibration
from classify.evaluation.metrics import dealt_metrics, metrics, primary_metric
from classify.evaluation.postprocessing import known_labels
from classify.evaluation.verdict import N_DEALS, SHOWN, deals, movable
from classify.heads import make_head
from features_store.schema import Task

N_FOLDS = 5
N_WORLDS = 20  # sets of labels of which none is wrong
OUTLIER = 3.5  # robust standard deviations (Iglewicz and Hoaglin 1993)

Floats = NDArray[np.float64]


class LabelError(NamedTuple):
    """A label that the rest of the corpus speaks against."""

    position: int  # of the image among those that were judged
    output: int  # multi and regression: the class or output that it is about; single: 0
    given: float  # single: the code of the class; multi: 0 or 1; regression: the value
    suggested: float
    p_given: float | None  # out-of-fold probabilities; None for a regression
    p_suggested: float | None
    score: float  # the higher, the more certain: difference of the probabilities, or robust standard deviations


def out_of_fold(
    task: Task,
    matrix: RowMatrix | NDArray[Any],
    y: NDArray[Any],
    *,
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Floats:
    """Score each image with a cheap head that was fitted without it and without its group.

    The head is `linear`, logistic or ridge regression; five folds, stratified by class where there are classes.

    Shapes: matrix (n_images, n_features); groups (n_images,) int64.
    """
    kind, n_folds = kind_of(task), min(N_FOLDS, count_units(y, groups))
    scores = kind.blank(len(y))
    for train, held_out in cuts(deal_strata(kind.strata(y), groups=groups, n_folds=n_folds, seed=seed)):
        head = make_head("linear", task.kind, random_state=seed)
        head.fit_in_groups(matrix[train], y[train], None if groups is None else groups[train])
        scores[held_out] = kind.scores(head, matrix[held_out])
    return scores


def probable_errors(task: Task, y: NDArray[Any], probabilities: Floats) -> list[LabelError]:
    """List the labels that confident learning doubts, the most certain first.

    A class's threshold is the mean probability of that class over the images labelled so (equation 2 of the paper).
    An image belongs to the class of the highest probability among those that reach their threshold; where that is not
    its label, and is the most probable class of all besides, the label is doubted. (The second condition is not in the
    paper: without it, a weak head on uneven classes doubts a third of a corpus.) They are ranked by how much more
    probable the other class is, the normalised margin. Each label of a multi-label task is a task of two classes.

    Shapes: probabilities (n_images, n_classes).
    """
    if kind_of(task).independent:
        found = []
        for k, p in enumerate(probabilities.T):
            found += _doubted(np.asarray(y)[:, k].astype(int), np.column_stack([1 - p, p]), output=k)
    else:
        found = _doubted(np.asarray(y), probabilities, output=0)
    return sorted(found, key=lambda error: (-error.score, error.position, error.output))


def _doubted(given: NDArray[Any], p: Floats, *, output: int) -> list[LabelError]:
    n = p.shape[1]
    count = np.bincount(given, minlength=n)
    of_given = p[np.arange(len(p)), given]
    means = np.bincount(given, weights=of_given, minlength=n) / np.maximum(count, 1)
    thresholds = np.where(count > 0, means, np.inf)  # a class without an image cannot be suggested
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


def improbable_values(y: NDArray[Any], predicted: Floats) -> list[LabelError]:
    """List the values of a regression that lie far from the out-of-fold predictions, the farthest first.

    Far is beyond 3.5 robust standard deviations of the residuals (1.4826 times their median absolute deviation).

    Shapes: y, predicted (n_images,) or (n_images, n_outputs).
    """
    truth, values = (np.asarray(a, dtype=np.float64).reshape(len(y), -1) for a in (y, predicted))
    residual = truth - values
    residual = residual - np.median(residual, axis=0)
    spread = 1.4826 * np.median(np.abs(residual), axis=0)
    far = np.abs(residual) / np.where(spread > 0, spread, np.inf)
    found = [
        LabelError(int(i), int(k), float(truth[i, k]), float(values[i, k]), None, None, float(far[i, k]))
        for i, k in np.argwhere(far > OUTLIER)
    ]
    return sorted(found, key=lambda error: (-error.score, error.position, error.output))


def known_outputs(
    task: Task, y: NDArray[Any], scores: Floats, groups: NDArray[np.int64] | None = None, *, seed: int = 0
) -> NDArray[np.bool_]:
    """Tell for each label or output whether the judge's scores are better than the same scores dealt at random.

    A task with one label an image has one entry, by its ranking metric; each label of a multi-label task must rank its
    images better, each output of a regression correlate.

    Shapes: groups (n_images,) int64; returns (n_outputs,) bool.
    """
    kind = kind_of(task)
    names = [f"cc/{name}" for name in task.classes] if not kind.has_classes else [primary_metric(task)]
    if kind.independent:
        return known_labels(np.asarray(y).astype(bool), scores, groups)
    if movable(len(y), groups) < 0.5:
        return np.zeros(len(names), dtype=bool)
    real = metrics(task, y, scores)
    chunks = [dealt_metrics(task, y, scores, some) for some in deals(len(y), groups, n_deals=N_DEALS, seed=seed)]
    as_good = [(~(np.concatenate([chunk[name] for chunk in chunks]) < real[name] - 1e-9)).sum() for name in names]
    return (1 + np.array(as_good)) / (1 + N_DEALS) * len(names) <= SHOWN


def expected_count(
    task: Task, y: NDArray[Any], scores: Floats, known: NDArray[np.bool_] | None = None, *, seed: int = 0
) -> int:
    """Return how many images would be listed where no label is wrong, of the labels or outputs that are *known*.

    Labels are drawn from the judge's own probabilities, after a temperature where they need one; of a regression, the
    residuals are taken as normal.
    """
    random, n, kind = np.random.default_rng(seed), len(y), kind_of(task)
    known = np.ones(kind.n_columns, dtype=bool) if known is None else known
    if not kind.has_classes:
        beyond = math.erfc(OUTLIER / math.sqrt(2))
        return round(n * (1 - (1 - beyond) ** int(known.sum())))
    calibration, _ = fit_calibration(task, y, scores)
    p = scores if calibration is None else calibration.apply(scores)
    worlds = [probable_errors(task, kind.draw(p, random), scores) for _ in range(N_WORLDS)]
    counts = [len({error.position for error in doubted if known[error.output]}) for doubted in worlds]
    return round(float(np.mean(counts)))
