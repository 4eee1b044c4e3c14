"""What labels, splits and groups of a dump say, as one digest (FORMAT.md section 4), and which groups a split parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store.schema import LABEL_DTYPES, Labels, Split


def meaning_digest(labels: Mapping[str, Labels], splits: Mapping[str, Split], groups: NDArray[np.int64] | None) -> str:
    """Return the SHA-256 over labels, splits and groups, in hexadecimal; "" if there are none."""
    if not labels and not splits and groups is None:
        return ""
    sha = hashlib.sha256()

    def add(header: Mapping[str, Any], values: NDArray[Any], dtype: str) -> None:
        text = json.dumps(dict(header), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        sha.update(text.encode() + b"\0")
        sha.update(np.ascontiguousarray(values, dtype=dtype).tobytes())

    for name, one in sorted(labels.items()):
        task = one.task
        ends = None if task.range is None else [float(end) for end in task.range]
        header = {"task": name, "kind": task.kind, "classes": list(task.classes), "range": ends}
        add({**header, "source": task.source or "unknown"}, one.values, LABEL_DTYPES[task.kind])
    for name, split in sorted(splits.items()):
        add({"split": name, "kind": split.kind, "source": split.source}, split.values, "|i1")
    if groups is not None:
        add({"groups": len(groups)}, groups, "<i8")
    return sha.hexdigest()


def parted(split: Split, groups: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """Tell which images belong to a group that a split parts: (n_images,) bool; unused images part nothing."""
    found = np.zeros(len(split.values), dtype=np.bool_)
    if groups is None:
        return found
    rows = np.flatnonzero((np.asarray(groups) >= 0) & (split.values >= 0))
    names, numbers = np.unique(groups[rows], return_inverse=True)
    low, high = np.full(len(names), 127, dtype=np.int8), np.full(len(names), -1, dtype=np.int8)
    np.minimum.at(low, numbers, split.values[rows])
    np.maximum.at(high, numbers, split.values[rows])
    found[rows] = (low != high)[numbers]
    return found
