"""What is in a store, as one JSON object and as text for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from features_store.console import on_one_line
from features_store.schema import FAILURES, Labels, Status
from features_store.store import Block, Store
from features_store.writer import read_failures

_SHOWN_FAILURES = 20


def summarise(store: Store) -> dict[str, Any]:
    """Describe a store: images, labels, splits, blocks with passports, sizes in bytes."""
    return {
        "paths": [str(path) for path in store.paths],
        "bytes": sum(path.stat().st_size for path in store.paths),
        "n_images": store.n_images,
        "index_digest": store.index_digest,
        "corpus": dict(store.corpus),
        "n_groups": None if store.groups is None else len(np.unique(store.groups[store.groups >= 0])),
        "content_hashes": 0 if store.content is None else int(store.content.any(axis=1).sum()),
        "first_ids": [raw.decode() for raw in store.raw_ids[:3].tolist()],
        "labels": {name: _labels(labels) for name, labels in store.labels.items()},
        "splits": {name: {"kind": split.kind, "counts": split.counts()} for name, split in store.splits.items()},
        "blocks": {name: _block(store, block) for name, block in store.blocks.items()},
    }


def _labels(labels: Labels) -> dict[str, Any]:
    task, known = labels.task, labels.known
    described: dict[str, Any] = {"kind": task.kind, "classes": list(task.classes), "source": task.source}
    described["n_labelled"] = int(known.sum())
    if task.form.has_classes:
        described["counts"] = task.form.counts(labels.values[known], task.classes)
    else:
        described["range"] = list(task.range or ())
        means = labels.values[known].mean(axis=0, dtype=np.float64).round(4).tolist() if known.any() else None
        described["mean"] = means
    return described


def _block(store: Store, block: Block) -> dict[str, Any]:
    rows, views = np.nonzero(np.isin(block.status, FAILURES))  # any other value is for `verify`
    reasons = read_failures(block.path) if len(rows) else {}
    failed = []
    for row, view in zip(rows.tolist(), views.tolist(), strict=True):
        name, status = store.raw_ids[row].decode(), Status(int(block.status[row, view])).reason
        failed.append({"id": name, "view": view, "reason": status, "words": reasons.get((name, status), "")})
    return {
        "path": str(block.path),
        "shape": list(block.shape),
        "item_shape": list(block.item_shape),
        "dtype": block.dtype.name,
        "bytes": int(np.prod(block.shape)) * block.dtype.itemsize,
        "sealed": block.sealed,
        "status": {status.reason: count for status, count in block.counts().items()},
        "failed": failed,
        "named_features": block.names is not None,
        "passport_digest": block.digest,
        "passport": dict(block.passport),
    }


def as_text(summary: dict[str, Any], *, all_failures: bool = False) -> str:
    """Lay a summary out for people."""
    return "\n".join(map(on_one_line, _lines(summary, all_failures=all_failures)))


def _lines(summary: dict[str, Any], *, all_failures: bool) -> Iterator[str]:
    yield f"{summary['n_images']:,} images, {size(summary['bytes'])} in {len(summary['paths'])} dump(s)"
    yield f"  ids      {', '.join(summary['first_ids'])} …  (index {summary['index_digest'][:12]})"
    if summary["corpus"]:
        yield f"  corpus   {json.dumps(summary['corpus'], ensure_ascii=False)}"
    if summary["n_groups"]:
        yield f"  groups   {summary['n_groups']:,}"
    for name, labels in summary["labels"].items():
        yield f"  task     {name} ({labels['kind']}, {labels['n_labelled']:,} labelled): {_values(labels)}"
    for name, split in summary["splits"].items():
        counts = ", ".join(f"{part} {count:,}" for part, count in split["counts"].items())
        yield f"  split    {name} ({split['kind']}): {counts}"
    for name, block in summary["blocks"].items():
        yield from _block_lines(name, block, all_failures=all_failures)


def _values(labels: dict[str, Any]) -> str:
    if labels["kind"] == "regression":
        low, high = labels["range"]
        return f"{', '.join(labels['classes'])} in [{low:g}, {high:g}], mean {labels['mean']}"
    return ", ".join(f"{name} {count:,}" for name, count in labels["counts"].items())


def _block_lines(name: str, block: dict[str, Any], *, all_failures: bool) -> Iterator[str]:
    n_images, n_views, _ = block["shape"]
    shape = "x".join(str(n) for n in block["item_shape"])
    views = f", {n_views} views" if n_views > 1 else ""
    state = "sealed" if block["sealed"] else "open"
    yield f"  block    {name}: {n_images:,} x {shape}{views}, {block['dtype']}, {size(block['bytes'])}, {state}"
    yield f"             {', '.join(f'{count:,} {reason}' for reason, count in block['status'].items())}"
    weights = block["passport"].get("weights")
    source = weights.get("source") if isinstance(weights, dict) else weights
    random = "  — RANDOM WEIGHTS, for tests only" if str(source).startswith("random:") else ""
    yield f"             passport {block['passport_digest'][:12]}, weights {source}{random}"
    shown = block["failed"] if all_failures else block["failed"][:_SHOWN_FAILURES]
    for failure in shown:
        words = f" ({failure['words']})" if failure["words"] else ""
        yield f"             {failure['reason']}: {failure['id']}{words}"
    if len(shown) < len(block["failed"]):
        yield f"             … and {len(block['failed']) - len(shown):,} more (--failed lists all)"


def size(n_bytes: int) -> str:
    """Word a number of bytes for people, in powers of 1,000."""
    value, units = float(n_bytes), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.4g} {units[0]}"
