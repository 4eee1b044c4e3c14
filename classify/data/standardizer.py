"""Shift and scale of features, measured on the training rows; values that are no numbers are found here."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from classify.data.rows import Rows, batches
from classify.errors import HeadError

_CHUNK = 512  # rows read at once outside training: 23 MB at 11,414 features
_CHUNK_VALUES = 2**23  # and no more values than that: a map of 2048 x 8 x 8 is 131,072 of them


@dataclass(frozen=True)
class Standardizer:
    """Shift and scale of each feature, ``(x - mean) / scale``, both float32 ``(n_features,)``."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, rows: Rows, *, standardize: bool = True) -> Standardizer:
        """Measure *rows* in one pass (float64, by the pairwise update of Chan et al. 1979).

        Every value is read, so a NaN in the training rows is found here. A feature that does not vary beyond float32
        rounding keeps scale 1, see also `of`; with *standardize* False nothing is shifted or scaled.
        """
        n, mean, squares = 0, np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
        for _, x in finite_batches(rows):
            wide = x.astype(np.float64)
            m, center = len(wide), wide.mean(axis=0)
            wide -= center
            shift = center - mean
            squares += np.einsum("ij,ij->j", wide, wide) + shift**2 * (n * m / (n + m))
            mean += shift * (m / (n + m))
            n += m
        if not standardize:
            return cls(np.zeros(rows.shape[1], np.float32), np.ones(rows.shape[1], np.float32))
        deviation = np.sqrt(squares / max(n, 1))
        deviation[deviation <= 10 * np.finfo(np.float32).eps * np.abs(mean)] = 1.0
        return cls.of(mean, deviation, n)

    @classmethod
    def of(cls, mean: np.ndarray, deviation: np.ndarray, n: int) -> Standardizer:
        """Take mean and deviation (float64) of *n* rows.

        A feature whose deviation rounds to 0 in float32, or that may overflow when it is shifted, is treated as
        constant: its scale is infinite, so that it is 0 in every row.
        """
        float32 = np.finfo(np.float32)
        farthest = np.abs(mean) + deviation * np.sqrt(max(n, 1))  # no row is farther from 0
        lost = (deviation < float32.tiny) | (farthest > float32.max / 2)
        if lost.any():
            text = f"{lost.sum()} of {len(lost)} features vary too little or too much for float32 and count as constant"
            warnings.warn(text, UserWarning, stacklevel=3)
            mean, deviation = np.where(lost, 0, mean), np.where(lost, np.inf, deviation)
        return cls(mean.astype(np.float32), deviation.astype(np.float32))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return *x* standardized, as a new float32 array."""
        return (x - self.mean) / self.scale

    def whole(self, rows: Rows) -> np.ndarray:
        """Return all of *rows* standardized, for the solvers that need the matrix: ``(n_rows, n_features)``."""
        return self(rows.take(np.arange(rows.shape[0])))


def finite_batches(rows: Rows, size: int = _CHUNK) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows in order, as `batches` does, fewer at once where they are wide; refuse what is not a number."""
    size = max(1, min(size, _CHUNK_VALUES // max(rows.shape[1], 1)))
    for positions, x in batches(rows, size=size):
        if not np.isfinite(x.sum(dtype=np.float64)):
            refuse_non_finite(positions, x)
        yield positions, x


def refuse_non_finite(positions: np.ndarray, x: np.ndarray) -> None:
    """Raise a HeadError that names the first value of *x* that is not finite."""
    row, column = np.argwhere(~np.isfinite(x))[0]
    value = x[row, column]
    which = "NaN" if np.isnan(value) else "infinity (inf, or a value too large for float32)"
    raise HeadError(
        f"Input X contains {which}: row {positions[row]}, column {column} is {value}; "
        "leave such rows out or repair them first"
    )
