"""Every metric of a task on all images, on weighted ones, and with the answers dealt to other images.

``metrics`` is `resampled_metrics` with every weight 1, so a number and its interval can't differ in what they mean.
They are written in numpy rather than called from scikit-learn, because an interval asks for each a thousand times; the
tests hold them to scikit-learn's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import TaskError
from classify.evaluation.measures import (
    METRICS,
    Metric,
    find_metric,
    greater_is_better,
    metrics_of,
    primary_metric,
    shown_metrics,
)
from classify.evaluation.sums import Additive, Sums

if TYPE_CHECKING:
    from features_store import Task

__all__ = [
    "METRICS",
    "Metric",
    "checked_scores",
    "dealt_metrics",
    "decide",
    "find_metric",
    "greater_is_better",
    "mean_over_classes",
    "metrics",
    "metrics_of",
    "primary_metric",
    "relative_errors",
    "resampled_columns",
    "resampled_metrics",
    "shown_metrics",
]

Floats = NDArray[np.float64]


def metrics(task: Task, y_true: Any, y_score: Any) -> dict[str, float]:
    """Compute every metric of the task's kind.

    F1 is taken over *all* classes of the task with 0 for a class that is neither present nor predicted, so
    that its meaning does not change with the part it is computed on; balanced accuracy is the mean recall
    of the classes that are present. A number that is undefined (the correlation of a constant, the
    mean average precision without a positive) is NaN.

    Raises TaskError.
    """
    found = resampled_metrics(task, y_true, y_score, np.ones((1, len(np.asarray(y_score)))))
    return {name: float(value[0]) for name, value in found.items()}


def resampled_metrics(
    task: Task, y_true: Any, y_score: Any, weights: NDArray[Any], *, units: NDArray[np.int64] | None = None
) -> dict[str, Floats]:
    """Compute the metrics of *task* on weighted images, once per row of *weights*.

    Shapes: weights (n_resamples, n_units); units (n_images,) int64; returns (n_resamples,) float64.
    """
    return _means(task, resampled_columns(task, y_true, y_score, weights, units=units))


def resampled_columns(
    task: Task, y_true: Any, y_score: Any, weights: NDArray[Any], *, units: NDArray[np.int64] | None = None
) -> dict[str, Floats]:
    """Do as `resampled_metrics`, but give averaged metrics by class, (n_resamples, n_classes)."""
    truth, score = checked_scores(task, y_true, y_score)
    weights = np.asarray(weights, dtype=np.float64)
    return _columns(task, lambda sums: sums.weighted(task, truth, score, weights, units))


def dealt_metrics(task: Task, y_true: Any, y_score: Any, deals: NDArray[np.int64]) -> dict[str, Floats]:
    """Compute the metrics with the answers dealt to other images.

    Shapes: deals (n_deals, n_images) int64; returns (n_deals,) float64.
    """
    truth, score = checked_scores(task, y_true, y_score)
    return _means(task, _columns(task, lambda sums: sums.dealt(task, truth, score, deals)))


def relative_errors(
    task: Task, y_true: Any, y_score: Any, weights: NDArray[Any], *, units: NDArray[np.int64] | None = None
) -> dict[str, tuple[Floats, Floats]]:
    """Return the logarithm of each metric of scale "positive" and its standard error, once per row of *weights*.

    The error is that of a ratio of sums over units, from the units that a row draws.
    """
    truth, score = checked_scores(task, y_true, y_score)
    weights = np.asarray(weights, dtype=np.float64)
    found: dict[str, tuple[Floats, Floats]] = {}
    for name, metric in metrics_of(task).items():
        if metric.numerator is None or not isinstance(metric.sums, Additive):
            continue
        table = metric.sums.by_unit(task, truth, score, units)
        above, count = metric.numerator(task, table), table[:, -1]
        if metric.per_output:
            above = above[:, task.classes.index(name.partition("/")[2])]
        total, images = weights @ above, weights @ count
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = total / images
            squares = weights @ above**2 - 2 * mean * (weights @ (above * count)) + mean**2 * (weights @ count**2)
            error = np.sqrt(np.clip(squares, 0.0, None)) / total
            found[name] = metric.power * np.log(mean), metric.power * error
    return found


def _columns(task: Task, summed: Callable[[Sums], Floats]) -> dict[str, Floats]:
    """Apply each formula to its sums, which are made once for the metrics that share them."""
    tables: dict[int, Floats] = {}
    found: dict[str, Floats] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, metric in metrics_of(task).items():
            if id(metric.sums) not in tables:
                tables[id(metric.sums)] = summed(metric.sums)
            values = metric.formula(task, tables[id(metric.sums)])
            found[name] = values[:, task.classes.index(name.partition("/")[2])] if metric.per_output else values
    return found


def _means(task: Task, columns: Mapping[str, Floats]) -> dict[str, Floats]:
    averaged = {name: metric.averaged for name, metric in metrics_of(task).items()}
    return {name: mean_over_classes(values) if averaged[name] else values for name, values in columns.items()}


def mean_over_classes(values: Floats) -> Floats:
    """Return the mean of each row over the classes that aren't NaN; NaN where all are."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        found: Floats = np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
    return found


def decide(task: Task, y_score: Any) -> np.ndarray:
    """Return the decisions that the scores amount to: codes (single), 0/1 at one half (multi), or the values."""
    score = np.asarray(y_score)
    if task.kind == "single":
        return np.argmax(score, axis=1)
    return (score >= 0.5).astype(np.uint8) if task.kind == "multi" else score


def checked_scores(task: Task, y_true: Any, y_score: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and scores as arrays; refuse shapes, codes and tasks that cannot be scored."""
    truth, score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    n_columns = len(task.classes)
    if task.kind == "regression":
        truth = truth.astype(np.float64)
        truth, score = (a[:, None] if a.ndim == 1 else a for a in (truth, score))
    expected = (len(score),) if task.kind == "single" else (len(score), n_columns)
    if score.shape[1:] != (n_columns,) or truth.shape != expected or not len(score):
        message = (
            f"can't score task {task.name!r} ({task.kind}): got truth of shape {truth.shape} and scores of shape "
            f"{score.shape}; expected at least one row and a column of scores for each of {list(task.classes)}"
        )
        raise TaskError(message)
    if task.kind == "single" and not np.isin(truth, np.arange(n_columns)).all():
        wrong = truth[~np.isin(truth, np.arange(n_columns))][0].item()
        message = f"can't score task {task.name!r}: the truth must be codes 0..{n_columns - 1}, found {wrong!r}"
        raise TaskError(message)
    if task.kind == "regression" and task.range is None:
        message = f"can't score task {task.name!r}: a regression needs its range (SAGR is about the midpoint)"
        raise TaskError(message)
    return (truth.astype(np.int64) if task.kind == "single" else truth), score
