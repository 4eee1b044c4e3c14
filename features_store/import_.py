"""Bringing a matrix of another origin into a store, as a block beside the others."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store.align import locate
from features_store.assembly import PIECE_BYTES, progress_bar
from features_store.atomic import atomic_write
from features_store.disk import reserve
from features_store.dump import add_block, fill_index, new_dump
from features_store.errors import FormatError, MismatchError
from features_store.hdf5 import json_object
from features_store.ids import encode_ids
from features_store.matrices import open_matrix
from features_store.matrix import Matrix
from features_store.schema import FAILURES, VECTOR_DTYPES, BlockSpec, Index, Status
from features_store.store import Store
from features_store.writer import BlockWriter

_MAX_IDS = 2**30  # bytes


@dataclass(frozen=True)
class Imported:
    """What `import_matrix` wrote.

    Attributes
    ----------
    n_rows : int
        Rows of the matrix.
    unknown : int
        Rows of the matrix whose id is not in the index; they were left out.
    counts : mapping
        For each state how many images are in it; those without a row are missing.
    """

    path: Path
    block: str
    n_rows: int
    unknown: int
    counts: Mapping[str, int]


@dataclass(frozen=True)
class MatrixFile:
    """Where a matrix and its ids are.

    Attributes
    ----------
    path : Path
        ``.npy``, ``.npz``, ``.csv``, ``.mat`` (version 7.3) or ``.h5``.
    key, ids_key : str, optional
        Names of the matrix and of its ids in the file.
    ids : sequence of str, optional
        The id of each row, if the file does not hold them.
    """

    path: Path
    key: str | None = None
    ids_key: str | None = None
    ids: Sequence[str] | None = None


def import_matrix(
    store: Store,
    matrix: MatrixFile,
    path: Path | str,
    *,
    name: str,
    passport: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    force: bool = False,
) -> Imported:
    """Write a matrix as a block over the index of a store.

    Images without a row become `Status.MISSING`; rows that are not finite, or too large for the type, become
    `Status.NON_FINITE`.

    Raises MismatchError.
    """
    target = Path(path)
    with (
        atomic_write(target, force=force) as temporary,
        tempfile.TemporaryDirectory(dir=temporary.parent, prefix="import-", ignore_cleanup_errors=True) as scratch,
        open_matrix(matrix.path, key=matrix.key, ids_key=matrix.ids_key, scratch=Path(scratch)) as opened,
    ):
        rows = _rows(store, matrix, opened)
        made = opened.passport if passport is None and opened.passport is not None else _passport(matrix, passport)
        stored = dtype or (opened.dtype.name if opened.dtype.name in VECTOR_DTYPES else "float32")
        spec = BlockSpec(name, tuple(opened.shape[1:]), made, stored, names=opened.names)
        index = Index(store.ids, groups=store.groups, content=store.content, corpus=store.corpus)
        with new_dump(temporary) as file:
            fill_index(file, index, labels=False)
            add_block(file, spec, len(index))
        reserve(temporary)
        with BlockWriter(temporary, index, spec) as writer:
            _fill(writer, opened, rows)
            writer.flush()
            writer.fail(writer.pending(), Status.MISSING)
            writer.seal()
            counts = {status.reason: n for status, n in writer.counts().items()}
    return Imported(target, name, len(rows), int((rows < 0).sum()), counts)


def _rows(store: Store, matrix: MatrixFile, opened: Matrix) -> NDArray[np.int64]:
    """Return the position in the index of each row of the matrix, or -1."""
    ids = matrix.ids if matrix.ids is not None else opened.ids
    if ids is None:
        raise MismatchError(
            f"{matrix.path} holds no ids; name them with --ids-key, or give a text file with one id a line (--ids)"
        )
    if len(ids) != opened.shape[0]:
        raise MismatchError(
            f"{matrix.path} has {opened.shape[0]} rows and there are {len(ids)} ids; each row needs one"
        )
    raw = encode_ids(list(ids))
    rows = locate(store.raw_ids, raw)
    if (rows < 0).all():
        raise MismatchError(
            f"none of the {len(ids)} ids of {matrix.path} is in the index: they look like {ids[0]!r} and "
            f"{store.raw_ids[0].decode()!r}; bring them into one spelling first"
        )
    return rows


def _passport(matrix: MatrixFile, known: Mapping[str, Any] | None) -> dict[str, Any]:
    sha = hashlib.sha256()
    with matrix.path.open("rb") as file:
        while piece := file.read(2**20):
            sha.update(piece)
    imported = {"file": matrix.path.name, "sha256": sha.hexdigest(), "key": matrix.key}
    return {"encoder": "imported", "weights": {"source": "unknown"}, **(known or {}), "imported": imported}


def _fill(writer: BlockWriter, matrix: Matrix, rows: NDArray[np.int64]) -> None:
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
            _write(writer, piece[order], values, status)
            advance(len(piece))


def _write(writer: BlockWriter, rows: NDArray[np.int64], values: NDArray[Any], status: NDArray[np.uint8]) -> None:
    written = status == Status.WRITTEN
    if written.any():
        writer.write(rows[written], values[written])
    for failure in FAILURES:
        if (status == failure).any():
            writer.fail(rows[status == failure], failure)


def read_ids(path: Path) -> list[str]:
    """Read a text file with one id a line, empty lines left out.

    Raises FormatError.
    """
    try:
        with path.open("rb") as file:  # a pipe of the shell is fine, a file without end is not
            pieces, left = [], _MAX_IDS + 1
            while left > 0 and (piece := file.read(min(left, 2**20))):
                pieces.append(piece)
                left -= len(piece)
        data = b"".join(pieces)
        if left <= 0:
            raise FormatError(f"{path} has more than {_MAX_IDS:,} bytes, which no list of ids has")
        return [line for line in data.decode("utf-8-sig").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(
            f"{path} cannot be read as a list of ids ({error}); give a UTF-8 text file with one id a line"
        ) from error


def read_passport(path: Path) -> dict[str, Any]:
    """Read a passport from a JSON file.

    Raises FormatError.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be read as a passport ({error}); give a JSON file") from error
    return json_object(text, str(path))
