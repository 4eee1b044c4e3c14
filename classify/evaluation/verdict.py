"""What may be said of a head: whether it knows anything of the images, and whether file names alone do as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classify.data.tasks import Part
from classify.evaluation.comparison import less
from classify.evaluation.intervals import too_few
from classify.evaluation.knowledge import Verdict, judge, movable
from classify.evaluation.resamples import Spread

__all__ = ["Verdict", "no_verdict", "verdicts"]

Spreads = Mapping[str, Spread]


def verdicts(
    parts: Mapping[str, Part], heads: Spreads, majority: Spreads, names: Spreads | None = None, *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Judge a head on the part that it is read off: test, or validation where there is no test."""
    name = "test" if "test" in parts else "validation"
    part, head = parts[name], heads[name]
    found: dict[str, Any] = {"reason": no_verdict(part, head), "head": {}, "id_only": {}, "over_id_only": {}}
    judged = {"head": head} if names is None else {"head": head, "id_only": names[name]}
    for key, spread in judged.items() if not found["reason"] else ():
        judgements = judge(head.task, part.y, spread, majority[name], part.groups, seed=seed)
        found[key] = {metric: judgement.as_json() for metric, judgement in judgements.items()}
    if names is not None:
        found["over_id_only"] = {metric: less(head, names[name], metric).as_json() for metric in head.values}
    return {name: found}


def no_verdict(part: Part, spread: Spread) -> str:
    """Say why nothing can be said of a head on these images; empty where something can."""
    few = too_few(spread.n_units, grouped=spread.grouped, part=part.name)
    if few:
        return f"No verdict: {few}."
    share = movable(len(part.y), part.groups)
    if share < 0.5:
        return (
            f"No verdict: answers are dealt to whole groups of equal size, and only {share:.0%} of the {part.name} "
            "images are in groups of a size that 10 groups have."
        )
    return ""
