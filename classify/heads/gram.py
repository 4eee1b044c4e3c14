"""The Gram engine: one matrix of inner products for each block, and every kernel of every subset from their sums.

The linear kernel of concatenated blocks is the sum of the blocks' own, ``x.z = sum_b x_b.z_b``, and a squared distance
follows from three inner products. So after one pass over the vectors every subset of blocks, every strength, every
label and every fold that shares the standardisation costs no more than a machine on a small matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from classify.data.rows import RowMatrix
from classify.errors import HeadError
from classify.heads.base import Standardiser
from features_store.errors import unknown_name

if TYPE_CHECKING:
    from features_store import Store

__all__ = ["KERNELS", "Grams", "block_grams"]

KERNELS = ("linear", "rbf")
MAX_ROWS = 20_000  # a matrix of 1.6 GB


@dataclass(frozen=True)
class Grams:
    """Inner products of standardised rows, block by block.

    Parameters
    ----------
    products : mapping of str to numpy.ndarray of float32, shape (n_rows, n_rows)
        By block.
    widths : mapping of str to int
        Features of each block.
    """

    products: Mapping[str, np.ndarray]
    widths: Mapping[str, int]

    def kernel(self, blocks: Sequence[str], kind: str = "linear", *, gamma: float | None = None) -> np.ndarray:
        """Return the kernel of the concatenation of some blocks.

        Raises HeadError.
        """
        if kind not in KERNELS:
            raise HeadError(unknown_name("kernel", kind, KERNELS))
        if not blocks:
            message = f"a kernel needs at least one block; there are {', '.join(self.products)}"
            raise HeadError(message)
        for name in blocks:
            if name not in self.products:
                raise HeadError(unknown_name("block", name, self.products))
        factor = 1 / sum(self.widths[name] for name in blocks) if gamma is None else gamma
        total = self.products[blocks[0]].astype(np.float64)
        for name in blocks[1:]:
            total += self.products[name]
        if kind == "linear":
            return np.multiply(total, factor, out=total)
        norms = total.diagonal().copy()
        total *= -2
        total += norms[:, None]
        total += norms
        np.maximum(total, 0, out=total)
        total *= -factor
        return np.exp(total, out=total)


def block_grams(store: Store, blocks: Iterable[str], rows: np.ndarray, fit: np.ndarray) -> Grams:
    """Multiply the rows of each block with each other, standardised on some of them.

    Raises HeadError.
    """
    if len(rows) > MAX_ROWS:
        message = (
            f"a Gram matrix of {len(rows)} x {len(rows)} rows is too large; at most {MAX_ROWS} (use the ridge head)"
        )
        raise HeadError(message)
    products = {name: _product(RowMatrix(store, [name], rows), fit) for name in blocks}
    return Grams(products, {name: store.block(name).n_features for name in products})


def _product(rows: RowMatrix, fit: np.ndarray) -> np.ndarray:
    z = Standardiser.fit(rows[fit], standardize=True).whole(rows)
    return z @ z.T  # numpy computes one half of it and mirrors it
