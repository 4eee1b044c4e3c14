"""The metrics of a task, one record each: what it sums over images, and the formula on those sums.

``metrics`` is `resampled_metrics` with every weight 1, so a number and its interval can't differ in what they mean.
They are written in numpy rather than called from scikit-learn, because an interval asks for each a thousand times; the
tests hold them to scikit-learn's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from classify.errors import TaskError
from classify.evidence.sums import AGREEMENT, COUNTS, ERRORS, LOSS, MISTAKES, PRODUCTS, RANKS, Additive, Sums

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
Kind = Literal["single", "multi", "regression"]
Formula = Callable[["Task", Floats], Floats]
Scale = Literal["proportion", "share", "positive", "correlation"]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Parameters
    ----------
    name, title : str
        As reports and as people write it.
    kinds : tuple of str
        Of the tasks that it is for.
    sums : Sums
        What it sums over images; metrics that name the same sums share the work.
    formula : callable
        ``formula(task, sums)`` gives the metric of each row; by class where it is *averaged*, by output where it is
        *per_output*; NaN where it isn't defined.
    greater_is_better : bool
    needs_probabilities : bool
        Answers that only rank or decide can't be judged by it.
    shown : tuple of str
        Kinds of task whose leaderboard has a column for it; the first shown metric of a kind ranks.
    scale : {"proportion", "share", "positive", "correlation"}
        How its interval is made, see `classify.evidence.intervals`: a share of things that are right or wrong, another
        number from 0 to 1, one from 0 up, or one from -1 to 1.
    constant_may_win : bool
        Whether an answer that is always the same may score best without knowing anything, so that a head has to beat
        the majority, too.
    averaged : bool
        Whether it is the mean over the classes, those left out for which the formula gives NaN.
    per_output : bool
        Whether there is one for each output of a regression, named ``NAME/OUTPUT``.
    least_units : int
        Images (groups) without which it has no interval.
    least_of_class : int
        Averaged: images (groups) of a class without which the class is left out of the interval.
    numerator : callable or None
        Scale "positive": the metric is ``(numerator(task, sums) / count) ** power``, and this is linear in the sums.
    power : float
    """

    name: str
    title: str
    kinds: tuple[Kind, ...]
    sums: Sums
    formula: Formula
    greater_is_better: bool = True
    needs_probabilities: bool = False
    shown: tuple[Kind, ...] = ()
    scale: Scale = "share"
    constant_may_win: bool = False
    averaged: bool = False
    per_output: bool = False
    least_units: int = 10
    least_of_class: int = 0
    numerator: Formula | None = None
    power: float = 1.0


def _ratio(numerator: Floats, denominator: Floats, nothing: float = 0.0) -> Floats:
    """Divide; nothing over nothing is 0 (or *nothing*), as scikit-learn has it with ``zero_division=0``."""
    found: Floats = np.divide(
        numerator, denominator, out=np.full(np.shape(numerator), nothing), where=np.asarray(denominator) > 0
    )
    return found


def _thirds(task: Task, sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Hits, truths and decisions by class."""
    n = len(task.classes)
    return sums[:, :n], sums[:, n : 2 * n], sums[:, 2 * n : 3 * n]


def _f1(task: Task, sums: Floats) -> Floats:
    hit, true, decided = _thirds(task, sums)
    return _ratio(2 * hit, true + decided)


def _weighted_f1(task: Task, sums: Floats) -> Floats:
    _, true, _ = _thirds(task, sums)
    return _ratio((_f1(task, sums) * true).sum(axis=1), true.sum(axis=1))


def _micro_f1(task: Task, sums: Floats) -> Floats:
    hit, true, decided = _thirds(task, sums)
    return _ratio(2 * hit.sum(axis=1), (true + decided).sum(axis=1))


def _accuracy(task: Task, sums: Floats) -> Floats:
    found: Floats = _thirds(task, sums)[0].sum(axis=1) / sums[:, -1]
    return found


def _recall(task: Task, sums: Floats) -> Floats:
    hit, true, _ = _thirds(task, sums)
    return _ratio(hit, true, nothing=np.nan)


def _mean_of(column: int) -> Formula:
    return lambda task, sums: sums[:, column] / sums[:, -1]


def _first(task: Task, sums: Floats) -> Floats:
    return sums[:, 0]


def _squares(task: Task, sums: Floats) -> Floats:
    return sums[:, : len(task.classes)]


def _absolutes(task: Task, sums: Floats) -> Floats:
    n = len(task.classes)
    return sums[:, n : 2 * n]


def _mean_square(task: Task, sums: Floats) -> Floats:
    found: Floats = _squares(task, sums).mean(axis=1)
    return found


def _positive(name: str, title: str, kind: Kind, sums: Sums, numerator: Formula, power: float, **more: Any) -> Metric:
    """Make a record of a mean of what is never below 0, or a root of one: lower is better, a constant may be lowest."""

    def formula(task: Task, table: Floats) -> Floats:
        above = numerator(task, table)
        found: Floats = (above / (table[:, -1:] if above.ndim > 1 else table[:, -1])) ** power
        return found

    options: dict[str, Any] = {"greater_is_better": False, "scale": "positive", "constant_may_win": True, **more}
    return Metric(name, title, (kind,), sums, formula, numerator=numerator, power=power, **options)


def _agreeing(task: Task, sums: Floats) -> Floats:
    return sums[:, :-1] / sums[:, -1:]


def _correlations(task: Task, sums: Floats) -> Floats:
    n = len(task.classes)
    return _correlation(sums[:, -1:], *(sums[:, i * n : (i + 1) * n] for i in range(5)))


def _pooled_correlation(task: Task, sums: Floats) -> Floats:
    return _correlation(sums[:, -1] * len(task.classes), *sums[:, 5 * len(task.classes) : -1].T)


def _correlation(count: Floats, t: Floats, p: Floats, tt: Floats, pp: Floats, tp: Floats) -> Floats:
    varied_t, varied_p = tt - t * t / count, pp - p * p / count
    defined = (varied_t > 1e-12 * np.abs(tt)) & (varied_p > 1e-12 * np.abs(pp))
    spread = np.sqrt(np.where(defined, varied_t * varied_p, 1.0))
    return np.where(defined, (tp - t * p / count) / spread, np.nan)


def _over_outputs(formula: Formula) -> Formula:
    return lambda task, sums: formula(task, sums).mean(axis=1)


_S: tuple[Kind, ...] = ("single",)
_M: tuple[Kind, ...] = ("multi",)
_R: tuple[Kind, ...] = ("regression",)
_CLASSES: tuple[Kind, ...] = ("single", "multi")

_BY_CLASS: dict[str, Any] = {"averaged": True, "least_of_class": 5}
_RIGHT: dict[str, Any] = {"scale": "proportion", "constant_may_win": True}

METRICS: tuple[Metric, ...] = (
    Metric("weighted_f1", "weighted F1", _CLASSES, COUNTS, _weighted_f1, shown=_CLASSES),
    Metric("macro_f1", "macro F1", _CLASSES, COUNTS, _f1, shown=_CLASSES, **_BY_CLASS),
    Metric("micro_f1", "micro F1", _S, COUNTS, _micro_f1, **_RIGHT),
    Metric("micro_f1", "micro F1", _M, COUNTS, _micro_f1, shown=_M),
    Metric("accuracy", "accuracy", _S, COUNTS, _accuracy, shown=_S, **_RIGHT),
    Metric("balanced_accuracy", "balanced accuracy", _S, COUNTS, _recall, shown=_S, **_BY_CLASS),
    _positive("log_loss", "log loss", "single", LOSS, _first, 1.0, needs_probabilities=True),
    Metric("subset_accuracy", "subset accuracy", _M, MISTAKES, _mean_of(0), **_RIGHT),
    Metric("hamming_loss", "Hamming loss", _M, MISTAKES, _mean_of(1), greater_is_better=False, constant_may_win=True),
    Metric(
        "mean_average_precision",
        "mAP",
        _M,
        RANKS,
        lambda task, sums: sums,
        shown=_M,
        averaged=True,
        least_of_class=20,
        least_units=50,
    ),
    _positive("rmse", "RMSE", "regression", ERRORS, _squares, 0.5, per_output=True),
    Metric("cc", "Pearson r", _R, PRODUCTS, _correlations, shown=_R, scale="correlation", per_output=True),
    Metric("sagr", "SAGR", _R, AGREEMENT, _agreeing, per_output=True, **_RIGHT),
    _positive("mae", "MAE", "regression", ERRORS, _absolutes, 1.0, per_output=True),
    _positive("rmse", "RMSE", "regression", ERRORS, _mean_square, 0.5, shown=_R),
    Metric("cc_pooled", "Pearson r, pooled", _R, PRODUCTS, _pooled_correlation, scale="correlation"),
    Metric("sagr", "SAGR", _R, AGREEMENT, _over_outputs(_agreeing), shown=_R, **_RIGHT),
)
"""Every metric. Adding one is one record here."""

_PRIMARY = {"single": "weighted_f1", "multi": "weighted_f1", "regression": "rmse"}


def metrics_of(task: Task) -> dict[str, Metric]:
    """Return the metrics of a task by name, ``NAME/OUTPUT`` for those of one output, in the order of reports."""
    ours = [metric for metric in METRICS if task.kind in metric.kinds]
    found = {f"{one.name}/{name}": one for name in task.classes for one in ours if one.per_output}
    return found | {one.name: one for one in ours if not one.per_output}


def find_metric(name: str) -> Metric:
    """Return a metric by its name in reports; any of several kinds of task."""
    base, _, output = name.partition("/")
    for metric in METRICS:
        if metric.name == base and metric.per_output == bool(output):
            return metric
    message = f"unknown metric {name!r}; valid: {', '.join(dict.fromkeys(one.name for one in METRICS))}"
    raise TaskError(message)


def primary_metric(task: Task) -> str:
    """Return the name of the metric that ranks heads on *task*."""
    return _PRIMARY[task.kind]


def shown_metrics(kind: str, classes: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Return the metrics that a leaderboard of this kind of task shows, the one that ranks first."""
    if kind != "regression":
        return tuple(metric.name for metric in METRICS if kind in metric.shown)
    if len(classes) == 1:
        return ("rmse", f"cc/{classes[0]}", f"mae/{classes[0]}", "sagr")
    return ("rmse", *(f"cc/{name}" for name in classes), "sagr")


def greater_is_better(name: str) -> bool:
    """Tell whether a larger value of the metric *name* is the better one (``rmse/valence`` counts as rmse)."""
    base = name.partition("/")[0]
    return next((one.greater_is_better for one in METRICS if one.name == base), True)


def metrics(task: Task, y_true: Any, y_score: Any) -> dict[str, float]:
    """Compute every metric of the task's kind.

    F1 is taken over *all* classes of the task with 0 for a class that is neither present nor predicted, so
    that its meaning does not change with the part it is computed on; balanced accuracy is the mean recall
    of the classes that are present. A number that is undefined (the correlation of a constant, the
    mean average precision without a positive) is NaN.

    Parameters
    ----------
    task : features_store.Task
        Names the kind, the classes or outputs, and the range of a regression.
    y_true : array
        single: (n_images,) codes of the classes; multi: (n_images, n_classes) of 0 and 1; regression:
        (n_images, n_outputs), or (n_images,) for one output.
    y_score : array
        single and multi: probabilities (n_images, n_classes); regression: values shaped as *y_true*.

    Returns
    -------
    dict of str to float
        single: weighted_f1, macro_f1, micro_f1, accuracy, balanced_accuracy, log_loss (nats).
        multi: weighted_f1, macro_f1, micro_f1, subset_accuracy, hamming_loss, mean_average_precision.
        regression: for each output d rmse/d, cc/d, sagr/d, mae/d, in the units of the labels, and over all
        outputs at once rmse, cc_pooled, sagr.

    Raises
    ------
    TaskError
        When shapes or codes don't fit the task, or there is no row.
    """
    found = resampled_metrics(task, y_true, y_score, np.ones((1, len(np.asarray(y_score)))))
    return {name: float(value[0]) for name, value in found.items()}


def resampled_metrics(
    task: Task, y_true: Any, y_score: Any, weights: NDArray[Any], *, units: NDArray[np.int64] | None = None
) -> dict[str, Floats]:
    """Compute the metrics of *task* on weighted images, once per row of *weights*.

    Parameters
    ----------
    task : Task
    y_true, y_score : ndarray
        As `metrics` takes them.
    weights : ndarray of shape (n_resamples, n_units)
        How often each unit was drawn.
    units : ndarray of shape (n_images,), int64, optional
        The unit of each image. None: each image is its own.

    Returns
    -------
    dict of str to ndarray of shape (n_resamples,), float64
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

    Parameters
    ----------
    task : Task
    y_true, y_score : ndarray
        As `metrics` takes them.
    deals : ndarray of shape (n_deals, n_images), int64
        Each row an order of the images: image ``i`` gets the answer of image ``deals[row, i]``, the whole row of it.

    Returns
    -------
    dict of str to ndarray of shape (n_deals,), float64
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
