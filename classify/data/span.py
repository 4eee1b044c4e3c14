"""Lossless projection: rows seen in orthonormal coordinates of their own span.

With fewer training rows than features the rows lie in a subspace of dimension r <= n. Ridge, logistic regression,
linear support vector machines and a first layer trained by stochastic gradient descent only ever add multiples of
training rows to their weights (the representer theorem; Schölkopf, Herbrich and Smola 2001), so they can be fitted in
r coordinates and mapped back without loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpstrf

_COLUMNS = 1024  # features widened to float64 at a time
_TOLERANCE = 1e-10  # a direction that holds less than this share of the longest row's squared length is rounding


def inner_products(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """Return ``a @ b.T`` (without *b*, ``a @ a.T``), float64 (n_a, n_b), without a wide copy of either side."""
    total = np.zeros((len(a), len(a if b is None else b)))
    for start in range(0, a.shape[1], _COLUMNS):
        left = a[:, start : start + _COLUMNS].astype(np.float64)
        total += left @ (left if b is None else b[:, start : start + _COLUMNS].astype(np.float64)).T
    return total


@dataclass(frozen=True)
class Projection:
    """Orthonormal coordinates of the span of some rows.

    The basis is never formed: by a pivoted Cholesky factorisation of the rows' Gram matrix,
    ``anchors = factor @ basis``, and products with the basis are products with the anchors and a triangular solve.
    """

    anchors: np.ndarray  # float32 (rank, n_features): rows that span all of them
    factor: np.ndarray  # float64 (rank, rank), lower triangular
    coordinates: np.ndarray  # float64 (n_rows, rank), of the rows themselves: ``rows = coordinates @ basis``

    @classmethod
    def fit(cls, rows: np.ndarray) -> Projection:
        """Find the span of *rows*, (n_rows, n_features)."""
        gram = inner_products(rows)
        tolerance = _TOLERANCE * max(float(gram.diagonal().max()), np.finfo(np.float64).tiny)
        packed, order, rank, _ = dpstrf(gram, tol=tolerance, lower=1, overwrite_a=1)
        if not rank:  # every row is 0: one coordinate, in which all are 0
            return cls(rows[:1], np.ones((1, 1)), np.zeros((len(rows), 1)))
        lower, order = np.tril(packed[:, :rank]), order - 1  # LAPACK counts from 1
        coordinates = np.empty_like(lower)
        coordinates[order] = lower
        return cls(rows[order[:rank]], lower[:rank], coordinates)

    @property
    def rank(self) -> int:
        """Number of coordinates."""
        return len(self.factor)

    def project(self, x: np.ndarray) -> np.ndarray:
        """Return the coordinates of the part of *x* that lies in the span: float64 (n, rank)."""
        z: np.ndarray = solve_triangular(self.factor, inner_products(self.anchors, x), lower=True).T
        return z

    def lift(self, z: np.ndarray) -> np.ndarray:
        """Return vectors given by coordinates (n, rank) as vectors of features: float64 (n, n_features)."""
        shares = solve_triangular(self.factor, np.asarray(z, dtype=np.float64).T, lower=True, trans="T").T
        out = np.empty((len(shares), self.anchors.shape[1]))
        for start in range(0, out.shape[1], _COLUMNS):
            columns = slice(start, start + _COLUMNS)
            out[:, columns] = shares @ self.anchors[:, columns].astype(np.float64)
        return out
