"""Opening stores: one dump, a folder of dumps over one index, or several of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from features_store.atomic import typed_path
from features_store.block import Block
from features_store.contents import Contents, read_contents
from features_store.errors import FailedRowsError, FormatError, MismatchError, UnknownNameError, unknown_name
from features_store.schema import Index, Labels, Split, Status

OnFailed = Literal["error", "drop", "nan"]
Item = TypeVar("Item")


def open_store(paths: str | Path | Sequence[str | Path]) -> Store:
    """Open a dump, a folder of dumps, or several of them, over one index.

    Everything but vectors and status is read and checked now; no file stays open.

    Parameters
    ----------
    paths : path-like, or sequence of path-like
        A path may be a link to a dump or a folder; dumps inside of a folder may not.

    Returns
    -------
    Store

    Raises
    ------
    FormatError
        If a file is no dump, or breaks FORMAT.md.
    UnsafeFileError
        If a file could make its reader do more than read it.
    MismatchError
        If the dumps have different indexes, or one block, task or split stands in two of them.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    files = [file for path in given for file in _typed(Path(path))]
    contents: list[Contents] = []
    for file in files:
        contents.append(read_contents(file, same_ids=contents[0].raw_ids if contents else None))
    _same_index(contents)
    return Store(
        paths=tuple(files),
        raw_ids=contents[0].raw_ids,
        index_digest=contents[0].index_digest,
        corpus=next((c.corpus for c in contents if c.corpus), {}),
        groups=_groups(contents),
        content=_content(contents),
        labels=_join("task", [c.labels for c in contents], contents),
        splits=_join("split", [c.splits for c in contents], contents),
        blocks=_join("block", [c.blocks for c in contents], contents),
    )


@dataclass(frozen=True, eq=False)
class Store:
    """Images with their labels, splits and blocks; vectors stay on the disk until they are asked for.

    Attributes
    ----------
    paths : tuple of Path
        The dumps.
    corpus : mapping
        Name and options of the reader that made the index.
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
        return Index(self.ids, self.labels, self.splits, self.groups, self.content, self.corpus)

    def _repr_html_(self) -> str:
        """Show the store in a notebook."""
        from features_store.notebook import store_table

        return store_table(self)

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
            raise MismatchError(
                f"the buffer has shape {out.shape}; {len(positions)} rows of {width} values were asked for"
            )
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
        if positions.ndim != 1 or positions.dtype.kind not in "iu":
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


def _typed(path: Path) -> list[Path]:
    if not path.exists():
        if scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)", str(path)):  # a path has lost one of the slashes
            raise FormatError(
                f"{scheme[0]}/{str(path)[scheme.end() :]} is a URL, and only local paths are read; fetch it first"
            )
        raise FormatError(f"{path} is not there; give the path of a dump, or of a folder of dumps")
    if not path.is_dir():
        return [typed_path(path)]
    files = dumps_of(path)
    if not files:
        raise FormatError(f"{path} holds no dump (*.h5); make one with `extract run`, or give another folder")
    return files


def dumps_of(folder: Path) -> list[Path]:
    """Return the dumps of a folder store; a name that begins with a dot is a temporary file or a lock."""
    return sorted(file for file in folder.glob("*.h5") if not file.name.startswith("."))


def _same_index(contents: list[Contents]) -> None:
    first = contents[0]
    for other in contents[1:]:
        if other.index_digest != first.index_digest:
            raise MismatchError(
                f"{first.path} has {len(first.raw_ids)} images and {other.path} has {len(other.raw_ids)}, of different "
                "indexes; `features-store merge --join` aligns them by id"
            )


def _groups(contents: list[Contents]) -> NDArray[np.int64] | None:
    having = [one for one in contents if one.groups is not None]
    for other in having[1:]:
        differs = np.flatnonzero(np.asarray(having[0].groups != other.groups))
        if len(differs):
            _contradiction("the group", having[0], other, differs)
    return having[0].groups if having else None


def _content(contents: list[Contents]) -> NDArray[np.uint8] | None:
    having = [(one, one.content) for one in contents if one.content is not None]
    if not having:
        return None
    first, known = having[0]
    for other, column in having[1:]:
        both = known.any(axis=1) & column.any(axis=1)
        differs = np.flatnonzero(both & (known != column).any(axis=1))
        if len(differs):
            _contradiction("the bytes of the picture (SHA-256)", first, other, differs)
        known = np.where(known.any(axis=1, keepdims=True), known, column)
    return known


def _contradiction(what: str, one: Contents, other: Contents, rows: NDArray[np.int64]) -> NoReturn:
    raise MismatchError(
        f"{one.path} and {other.path} contradict each other about {what} of {len(rows)} images, the first is "
        f"{one.raw_ids[rows[0]].decode()!r}; keep one of them"
    )


def _join(kind: str, tables: list[Mapping[str, Any]], contents: list[Contents]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    origin: dict[str, Path] = {}
    for table, one in zip(tables, contents, strict=True):
        for name, item in table.items():
            if name in joined and (kind == "block" or not _equal(joined[name], item)):
                raise MismatchError(f"{kind} {name!r} is in {origin[name]} and in {one.path}; keep one of them")
            there = joined.get(name)
            if isinstance(there, Split) and there.source:
                continue  # of two equal splits, the one that says who made it
            joined[name], origin[name] = item, one.path
    return joined


def _equal(one: Labels | Split, other: Labels | Split) -> bool:
    if isinstance(one, Labels) and isinstance(other, Labels) and one.task != other.task:
        return False
    if isinstance(one, Split) and isinstance(other, Split):
        stated = {one.source, other.source} - {""}  # dumps of 1.0 do not say who made a split
        if one.kind != other.kind or len(stated) > 1:
            return False
    return np.array_equal(one.values, other.values, equal_nan=one.values.dtype.kind == "f")
