"""Shortcut probes: what a shallow tree reaches on everything but the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from extract.check.hashes import Fingerprints
from features_store import Index
from features_store.leakage import Traces, probe, traces_of_ids

EVERYTHING = "everything"


@dataclass(frozen=True)
class Shortcut:
    """What one family of columns gives away of one task; see `features_store.leakage.Probe`."""

    task: str
    family: str
    score: float
    chance: float
    accuracy: float
    n_images: int

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        accuracy = None if np.isnan(self.accuracy) else self.accuracy
        return {**vars(self), "accuracy": accuracy}


def traces_of(index: Index, found: Fingerprints | None) -> Traces:
    """Return what the images carry besides their pixels: ids, order, and where files were read, their size and age."""
    classes = [
        one for labels in index.labels.values() if labels.task.kind != "regression" for one in labels.task.classes
    ]
    split = index.splits.get("default")
    parts = split.values if split is not None and split.kind == "parts" else None
    traces = traces_of_ids(index.ids, classes=classes, parts=parts)
    if found is None:
        return traces
    families = dict(traces.families)
    families["file size"] = found.n_bytes.reshape(-1, 1).astype(np.float64)
    families["width and height"] = np.stack([found.width, found.height], axis=1).astype(np.float64)
    families["modification time"] = np.nan_to_num(found.modified, nan=-1.0).reshape(-1, 1)
    return Traces(families, traces.left_out)


def shortcuts_of(index: Index, traces: Traces) -> list[Shortcut]:
    """Probe each task with all columns, and with each family by itself."""
    found: list[Shortcut] = []
    for task, labels in index.labels.items():
        judged = {EVERYTHING: probe(traces.matrix(), labels, index.groups)}
        if judged[EVERYTHING] is None:
            continue
        judged |= {family: probe(traces.matrix(family), labels, index.groups) for family in traces.families}
        known = {family: one for family, one in judged.items() if one is not None}
        order = sorted(known, key=lambda family: (family != EVERYTHING, -known[family].score))
        found += [Shortcut(task, family, **vars(known[family])) for family in order]
    return found
