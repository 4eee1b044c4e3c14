"""Scores on a part without its images whose group an earlier part has, where a split parts groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classify.data.tasks import Part, TaskRows
from classify.evaluation.intervals import intervals
from classify.evaluation.resamples import Spread
from classify.evaluation.verdict import verdicts

if TYPE_CHECKING:
    from classify.data.crossing import Crossing

__all__ = ["clean_scores", "clean_verdicts"]

Scores = Mapping[str, Mapping[str, NDArray[np.float64]]]


def clean_scores(data: TaskRows, answers: Scores, **resampling: int) -> dict[str, Any] | None:
    """Return what crosses, and by part the metrics on the images that do not; None where groups are whole."""
    crossing = data.crossing
    if crossing is None:
        return None
    parts: dict[str, Any] = {}
    for name, clean in crossing.clean.items():
        if clean.all():
            continue
        parts[name] = {"n_images": int(clean.sum()), "n_left_out": int((~clean).sum())}
        for head in ("head", "majority"):
            spread = _spread(data, crossing, name, answers[head][name], **resampling)
            found = {} if spread is None else intervals(spread, part=name)
            parts[name]["metrics" if head == "head" else "majority"] = {
                key: one.as_json() for key, one in found.items()
            }
    return {**crossing.as_json(), "parts": parts}


def clean_verdicts(data: TaskRows, answers: Scores, **resampling: int) -> dict[str, dict[str, Any]] | None:
    """Judge a head, as `verdicts` does, on the images that do not cross; None where all images may be judged."""
    name = "test" if "test" in data.parts else "validation"
    crossing = data.crossing
    if crossing is None or crossing.clean[name].all():
        return None
    spreads = {head: _spread(data, crossing, name, said[name], **resampling) for head, said in answers.items()}
    known = {head: {name: spread} for head, spread in spreads.items() if spread is not None}
    if not known:
        reason = f"No verdict: every {name} image has a group mate among the images that the head was fitted on."
        return {name: {"reason": reason, "head": {}, "id_only": {}, "over_id_only": {}}}
    part = {name: _kept(data.parts[name], crossing.clean[name])}
    return verdicts(part, known["head"], known["majority"], known.get("id-only"), seed=resampling["seed"])


def _spread(
    data: TaskRows, crossing: Crossing, name: str, said: NDArray[np.float64], **resampling: int
) -> Spread | None:
    clean = crossing.clean[name]
    if not clean.any():
        return None
    part = _kept(data.parts[name], clean)
    return Spread.of(data.task, part.y, said[clean], part.groups, **resampling)


def _kept(part: Part, clean: NDArray[np.bool_]) -> Part:
    groups = None if part.groups is None else part.groups[clean]
    return replace(part, rows=part.rows[clean], y=part.y[clean], ids=part.ids[clean], groups=groups)
