"""What a result has to beat: the most common answer, a guess, and what the images' names give away.

Each is fitted on the images that the head was fitted on: for the test part of a run with a refit those are training and
validation together. Where the head weighs classes, the tree on names weighs them alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.tasks import Part, TaskRows
from classify.evaluation.shortcuts import id_features, id_scores
from classify.heads import make_head
from features_store.schema import Task

__all__ = ["BASELINES", "baseline_scores", "constant_scores", "fitted_labels"]

BASELINES = {
    "majority": "always the most common answer of the images that the head was fitted on",
    "chance": "the label of such an image drawn at random; brackets: 95% of guesses on these images, not an interval",
    "id-only": "a shallow tree on file names and order, which sees no picture",
}
Scores = Mapping[str, NDArray[np.float64]]


def fitted_parts(data: TaskRows, part: str, *, refit: bool) -> list[Part]:
    """Return the parts that the head which scores *part* was fitted on."""
    both = refit and part == "test" and "validation" in data.parts
    return [data.parts[name] for name in (("train", "validation") if both else ("train",))]


def fitted_labels(data: TaskRows, part: str, *, refit: bool) -> NDArray[Any]:
    """Return the labels that the head which scores *part* was fitted on."""
    return np.concatenate([one.y for one in fitted_parts(data, part, refit=refit)])


def baseline_scores(
    data: TaskRows, *, refit: bool = False, class_weight: Any = None, seed: int = 0
) -> dict[str, Scores]:
    """Return what majority and id-only say of the images of each part."""
    majority = {
        name: constant_scores(data.task, fitted_labels(data, name, refit=refit), len(part))
        for name, part in data.parts.items()
    }
    return {"majority": majority, "id-only": _id_only(data, refit=refit, class_weight=class_weight, seed=seed)}


def constant_scores(task: Task, y: NDArray[Any], n_images: int) -> NDArray[np.float64]:
    """Return the answer of the head `dummy`, fitted on labels *y*: the shares of the classes, or the mean."""
    dummy = make_head("dummy", task.kind).fit(np.zeros((len(y), 1), np.float32), y)
    nothing = np.zeros((n_images, 1), np.float32)
    if task.kind == "regression":
        return np.asarray(dummy.predict(nothing), dtype=np.float64)
    said = np.asarray(dummy.predict_proba(nothing), dtype=np.float64)
    if task.kind == "multi":
        return said
    spread = np.zeros((n_images, len(task.classes)))
    spread[:, dummy.classes_] = said
    return spread


def _id_only(data: TaskRows, *, refit: bool, class_weight: Any, seed: int) -> Scores:
    parts = data.parts
    ids, rows = (np.concatenate([getattr(part, what) for part in parts.values()]) for what in ("ids", "rows"))
    codes = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    order = np.argsort(rows)
    ordered = id_features(data.task, ids[order], codes[order])
    features = np.empty_like(ordered)
    features[order] = ordered
    places = {name: np.flatnonzero(codes == code) for code, name in enumerate(parts)}
    found: dict[str, NDArray[np.float64]] = {}
    for name in parts:
        if name == "train":
            continue
        fitted = fitted_parts(data, name, refit=refit)
        known = np.concatenate([places[part.name] for part in fitted])
        y = np.concatenate([part.y for part in fitted])
        groups = None if fitted[0].groups is None else np.concatenate([np.asarray(part.groups) for part in fitted])
        options: dict[str, Any] = {"groups": groups, "class_weight": class_weight, "seed": seed}
        found[name] = id_scores(data.task, features, y, train=known, **options)[places[name]]
    return found
