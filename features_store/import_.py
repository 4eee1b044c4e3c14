"""Bringing vectors of another origin into a store: a matrix as a block, and a dump that another program repacked."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features_store import chunked
from features_store.align import PIECE_BYTES, locate
from features_store.atomic import atomic_write, read_regular
from features_store.console import progress_bar
from features_store.disk import reserve
from features_store.dump import find_dumps, open_store
from features_store.errors import FormatError, MismatchError
from features_store.hdf5 import allocate, check_file, new_dump, opened
from features_store.matrices import Matrix, open_matrix
from features_store.passport import json_object
from features_store.schema import FAILURES, VECTOR_DTYPES, BlockSpec, Index, Status, encode_ids
from features_store.store import Store
from features_store.verify import verify
from features_store.writer import BlockWriter, create_block

_MAX_IDS = 2**30  # bytes
_MAX_PASSPORT = 2**20


def import_matrix(
    store: Store,
    matrix: Path,
    path: Path | str,
    *,
    name: str,
    key: str | None = None,
    ids_key: str | None = None,
    ids: Sequence[str] | None = None,
    passport: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write a matrix of a file (see `matrices`) as a block over the index of a store.

    Rows are found by id, which the file holds (`ids_key`) or `ids` gives. Images without a row become
    `Status.MISSING`; rows that are not finite, or too large for the type, become `Status.NON_FINITE`. Returns the
    facts: rows of the matrix, how many of them are of unknown images, how many whole numbers were rounded, and the
    images in each state (`counts`).
    """
    target = Path(path)
    there = store.blocks[name].path if name in store.blocks else target
    old, new = Path(os.path.realpath(there)), Path(os.path.realpath(target))
    if old != new and old.parent == new.parent:
        raise MismatchError(
            f"block {name!r} is in {there}, and a second one beside it would make the store unreadable; "
            "choose another --name"
        )
    with (
        atomic_write(target, force=force) as temporary,
        tempfile.TemporaryDirectory(dir=temporary.parent, prefix="import-", ignore_cleanup_errors=True) as scratch,
        open_matrix(matrix, key=key, ids_key=ids_key, scratch=Path(scratch)) as source,
    ):
        rows = _rows(store, matrix, source, ids)
        made = source.passport if passport is None and source.passport is not None else _passport(matrix, key, passport)
        stored = dtype or (source.dtype.name if source.dtype.name in VECTOR_DTYPES else "float32")
        spec = BlockSpec(name, tuple(source.shape[1:]), made, stored, names=source.names)
        index = Index(store.ids, groups=store.groups, content=store.content, corpus=store.corpus)
        create_block(temporary, index, spec)
        with BlockWriter(temporary, index, spec) as writer:
            rounded = _fill(writer, source, rows)
            writer.flush()
            if Status.WRITTEN not in writer.counts():
                raise MismatchError(
                    f"{matrix} holds no usable vector: in every row of an image of the store some value is "
                    f"empty, not finite, or too large for {stored}; nothing was imported"
                )
            writer.fail(writer.pending(), Status.MISSING)
            writer.seal()
            counts = writer.counts()
    facts = {"path": str(target), "block": name, "shape": list(spec.shape), "dtype": stored, "n_rows": len(rows)}
    known = {"unknown": int((rows < 0).sum()), "rounded": rounded}
    return {**facts, **known, "counts": {state.reason: n for state, n in counts.items()}}


def _rows(store: Store, matrix: Path, source: Matrix, ids: Sequence[str] | None) -> NDArray[np.int64]:
    """Return the position in the index of each row of the matrix, or -1."""
    ids = source.ids if ids is None else ids
    if ids is None:
        raise MismatchError(
            f"{matrix} holds no ids; name them with --ids-key, or give a text file with one id a line (--ids)"
        )
    if len(ids) != source.shape[0]:
        raise MismatchError(f"{matrix} has {source.shape[0]} rows and there are {len(ids)} ids; each row needs one")
    raw, _ = encode_ids(list(ids))
    rows = locate(store.raw_ids, raw)
    if (rows < 0).all():
        raise MismatchError(
            f"none of the {len(ids)} ids of {matrix} is in the index: they look like {raw[0].decode()!r} and "
            f"{store.raw_ids[0].decode()!r}; bring them into one spelling first"
        )
    return rows


def _passport(matrix: Path, key: str | None, known: Mapping[str, Any] | None) -> dict[str, Any]:
    sha = hashlib.sha256()
    with matrix.open("rb") as file:
        while piece := file.read(2**20):
            sha.update(piece)
    imported = {"file": matrix.name, "sha256": sha.hexdigest(), "key": key}
    return {"encoder": "imported", "weights": {"source": "unknown"}, **(known or {}), "imported": imported}


def _fill(writer: BlockWriter, matrix: Matrix, rows: NDArray[np.int64]) -> int:
    """Write the rows of known images; return how many whole numbers became others."""
    rounded = 0
    n_bytes = int(np.prod(matrix.shape[1:])) * max(4, matrix.dtype.itemsize)
    step = max(1, PIECE_BYTES // n_bytes)
    with progress_bar(len(rows), f"importing {writer.spec.name}", unit="row") as advance:
        for start in range(0, len(rows), step):
            piece = rows[start : start + step]
            known = np.flatnonzero(piece >= 0)
            order = known[np.argsort(piece[known])]
            values = np.asarray(matrix.take(start, start + len(piece)))[order]
            status = np.ones(len(order), dtype=np.uint8)
            if matrix.status is not None:
                status = matrix.status[start : start + len(piece)][order]
            written = status == Status.WRITTEN
            if written.any():
                writer.write(piece[order][written], values[written])
                rounded += _count_rounded(values[written], writer.spec.dtype)
            for failure in FAILURES:
                if (status == failure).any():
                    writer.fail(piece[order][status == failure], failure)
            advance(len(piece))
    return rounded


def _count_rounded(values: NDArray[Any], stored: str) -> int:
    """Count the whole numbers that a floating type cannot hold: codes, dates and counters would become others."""
    if np.can_cast(values.dtype, stored):
        return 0
    largest = first_rounded(stored)
    large = values[(values > largest) | (values < -largest)].astype(np.longdouble)
    if np.issubdtype(values.dtype, np.floating):  # above 2^53 every double is whole
        large = large[(np.abs(large) <= 2**53) & (large == np.floor(large))]
    with np.errstate(over="ignore"):
        there = large.astype(stored)
    return int((np.isfinite(there) & (there != large)).sum())


def first_rounded(stored: str) -> int:
    """Return the whole number above which a floating type lacks some."""
    return 1 << int(np.finfo(stored).nmant + 1)


# ---- dumps that another program repacked ----------------------------------------------------------------------------


def rewrite(dump: Path, path: Path | str, *, force: bool = False) -> Store:
    """Write a dump anew, every dataset as one piece; its vectors must agree with their digests and seals."""
    if dump.is_dir():
        raise MismatchError(
            f"{dump} is a folder; give one of its dumps, or bring them into one file with `features-store merge`"
        )
    (source,) = find_dumps(dump)
    with atomic_write(path, force=force) as temporary:
        with opened(source) as old, new_dump(temporary) as new:
            check_file(old, source)
            new.attrs.update(old.attrs)
            for group in ("images", "labels", "splits", "blocks"):
                if isinstance(old.get(group), h5py.Group):
                    _copy(old[group], new.create_group(group))
        reserve(temporary)
        problems = verify(open_store(temporary)).problems()
        if problems:
            found = problems[0].replace(str(temporary), str(dump))
            raise FormatError(f"{found}; a damaged dump is not rewritten")
    return open_store(path)


def _copy(old: h5py.Group, new: h5py.Group) -> None:
    """Copy datasets contiguously, a piece at a time; a single value, which a dump does not hold, is left out."""
    new.attrs.update(old.attrs)
    for name, item in old.items():
        if isinstance(item, h5py.Group):
            _copy(item, new.create_group(name))
        elif item.ndim and item.size:
            made = allocate(new, name, item.shape, item.id.get_type())
            with progress_bar(item.nbytes, f"rewriting {item.name}") as advance:
                for corner, values in chunked.pieces(item):
                    made[tuple(slice(c, c + n) for c, n in zip(corner, values.shape, strict=True))] = values
                    advance(values.nbytes)
            made.attrs.update(item.attrs)


# ---- files beside a matrix ------------------------------------------------------------------------------------------


def read_ids(path: Path) -> list[str]:
    """Read a text file with one id a line, empty lines left out."""
    try:
        text = read_regular(path, _MAX_IDS, links=True).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(
            f"{path} cannot be read as a list of ids ({error}); give a UTF-8 text file with one id a line"
        ) from error
    # Not `splitlines`, which also parts at separators that ids may hold.
    return [line for line in re.split(r"\r\n|\r|\n", text) if line]


def read_passport(path: Path) -> dict[str, Any]:
    """Read a passport from a JSON file."""
    try:
        text = read_regular(path, _MAX_PASSPORT, links=True).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be read as a passport ({error}); give a JSON file") from error
    return json_object(text, str(path))
