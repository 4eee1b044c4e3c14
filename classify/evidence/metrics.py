"""Metrics of a task: pure functions of the truth and the scores, quick enough to be bootstrapped.

Written in numpy rather than called from scikit-learn, because an interval asks for each a thousand times;
the tests hold them to scikit-learn's numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from classify.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable

    from features_store import Task

__all__ = [
    "confusion",
    "decide",
    "greater_is_better",
    "metrics",
    "per_class",
    "primary_metric",
]

_PRIMARY = {"single": "weighted_f1", "multi": "weighted_f1", "regression": "rmse"}
_LOWER_IS_BETTER = {"log_loss", "hamming_loss", "rmse", "mae"}


def primary_metric(task: Task) -> str:
    """Return the name of the metric that ranks heads on *task*."""
    return _PRIMARY[task.kind]


def greater_is_better(name: str) -> bool:
    """Tell whether a larger value of the metric *name* is the better one (``rmse/valence`` counts as rmse)."""
    return name.partition("/")[0] not in _LOWER_IS_BETTER


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
    truth, score = _checked(task, y_true, y_score)
    return _KINDS[task.kind](task, truth, score)


def decide(task: Task, y_score: Any) -> np.ndarray:
    """Return the decisions that the scores amount to: codes (single), 0/1 at one half (multi), or the values."""
    score = np.asarray(y_score)
    if task.kind == "single":
        return np.argmax(score, axis=1)
    return (score >= 0.5).astype(np.uint8) if task.kind == "multi" else score


def confusion(task: Task, y_true: Any, y_score: Any) -> np.ndarray:
    """Count images by true class (rows) and decided class (columns): int64 ``(n_classes, n_classes)``, single only."""
    truth, score = _checked(task, y_true, y_score)
    n = len(task.classes)
    return np.bincount(truth * n + np.argmax(score, axis=1), minlength=n * n).reshape(n, n)


def per_class(task: Task, y_true: Any, y_score: Any) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of each class, in the order of the task.

    A class absent from *y_true* keeps its row, with support 0.
    """
    truth, score = _checked(task, y_true, y_score)
    hits, predicted, support = _counts(task, truth, score)
    precision, recall, f1 = _prf(hits, predicted, support)
    return [
        {
            "class": name,
            "precision": float(precision[k]),
            "recall": float(recall[k]),
            "f1": float(f1[k]),
            "support": int(support[k]),
        }
        for k, name in enumerate(task.classes)
    ]


def _checked(task: Task, y_true: Any, y_score: Any) -> tuple[np.ndarray, np.ndarray]:
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
    return (truth.astype(np.int64) if task.kind == "single" else truth), score


def _counts(task: Task, truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return per class: correctly found, predicted, present."""
    if task.kind == "single":
        n, decided = len(task.classes), np.argmax(score, axis=1)
        hits = np.bincount(truth[truth == decided], minlength=n)
        return hits, np.bincount(decided, minlength=n), np.bincount(truth, minlength=n)
    positive, found = truth.astype(bool), score >= 0.5
    return (positive & found).sum(axis=0), found.sum(axis=0), positive.sum(axis=0)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros(np.shape(a), dtype=np.float64), where=np.asarray(b) > 0)


def _prf(hits: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, predicted + support)


def _f1s(task: Task, truth: np.ndarray, score: np.ndarray) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    hits, predicted, support = _counts(task, truth, score)
    _, recall, f1 = _prf(hits, predicted, support)
    values = {
        "weighted_f1": float(f1 @ support / support.sum()) if support.sum() else 0.0,
        "macro_f1": float(f1.mean()),
        "micro_f1": float(_ratio(2 * hits.sum(), predicted.sum() + support.sum())),
    }
    return values, recall, support


def _single(task: Task, truth: np.ndarray, score: np.ndarray) -> dict[str, float]:
    values, recall, support = _f1s(task, truth, score)
    values["accuracy"] = float(np.mean(np.argmax(score, axis=1) == truth))
    values["balanced_accuracy"] = float(recall[support > 0].mean())
    given = score[np.arange(len(truth)), truth] / score.sum(axis=1)
    values["log_loss"] = float(-np.mean(np.log(np.clip(given, np.finfo(np.float64).eps, 1.0))))
    return values


def _multi(task: Task, truth: np.ndarray, score: np.ndarray) -> dict[str, float]:
    values, _, support = _f1s(task, truth, score)
    wrong = truth.astype(bool) != (score >= 0.5)
    values["subset_accuracy"] = float(np.mean(~wrong.any(axis=1)))
    values["hamming_loss"] = float(wrong.mean())
    present = np.flatnonzero(support)
    average = [_average_precision(truth[:, k], score[:, k]) for k in present]
    values["mean_average_precision"] = float(np.mean(average)) if average else float("nan")
    return values


def _average_precision(truth: np.ndarray, score: np.ndarray) -> float:
    """Sum precision over the steps of recall, equal scores taken together."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    found = np.cumsum(truth[order].astype(np.int64))[last]
    steps = np.diff(found, prepend=0) / found[-1]
    return float(steps @ (found / (last + 1)))


def _regression(task: Task, truth: np.ndarray, score: np.ndarray) -> dict[str, float]:
    if task.range is None:
        message = f"can't score task {task.name!r}: a regression needs its range (SAGR is about the midpoint)"
        raise TaskError(message)
    middle = (task.range[0] + task.range[1]) / 2
    error, agree = score - truth, np.sign(truth - middle) == np.sign(score - middle)
    values: dict[str, float] = {}
    for d, name in enumerate(task.classes):
        values[f"rmse/{name}"] = float(np.sqrt(np.mean(error[:, d] ** 2)))
        values[f"cc/{name}"] = _correlation(truth[:, d], score[:, d])
        values[f"sagr/{name}"] = float(agree[:, d].mean())
        values[f"mae/{name}"] = float(np.abs(error[:, d]).mean())
    values["rmse"] = float(np.sqrt(np.mean(error**2)))
    values["cc_pooled"] = _correlation(truth.ravel(), score.ravel())
    values["sagr"] = float(agree.mean())
    return values


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's r, NaN where either side does not vary beyond rounding."""
    a, b = a - a.mean(), b - b.mean()
    norm_a, norm_b = np.sqrt(a @ a), np.sqrt(b @ b)
    tiny = 1e-10 * np.sqrt(len(a))
    return float(a @ b / (norm_a * norm_b)) if min(norm_a, norm_b) > tiny else float("nan")


_KINDS: dict[str, Callable[[Task, np.ndarray, np.ndarray], dict[str, float]]] = {
    "single": _single,
    "multi": _multi,
    "regression": _regression,
}
