"""The moment engine: one pass over the vectors, then every ridge regression of every subset, fold and strength.

Ridge regression needs of the data only ``X'X``, ``X'Y`` and sums, and so does its standardisation: the moments of
standardised features follow from the raw ones exactly. Moments of disjoint rows add up, so a fold's training moments
are the total without that fold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from classify.data.rows import Rows
from classify.errors import HeadError
from classify.heads.base import Standardiser, finite_batches

__all__ = ["Moments", "Ridge", "accumulate", "block_columns", "ridge_path"]

_CHUNK_BYTES = 128 * 2**20  # of float32 rows multiplied at once
_PILOT_ROWS = 4096
_PANEL = 512  # rows of a matrix widened at a time
_RESIDUAL, _REFINEMENTS = 1e-7, 5  # relative to the right-hand side; solves at most
_WIDE = 4096  # up to so many features the products are totalled in float64


@dataclass(frozen=True)
class Moments:
    """Sums over some rows of shifted and scaled features and of targets.

    Parameters
    ----------
    n : int
        Rows.
    pilot : Standardiser
        The rough shift and scale under which everything is summed, so that no digits are lost to large means.
    xx : numpy.ndarray of float32 or float64, shape (n_features, n_features)
        Sum of products; only the lower triangle is filled.
    """

    n: int
    pilot: Standardiser
    xx: np.ndarray
    xy: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def without(self, fold: Moments) -> Moments:
        """Return the moments of the rows that are not in *fold*."""
        parts = (self.xx - fold.xx, self.xy - fold.xy, self.x - fold.x, self.y - fold.y)
        return Moments(self.n - fold.n, self.pilot, *parts)

    def plus(self, other: Moments) -> Moments:
        """Return the moments of the rows of both."""
        parts = (self.xx + other.xx, self.xy + other.xy, self.x + other.x, self.y + other.y)
        return Moments(self.n + other.n, self.pilot, *parts)

    def covariance(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, Standardiser]:
        """Return the standardised moments of some features."""
        mean = self.x[columns] / self.n
        whole = len(columns) == len(self.x)
        zz = self.xx.copy() if whole else self.xx[np.ix_(columns, columns)]
        variance = np.maximum(zz.diagonal().astype(np.float64) / self.n - mean**2, 0)
        constant = variance <= 1e-7 * np.maximum(mean**2, 1e-6)
        scale = np.where(constant, 1.0, np.sqrt(variance))
        factor = np.where(constant, 0.0, 1 / scale).astype(zz.dtype)
        shift = (mean * np.sqrt(self.n) * factor).astype(zz.dtype)
        for start in range(0, len(zz), _PANEL):
            panel = zz[start : start + _PANEL]
            panel *= factor
            panel *= factor[start : start + _PANEL, None]
            panel -= shift[start : start + _PANEL, None] * shift
        zy = (self.xy[columns] - mean[:, None] * self.y) * np.where(constant, 0.0, 1 / scale)[:, None]
        raw_scale = self.pilot.scale[columns] * scale
        raw_mean = np.where(np.isinf(raw_scale), 0, self.pilot.mean[columns] + mean * self.pilot.scale[columns])
        return zz, zy, Standardiser(raw_mean.astype(np.float32), raw_scale.astype(np.float32))


def accumulate(
    rows: Rows,
    targets: np.ndarray,
    folds: np.ndarray | None = None,
    *,
    progress: Callable[[int], object] = lambda n: None,
) -> dict[int, Moments]:
    """Sum the moments of each fold in one pass.

    Products are float32, in chunks; their totals are float64 up to 4,096 features, and float32 beyond, where the
    rounding (about 1e-6 of a diagonal element) stays far below any useful ridge strength. Memory: the square of
    n_features for each fold, and a chunk.

    Shapes: targets (n_rows, n_targets).
    """
    folds = np.zeros(rows.shape[0], dtype=np.int64) if folds is None else folds
    n_features, n_targets = rows.shape[1], targets.shape[1]
    used = np.flatnonzero(folds >= 0)
    pilot = _pilot(rows, used)
    wide = np.float64 if n_features <= _WIDE else np.float32
    size = max(64, _CHUNK_BYTES // (4 * n_features))
    buffer = np.empty((size, n_features), dtype=np.float32)
    sums = {}
    for fold in np.unique(folds[used]).tolist():
        members = np.flatnonzero(folds == fold)
        xx = np.zeros((n_features, n_features), dtype=wide)
        xy, x_sum = np.zeros((n_features, n_targets)), np.zeros(n_features)
        for start in range(0, len(members), size):
            chosen = members[start : start + size]
            x = rows.take(chosen, out=buffer[: len(chosen)])
            x -= pilot.mean
            x /= pilot.scale
            _add_product(xx, x)
            xy += x.T @ targets[chosen].astype(np.float32)
            x_sum += x.sum(axis=0, dtype=np.float64)
            progress(len(chosen))
        if not np.isfinite(x_sum).all():
            list(finite_batches(rows))  # refuses the value, with its row and column
        sums[fold] = Moments(len(members), pilot, xx, xy, x_sum, targets[members].sum(axis=0, dtype=np.float64))
    return sums


def _pilot(rows: Rows, used: np.ndarray) -> Standardiser:
    """Measure a rough mean and deviation on a few evenly chosen rows."""
    chosen = used[np.unique(np.linspace(0, len(used) - 1, min(len(used), _PILOT_ROWS)).astype(np.int64))]
    mean, square = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for start in range(0, len(chosen), 512):
        x = rows.take(chosen[start : start + 512]).astype(np.float64)
        mean += x.sum(axis=0)
        square += np.einsum("ij,ij->j", x, x)
    mean /= len(chosen)
    deviation = np.sqrt(np.maximum(square / len(chosen) - mean**2, 0))
    deviation[deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-12)] = 1.0
    return Standardiser.of(mean, deviation, len(chosen))


def _add_product(total: np.ndarray, x: np.ndarray) -> None:
    """Add the lower triangle of ``x.T @ x`` to *total*, by the BLAS routine that computes no more than that."""
    from scipy.linalg.blas import dsyrk, ssyrk

    # Fortran's view of these C-ordered arrays is their transpose, so its upper triangle is our lower one.
    syrk = dsyrk if total.dtype == np.float64 else ssyrk
    syrk(1.0, x.astype(total.dtype, copy=False).T, beta=1.0, c=total.T, overwrite_c=True, lower=False)


@dataclass(frozen=True)
class Ridge:
    """A ridge regression over standardised features."""

    coef: np.ndarray
    intercept: np.ndarray
    standardiser: Standardiser

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return float64 (n, n_targets) for raw features *x*, (n, n_columns)."""
        out: np.ndarray = self.standardiser(x).astype(np.float64) @ self.coef.T + self.intercept
        return out


def ridge_path(moments: Moments, columns: np.ndarray, strengths: Sequence[float]) -> list[Ridge]:
    """Solve ``min |Y - Z W - b|^2 + strength |W|^2`` over standardised features Z, for every strength."""
    wrong = [s for s in strengths if not s > 0]
    if wrong:
        message = f"a ridge strength is {wrong[0]!r}; it takes numbers above 0"
        raise HeadError(message)
    zz, zy, standardiser = moments.covariance(columns)
    mean = moments.y / moments.n
    return [Ridge(_solve(zz, zy, strength).T, mean, standardiser) for strength in strengths]


def _solve(zz: np.ndarray, zy: np.ndarray, strength: float) -> np.ndarray:
    """Factorise once, then refine with residuals in float64: what float32 loses comes back."""
    import torch

    shifted = torch.from_numpy(zz.copy())
    shifted.diagonal().add_(strength)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    del shifted
    if failed:
        message = f"a ridge of strength {strength:g} is too weak for these features; take a larger one"
        raise HeadError(message)
    w = np.zeros(zy.shape)
    limit = _RESIDUAL * np.linalg.norm(zy)
    residual = zy
    for _ in range(_REFINEMENTS):
        w += torch.cholesky_solve(torch.from_numpy(residual.astype(zz.dtype)), factor).numpy()
        residual = zy - _symmetric_product(zz, w) - strength * w
        if np.linalg.norm(residual) <= limit:
            break
    return w


def _symmetric_product(lower: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return ``A @ w`` of a symmetric A of which the lower triangle is filled, in float64 by panels."""
    out = np.zeros(w.shape)
    for start in range(0, len(lower), _PANEL):
        stop = min(start + _PANEL, len(lower))
        left = lower[start:stop, :start].astype(np.float64)
        corner = np.tril(lower[start:stop, start:stop]).astype(np.float64)
        corner += np.tril(corner, k=-1).T
        out[start:stop] += left @ w[:start] + corner @ w[start:stop]
        out[:start] += left.T @ w[start:stop]
    return out


def block_columns(widths: Mapping[str, int], blocks: Sequence[str]) -> np.ndarray:
    """Return the columns of some blocks in a concatenation of blocks of these widths: ascending."""
    starts = dict(zip(widths, np.cumsum([0, *widths.values()]), strict=False))
    return np.concatenate([np.arange(starts[name], starts[name] + widths[name]) for name in widths if name in blocks])
