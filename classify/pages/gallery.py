"""Images that a person should look at: the surest errors of a run, doubtful labels, near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.pages.pictures import Pictures
from classify.runs.predictions import PartPredictions
from features_store.schema import Task

__all__ = ["doubtful_labels", "duplicate_pairs", "surest_errors"]

MAX_ERRORS, MAX_DOUBTED, MAX_PAIRS, MAX_BARS = 12, 18, 8, 5


def surest_errors(task: Task, part: PartPredictions, pictures: Pictures) -> list[dict[str, Any]]:
    """Pick the images on which a run was wrong and sure of it.

    Sure is: a high probability for a class that isn't true (single); the label whose probability is farthest from the
    truth (multi); the largest error (regression).
    """
    score = np.asarray(part.y_score, dtype=np.float64).reshape(len(part.ids), -1)
    if task.kind == "single":
        decided = score.argmax(axis=1)
        badness = np.where(decided != part.y_true, score.max(axis=1), -1.0)
    elif task.kind == "multi":
        wrong = (score >= 0.5) != part.y_true.astype(bool)
        badness = np.where(wrong, np.abs(score - part.y_true), -1.0).max(axis=1)
    else:
        badness = np.abs(score - np.asarray(part.y_true).reshape(score.shape)).max(axis=1)
    order = np.argsort(-badness, kind="stable")[:MAX_ERRORS]
    return [_error(task, part, int(i), pictures) for i in order if badness[i] > 0]


def _error(task: Task, part: PartPredictions, i: int, pictures: Pictures) -> dict[str, Any]:
    score = np.asarray(part.y_score[i], dtype=np.float64).reshape(-1)
    card: dict[str, Any] = {"id": str(part.ids[i]), "picture": pictures.of(str(part.ids[i])), "bars": []}
    if task.kind == "regression":
        truth = np.asarray(part.y_true[i], dtype=np.float64).reshape(-1)
        one = len(task.classes) == 1
        card["truth"] = _values(task, truth, named=not one)
        card["said"] = _values(task, score, named=not one)
        return card
    true = np.arange(len(score)) == part.y_true[i] if task.kind == "single" else part.y_true[i].astype(bool)
    decided = np.arange(len(score)) == score.argmax() if task.kind == "single" else score >= 0.5
    card["truth"], card["said"] = (_names(task, chosen) for chosen in (true, decided))
    shown = np.argsort(-np.maximum(score, true * 2.0), kind="stable")[:MAX_BARS]  # what is true always shows
    shown = shown[np.argsort(-score[shown], kind="stable")]
    card["bars"] = [{"name": task.classes[k], "p": float(score[k]), "true": bool(true[k])} for k in shown]
    return card


def _names(task: Task, chosen: NDArray[np.bool_]) -> str:
    return ", ".join(name for name, yes in zip(task.classes, chosen, strict=True) if yes) or "none"


def _values(task: Task, values: NDArray[np.float64], *, named: bool) -> str:
    return ", ".join(
        (f"{n} " if named else "") + f"{v:.2f}".replace("-", "−") for n, v in zip(task.classes, values, strict=True)
    )


def doubtful_labels(audit: Mapping[str, Any] | None, pictures: Pictures) -> list[dict[str, Any]]:
    """Return the doubtful labels that an audit found, the surest first, with pictures."""
    if not audit:
        return []
    return [
        {**entry, "picture": pictures.of(str(entry["id"]))} for entry in audit["label_errors"]["images"][:MAX_DOUBTED]
    ]


def duplicate_pairs(audit: Mapping[str, Any] | None, pictures: Pictures) -> list[dict[str, Any]]:
    """Return the nearest pairs of images across two parts that an audit found, with pictures."""
    if not audit:
        return []
    found = []
    for where, across in audit["duplicates"]["across"].items():
        part, _, other = where.partition(" in ")
        for pair in across["pairs"]:
            found.append({**pair, "part": part, "other_part": other})
    found.sort(key=lambda pair: -pair["cosine"])
    return [
        {**pair, "picture": pictures.of(str(pair["id"])), "other_picture": pictures.of(str(pair["other"]))}
        for pair in found[:MAX_PAIRS]
    ]
