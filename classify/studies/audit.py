"""Looking at a task before believing any number on it: near-duplicates across its parts, doubtful labels.

What is found is written to one file beside the runs of the task, ``runs/CORPUS/TASK/audit.json``, where the report
page looks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.config import RunConfig
from classify.data.rows import RowMatrix
from classify.data.tasks import TaskRows, choose_blocks, task_rows
from classify.errors import ConfigError
from classify.evaluation.label_errors import (
    N_FOLDS,
    LabelError,
    expected_count,
    improbable_values,
    judge_knows,
    out_of_fold,
    probable_errors,
)
from classify.evaluation.metrics import metrics, primary_metric
from classify.evaluation.near_duplicates import THRESHOLD, Pair, find_duplicates, safe_threshold
from features_store import open_store

if TYPE_CHECKING:
    from features_store import Store

__all__ = ["AUDIT", "AuditConfig", "audit", "audit_folder"]

AUDIT = "audit.json"
MAX_JUDGED = 20_000  # images whose labels are judged; more are sampled
MAX_LISTED = 200  # doubtful labels, and pairs, that the file lists
_LOOKED_AT = (("test", "train"), ("validation", "train"), ("test", "validation"))


@dataclass(frozen=True)
class AuditConfig:
    """What to look at.

    Parameters
    ----------
    blocks : tuple of str
        Empty: every block of vectors.
    threshold : float
        Cosine from which on two images are near-duplicates, above 0 and at most 1.
    """

    store: str
    task: str
    blocks: tuple[str, ...] = ()
    split: str = "default"
    threshold: float = THRESHOLD
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            message = f"threshold is {self.threshold}; a cosine above 0 and at most 1 is meant, like {THRESHOLD}"
            raise ConfigError(message)


def audit_folder(config: AuditConfig) -> Path:
    """Return where the runs of the task lie by default: ``runs/CORPUS/TASK``."""
    return RunConfig(config.store, config.task, "dummy").folder.parent


def audit(config: AuditConfig, *, notify: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Look for near-duplicates across the parts of a split, and for labels that a judge disagrees with.

    Raises AffectoryError.
    """
    store = open_store(Path(config.store).expanduser())
    blocks = choose_blocks(store, config.blocks)
    data = task_rows(store, config.task, split=config.split, blocks=blocks, allow_split_groups=True)
    if data.crossing:
        notify(f"{data.crossing.counts}; a score on it counts images that training has seen alike")
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "task": config.task,
        "split": config.split,
        "blocks": list(blocks),
        "crossing": data.crossing and data.crossing.as_json(),
        "index_digest": store.index_digest,
        "part_digests": {name: part.digest for name, part in data.parts.items()},
        "duplicates": _duplicates(store, blocks, data, config.threshold),
        "label_errors": _label_errors(store, blocks, data, config.seed, notify),
    }


def _duplicates(store: Store, blocks: Sequence[str], data: TaskRows, threshold: float) -> dict[str, Any]:
    across, used = {}, {}
    for name, other in _LOOKED_AT:
        if name in data.parts and other in data.parts:
            rows, others = data.parts[name].rows, data.parts[other].rows
            least = max(threshold, safe_threshold([store.n_features([one]) for one in blocks], len(rows) * len(others)))
            used[f"{name} in {other}"] = least
            across[f"{name} in {other}"] = find_duplicates(store, blocks, rows, others, threshold=least)
    return {
        "method": "cosine, mean over the blocks, each centred on its mean over the searched part",
        "threshold": threshold,
        "same_bytes_known": store.content is not None and bool(store.content.any()),
        "across": {
            name: {
                "n_images": len(found),
                "threshold": round(used[name], 4),
                "n_same_bytes": sum(pair.same_bytes for pair in found),
                "ids": [str(store.ids[pair.row]) for pair in found],
                "pairs": [_pair(store, pair) for pair in found[:MAX_LISTED]],
            }
            for name, found in across.items()
        },
    }


def _pair(store: Store, pair: Pair) -> dict[str, Any]:
    return {
        "id": str(store.ids[pair.row]),
        "other": str(store.ids[pair.other]),
        "cosine": round(pair.cosine, 4),
        "same_bytes": pair.same_bytes,
    }


def _label_errors(
    store: Store, blocks: Sequence[str], data: TaskRows, seed: int, notify: Callable[[str], None]
) -> dict[str, Any]:
    task, parts = data.task, list(data.parts.values())
    rows, y, ids = (np.concatenate([getattr(part, what) for part in parts]) for what in ("rows", "y", "ids"))
    groups = None if parts[0].groups is None else np.concatenate([p.groups for p in parts if p.groups is not None])
    names = np.repeat([part.name for part in parts], [len(part) for part in parts])
    if len(rows) > MAX_JUDGED:
        notify(f"labels: {MAX_JUDGED} of {len(rows)} images are judged, drawn at random")
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows), MAX_JUDGED, replace=False))
        rows, y, ids, names = rows[chosen], y[chosen], ids[chosen], names[chosen]
        groups = None if groups is None else groups[chosen]
    said = out_of_fold(task, RowMatrix(store, blocks, rows), y, groups=groups, seed=seed)
    knows = judge_knows(task, y, said, groups, seed=seed)
    found: list[LabelError] = []
    if knows:
        found = improbable_values(y, said) if task.kind == "regression" else probable_errors(task, y, said)
    name = primary_metric(task)
    return {
        "method": "values beyond 3.5 robust standard deviations" if task.kind == "regression" else "confident learning",
        "judge": f"head linear, {N_FOLDS} folds",
        "judge_metric": name,
        "judge_value": metrics(task, y, said)[name],
        "judge_knows": knows,
        "n_expected": expected_count(task, y, said, seed=seed) if knows else None,
        "n_judged": len(rows),
        "n_images": len(np.unique([error.position for error in found])),
        "n_doubted": len(found),
        "images": [
            {"id": str(ids[error.position]), "part": str(names[error.position]), **_words(data, error)}
            for error in found[:MAX_LISTED]
        ],
    }


def _words(data: TaskRows, error: LabelError) -> dict[str, Any]:
    """The doubted label in the words of its task."""
    task = data.task
    if task.kind == "regression":
        told: dict[str, Any] = {"given": round(error.given, 4), "suggested": round(error.suggested, 4)}
        return {"output": task.classes[error.output], **told, "score": round(error.score, 3)}
    if task.kind == "multi":
        name = task.classes[error.output]
        words = [f"not {name}", name]
        given, suggested = words[int(error.given)], words[int(error.suggested)]
    else:
        given, suggested = task.classes[int(error.given)], task.classes[int(error.suggested)]
    p = {"p_given": round(error.p_given or 0.0, 4), "p_suggested": round(error.p_suggested or 0.0, 4)}
    return {"given": given, "suggested": suggested, **p, "score": round(error.score, 4)}
