"""Cutting rows and blocks out of a store into a new dump, and putting other labels onto its ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features_store.align import BlockRows, Placed, locate, on_rows
from features_store.errors import MismatchError, UnknownNameError, check_seed, unknown_name
from features_store.hdf5 import write_index
from features_store.merge import NewBlock, write_dump
from features_store.schema import Split, encode_ids
from features_store.store import Store


def subset(
    store: Store,
    path: Path | str,
    *,
    rows: ArrayLike | None = None,
    blocks: Sequence[str] | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write some rows and blocks of a store into a new dump; the images keep their order."""
    chosen = np.arange(store.n_images) if rows is None else np.unique(np.asarray(rows, dtype=np.int64))
    if not len(chosen) or chosen[0] < 0 or chosen[-1] >= store.n_images:
        what = f"rows {chosen[0]} to {chosen[-1]}" if len(chosen) else "no rows at all"
        raise MismatchError(f"a subset needs at least one row from 0 to {store.n_images - 1}; {what} were requested")
    new = []
    for name in store.blocks if blocks is None else dict.fromkeys(blocks):
        source = BlockRows(store.block(name), chosen)
        status = source.status()
        new.append(NewBlock(source.block.spec, [source], status, np.zeros(status.shape, dtype=np.int16)))
    write_dump(Path(path), store.index.take(chosen), new, force=force)
    names = [block.spec.name for block in new]
    return {"path": str(path), "n_images": len(chosen), "n_of": store.n_images, "blocks": names}


def rows_of_parts(split: Split, parts: Sequence[str]) -> NDArray[np.int64]:
    """Return the rows of some parts (by name) or folds (by number) of a split: (n,) int64, ascending."""
    top = 2 if split.has_parts else int(split.values.max(initial=-1))
    values = {split.name_of(value).removeprefix("fold "): value for value in range(-1, top + 1)}
    for part in parts:
        if part not in values:
            raise UnknownNameError(unknown_name(f"part of split {split.name!r}", part, values))
    return np.flatnonzero(np.isin(split.values, [values[part] for part in parts]))


def rows_of_ids(store: Store, ids: Sequence[str]) -> NDArray[np.int64]:
    """Return the rows of some images: (n,) int64, in the order of `ids`."""
    raw, _ = encode_ids(list(dict.fromkeys(ids)))
    rows = locate(store.raw_ids, raw)
    if (rows < 0).any():
        missing = raw[rows < 0]
        raise UnknownNameError(
            f"{len(missing)} of {len(raw)} ids are not in {store.paths[0]}, the first is {missing[0].decode()!r}; "
            f"ids look like {store.raw_ids[0].decode()!r}"
        )
    return rows


def sampled(rows: NDArray[np.int64], size: float, *, seed: int) -> NDArray[np.int64]:
    """Draw rows, (n,) int64, without replacement, the same for the same seed."""
    check_seed(seed)
    n = round(size * len(rows)) if 0 < size < 1 else size
    if not (1 <= n <= len(rows) and n == int(n)):  # in this order: NaN and infinity are no whole numbers either
        raise MismatchError(
            f"a sample of {size:g} cannot be drawn from {len(rows)} rows; ask for 1 to {len(rows)}, or a fraction"
        )
    return np.sort(np.random.default_rng(seed).choice(rows, int(n), replace=False))


def relabel(ids_of: Store, labels_of: Store, path: Path | str, *, force: bool = False) -> dict[str, Any]:
    """Write a dump with the ids of one store and the labels and splits of another.

    It holds no vectors; lay it beside the dumps that do. An image that the other store has not is unlabelled, and
    unused in all splits.
    """
    placed = Placed(labels_of, locate(labels_of.raw_ids, ids_of.raw_ids))
    n_found = int((placed.rows >= 0).sum())
    if not n_found:
        raise MismatchError(
            f"no id of {ids_of.paths[0]} is in {labels_of.paths[0]}: they look like {ids_of.raw_ids[0].decode()!r} and "
            f"{labels_of.raw_ids[0].decode()!r}; bring the ids into one spelling first"
        )
    groups = ids_of.groups
    if groups is None and labels_of.groups is not None:
        groups = np.asarray(placed.spread(labels_of.groups, -1), dtype=np.int64)
    index = replace(
        ids_of.index,
        labels={name: on_rows(labels, placed) for name, labels in labels_of.labels.items()},
        splits={name: on_rows(split, placed) for name, split in labels_of.splits.items()},
        groups=groups,
    )
    write_index(path, index, force=force)
    n = len(index)
    return {"path": str(path), "n_images": n, "without": n - n_found, "lost": labels_of.n_images - n_found}
