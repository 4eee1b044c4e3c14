"""The audit of a task: near-duplicates across the parts of a split, and labels that are probably wrong.

The result is one file beside the runs of the task, ``runs/CORPUS/TASK/audit.json``, where the report page reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.config import user_path
from classify.data.kinds import kind_of
from classify.data.rows import RowMatrix
from classify.data.seen import find_trained, refuse_trained
from classify.data.tasks import TaskRows, choose_blocks, joined, task_rows
from classify.errors import ConfigError
from classify.evaluation.label_errors import (
    N_FOLDS,
    LabelError,
    expected_count,
    improbable_values,
    known_outputs,
    out_of_fold,
    probable_errors,
)
from classify.evaluation.metrics import metrics, primary_metric
from classify.evaluation.near_duplicates import THRESHOLD, find_duplicates, safe_threshold
from features_store import open_store
from features_store.errors import check_seed

if TYPE_CHECKING:
    from features_store import Store

AUDIT = "audit.json"
MAX_JUDGED = 20_000  # images whose labels are judged; of more, a random sample
MAX_LISTED = 200  # doubtful labels, and pairs, that the file lists
_COMPARED_PARTS = (("test", "train"), ("validation", "train"), ("test", "validation"))


def audit(
    store: str,
    task: str,
    *,
    blocks: Sequence[str] = (),
    split: str = "default",
    threshold: float = THRESHOLD,
    seed: int = 0,
    notify: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Find near-duplicates across the parts of a split, and labels that a judge disagrees with.

    Without *blocks* every block of vectors counts. Two images are near-duplicates from a cosine of *threshold* on.
    """
    check_seed(seed)
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold is {threshold}; it takes a cosine above 0 and at most 1, like {THRESHOLD}")
    opened = open_store(user_path(store))
    chosen = choose_blocks(opened, blocks)
    data = task_rows(opened, task, split=split, blocks=chosen, allow_split_groups=True)
    if data.crossing:
        notify(f"{data.crossing.counts}; a score on it counts images that training has seen alike")
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "task": task,
        "split": split,
        "blocks": list(chosen),
        "crossing": data.crossing and data.crossing.as_json(),
        "index_digest": opened.index_digest,
        "part_digests": {name: part.digest for name, part in data.parts.items()},
        "duplicates": _duplicates(opened, chosen, data, threshold),
        "label_errors": _label_errors(opened, chosen, data, seed, notify),
    }


def _duplicates(store: Store, blocks: Sequence[str], data: TaskRows, threshold: float) -> dict[str, Any]:
    across: dict[str, dict[str, Any]] = {}
    for name, other in _COMPARED_PARTS:
        if name in data.parts and other in data.parts:
            rows, others = data.parts[name].rows, data.parts[other].rows
            least = max(threshold, safe_threshold([store.n_features([one]) for one in blocks], len(rows) * len(others)))
            found = find_duplicates(store, blocks, rows, others, threshold=least)
            across[f"{name} in {other}"] = {
                "n_images": len(found),
                "threshold": round(least, 4),
                "n_same_bytes": sum(pair.same_bytes for pair in found),
                "ids": [str(store.ids[pair.row]) for pair in found],
                "pairs": [
                    {
                        "id": str(store.ids[pair.row]),
                        "other": str(store.ids[pair.other]),
                        "cosine": round(pair.cosine, 4),
                        "same_bytes": pair.same_bytes,
                    }
                    for pair in found[:MAX_LISTED]
                ],
            }
    return {
        "method": "cosine, mean over the blocks, each centred on its mean over the searched part",
        "threshold": threshold,
        "same_bytes_known": store.content is not None and bool(store.content.any()),
        "across": across,
    }


def _label_errors(
    store: Store, blocks: Sequence[str], data: TaskRows, seed: int, notify: Callable[[str], None]
) -> dict[str, Any]:
    task, has_classes, judged = data.task, kind_of(data.task).has_classes, joined(data.parts.values())
    refuse_trained(store, find_trained(store, blocks), {"judged": judged.rows})
    names = np.repeat(list(data.parts), [len(part) for part in data.parts.values()])
    if len(judged) > MAX_JUDGED:
        notify(f"labels: {MAX_JUDGED} of {len(judged)} images are judged, drawn at random")
        chosen = np.sort(np.random.default_rng(seed).choice(len(judged), MAX_JUDGED, replace=False))
        judged, names = judged.some(chosen), names[chosen]
    y, groups = judged.y, judged.groups
    y_score = out_of_fold(task, RowMatrix(store, blocks, judged.rows), y, groups=groups, seed=seed)
    known = known_outputs(task, y, y_score, groups, seed=seed)
    knows = bool(known.any())
    found: list[LabelError] = []
    if knows:
        found = probable_errors(task, y, y_score) if has_classes else improbable_values(y, y_score)
        found = [error for error in found if known[error.output]]
    name = primary_metric(task)
    return {
        "method": "confident learning" if has_classes else "values beyond 3.5 robust standard deviations",
        "judge": f"head linear, {N_FOLDS} folds",
        "judge_metric": name,
        "judge_value": metrics(task, y, y_score)[name],
        "judge_knows": knows,
        "n_expected": expected_count(task, y, y_score, known, seed=seed) if knows else None,
        "n_judged": len(judged),
        "n_images": len(np.unique([error.position for error in found])),
        "n_doubted": len(found),
        "images": [
            {"id": str(judged.ids[error.position]), "part": str(names[error.position]), **_doubt(data, error)}
            for error in found[:MAX_LISTED]
        ],
    }


def _doubt(data: TaskRows, error: LabelError) -> dict[str, Any]:
    """Return a doubted label in the words of its task."""
    classes, kind = data.task.classes, kind_of(data.task)
    if not kind.has_classes:
        values = {"given": round(error.given, 4), "suggested": round(error.suggested, 4)}
        return {"output": classes[error.output], **values, "score": round(error.score, 3)}
    names = classes if kind.exclusive else (f"not {classes[error.output]}", classes[error.output])
    return {
        "given": names[int(error.given)],
        "suggested": names[int(error.suggested)],
        "p_given": round(error.p_given or 0.0, 4),
        "p_suggested": round(error.p_suggested or 0.0, 4),
        "score": round(error.score, 4),
    }
