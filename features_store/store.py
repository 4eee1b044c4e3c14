"""A store as it is used: images with labels and splits, and the vectors of blocks, read straight from the files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from features_store import passport, seal
from features_store.atomic import open_regular
from features_store.errors import FailedRowsError, FormatError, MismatchError, UnknownNameError, unknown_name
from features_store.schema import BlockSpec, Index, Labels, Split, Status

OnFailed = Literal["error", "drop", "nan"]
Item = TypeVar("Item")
_PIECE_BYTES = 4 * 2**20  # gathered at a time, so that the half-precision copy stays in the cache


@dataclass(frozen=True)
class Block:
    """The vectors of one tap of one encoder, over one index.

    It carries the path and never an open handle, so it can be pickled, forked and sent to other processes.

    Attributes
    ----------
    path : Path
        The dump that holds it.
    shape : (int, int, int)
        ``(n_images, n_views, n_features)``.
    item_shape : tuple of int
        Shape of one vector, ``(2048,)`` or ``(2048, 8, 8)``.
    dtype : numpy.dtype
        float16 or float32, little-endian.
    passport : mapping
        Everything that made it.
    names : tuple of str or None
        What each value of a vector means.
    offsets : mapping
        Byte offsets of ``vectors``, ``status``, ``seal`` and, if each row has one, ``digests`` in the file.
    """

    name: str
    path: Path
    shape: tuple[int, int, int]
    item_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    passport: Mapping[str, Any]
    names: tuple[str, ...] | None
    offsets: Mapping[str, int]
    _maps: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    @property
    def n_features(self) -> int:
        """Number of values in one vector."""
        return self.shape[2]

    @property
    def digest(self) -> str:
        """Identity of how it was made: the digest of the passport's key."""
        return passport.digest(self.passport)

    @property
    def spec(self) -> BlockSpec:
        """The record from which an equal, empty block can be created."""
        return BlockSpec(self.name, self.item_shape, self.passport, self.dtype.name, self.shape[1], self.names)

    @property
    def vectors(self) -> NDArray[Any]:
        """All vectors, (n_images, n_views, n_features): a read-only view over the file."""
        return self._part("vectors")

    @property
    def status(self) -> NDArray[np.uint8]:
        """State of each vector now, (n_images, n_views) uint8, see `Status`."""
        return self._part("status")

    @property
    def stored_seal(self) -> bytes:
        """The forty bytes of the seal, as they are in the file now."""
        return self._part("seal").tobytes()

    @property
    def digests(self) -> NDArray[np.uint8] | None:
        """Digest of each vector, (n_images, n_views, 8) uint8; None if the file keeps none."""
        return self._part("digests") if "digests" in self.offsets else None

    @property
    def sealed(self) -> bool:
        """Whether the block was closed for good."""
        return not seal.is_open(self.stored_seal)

    def counts(self) -> dict[Status, int]:
        """Return how many vectors are in each state, states that occur only."""
        values, counts = np.unique(self.status, return_counts=True)
        if values[-1] > max(Status):
            raise FormatError(
                f"{self.path}: /blocks/{self.name}/status holds {values[-1]}; valid: 0 to {max(Status):d}"
            )
        return {Status(int(v)): int(n) for v, n in zip(values, counts, strict=True)}

    def gather(self, rows: NDArray[np.int64], out: NDArray[Any], *, view: int = 0) -> None:
        """Copy the vectors of some rows, in any order, into a buffer, converting them to its type.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
        out : ndarray of shape (n, n_features)
            May be a part of a wider buffer.
        view : int
        """
        if not 0 <= view < self.shape[1]:
            raise FormatError(f"block {self.name!r} has views 0 to {self.shape[1] - 1}; got {view}")
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.shape[0]):
            raise FormatError(
                f"block {self.name!r} has rows 0 to {self.shape[0] - 1}; got {rows.min()} to {rows.max()}"
            )
        vectors = self.vectors[:, view, :]
        step = max(1, _PIECE_BYTES // (self.n_features * self.dtype.itemsize))
        for start in range(0, len(rows), step):
            piece = rows[start : start + step]
            first, last = int(piece[0]), int(piece[-1])
            if last - first + 1 == len(piece) and (np.diff(piece) == 1).all():
                out[start : start + step] = vectors[first : last + 1]
            elif out.dtype == vectors.dtype:
                # Without a conversion there is no need of a copy in between, and no row is out of range.
                np.take(vectors, piece, axis=0, out=out[start : start + step], mode="clip")
            else:
                out[start : start + step] = vectors[piece]

    def _part(self, part: str) -> NDArray[Any]:
        if part not in self._maps:
            shape = {
                "vectors": self.shape,
                "status": self.shape[:2],
                "digests": (*self.shape[:2], seal.DIGEST_BYTES),
                "seal": (seal.SEAL_BYTES,),
            }[part]
            dtype = self.dtype if part == "vectors" else np.dtype(np.uint8)
            with open_regular(self.path) as file:
                if os.fstat(file.fileno()).st_size < self.offsets[part] + dtype.itemsize * int(np.prod(shape)):
                    raise FormatError(f"{self.path} was cut short while it was open")
                # np.asarray: plain indexing, without the bookkeeping of the memmap subclass on every slice.
                self._maps[part] = np.asarray(np.memmap(file, dtype, "r", offset=self.offsets[part], shape=shape))
        return self._maps[part]


@dataclass(frozen=True, eq=False)
class Store:
    """Images with their labels, splits and blocks; vectors stay on the disk until they are needed.

    Attributes
    ----------
    paths : tuple of Path
        The dumps.
    raw_ids : ndarray of shape (n_images,), fixed-length UTF-8
    index_digest : str
        The identity of the index, see `Index`.
    corpus : mapping
        Name and options of the reader that made the index.
    parent_digest, parent_rows
        The index that this one was cut from, and the row of each image there, see `Index`.
    meaning_digest, images_digest, format_version : str
        Of one dump: the stored digests of its labels, splits and groups, and of its corpus and image files, "" if there
        is none; of several dumps "".
    """

    paths: tuple[Path, ...]
    raw_ids: NDArray[np.bytes_]
    index_digest: str
    corpus: Mapping[str, Any]
    groups: NDArray[np.int64] | None
    content: NDArray[np.uint8] | None
    labels: Mapping[str, Labels]
    splits: Mapping[str, Split]
    blocks: Mapping[str, Block]
    parent_digest: str = ""
    parent_rows: NDArray[np.int64] | None = None
    meaning_digest: str = ""
    images_digest: str = ""
    format_version: str = ""

    @property
    def n_images(self) -> int:
        """Number of images in the index."""
        return len(self.raw_ids)

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """Image ids, (n_images,) str."""
        return np.array([raw.decode() for raw in self.raw_ids.tolist()], dtype=np.str_)

    @property
    def index(self) -> Index:
        """The index with its labels and splits, as a writer takes it."""
        return Index(
            self.ids,
            self.labels,
            self.splits,
            self.groups,
            self.content,
            self.corpus,
            self.parent_digest,
            self.parent_rows,
        )

    def _repr_html_(self) -> str:
        """Show the store in a notebook: its tasks, splits and blocks, every name escaped."""
        rows = [
            ("task", name, f"{one.task.kind}: {', '.join(one.task.classes)}; {int(one.known.sum()):,} labelled")
            for name, one in self.labels.items()
        ]
        for name, split in self.splits.items():
            rows.append(("split", name, ", ".join(f"{part} {count:,}" for part, count in split.counts().items())))
        for name, block in self.blocks.items():
            shape = " x ".join(map(str, block.item_shape))
            written = int((block.status[:, 0] == Status.WRITTEN).sum())
            rows.append(("block", name, f"{shape}, {block.dtype}, {written:,} of {self.n_images:,} written"))
        cells = [tuple(map(escape, row)) for row in rows]
        body = "".join(f"<tr><td>{kind}</td><th>{name}</th><td>{text}</td></tr>" for kind, name, text in cells)
        caption = escape(f"{self.n_images:,} images, corpus {self.corpus.get('name', 'not recorded')}")
        return f"<table><caption>{caption}</caption><tbody>{body}</tbody></table>"

    def block(self, name: str) -> Block:
        """Return a block by name, or say which there are."""
        return _look_up("block", name, self.blocks)

    def task_labels(self, name: str) -> Labels:
        """Return the labels of a task by name, or say which there are."""
        return _look_up("task", name, self.labels)

    def split(self, name: str) -> Split:
        """Return a split by name, or say which there are."""
        return _look_up("split", name, self.splits)

    def n_features(self, blocks: Sequence[str]) -> int:
        """Return the width of the concatenation of some blocks."""
        return sum(self.block(name).n_features for name in blocks)

    def usable(self, blocks: Sequence[str], *, view: int = 0) -> NDArray[np.bool_]:
        """Tell which images have a written vector in each of the blocks: (n_images,) bool."""
        good = np.ones(self.n_images, dtype=bool)
        for name in blocks:
            good &= self.block(name).status[:, view] == Status.WRITTEN
        return good

    def matrix(
        self,
        blocks: Sequence[str],
        rows: ArrayLike | None = None,
        *,
        dtype: DTypeLike = np.float32,
        out: NDArray[Any] | None = None,
        view: int = 0,
        on_failed: OnFailed = "error",
    ) -> NDArray[Any]:
        """Gather the concatenated vectors of some images into one buffer.

        Parameters
        ----------
        blocks : sequence of str
            Concatenated in this order.
        rows : array-like of int, shape (n,), optional
            Positions in the index, in any order; None means all images.
        dtype : dtype
            Of the result; ignored if `out` is given.
        out : ndarray of shape (at least n, n_features), optional
            A buffer to fill and return a view of.
        view : int
            Which view of the images.
        on_failed : {"error", "drop", "nan"}
            What to do with rows that have no vector in one of the blocks.

        Returns
        -------
        ndarray of shape (n, n_features)
            With "drop", n is the number of usable rows; their positions are ``rows[usable(blocks)[rows]]``.

        Raises
        ------
        FailedRowsError
            If `on_failed` is "error" and a row has no vector.
        """
        positions = self._positions(rows)
        good = np.ones(len(positions), dtype=bool)
        for name in blocks:
            good &= self.block(name).status[positions, view] == Status.WRITTEN
        positions, failed = self._decide(positions, good, on_failed, blocks)
        width = self.n_features(blocks)
        if out is None:
            out = np.empty((len(positions), width), dtype=dtype)
        elif out.ndim != 2 or out.shape[0] < len(positions) or out.shape[1] != width:
            raise MismatchError(f"the buffer has shape {out.shape}; {len(positions)} rows of {width} values are needed")
        filled = out[: len(positions)]
        column = 0
        for name in blocks:
            block = self.blocks[name]
            block.gather(positions, filled[:, column : column + block.n_features], view=view)
            column += block.n_features
        if failed.any():
            filled[failed] = np.nan
        return filled

    def batches(
        self,
        blocks: Sequence[str],
        rows: ArrayLike | None,
        batch_size: int,
        *,
        dtype: DTypeLike = np.float32,
        view: int = 0,
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Iterate over rows in the given order, gathering each batch into one buffer that is used again.

        Yields
        ------
        rows : ndarray of shape (n,), int64
        vectors : ndarray of shape (n, n_features)
            Valid until the next step.
        """
        positions = self._positions(rows)
        buffer = np.empty((min(batch_size, len(positions)), self.n_features(blocks)), dtype=dtype)
        for start in range(0, len(positions), batch_size):
            batch = positions[start : start + batch_size]
            yield batch, self.matrix(blocks, batch, out=buffer, view=view)

    def _positions(self, rows: ArrayLike | None) -> NDArray[np.int64]:
        if rows is None:
            return np.arange(self.n_images)
        positions = np.asarray(rows)
        if positions.size == 0:
            return np.zeros(0, dtype=np.int64)
        if positions.ndim != 1 or not np.issubdtype(positions.dtype, np.integer):
            raise MismatchError(
                f"rows must be one row of whole numbers; got {positions.dtype} of shape {positions.shape}"
            )
        if positions.min() < 0 or positions.max() >= self.n_images:
            raise MismatchError(
                f"rows run from {positions.min()} to {positions.max()}; the index has rows 0 to {self.n_images - 1}"
            )
        return positions.astype(np.int64, copy=False)

    def _decide(
        self, positions: NDArray[np.int64], good: NDArray[np.bool_], on_failed: OnFailed, blocks: Sequence[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Apply `on_failed`: return the rows to gather, and which of those are to become NaN."""
        if good.all() or on_failed == "nan":
            return positions, ~good
        if on_failed == "drop":
            return positions[good], np.zeros(int(good.sum()), dtype=bool)
        bad = positions[~good]
        named = ", ".join(self.raw_ids[row].decode() for row in bad[:3])
        raise FailedRowsError(
            f"{len(bad)} of {len(positions)} rows have no vector in {', '.join(blocks)} ({named}...); "
            "choose on_failed='drop' or 'nan', or extract them again with --retry-failed"
        )


def _look_up(kind: str, name: str, table: Mapping[str, Item]) -> Item:
    if name not in table:
        raise UnknownNameError(unknown_name(kind, name, table))
    return table[name]
