"""Rows of features, read on demand from a store or an array: which of them, in which view, in which order."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from classify.errors import TaskError
from features_store.schema import Status

if TYPE_CHECKING:
    import torch

    from features_store import Store


class Rows(Protocol):
    """What a solver needs of a matrix: its shape, and some of its rows as float32."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_rows, n_features)``."""

    def take(self, positions: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the rows at *positions* as float32 ``(n, n_features)``, into *out* where given."""


class ArrayRows:
    """An array seen as `Rows`; it is kept by reference, and never changed."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape = (int(array.shape[0]), int(array.shape[1]))

    def take(self, positions: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the rows at *positions* as float32 ``(n, n_features)``, into *out* where given."""
        if out is None:
            return self.array[positions].astype(np.float32, copy=False)
        if self.array.dtype == np.float32:
            # mode="clip" lets numpy write into `out` directly; the default mode goes through a copy.
            return np.take(self.array, positions, axis=0, out=out, mode="clip")
        out[...] = self.array[positions]
        return out


class RowMatrix:
    """A lazy float32 matrix ``(n_rows, n_features)`` over some rows and blocks of a store.

    Nothing is read before rows are asked for, and only those rows are: a head that learns from
    mini-batches never holds the matrix. The vectors of the *blocks* stand side by side, in this order; *rows* are those
    of the store, in this order (None: all), and *view* says which view of each image.
    """

    def __init__(self, store: Store, blocks: Sequence[str], rows: np.ndarray | None = None, *, view: int = 0) -> None:
        self.store = store
        self.blocks = tuple(blocks)
        self.rows = np.arange(store.n_images) if rows is None else np.asarray(rows, dtype=np.int64)
        self.view = view
        self._n_features = sum(int(np.prod(store.blocks[name].item_shape)) for name in self.blocks)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_rows, n_features)``."""
        return len(self.rows), self._n_features

    @property
    def stored_bytes(self) -> int:
        """What the rows take in their files."""
        return len(self.rows) * sum(
            self.store.blocks[b].n_features * self.store.blocks[b].dtype.itemsize for b in self.blocks
        )

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"RowMatrix(shape={self.shape}, blocks={list(self.blocks)}, view={self.view})"

    def __getitem__(self, key: Any) -> RowMatrix:
        """Return a lazy view of some rows, so that scikit-learn's cross-validation can cut it."""
        if isinstance(key, tuple):
            if len(key) != 2 or key[1] not in (Ellipsis, slice(None)):
                raise IndexError(f"a RowMatrix is cut by rows only, not by {key!r}; choose columns by `blocks`")
            key = key[0]
        if isinstance(key, (int, np.integer)):
            raise IndexError(f"a RowMatrix is cut by a slice, a mask or an array of positions, not by {key!r}")
        return RowMatrix(self.store, self.blocks, self.rows[key], view=self.view)

    def take(self, positions: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the rows at *positions* as float32 ``(n, n_features)``, into *out* where given."""
        return self.store.matrix(self.blocks, self.rows[positions], out=out, view=self.view)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:  # noqa: FBT001 - numpy's own signature
        if copy is False:
            raise ValueError("a RowMatrix reads its rows from disk: it cannot be had without a copy")
        whole = self.take(np.arange(len(self)))
        return whole if dtype is None else whole.astype(dtype, copy=False)


def batches(
    rows: Rows, positions: np.ndarray | None = None, size: int = 1024
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ``(positions, float32 rows)`` for *size* rows at a time."""
    order = np.arange(rows.shape[0]) if positions is None else np.asarray(positions)
    buffer = np.empty((min(size, max(len(order), 1)), rows.shape[1]), dtype=np.float32)
    for start in range(0, len(order), size):
        chosen = np.sort(order[start : start + size])
        yield chosen, rows.take(chosen, out=buffer[: len(chosen)])


def choose_maps(store: Store, names: Sequence[str] = ()) -> tuple[tuple[str, ...], tuple[int, int, int]]:
    """Return the blocks of maps to put side by side, and the shape of the whole."""
    maps = sorted(name for name, block in store.blocks.items() if len(block.item_shape) == 3)
    if not names and len(maps) != 1:
        found = f"several: {', '.join(maps)}; name those to use with --blocks" if maps else "none"
        raise TaskError(f"this head takes blocks of maps, (channels, height, width), and the store has {found}")
    chosen = tuple(names) or tuple(maps)
    shapes = [store.block(name).item_shape for name in chosen]
    for name, shape in zip(chosen, shapes, strict=True):
        if len(shape) != 3:
            valid = ", ".join(maps) or "none"
            raise TaskError(f"block {name!r} holds vectors of {shape[0]} values, not maps; blocks with maps: {valid}")
        if shape[1:] != shapes[0][1:]:
            raise TaskError(
                f"the maps of block {name!r} are {shape[1]} x {shape[2]}, those of {chosen[0]!r} {shapes[0][1]} x "
                f"{shapes[0][2]}; only maps of one size can stand side by side"
            )
    return chosen, (sum(shape[0] for shape in shapes), shapes[0][1], shapes[0][2])


def n_views(store: Store, blocks: Sequence[str]) -> int:
    """Return how many views the blocks have, the most of any."""
    return max((store.blocks[name].shape[1] for name in blocks), default=1)


class ViewedRows(RowMatrix):
    """A `RowMatrix` whose rows are, in each pass of training, a random view of their image.

    Until the first `redraw` every row is view 0, so that whatever reads the rows once sees the canonical images. A
    block with fewer views than others stays at its view 0 where the drawn one is beyond it; so does an image whose
    drawn view failed.
    """

    def __init__(self, store: Store, blocks: Sequence[str], rows: np.ndarray | None = None) -> None:
        super().__init__(store, blocks, rows)
        self.n_views = n_views(store, self.blocks)
        self.drawn = np.zeros(len(self), dtype=np.int64)

    def redraw(self, generator: torch.Generator) -> None:
        """Draw a view for each row, all alike likely."""
        import torch

        self.drawn = torch.randint(self.n_views, (len(self),), generator=generator).numpy()

    def take(self, positions: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the rows at *positions* in their drawn views, float32 ``(n, n_features)``, into *out* where given."""
        if not self.drawn.any():
            return super().take(positions, out)
        filled = np.empty((len(positions), self.shape[1]), dtype=np.float32) if out is None else out
        rows, drawn, column = self.rows[positions], self.drawn[positions], 0
        for name in self.blocks:
            block = self.store.blocks[name]
            views = np.where(drawn < block.shape[1], drawn, 0)
            views[block.status[rows, views] != Status.WRITTEN] = 0
            for view in np.unique(views):
                at = np.flatnonzero(views == view)
                filled[at, column : column + block.n_features] = self.store.matrix([name], rows[at], view=int(view))
            column += block.n_features
        return filled

    def __getitem__(self, key: Any) -> ViewedRows:
        """Return a lazy view of some rows."""
        cut = super().__getitem__(key)
        return ViewedRows(self.store, self.blocks, cut.rows)


ORDERS = ("auto", "blocks", "full")

BLOCK_ROWS = 256  # neighbours read together: 5.8 MB at 11,368 half-precision features
POOL_BLOCKS = 64  # blocks mixed with each other: 373 MB of the page cache


def shuffled_by_blocks(
    n_rows: int, generator: torch.Generator, *, block: int = BLOCK_ROWS, pool: int = POOL_BLOCKS
) -> np.ndarray:
    """Return a random order of the rows that reads a file nearly in sequence.

    The rows are cut into blocks of neighbours, at a place drawn anew for each pass; the blocks are shuffled, and the
    rows of each *pool* of consecutive blocks are shuffled among themselves. A row is equally likely at any place, as
    in a full shuffle; rows of one block stay within one pool.
    """
    import torch

    def draw(n: int) -> np.ndarray:
        return torch.randperm(n, generator=generator).numpy()

    phase = int(torch.randint(block, (1,), generator=generator))
    edges = np.unique(np.clip(np.arange(phase - block, n_rows + block, block), 0, n_rows))
    blocks = [np.arange(start, stop) for start, stop in itertools.pairwise(edges)]
    shuffled = [blocks[i] for i in draw(len(blocks))]
    pools = [np.concatenate(shuffled[i : i + pool]) for i in range(0, len(shuffled), pool)]
    return np.concatenate([rows[draw(len(rows))] for rows in pools])


def shuffles_by_blocks(choice: str, rows: Rows) -> bool:
    """Decide how *rows* are shuffled; "auto": by blocks if their vectors fill more than half of the memory."""
    if choice == "auto":
        return isinstance(rows, RowMatrix) and rows.stored_bytes > physical_memory() / 2
    return choice == "blocks"


def physical_memory() -> int:
    """Return the machine's memory in bytes; where the system does not say, a laptop's 8 GiB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30
