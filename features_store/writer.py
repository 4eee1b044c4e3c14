"""Writing a block row by row into a file that was created whole, and the reasons of rows that failed beside it.

After the file is created, no HDF5 metadata is ever written again: rows go in with ``pwrite`` at the
offset of the dataset, are made durable, and only then get their status byte. A writer killed at any instant leaves
a file that opens, with each row either pending or whole.

``BLOCK.failures.csv`` holds id, status and reason. A block means the same without it, so a file that is lost,
damaged or of another block is no error: only what it records of rows that failed in that way is shown.
"""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features_store import passport, seal
from features_store.atomic import atomic_write, open_regular, read_regular
from features_store.disk import disk_errors, reserve
from features_store.dump import read_dump
from features_store.errors import FormatError, MismatchError, StoreError
from features_store.hdf5 import add_block, fill_index, new_dump, replace_passport
from features_store.lock import FileLock
from features_store.schema import BlockSpec, Index, Status
from features_store.store import Block

_COMMIT_SECONDS = 2.0
_COMMIT_BYTES = 256 * 2**20
MAX_REASON = 200  # characters
_MAX_FAILURES_BYTES = 256 * 2**20
_COLUMNS = ("id", "status", "reason")
_NO_VALUES = np.zeros((0, 0), dtype="<f4")  # of rows that failed: their digest is of the status alone


class BlockWriter:
    """Write one block into its own file; create the file, or resume it where an earlier writer ended.

    Parameters
    ----------
    path : path-like
        The file, usually ``STORE/BLOCK.h5``.
    index : Index
        The images; its labels and splits are not copied.
    spec : BlockSpec
        What the block is. An existing file must have been made in the same way.

    Raises
    ------
    MismatchError
        If the file exists and its index, shape, type or passport key is another; each differing field is named.
    LockedError
        If another process writes the block.
    DiskSpaceError
        If the whole block does not fit on the disk. Nothing is left behind.

    Attributes
    ----------
    passport : dict
        In the file.
    news : list of str
        Circumstances of this writer that are new to that passport (device, batch size, versions), with both values; it
        gets them before the first row.

    Examples
    --------
    >>> with BlockWriter(path, index, spec) as writer:    # doctest: +SKIP
    ...     for rows in batches(writer.pending()):
    ...         writer.write(rows, vectors_of(rows))
    ...     writer.seal()
    """

    def __init__(self, path: Path | str, index: Index, spec: BlockSpec) -> None:
        self.path = Path(path)
        self.spec = spec
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = -1
        with disk_errors(self.path):
            self._lock = FileLock(self.path)
        try:
            if not os.path.lexists(self.path):
                with atomic_write(self.path) as temporary:
                    create_block(temporary, index, spec)
            block = _same_block(self.path, index, spec)
            self._offsets = dict(block.offsets)
            self.passport = dict(block.passport)
            self.news = passport.new_circumstances(self.passport, spec.passport)
            self._dtype = np.dtype(spec.dtype).newbyteorder("<")
            self._status = np.array(block.status)
            self._sealed = block.sealed
            self._digests = None if block.digests is None else np.array(block.digests)
            self._fd = _opened(self.path)
        except BaseException:
            self._lock.release()
            raise
        self._uncommitted: tuple[int, int] | None = None  # first row, and one behind the last, not yet on the disk
        self._uncommitted_bytes = 0
        self._last_commit = time.monotonic()

    @property
    def sealed(self) -> bool:
        """Whether the block is closed for good."""
        return self._sealed

    def pending(self, view: int | None = None) -> NDArray[np.int64]:
        """Return the rows in which one view, or any, is pending: (n_pending,) int64, ascending."""
        pending = self._status == Status.PENDING
        return np.flatnonzero(pending.any(axis=1) if view is None else pending[:, view])

    def failed(self) -> NDArray[np.int64]:
        """Return the rows in which any view failed: (n_failed,) int64, ascending."""
        return np.flatnonzero((self._status > Status.WRITTEN).any(axis=1))

    def status_of(self, row: int) -> Status:
        """Return the worst state that a row has in any view."""
        return Status(int(self._status[row].max()))

    def counts(self) -> dict[Status, int]:
        """Return how many vectors are in each state, states that occur only."""
        values, counts = np.unique(self._status, return_counts=True)
        return {Status(int(v)): int(n) for v, n in zip(values, counts, strict=True)}

    def write(self, rows: ArrayLike, vectors: ArrayLike, *, view: int = 0) -> NDArray[np.uint8]:
        """Write the vectors of some rows.

        Parameters
        ----------
        rows : array-like of int, shape (n,)
            Positions in the index.
        vectors : array-like of float, shape (n, n_features) or (n, *shape)
            A vector with a value that is not finite, or too large for the block's type, makes its row
            `Status.NON_FINITE` and is not written.
        view : int
            Which view of the images the vectors belong to.

        Returns
        -------
        ndarray of shape (n,), uint8
            The status that each row got.
        """
        positions = self._positions(rows, view)
        self._begin()
        values = np.asarray(vectors)
        if values.shape not in ((len(positions), self.spec.n_features), (len(positions), *self.spec.shape)):
            raise FormatError(
                f"block {self.spec.name!r} takes vectors of shape ({len(positions)}, {self.spec.n_features}) "
                f"for {len(positions)} rows; got {values.shape}"
            )
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(values.reshape(len(positions), -1), dtype=self._dtype)
        status = np.where(np.isfinite(values).all(axis=1), Status.WRITTEN, Status.NON_FINITE).astype(np.uint8)
        good = status == Status.WRITTEN
        with disk_errors(self.path):
            self._write_runs(positions[good], values[good], view)
        self._mark(positions, np.full(len(positions), view), status, values)
        return status

    def fail(self, rows: ArrayLike, status: Status, *, view: int | None = None) -> None:
        """Record that rows have no vector, and why; `view` None means all views."""
        if status in (Status.PENDING, Status.WRITTEN):
            raise FormatError(
                f"{Status(status).name} is not a failure; valid: {', '.join(s.name for s in Status if s > 1)}"
            )
        positions = self._positions(rows, view or 0)
        self._begin()
        views = range(self.spec.n_views) if view is None else [view]
        states = np.full(len(positions), status, dtype=np.uint8)
        for one in views:
            self._mark(positions, np.full(len(positions), one), states, _NO_VALUES)

    def reset(self, statuses: Iterable[Status]) -> NDArray[np.int64]:
        """Make rows that failed in one of these ways pending again, the seal being broken first; return the rows."""
        self.flush()
        rows, views = np.nonzero(np.isin(self._status, [int(s) for s in statuses]))
        if len(rows):
            self._unite()
            self._pwrite(b"\0" * seal.SEAL_BYTES, self._offsets["seal"])
            self._sealed = False
            self._mark(rows, views, np.zeros(len(rows), dtype=np.uint8), _NO_VALUES)
            self.flush()
        return np.unique(rows)

    def flush(self) -> None:
        """Make all vectors and their digests durable, then set their status bytes."""
        if self._uncommitted is not None:
            first, last = self._uncommitted
            # One writer holds the block, so the bytes between are what this process last knew them to be.
            with disk_errors(self.path):
                if self._digests is not None:
                    self._put("digests", self._digests, first, last)
                _sync(self._fd)
                self._put("status", self._status, first, last)
            self._uncommitted = None
        self._uncommitted_bytes = 0
        self._last_commit = time.monotonic()

    def seal(self, *, progress: Callable[[int], object] | None = None) -> bytes:
        """Close the block for good: write its row count and digest.

        Parameters
        ----------
        progress : callable, optional
            Called with the number of rows hashed since the last call.

        Raises
        ------
        FormatError
            If a row is still pending.
        """
        self.flush()
        pending = self.pending()
        if len(pending):
            raise FormatError(
                f"block {self.spec.name!r} cannot be sealed: {len(pending)} of {len(self._status)} rows are pending"
            )
        shape = (*self._status.shape, self.spec.n_features)
        with open_regular(self.path) as file:
            vectors = np.memmap(file, self._dtype, "r", offset=self._offsets["vectors"], shape=shape)
        sealed = seal.compute(vectors, self._status, progress=progress)
        with disk_errors(self.path):
            _sync(self._fd)
            self._pwrite(sealed, self._offsets["seal"])
            _sync(self._fd)
        self._sealed = True
        return sealed

    def close(self) -> None:
        """Flush, and give the block back; a second call does nothing."""
        if self._fd < 0:
            return
        try:
            self.flush()
            _sync(self._fd)
        finally:
            os.close(self._fd)
            self._fd = -1
            self._lock.release()

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        """Refuse a sealed block; let the passport name what this writer does in other circumstances."""
        if self._sealed:
            raise FormatError(
                f"block {self.spec.name!r} of {self.path} is sealed; only rows that failed can be done again (reset)"
            )
        self._unite()

    def _unite(self) -> None:
        """Let the passport hold the circumstances of this writer beside those of earlier ones.

        HDF5 metadata is never written in place, so the file is copied once and replaced whole, before the first row.
        """
        if not self.news:
            return
        self.flush()
        both = passport.merged([self.passport, self.spec.passport])
        os.close(self._fd)  # Windows replaces no open file
        try:
            with atomic_write(self.path, force=True) as temporary:
                shutil.copyfile(self.path, temporary)
                replace_passport(temporary, self.spec.name, both)
                reserve(temporary)
        finally:
            self._fd = _opened(self.path)
        self._offsets = dict(read_dump(self.path).blocks[self.spec.name].offsets)
        self.passport, self.news = both, []

    def _positions(self, rows: ArrayLike, view: int) -> NDArray[np.int64]:
        positions = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        n_images = len(self._status)
        if positions.ndim != 1 or (len(positions) and not (positions.min() >= 0 and positions.max() < n_images)):
            raise FormatError(f"block {self.spec.name!r} has rows 0 to {n_images - 1}; got {rows!r}")
        if not 0 <= view < self.spec.n_views:
            raise FormatError(f"block {self.spec.name!r} has views 0 to {self.spec.n_views - 1}; got {view}")
        return positions

    def _mark(
        self, rows: NDArray[np.int64], views: NDArray[Any], status: NDArray[np.uint8], values: NDArray[Any]
    ) -> None:
        if not len(rows):
            return
        self._status[rows, views] = status
        if self._digests is not None:
            self._digests[rows, views] = seal.digest_rows(values, status)
        first, last = self._uncommitted or (len(self._status), 0)
        self._uncommitted = min(first, int(rows.min())), max(last, int(rows.max()) + 1)
        late = time.monotonic() - self._last_commit > _COMMIT_SECONDS
        if late or self._uncommitted_bytes > _COMMIT_BYTES:
            self.flush()

    def _write_runs(self, rows: NDArray[np.int64], values: NDArray[Any], view: int) -> None:
        """Write each run of neighbouring rows with one call; with several views each row is a run."""
        n_views, row_bytes = self.spec.n_views, values.itemsize * self.spec.n_features
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1 if n_views == 1 else np.arange(1, len(rows))
        for run_rows, run in zip(np.split(rows, breaks), np.split(values, breaks), strict=True):
            if len(run_rows):
                offset = self._offsets["vectors"] + (int(run_rows[0]) * n_views + view) * row_bytes
                self._pwrite(run.reshape(-1).view(np.uint8).data, offset)
        self._uncommitted_bytes += values.nbytes

    def _put(self, part: str, values: NDArray[np.uint8], first: int, last: int) -> None:
        self._pwrite(values[first:last].tobytes(), self._offsets[part] + first * values[0].nbytes)

    def _pwrite(self, data: bytes | memoryview, offset: int) -> None:
        left = memoryview(data)
        while left:
            if hasattr(os, "pwrite"):
                written = os.pwrite(self._fd, left, offset)
            else:
                os.lseek(self._fd, offset, os.SEEK_SET)
                written = os.write(self._fd, left)
            left, offset = left[written:], offset + written


def create_block(path: Path, index: Index, spec: BlockSpec) -> None:
    """Create the file of a block: everything but its rows, with its space on the disk reserved."""
    with new_dump(path) as file:
        fill_index(file, index, labels=False)
        add_block(file, spec, len(index))
    reserve(path)


def _same_block(path: Path, index: Index, spec: BlockSpec) -> Block:
    store = read_dump(path)
    block = store.blocks.get(spec.name)
    if block is None:
        raise MismatchError(f"{path} holds no block {spec.name!r} that could be continued; write to another file")
    found = []
    if store.index_digest != index.digest:
        found.append(f"index_digest: {store.index_digest[:12]!r} / {index.digest[:12]!r}")
    expected = (len(index), spec.n_views, spec.n_features)
    if block.shape != expected or block.item_shape != spec.shape:
        found.append(f"shape: {block.shape} {block.item_shape} / {expected} {spec.shape}")
    if block.dtype != np.dtype(spec.dtype):
        found.append(f"dtype: {block.dtype} / {spec.dtype}")
    found += passport.differences(block.passport, spec.passport)
    if found:
        raise MismatchError(
            f"{path} was made in another way (there / here): {'; '.join(found)}; remove it, or write to another store"
        )
    return block


def _opened(path: Path) -> int:
    with open_regular(path, mode="r+b") as file:
        return os.dup(file.fileno())


def _sync(fd: int) -> None:
    getattr(os, "fdatasync", os.fsync)(fd)


# ---- failures --------------------------------------------------------------------------------------------------------


def allowed_failures(text: str, n_images: int) -> int:
    """Return how many of `n_images` may fail: of a share ("5%", "0.05"), or a whole number of images ("40")."""
    plain = text.strip()
    try:
        number = float(plain.removesuffix("%"))
        if not plain.isascii() or not math.isfinite(number) or number < 0:
            raise ValueError
        if not plain.endswith("%") and "." not in plain:
            return int(plain)
        share = number / 100 if plain.endswith("%") else number
        if share > 1:
            raise ValueError
        return math.floor(share * n_images + 1e-9)
    except ValueError:
        raise MismatchError(
            f"--max-failed {text!r} is no limit; give a share such as 5% or 0.05, or a number of images"
        ) from None


def plain_words(reason: str) -> str:
    """Return a reason on one line, without control characters: it may quote bytes of a stranger's file."""
    return "".join(char if char.isprintable() else " " for char in reason).strip()[:MAX_REASON]


def failures_file(dump: Path) -> Path:
    """Return where the reasons of a block file are."""
    return dump.with_name(f"{dump.name.removesuffix('.h5')}.failures.csv")


def read_failures(dump: Path) -> dict[tuple[str, str], str]:
    """Return reasons by id and status, in words; nothing where there is no file that could be read."""
    try:
        data = io.BytesIO(read_regular(failures_file(dump), _MAX_FAILURES_BYTES))
        rows = csv.reader(io.TextIOWrapper(data, encoding="utf-8", errors="replace", newline=""), strict=True)
        if tuple(next(rows, ())) != _COLUMNS:
            return {}
        return {(row[0], row[1]): plain_words(row[2]) for row in rows if len(row) == len(_COLUMNS)}
    except (OSError, StoreError, csv.Error):
        return {}


def write_failures(dump: Path, failures: Iterable[tuple[str, str, str]]) -> None:
    """Write id, status and reason of each failure; without any, the file goes."""
    rows = [(name, status, plain_words(reason)) for name, status, reason in failures]
    path = failures_file(dump)
    if not rows:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path, force=True) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([_COLUMNS, *rows])
