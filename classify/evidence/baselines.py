"""What a result has to beat: the most common answer, a guess, and what the images' names give away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.evidence.chance import chance
from classify.evidence.intervals import Interval, bootstrap
from classify.evidence.shortcuts import id_features, id_scores
from classify.heads import make_head
from classify.inputs.tasks import TaskRows

__all__ = ["BASELINES", "baselines"]

BASELINES = {
    "majority": "always the most common answer of the training images",
    "chance": "the label of a training image drawn at random",
    "id-only": "a shallow tree on file names and order, which sees no picture",
}
Scores = Mapping[str, NDArray[np.float64]]


def baselines(data: TaskRows, *, n_resamples: int, seed: int) -> dict[str, dict[str, dict[str, Interval]]]:
    """Score the three baselines on the parts of a task.

    Parameters
    ----------
    data : TaskRows
    n_resamples : int
        Of the intervals of majority and id-only; those of chance are over guesses.
    seed : int

    Returns
    -------
    dict
        By baseline, part and metric. id-only and chance leave the training part out, on which they mean nothing.
    """
    return {
        "majority": _scored(data, _majority(data, seed), n_resamples=n_resamples, seed=seed),
        "chance": {
            name: chance(data.task, data.parts["train"].y, part.y, seed=seed)
            for name, part in data.parts.items()
            if name != "train"
        },
        "id-only": _scored(data, _id_only(data, seed), n_resamples=n_resamples, seed=seed),
    }


def _scored(data: TaskRows, scores: Scores, *, n_resamples: int, seed: int) -> dict[str, dict[str, Interval]]:
    parts = {name: data.parts[name] for name in scores}
    return {
        name: bootstrap(data.task, p.y, scores[name], groups=p.groups, n_resamples=n_resamples, seed=seed)
        for name, p in parts.items()
    }


def _majority(data: TaskRows, seed: int) -> Scores:
    """The head `dummy`, fitted on the training labels: it looks at no feature, so it is given none."""
    y = data.parts["train"].y
    dummy = make_head("dummy", data.task.kind, random_state=seed).fit(np.zeros((len(y), 1), np.float32), y)
    return {name: _said(dummy, data, np.zeros((len(part), 1), np.float32)) for name, part in data.parts.items()}


def _said(dummy: Any, data: TaskRows, nothing: NDArray[np.float32]) -> NDArray[np.float64]:
    if data.task.kind == "regression":
        return np.asarray(dummy.predict(nothing), dtype=np.float64)
    said = np.asarray(dummy.predict_proba(nothing), dtype=np.float64)
    if data.task.kind == "multi":
        return said
    spread = np.zeros((len(said), len(data.task.classes)))
    spread[:, dummy.classes_] = said
    return spread


def _id_only(data: TaskRows, seed: int) -> Scores:
    parts = data.parts
    ids, rows = (np.concatenate([getattr(part, what) for part in parts.values()]) for what in ("ids", "rows"))
    codes = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    order = np.argsort(rows)
    ordered = id_features(data.task, ids[order], codes[order])
    features = np.empty_like(ordered)
    features[order] = ordered
    places = {name: np.flatnonzero(codes == code) for code, name in enumerate(parts)}
    train = parts["train"]
    said = id_scores(data.task, features, train.y, train=places["train"], groups=train.groups, seed=seed)
    return {name: said[place] for name, place in places.items() if name != "train"}
