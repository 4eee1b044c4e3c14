"""A few images of each part, for a run that only has to show that it runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from classify.data.tasks import Part, TaskRows

__all__ = ["sampled"]


def sampled(data: TaskRows, limit: int | None, *, seed: int) -> TaskRows:
    """Return at most *limit* images of each part, drawn by *seed*; the first of each class is always among them."""
    if limit is None:
        return data
    parts = {name: _part(part, limit, seed) for name, part in data.parts.items()}
    text = f"Only {limit} images of each part were used: this shows that the run works, and is no result."
    return replace(data, parts=parts, warnings=(*data.warnings, text))


def _part(part: Part, limit: int, seed: int) -> Part:
    order = np.random.default_rng(seed).permutation(len(part))
    if part.y.ndim == 1 and part.y.dtype.kind in "iu":
        _, first = np.unique(part.y[order], return_index=True)
        order = np.concatenate([order[first], np.delete(order, first)])
    kept = np.sort(order[:limit])
    groups = None if part.groups is None else part.groups[kept]
    return replace(part, rows=part.rows[kept], y=part.y[kept], ids=part.ids[kept], groups=groups)
