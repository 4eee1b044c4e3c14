"""Creating dumps: an index at once, and the empty datasets of a block."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features_store import passport, seal
from features_store.atomic import atomic_write
from features_store.errors import FormatError
from features_store.ids import encode_ids
from features_store.meaning import meaning_digest, parted
from features_store.schema import ALIGNMENT, FORMAT, FORMAT_VERSION, BlockSpec, Index, Labels, Split


def write_index(path: Path | str, index: Index, *, force: bool = False) -> None:
    """Write a dump that holds an index, its labels and its splits, but no block.

    Parameters
    ----------
    path : path-like
        The file to make, usually ``index.h5`` in a store's folder.
    force : bool
        Replace a file that is there.

    Raises
    ------
    ExistsError
        If the file exists and `force` is false.
    """
    with atomic_write(Path(path), force=force) as temporary, new_dump(temporary) as file:
        fill_index(file, index)


def new_dump(path: Path) -> h5py.File:
    """Create an empty HDF5 file with the settings that FORMAT.md asks for."""
    return h5py.File(
        path,
        "x",
        libver=("earliest", "v110"),
        alignment_threshold=ALIGNMENT,
        alignment_interval=ALIGNMENT,
        locking=False,
    )


def fill_index(file: h5py.File, index: Index, *, labels: bool = True) -> None:
    """Write the root attributes and ``/images``, and with `labels` also ``/labels`` and ``/splits``.

    Raises FormatError.
    """
    for split in index.splits.values() if labels else ():
        n_parted = int(parted(split, index.groups).sum())
        if n_parted and split.source == "made":
            raise FormatError(
                f"split {split.name!r} parts the groups of {n_parted:,} images, and splits that are made keep groups "
                "whole; make it again with `features-store splits`"
            )
    _set_text(file, "format", FORMAT)
    sources = labels and any(split.source for split in index.splits.values())
    meaning = meaning_digest(index.labels, index.splits, index.groups) if labels else ""
    _set_text(file, "format_version", FORMAT_VERSION if sources or meaning else "1.0")
    _set_text(file, "index_digest", index.digest)
    if meaning:
        _set_text(file, "meaning_digest", meaning)
    if index.corpus:
        _set_text(file, "corpus", passport.canonical(index.corpus))
    _set_strings(file, "images/id", encode_ids(index.ids))
    if index.groups is not None:
        file["images/group"] = np.asarray(index.groups, dtype="<i8")
    if index.content is not None:
        file["images/content"] = np.asarray(index.content, dtype="|u1")
    if labels:
        for task_labels in index.labels.values():
            _write_labels(file, task_labels)
        for split in index.splits.values():
            _write_split(file, split)


def add_block(file: h5py.File, spec: BlockSpec, n_images: int) -> None:
    """Create the datasets of a block, allocated and unfilled."""
    group = file.create_group(f"blocks/{spec.name}")
    _set_text(group, "passport", passport.canonical(spec.passport))
    vectors = _allocate(
        group, "vectors", (n_images, spec.n_views, spec.n_features), np.dtype(spec.dtype).newbyteorder("<")
    )
    vectors.attrs.create("shape", np.array(spec.shape, dtype="<i8"))
    _allocate(group, "status", (n_images, spec.n_views), np.dtype("|u1"))
    _allocate(group, "digests", (n_images, spec.n_views, seal.DIGEST_BYTES), np.dtype("|u1"))
    _allocate(group, "seal", (seal.SEAL_BYTES,), np.dtype("|u1"))
    if spec.names is not None:
        _set_strings(group, "names", np.array([name.encode() for name in spec.names]))


def replace_passport(path: Path, block: str, record: Mapping[str, Any]) -> None:
    """Give a block another passport; only for a file that nobody else has seen yet."""
    with h5py.File(path, "r+", libver=("earliest", "v110"), locking=False) as file:
        _set_text(file[f"blocks/{block}"], "passport", passport.canonical(record))


def _allocate(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape), plist)
    return group[name]


def _set_text(target: h5py.HLObject, name: str, text: str) -> None:
    utf8 = h5py.string_dtype("utf-8", max(1, len(text.encode())))
    target.attrs.create(name, np.array(text.encode(), dtype=utf8), dtype=utf8)


def _set_strings(group: h5py.Group, name: str, raw: NDArray[np.bytes_]) -> None:
    utf8 = h5py.string_dtype("utf-8", max(1, raw.dtype.itemsize))
    group.create_dataset(name, data=raw.astype(utf8), dtype=utf8)


def _write_labels(file: h5py.File, labels: Labels) -> None:
    task = labels.task
    dataset = file.create_dataset(f"labels/{task.name}", data=labels.values)
    _set_text(dataset, "kind", task.kind)
    _set_text(dataset, "classes", json.dumps(list(task.classes), ensure_ascii=False))
    _set_text(dataset, "source", task.source or "unknown")
    if task.range is not None:
        _set_text(dataset, "range", json.dumps(list(task.range)))


def _write_split(file: h5py.File, split: Split) -> None:
    dataset = file.create_dataset(f"splits/{split.name}", data=split.values)
    _set_text(dataset, "kind", split.kind)
    if split.source:
        _set_text(dataset, "source", split.source)
