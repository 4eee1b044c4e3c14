"""The metrics of a task, one record each, and the one engine that computes them.

Adding a metric is one record in ``METRICS``: what it sums over images, and the formula on those sums. The engine
computes it on all images, on bootstrap resamples, and with the scores dealt to other images; `metrics` is
`resampled_metrics` with every weight 1, so a number and its interval cannot differ in what they mean. The formulas are
numpy rather than calls of scikit-learn, because an interval needs each a thousand times; the tests hold them to
scikit-learn's numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from classify.data.kinds import KINDS, kind_of
from classify.errors import TaskError
from classify.evaluation.sums import AGREEMENT, COUNTS, ERRORS, LOSS, MISTAKES, PRODUCTS, RANKS, Additive, Ranked

if TYPE_CHECKING:
    from features_store import Task

Floats = NDArray[np.float64]
Kind = Literal["single", "multi", "regression"]
Formula = Callable[["Task", Floats], Floats]


@dataclass(frozen=True)
class Metric:
    """One metric; its name and title as reports and as people write it, the kinds of task that it is for."""

    name: str
    title: str
    kinds: tuple[Kind, ...]
    sums: Additive | Ranked  # metrics that name the same sums share the work
    formula: Formula  # of each row of sums; by class (or output) where it is averaged or per_output; NaN: undefined
    greater_is_better: bool = True
    needs_probabilities: bool = False  # scores that only rank or decide cannot be judged by it
    shown: tuple[Kind, ...] = ()  # kinds whose leaderboard has a column for it; the first one shown ranks
    shown_alone: bool = False  # shown only where the task has one output
    # How its interval is made (`classify.evaluation.bootstrap`): a share of things that are right or wrong, another
    # number from 0 to 1, one from 0 up, or one from -1 to 1.
    scale: Literal["proportion", "share", "positive", "correlation"] = "share"
    constant_may_win: bool = False  # a constant may score best by it without knowing anything: the majority counts too
    averaged: bool = False  # the mean over the classes for which the formula is defined
    per_output: bool = False  # one for each output of a regression, named NAME/OUTPUT
    least_units: int = 10  # images (groups) without which it has no interval
    unsimulated: bool = False  # no interval is known to cover it: it is printed without one
    least_of_class: int = 0  # averaged: images (groups) without which a class is left out of the interval
    # Scale "positive": the metric is (numerator(task, sums) / count) ** power, linear in the sums.
    numerator: Formula | None = None
    power: float = 1.0


def ratio(numerator: Floats, denominator: Floats, nothing: float = 0.0) -> Floats:
    """Divide; nothing over nothing is 0 (or *nothing*), as scikit-learn has it with ``zero_division=0``."""
    found: Floats = np.divide(
        numerator, denominator, out=np.full(np.shape(numerator), nothing), where=np.asarray(denominator) > 0
    )
    return found


def _counted(task: Task, sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Hits, truths and predictions by class."""
    n = len(task.classes)
    return sums[:, :n], sums[:, n : 2 * n], sums[:, 2 * n : 3 * n]


def _f1(task: Task, sums: Floats) -> Floats:
    hit, true, predicted = _counted(task, sums)
    return ratio(2 * hit, true + predicted)


def _hits_over(column: int, nothing: float = 0.0) -> Formula:
    """Divide the hits by what `_counted` has in a column."""
    return lambda task, sums: ratio(_counted(task, sums)[0], _counted(task, sums)[column], nothing)


_recalls, _precisions = _hits_over(1), _hits_over(2)
_recall_of_present_classes = _hits_over(1, np.nan)


def _weighted(by_class: Formula) -> Formula:
    """Average by the images of each class."""

    def formula(task: Task, sums: Floats) -> Floats:
        _, true, _ = _counted(task, sums)
        return ratio((by_class(task, sums) * true).sum(axis=1), true.sum(axis=1))

    return formula


def _micro_f1(task: Task, sums: Floats) -> Floats:
    hit, true, predicted = _counted(task, sums)
    return ratio(2 * hit.sum(axis=1), (true + predicted).sum(axis=1))


def _accuracy(task: Task, sums: Floats) -> Floats:
    found: Floats = _counted(task, sums)[0].sum(axis=1) / sums[:, -1]
    return found


def _mean_of(column: int) -> Formula:
    return lambda task, sums: sums[:, column] / sums[:, -1]


def _squares(task: Task, sums: Floats) -> Floats:
    return sums[:, : len(task.classes)]


def _absolutes(task: Task, sums: Floats) -> Floats:
    n = len(task.classes)
    return sums[:, n : 2 * n]


def _positive(name: str, title: str, sums: Additive, numerator: Formula, power: float = 1.0, **more: Any) -> Metric:
    """Make a record of a mean of what is never below 0, or a root of one: lower is better, a constant may be lowest."""

    def formula(task: Task, table: Floats) -> Floats:
        above = numerator(task, table)
        found: Floats = (above / (table[:, -1:] if above.ndim > 1 else table[:, -1])) ** power
        return found

    more = {"kinds": _R, "greater_is_better": False, "scale": "positive", "constant_may_win": True, **more}
    return Metric(name, title, sums=sums, formula=formula, numerator=numerator, power=power, **more)


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


_S: tuple[Kind, ...] = ("single",)
_M: tuple[Kind, ...] = ("multi",)
_R: tuple[Kind, ...] = ("regression",)
_CLASSES: tuple[Kind, ...] = ("single", "multi")

_BY_CLASS: dict[str, Any] = {"averaged": True, "least_of_class": 5}
_RARE: dict[str, Any] = {"averaged": True, "least_of_class": 20, "least_units": 50}
_RIGHT: dict[str, Any] = {"scale": "proportion", "constant_may_win": True}
_CORRELATION: dict[str, Any] = {"scale": "correlation"}

METRICS: tuple[Metric, ...] = (
    Metric("weighted_f1", "weighted F1", _CLASSES, COUNTS, _weighted(_f1), shown=_CLASSES),
    Metric("macro_f1", "macro F1", _CLASSES, COUNTS, _f1, shown=_CLASSES, **_BY_CLASS),
    Metric("micro_f1", "micro F1", _S, COUNTS, _micro_f1, **_RIGHT),
    Metric("micro_f1", "micro F1", _M, COUNTS, _micro_f1, shown=_M),
    Metric("accuracy", "accuracy", _S, COUNTS, _accuracy, shown=_S, **_RIGHT),
    Metric("balanced_accuracy", "balanced accuracy", _S, COUNTS, _recall_of_present_classes, shown=_S, **_BY_CLASS),
    Metric("macro_precision", "macro precision", _CLASSES, COUNTS, _precisions, unsimulated=True, averaged=True),
    Metric("macro_recall", "macro recall", _CLASSES, COUNTS, _recalls, unsimulated=True, averaged=True),
    Metric("weighted_precision", "weighted precision", _CLASSES, COUNTS, _weighted(_precisions), unsimulated=True),
    Metric("weighted_recall", "weighted recall", _S, COUNTS, _accuracy, **_RIGHT),
    Metric(
        "weighted_recall", "weighted recall", _M, COUNTS, _weighted(_recalls), unsimulated=True, constant_may_win=True
    ),
    _positive("log_loss", "log loss", LOSS, lambda _, sums: sums[:, 0], kinds=_S, needs_probabilities=True),
    Metric("subset_accuracy", "subset accuracy", _M, MISTAKES, _mean_of(0), **_RIGHT),
    Metric("hamming_loss", "Hamming loss", _M, MISTAKES, _mean_of(1), greater_is_better=False, constant_may_win=True),
    Metric("mean_average_precision", "mAP", _M, RANKS, lambda _, sums: sums, shown=_M, **_RARE),
    _positive("rmse", "RMSE", ERRORS, lambda t, s: _squares(t, s).mean(axis=1), 0.5, shown=_R),
    _positive("rmse", "RMSE", ERRORS, _squares, 0.5, per_output=True),
    Metric("cc", "Pearson r", _R, PRODUCTS, _correlations, shown=_R, per_output=True, **_CORRELATION),
    Metric("cc_pooled", "Pearson r, pooled", _R, PRODUCTS, _pooled_correlation, **_CORRELATION),
    Metric("sagr", "SAGR", _R, AGREEMENT, _agreeing, per_output=True, **_RIGHT),
    _positive("mae", "MAE", ERRORS, _absolutes, per_output=True, shown=_R, shown_alone=True),
    Metric("sagr", "SAGR", _R, AGREEMENT, lambda t, s: _agreeing(t, s).mean(axis=1), shown=_R, **_RIGHT),
)
"""Every metric. Adding one is one record here."""


@functools.lru_cache(maxsize=64)
def metrics_of(task: Task) -> Mapping[str, Metric]:
    """Return the metrics of a task by name, ``NAME/OUTPUT`` for those of one output, in the order of reports."""
    names = kind_of(task).names()
    ours = [metric for metric in METRICS if not names.isdisjoint(metric.kinds)]
    found = {f"{metric.name}/{name}": metric for name in task.classes for metric in ours if metric.per_output}
    return found | {metric.name: metric for metric in ours if not metric.per_output}


def find_metric(name: str) -> Metric:
    """Return a metric by its name in reports; any of several kinds of task."""
    base, _, output = name.partition("/")
    for metric in METRICS:
        if metric.name == base and metric.per_output == bool(output):
            return metric
    valid = ", ".join(dict.fromkeys(metric.name for metric in METRICS))
    raise TaskError(f"unknown metric {name!r}; valid: {valid}")


def primary_metric(task: Task) -> str:
    """Return the name of the metric that ranks heads on *task*."""
    return kind_of(task).primary_metric


def shown_metrics(kind: str, classes: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Return the metrics that a leaderboard of this kind of task shows, the one that ranks first."""
    names = KINDS[kind].names()
    shown = [one for one in METRICS if not names.isdisjoint(one.shown) and (len(classes) == 1 or not one.shown_alone)]
    outputs = [[f"{one.name}/{name}" for name in classes] if one.per_output else [one.name] for one in shown]
    return tuple(name for names in outputs for name in names)


def greater_is_better(name: str) -> bool:
    """Tell whether a larger value of the metric *name* is the better one (``rmse/valence`` counts as rmse)."""
    base = name.partition("/")[0]
    return next((one.greater_is_better for one in METRICS if one.name == base), True)


def metrics(task: Task, y_true: Any, y_score: Any) -> dict[str, float]:
    """Compute every metric of the task's kind.

    Precision, recall and F1 are taken over *all* classes of the task with 0 for a class that is neither present nor
    predicted, so that their meaning does not change with the part it is computed on; balanced accuracy is the mean
    recall of the classes that are present. A number that is undefined (the correlation of a constant, the mean average
    precision without a positive) is NaN.
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
    truth, score = kind_of(task).checked(y_true, y_score)
    weights = np.asarray(weights, dtype=np.float64)
    return _columns(task, lambda sums: sums.weighted(task, truth, score, weights, units))


def dealt_metrics(task: Task, y_true: Any, y_score: Any, deals: NDArray[np.int64]) -> dict[str, Floats]:
    """Compute the metrics with the scores dealt to other images.

    Shapes: deals (n_deals, n_images) int64; returns (n_deals,) float64.
    """
    truth, score = kind_of(task).checked(y_true, y_score)
    return _means(task, _columns(task, lambda sums: sums.dealt(task, truth, score, deals)))


def relative_errors(
    task: Task, y_true: Any, y_score: Any, weights: NDArray[Any], *, units: NDArray[np.int64] | None = None
) -> dict[str, tuple[Floats, Floats]]:
    """Return the logarithm of each metric of scale "positive" and its standard error, once per row of *weights*.

    The error is that of a ratio of sums over units, from the units that a row draws.
    """
    truth, score = kind_of(task).checked(y_true, y_score)
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


def _columns(task: Task, summed: Callable[[Additive | Ranked], Floats]) -> dict[str, Floats]:
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
    """Return the mean of each row over the classes that are not NaN; NaN where all are."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        found: Floats = np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
    return found


def confusion(task: Task, y_true: Any, y_score: Any) -> np.ndarray:
    """Count images by true class (rows) and predicted class (columns), (n_classes, n_classes); single only."""
    truth, score = kind_of(task).checked(y_true, y_score)
    n = len(task.classes)
    return np.bincount(truth * n + kind_of(task).decide(score), minlength=n * n).reshape(n, n)


def per_class(task: Task, y_true: Any, y_score: Any) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of each class, in the order of the task.

    A class absent from *y_true* keeps its row, with support 0; a rate of nothing is 0.
    """
    truth, score = kind_of(task).checked(y_true, y_score)
    sums = COUNTS.columns(task, truth, score).sum(axis=0, keepdims=True)
    _, true, _ = _counted(task, sums)
    columns = [formula(task, sums)[0] for formula in (_precisions, _recalls, _f1)]
    rows = zip(task.classes, *(column.tolist() for column in columns), true[0].tolist(), strict=True)
    return [
        {"class": name, "precision": precision, "recall": recall, "f1": f1, "support": int(support)}
        for name, precision, recall, f1, support in rows
    ]
