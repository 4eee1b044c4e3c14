"""A store as a notebook shows it: a small table, every name in it escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from features_store.schema import Status
from features_store.summary import split_counts

if TYPE_CHECKING:
    from features_store.store import Store


def store_table(store: Store) -> str:
    """Return a store as HTML: its tasks with their classes, its splits, and its blocks with how much is written."""
    rows = [("task", name, _task(store, name)) for name in store.labels]
    for name, split in store.splits.items():
        rows.append(("split", name, ", ".join(f"{part} {count:,}" for part, count in split_counts(split).items())))
    for name, block in store.blocks.items():
        written = int((block.status[:, 0] == Status.WRITTEN).sum())
        shape = " x ".join(map(str, block.item_shape))
        rows.append(("block", name, f"{shape}, {block.dtype}, {written:,} of {store.n_images:,} written"))
    caption = f"{store.n_images:,} images, corpus {store.corpus.get('name', 'not recorded')}"
    body = "".join(_row(row) for row in rows)
    return f"<table><caption>{escape(caption)}</caption><tbody>{body}</tbody></table>"


def _task(store: Store, name: str) -> str:
    labels = store.labels[name]
    return f"{labels.task.kind}: {', '.join(labels.task.classes)}; {int(labels.known.sum()):,} labelled"


def _row(cells: Sequence[str]) -> str:
    kind, name, text = (escape(cell) for cell in cells)
    return f"<tr><td>{kind}</td><th>{name}</th><td>{text}</td></tr>"
