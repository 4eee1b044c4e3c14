"""Near-duplicates across the parts of a split: images of a part that nearly, or exactly, lie in an earlier part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from classify.data.seen import first_equal
from classify.evaluation.bootstrap import SECONDS

if TYPE_CHECKING:
    from features_store import Store

THRESHOLD = 0.95
NEVER = 2.0  # as a threshold: no cosine is so high
_LENGTHS = (1e-15, 1e18)  # of vectors whose squares float32 can hold
_PIECE_BYTES = 64 * 2**20  # of each of the two sides of one matrix product

Floats = NDArray[np.float32]


class Pair(NamedTuple):
    """Two rows of a store that are nearly, or exactly, the same image."""

    row: int  # of the part that is examined
    other: int  # of the part that is searched
    cosine: float  # 1 where the files are equal byte for byte
    same_bytes: bool = False


def safe_threshold(widths: Sequence[int], n_pairs: int) -> float:
    """Return the cosine that independent vectors of these blocks hardly ever reach: any pair, once in twenty times.

    In few columns any two directions lie near each other: of independent vectors with eight columns, one in ten has a
    "near-duplicate" of cosine .95 among 2,000 others. The mean over blocks spreads as the cosine of one block with as
    many columns as make its variance equal.
    """
    from scipy.special import betaincinv

    # The mean of a few narrow blocks reaches 1 more often than its variance tells: one column has two directions.
    columns = min(len(widths) ** 2 / sum(1 / width for width in widths), sum(widths) - len(widths) + 1)
    if columns <= 1:
        return NEVER
    # P(cosine > c) of independent directions is I(1 - c^2; (d - 1) / 2, 1 / 2) / 2.
    share = min(2 * 0.05 / max(n_pairs, 1), 1.0)
    return float(np.sqrt(1 - betaincinv((columns - 1) / 2, 0.5, share)))


def find_duplicates(
    store: Store,
    blocks: Sequence[str],
    rows: NDArray[np.int64],
    others: NDArray[np.int64],
    *,
    threshold: float = THRESHOLD,
) -> list[Pair]:
    """Find, for each of *rows*, the most similar one of *others*, where it is a near-duplicate.

    Each block is centred on its mean over *others* (vectors that come out of a rectifier all point the same way
    otherwise) and scaled to length one; the cosine is the mean over the blocks. Every pair is looked at: the product
    of the two matrices is taken piece by piece, in memory that does not grow with them.
    """
    exact: dict[int, int] = {}
    if store.content is not None:
        equal = first_equal(store.content[rows], store.content[others])
        exact = {int(rows[i]): int(others[equal[i]]) for i in np.flatnonzero(equal >= 0)}
    best = np.full(len(rows), -1.0, dtype=np.float32)
    nearest = np.zeros(len(rows), dtype=np.int64)
    means = _means(store, blocks, others)
    width = store.n_features(blocks)
    step = max(1, _PIECE_BYTES // (4 * width))
    total = len(rows) * len(others)
    with tqdm(total=total, desc="duplicates", leave=False, disable=None, delay=SECONDS, unit_scale=True) as bar:
        for start, left in _pieces(store, blocks, rows, means, step):
            place = slice(start, start + len(left))
            for begin, right in _pieces(store, blocks, others, means, step):
                cosine = left @ right.T
                position = cosine.argmax(axis=1)
                value = cosine[np.arange(len(left)), position]
                nearer = value > best[place]
                best[place][nearer] = value[nearer]
                nearest[place][nearer] = others[begin + position[nearer]]
                bar.update(cosine.size)
    found = [Pair(row, other, 1.0, same_bytes=True) for row, other in exact.items()]
    found += [
        Pair(int(row), int(other), min(float(value), 1.0))
        for row, other, value in zip(rows, nearest, best, strict=True)
        if value >= threshold and int(row) not in exact
    ]
    return sorted(found, key=lambda pair: (-round(pair.cosine, 5), pair.row))  # further digits are rounding's


def _means(store: Store, blocks: Sequence[str], rows: NDArray[np.int64]) -> Floats:
    total = np.zeros(store.n_features(blocks))
    for _, vectors in store.batches(blocks, rows, max(1, _PIECE_BYTES // (4 * len(total)))):
        total += vectors.sum(axis=0, dtype=np.float64)
    return (total / len(rows)).astype(np.float32)


def _pieces(
    store: Store, blocks: Sequence[str], rows: NDArray[np.int64], means: Floats, step: int
) -> Iterator[tuple[int, Floats]]:
    """Yield the place of each piece of *rows* and its vectors: their dot products are the mean cosine of the blocks."""
    widths = [store.n_features([name]) for name in blocks]
    for start in range(0, len(rows), step):
        vectors: Floats = store.matrix(blocks, rows[start : start + step])
        vectors -= means
        column = 0
        for width in widths:
            part = vectors[:, column : column + width]
            with np.errstate(over="ignore", under="ignore"):
                length = np.sqrt(np.einsum("ij,ij->i", part, part))
            extreme = ~((length >= _LENGTHS[0]) & (length <= _LENGTHS[1]))
            if extreme.any():
                wide = part[extreme].astype(np.float64)
                norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
                part[extreme], length[extreme] = wide / np.where(norms > 0, norms, 1)[:, None], 1.0
            part /= (length * np.sqrt(len(blocks)))[:, None]
            column += width
        yield start, vectors
