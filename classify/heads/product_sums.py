"""Sums of products over rows: all that a ridge regression of many rows needs, in one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from classify.data.rows import Rows, batches
from classify.data.standardizer import Standardizer
from classify.errors import HeadError

WIDE = 4096  # up to so many features every product is float64
CHUNK_BYTES = 64 * 2**20  # of float32 rows multiplied at once


@dataclass(frozen=True)
class ProductSums:
    """Sums over some rows of standardized features z and targets y: all that a ridge regression needs of them.

    Sums of disjoint rows add up, so those of the training rows of a fold are the sum over the other folds.
    """

    n: int
    x: np.ndarray  # (n_features,)
    y: np.ndarray  # (n_targets,)
    xx: np.ndarray  # (n_features, n_features), float32 beyond 4,096 features
    xy: np.ndarray  # (n_features, n_targets)

    def plus(self, other: ProductSums) -> ProductSums:
        """Return the sums of the rows of both."""
        mine, theirs = ((one.x, one.y, one.xx, one.xy) for one in (self, other))
        return ProductSums(self.n + other.n, *(a + b for a, b in zip(mine, theirs, strict=True)))

    def of_columns(self, columns: np.ndarray) -> ProductSums:
        """Return the sums of some features."""
        return ProductSums(self.n, self.x[columns], self.y, self.xx[np.ix_(columns, columns)], self.xy[columns])

    def centered(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums of products of features, and of features with targets, each less its mean."""
        root = (self.x / np.sqrt(self.n)).astype(self.xx.dtype)
        return self.xx - np.outer(root, root), self.xy - np.outer(self.x / self.n, self.y)


def sum_products(
    rows: Rows,
    standardizer: Standardizer,
    targets: np.ndarray,
    positions: np.ndarray | None = None,
    progress: Callable[[int], object] = lambda n: None,
) -> ProductSums:
    """Sum products over some rows, or all, in one pass.

    Shapes: targets (n_rows, n_targets); positions (n,).
    """
    n_features = rows.shape[1]
    exact: Any = np.float64 if n_features <= WIDE else np.float32
    xx, xy = np.zeros((n_features, n_features), exact), np.zeros((n_features, targets.shape[1]))
    x, y, n = np.zeros(n_features), np.zeros(targets.shape[1]), 0
    for chosen, gathered in batches(rows, positions, max(64, CHUNK_BYTES // (4 * n_features))):
        z = standardizer(gathered).astype(exact, copy=False)
        xx += z.T @ z
        xy += z.T @ targets[chosen].astype(exact)
        x += z.sum(axis=0, dtype=np.float64)
        y += targets[chosen].sum(axis=0)
        n += len(chosen)
        progress(len(chosen))
    return ProductSums(n, x, y, xx, xy)


def solve_ridge(zz: np.ndarray, zy: np.ndarray, alpha: float) -> np.ndarray:
    """Return the weights (n_targets, n_features) that minimize ``|Y - Z W|^2 + alpha |W|^2``.

    Float32 sums are solved in float32, and refined with residuals in float64.
    """
    shifted = zz.copy()
    shifted.flat[:: len(zz) + 1] += alpha
    try:
        factor = cho_factor(shifted, lower=True, overwrite_a=True)
    except LinAlgError as error:
        raise HeadError(f"alpha {alpha:g} is too weak for these features; take a larger one") from error
    w, residual, limit = np.zeros(zy.shape), zy, 1e-7 * np.linalg.norm(zy)
    for _ in range(5):
        w += cho_solve(factor, residual.astype(zz.dtype))
        product = np.concatenate([zz[i : i + 512].astype(np.float64) @ w for i in range(0, len(zz), 512)])
        residual = zy - product - alpha * w
        if np.linalg.norm(residual) <= limit:
            break
    return w.T
