"""The metrics of a task, one record each: what it sums over images, and the formula on those sums.

Adding a metric is one record in ``METRICS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from classify.errors import TaskError
from classify.evaluation.sums import AGREEMENT, COUNTS, ERRORS, LOSS, MISTAKES, PRODUCTS, RANKS, Sums

if TYPE_CHECKING:
    from features_store import Task

__all__ = [
    "METRICS",
    "Metric",
    "f1",
    "find_metric",
    "greater_is_better",
    "metrics_of",
    "primary_metric",
    "ratio",
    "shown_metrics",
    "thirds",
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
    needs_probabilities : bool
        Answers that only rank or decide can't be judged by it.
    shown : tuple of str
        Kinds of task whose leaderboard has a column for it; the first shown metric of a kind ranks.
    scale : {"proportion", "share", "positive", "correlation"}
        How its interval is made, see `classify.evaluation.intervals`: a share of things that are right or wrong,
        another number from 0 to 1, one from 0 up, or one from -1 to 1.
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


def ratio(numerator: Floats, denominator: Floats, nothing: float = 0.0) -> Floats:
    """Divide; nothing over nothing is 0 (or *nothing*), as scikit-learn has it with ``zero_division=0``."""
    found: Floats = np.divide(
        numerator, denominator, out=np.full(np.shape(numerator), nothing), where=np.asarray(denominator) > 0
    )
    return found


def thirds(task: Task, sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Hits, truths and decisions by class."""
    n = len(task.classes)
    return sums[:, :n], sums[:, n : 2 * n], sums[:, 2 * n : 3 * n]


def f1(task: Task, sums: Floats) -> Floats:
    hit, true, decided = thirds(task, sums)
    return ratio(2 * hit, true + decided)


def _weighted_f1(task: Task, sums: Floats) -> Floats:
    _, true, _ = thirds(task, sums)
    return ratio((f1(task, sums) * true).sum(axis=1), true.sum(axis=1))


def _micro_f1(task: Task, sums: Floats) -> Floats:
    hit, true, decided = thirds(task, sums)
    return ratio(2 * hit.sum(axis=1), (true + decided).sum(axis=1))


def _accuracy(task: Task, sums: Floats) -> Floats:
    found: Floats = thirds(task, sums)[0].sum(axis=1) / sums[:, -1]
    return found


def _recall(task: Task, sums: Floats) -> Floats:
    hit, true, _ = thirds(task, sums)
    return ratio(hit, true, nothing=np.nan)


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
    Metric("macro_f1", "macro F1", _CLASSES, COUNTS, f1, shown=_CLASSES, **_BY_CLASS),
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
