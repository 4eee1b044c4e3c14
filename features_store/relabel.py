"""Putting the labels and splits of one store onto the ids of another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features_store.alignment import Placed, locate, on_rows
from features_store.assembly import write_dump
from features_store.errors import MismatchError
from features_store.origin import origin_of
from features_store.reader import Store
from features_store.schema import Index


@dataclass(frozen=True)
class Relabelled:
    """What `relabel` wrote: images with labels, images without any, and rows of the labels that were of no use."""

    path: Path
    n_images: int
    without: int
    lost: int


def relabel(ids_of: Store, labels_of: Store, path: Path | str, *, force: bool = False) -> Relabelled:
    """Write a dump with the ids of one store and the labels and splits of another.

    It holds no vectors; lay it beside the dumps that do. An image that the other store has not is unlabelled, and
    unused in all splits.

    Raises MismatchError.
    """
    placed = Placed(labels_of, locate(labels_of.raw_ids, ids_of.raw_ids))
    n_found = int((placed.rows >= 0).sum())
    if not n_found:
        msg = (
            f"no id of {ids_of.paths[0]} is in {labels_of.paths[0]}: they look like {ids_of.raw_ids[0].decode()!r} and "
            f"{labels_of.raw_ids[0].decode()!r}; bring the ids into one spelling first"
        )
        raise MismatchError(msg)
    groups = ids_of.groups
    if groups is None and labels_of.groups is not None:
        groups = np.asarray(placed.spread(labels_of.groups, -1), dtype=np.int64)
    index = Index(
        ids_of.ids,
        {name: on_rows(labels, placed) for name, labels in labels_of.labels.items()},
        {name: on_rows(split, placed) for name, split in labels_of.splits.items()},
        groups,
        ids_of.content,
        ids_of.corpus,
    )
    write_dump(Path(path), index, [], origin=origin_of(ids_of), force=force)
    return Relabelled(Path(path), len(index), len(index) - n_found, labels_of.n_images - n_found)
