"""Which class is taken for which: the confusion matrix, and precision, recall and F1 of each class."""

from __future__ import annotations

from typing import Any

import numpy as np

from classify.evaluation.metrics import checked_scores, decide
from features_store.schema import Task

__all__ = ["confusion", "per_class"]


def confusion(task: Task, y_true: Any, y_score: Any) -> np.ndarray:
    """Count images by true class (rows) and decided class (columns): int64 ``(n_classes, n_classes)``, single only."""
    truth, score = checked_scores(task, y_true, y_score)
    n = len(task.classes)
    return np.bincount(truth * n + decide(task, score), minlength=n * n).reshape(n, n)


def per_class(task: Task, y_true: Any, y_score: Any) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of each class, in the order of the task.

    A class absent from *y_true* keeps its row, with support 0; a rate of nothing is 0.
    """
    truth, score = checked_scores(task, y_true, y_score)
    decided = decide(task, score)
    if task.kind == "single":
        classes = np.arange(len(task.classes))
        truth, decided = truth[:, None] == classes, decided[:, None] == classes
    truth, decided = truth.astype(bool), decided.astype(bool)
    hits, support, n_decided = (truth & decided).sum(0), truth.sum(0), decided.sum(0)
    rows = []
    for name, hit, true, said in zip(task.classes, hits.tolist(), support.tolist(), n_decided.tolist(), strict=True):
        precision, recall = hit / max(said, 1), hit / max(true, 1)
        f1 = 2 * hit / max(true + said, 1)
        rows.append({"class": name, "precision": precision, "recall": recall, "f1": f1, "support": true})
    return rows
