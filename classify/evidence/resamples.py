"""Every metric on many resamples at once, from weighted sums instead of repeated scoring.

A bootstrap resample is a weight per unit: how often it was drawn. All metrics but the mean average precision
are functions of a few sums over images (how many of each class were hit, how large the errors are). The sums
of all resamples are one matrix product, ``weights @ statistics``; the rest is a formula on short rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store.schema import Task

__all__ = ["resampled_metrics"]

Floats = NDArray[np.float64]
_TINY = float(np.finfo(np.float64).eps)


def resampled_metrics(
    task: Task,
    y_true: NDArray[Any],
    y_score: NDArray[Any],
    weights: NDArray[Any],
    *,
    units: NDArray[np.int64] | None = None,
) -> dict[str, Floats]:
    """Compute the metrics of *task* on weighted images, once per row of *weights*.

    Parameters
    ----------
    task : Task
    y_true : ndarray
        single: (n_images,) codes; multi: (n_images, n_classes) 0 or 1; regression: (n_images,) or
        (n_images, n_outputs).
    y_score : ndarray
        Probabilities (n_images, n_classes), or for a regression values of the shape of *y_true*.
    weights : ndarray of shape (n_resamples, n_units)
        How often each unit was drawn.
    units : ndarray of shape (n_images,), int64, optional
        The unit of each image. None: each image is its own.

    Returns
    -------
    dict of str to ndarray of shape (n_resamples,), float64
        Under the names of `classify.evidence.metrics.metrics`; NaN where a metric isn't defined.
    """
    y_true, y_score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    statistics, formulas = _KINDS[task.kind]
    table = statistics(task, y_true, y_score)  # (n_images, n_sums)
    if units is not None:
        table = _sum_by_unit(table, units, weights.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        found = formulas(task, weights @ table)
        if task.kind == "multi":
            of_images = weights if units is None else weights[:, units]
            found["mean_average_precision"] = _mean_average_precision(y_true, y_score, of_images)
    return found


def _sum_by_unit(table: Floats, units: NDArray[np.int64], n_units: int) -> Floats:
    columns = [np.bincount(units, weights=column, minlength=n_units) for column in table.T]
    return np.stack(columns, axis=1)


def _hits(truth: NDArray[Any], predicted: NDArray[Any]) -> Floats:
    """Statistics of class indicators (n_images, n_classes): hits, truths, predictions, side by side."""
    return np.concatenate([truth & predicted, truth, predicted], axis=1).astype(np.float64)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide; nothing over nothing is 0, as scikit-learn has it with ``zero_division=0``."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), 0.0)


def _f1_family(sums: Floats, n_classes: int) -> dict[str, Floats]:
    hit, true, predicted = (sums[:, i * n_classes : (i + 1) * n_classes] for i in range(3))
    f1 = _ratio(2 * hit, true + predicted)  # (n_resamples, n_classes)
    return {
        "weighted_f1": _ratio((f1 * true).sum(axis=1), true.sum(axis=1)),
        "macro_f1": f1.mean(axis=1),
        "micro_f1": _ratio(2 * hit.sum(axis=1), (true + predicted).sum(axis=1)),
    }


def _single_statistics(task: Task, y_true: NDArray[Any], y_score: Floats) -> Floats:
    codes = np.arange(len(task.classes))
    indicators = _hits(y_true[:, None] == codes, y_score.argmax(axis=1)[:, None] == codes)
    of_truth = np.take_along_axis(y_score, y_true[:, None].astype(np.int64), axis=1)[:, 0]
    of_truth = of_truth / y_score.sum(axis=1)
    loss = -np.log(np.clip(of_truth, _TINY, 1.0))
    return np.column_stack([indicators, loss, np.ones(len(loss))])


def _single_formulas(task: Task, sums: Floats) -> dict[str, Floats]:
    n = len(task.classes)
    hit, true, total = sums[:, :n], sums[:, n : 2 * n], sums[:, -1]
    return {
        **_f1_family(sums, n),
        "accuracy": hit.sum(axis=1) / total,
        "balanced_accuracy": _ratio(hit, true).sum(axis=1) / (true > 0).sum(axis=1),
        "log_loss": sums[:, -2] / total,
    }


def _multi_statistics(task: Task, y_true: NDArray[Any], y_score: Floats) -> Floats:
    truth, predicted = y_true.astype(bool), y_score >= 0.5
    wrong = truth != predicted
    return np.column_stack([_hits(truth, predicted), ~wrong.any(axis=1), wrong.mean(axis=1), np.ones(len(truth))])


def _multi_formulas(task: Task, sums: Floats) -> dict[str, Floats]:
    return {
        **_f1_family(sums, len(task.classes)),
        "subset_accuracy": sums[:, -3] / sums[:, -1],
        "hamming_loss": sums[:, -2] / sums[:, -1],
    }


def _mean_average_precision(y_true: NDArray[Any], y_score: Floats, weights: NDArray[Any]) -> Floats:
    """Average precision per class, averaged over the classes that a resample has images of."""
    drawn = np.ascontiguousarray(weights.T)
    per_class = np.stack(
        [_average_precision(y_true[:, k], y_score[:, k], drawn) for k in range(y_true.shape[1])]
    )  # (n_classes, n_resamples)
    seen = ~np.isnan(per_class)
    mean: Floats = np.where(seen, per_class, 0.0).sum(axis=0) / seen.sum(axis=0)
    return mean


def _average_precision(truth: NDArray[Any], score: Floats, drawn: Floats) -> Floats:
    """Sum of precision times gain in recall over the thresholds; NaN without a positive image.

    *drawn* are the weights with an image to a row, (n_images, n_resamples): sorting and summing down the images
    then moves whole rows, several times quicker than along them.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # ties share one threshold
    positive = truth[order] > 0
    # A threshold that adds no positive image adds nothing to the area, so only those that do are summed up to.
    hits_by_end = np.cumsum(positive)[ends]
    ends = ends[np.diff(hits_by_end, prepend=0) > 0]
    if not len(ends):
        return np.full(drawn.shape[1], np.nan)
    starts = np.append(0, ends[:-1] + 1)
    above = np.cumsum(np.add.reduceat(drawn[order[: ends[-1] + 1]], starts, axis=0), axis=0)
    found = order[: ends[-1] + 1][positive[: ends[-1] + 1]]
    firsts = np.append(0, np.cumsum(positive)[ends[:-1]])
    gains = np.add.reduceat(drawn[found], firsts, axis=0)
    hits = np.cumsum(gains, axis=0)
    np.divide(hits, above, out=above, where=above > 0)
    area: Floats = np.einsum("ij,ij->j", gains, above)
    return np.where(hits[-1] > 0, area / hits[-1], np.nan)


def _regression_statistics(task: Task, y_true: NDArray[Any], y_score: Floats) -> Floats:
    truth, predicted = (np.asarray(a, dtype=np.float64).reshape(len(y_true), -1) for a in (y_true, y_score))
    low, high = task.range or (-1.0, 1.0)
    middle = (low + high) / 2
    error = predicted - truth
    agree = np.sign(truth - middle) == np.sign(predicted - middle)
    # Sums of squares lose digits far from zero, so each output is centred, and all outputs by one number.
    t, p = _centred(truth, axis=0), _centred(predicted, axis=0)
    tt, pp = _centred(truth), _centred(predicted)
    per_output = [error**2, np.abs(error), agree, t, p, t * t, p * p, t * p]
    pooled = [tt, pp, tt * tt, pp * pp, tt * pp]
    return np.column_stack([*per_output, *(a.sum(axis=1) for a in pooled), np.ones(len(truth))])


def _centred(values: Floats, axis: int | None = None) -> Floats:
    """Subtract the mean; what is left of a constant by rounding becomes zero, so that it stays a constant."""
    left: Floats = values - values.mean(axis=axis)
    left[np.abs(left) <= 1e-12 * np.abs(values).max(axis=axis)] = 0.0
    return left


def _correlation(count: Floats, t: Floats, p: Floats, products: tuple[Floats, Floats, Floats]) -> Floats:
    tt, pp, tp = products
    varied_t, varied_p = tt - t * t / count, pp - p * p / count
    defined = (varied_t > 1e-12 * np.abs(tt)) & (varied_p > 1e-12 * np.abs(pp))
    spread = np.sqrt(np.where(defined, varied_t * varied_p, 1.0))
    return np.where(defined, (tp - t * p / count) / spread, np.nan)


def _regression_formulas(task: Task, sums: Floats) -> dict[str, Floats]:
    d, n = len(task.classes), sums[:, -1]
    square, absolute, agree, t, p, tt, pp, tp = (sums[:, i * d : (i + 1) * d].T for i in range(8))
    found: dict[str, Floats] = {}
    for i, name in enumerate(task.classes):
        found[f"rmse/{name}"] = np.sqrt(square[i] / n)
        found[f"cc/{name}"] = _correlation(n, t[i], p[i], (tt[i], pp[i], tp[i]))
        found[f"sagr/{name}"] = agree[i] / n
        found[f"mae/{name}"] = absolute[i] / n
    found["rmse"] = np.sqrt(square.sum(axis=0) / (n * d))
    st, sp, stt, spp, stp = sums[:, 8 * d : 8 * d + 5].T
    found["cc_pooled"] = _correlation(n * d, st, sp, (stt, spp, stp))
    found["sagr"] = agree.sum(axis=0) / (n * d)
    return found


_KINDS: dict[str, tuple[Callable[..., Floats], Callable[..., dict[str, Floats]]]] = {
    "single": (_single_statistics, _single_formulas),
    "multi": (_multi_statistics, _multi_formulas),
    "regression": (_regression_statistics, _regression_formulas),
}
