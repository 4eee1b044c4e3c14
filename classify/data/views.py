"""Rows with several views of each image: one drawn at random for each pass of training, the canonical one otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.data.rows import RowMatrix
from features_store.schema import Status

if TYPE_CHECKING:
    import torch

    from features_store import Store

__all__ = ["ViewedRows", "n_views"]


def n_views(store: Store, blocks: Sequence[str]) -> int:
    """Return how many views the blocks have, the most of any."""
    return max((store.blocks[name].shape[1] for name in blocks), default=1)


class ViewedRows(RowMatrix):
    """A `RowMatrix` whose rows are, in each pass of training, a random view of their image.

    Until the first `redraw` every row is view 0, so that whatever reads the rows once sees the canonical images. A
    block with fewer views than others stays at its view 0 where the drawn one is beyond it; so does an image whose
    drawn view failed.

    Parameters
    ----------
    store, blocks, rows
        As of `RowMatrix`.
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
