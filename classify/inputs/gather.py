"""Rows of several blocks, copied side by side from the files into one buffer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from features_store import Store

__all__ = ["Gather"]


class Gather:
    """Copies rows of some blocks into the columns of a buffer, allocating nothing once it has seen a size.

    Scattered rows go through one reused buffer of the block's own type: fancy indexing would allocate, fault in and
    free a fresh one for every batch, which costs more than the copy itself.

    Parameters
    ----------
    blocks : sequence of str
        Each stored contiguously, see `possible`.
    """

    def __init__(self, store: Store, blocks: Sequence[str], view: int) -> None:
        self.sources = []
        for name in blocks:
            block = store.block(name)
            n_images, n_views, n_features = block.shape
            self.sources.append((block.vectors.reshape(n_images * n_views, n_features), n_views))
        self.view = view
        self._buffers: list[np.ndarray] = [np.empty((0, table.shape[1]), table.dtype) for table, _ in self.sources]

    @staticmethod
    def possible(store: Store, blocks: Sequence[str]) -> bool:
        """Tell whether the vectors of the blocks lie in their files as they are, and HDF5 needn't decode them."""
        return all(store.block(name).offsets is not None for name in blocks)

    def into(self, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Fill *out*, (n, n_features), with the vectors of *rows*, (n,), converted to its type; return it."""
        column = 0
        first, last = (int(rows[0]), int(rows[-1])) if len(rows) else (0, -1)
        neighbours = last - first + 1 == len(rows) and bool((np.diff(rows) == 1).all())
        for i, (table, n_views) in enumerate(self.sources):
            into = out[:, column : column + table.shape[1]]
            if neighbours and n_views == 1:
                into[...] = table[first : last + 1]
            else:
                if len(self._buffers[i]) < len(rows):
                    self._buffers[i] = np.empty((len(rows), table.shape[1]), table.dtype)
                # mode="clip" lets numpy write into `out` directly; the default mode goes through a copy.
                into[...] = np.take(
                    table, rows * n_views + self.view, axis=0, out=self._buffers[i][: len(rows)], mode="clip"
                )
            column += table.shape[1]
        return out
