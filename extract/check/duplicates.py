"""Equal and nearly equal images, and what they mean for splits and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store import Index

DISTANCE = 4  # bits of 64 in which the perceptual hashes of near-duplicates may differ
_BITS = 64


@dataclass(frozen=True)
class Cluster:
    """Images that are the same picture.

    Parameters
    ----------
    rows : tuple of int
        Ascending.
    exact : bool
        All have the same bytes.
    crosses : tuple of str
        Splits in which they lie in more than one part.
    conflicts : tuple of str
        Tasks in which they have different labels.
    """

    rows: tuple[int, ...]
    exact: bool
    crosses: tuple[str, ...]
    conflicts: tuple[str, ...]


def clusters_of(
    index: Index, content: NDArray[np.uint8], look: NDArray[np.uint64], hashed: NDArray[np.bool_], *, distance: int
) -> list[Cluster]:
    """Find the exact and the near-duplicates of a corpus.

    A near-duplicate cluster is a connected one: each image in it is at most `distance` from some other. An exact
    cluster is given by itself, and again within a near one only if that has other images too.

    Shapes: content (n_images, 32) uint8; look, hashed (n_images,).
    """
    exact = _equal(content)
    first_of = np.arange(len(look))
    for rows in exact:
        first_of[rows] = rows[0]
    singles = np.flatnonzero((first_of == np.arange(len(look))) & hashed)
    near = _joined(singles, _near_pairs(look[singles], distance))
    copies = {rows[0]: rows for rows in exact}
    near = [sorted(row for one in rows for row in copies.get(one, [one])) for rows in near]
    near.sort()
    found = [_cluster(index, rows, exact=True) for rows in exact]
    return found + [_cluster(index, rows, exact=False) for rows in near]


def _cluster(index: Index, rows: list[int], *, exact: bool) -> Cluster:
    at = np.array(rows)
    crosses = []
    for name, split in index.splits.items():
        parts = split.values[at]
        if len(np.unique(parts[parts >= 0])) > 1:
            crosses.append(name)
    conflicts = []
    for name, labels in index.labels.items():
        values = labels.values[at][labels.known[at]]
        if len(values) > 1 and (values != values[0]).any():
            conflicts.append(name)
    return Cluster(tuple(rows), exact, tuple(crosses), tuple(conflicts))


def _equal(content: NDArray[np.uint8]) -> list[list[int]]:
    keys = np.ascontiguousarray(content).view("V32").ravel()
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    there = content.any(axis=1)
    rows_of: dict[int, list[int]] = {}
    for row in np.flatnonzero((counts[inverse] > 1) & there).tolist():
        rows_of.setdefault(int(inverse[row]), []).append(row)
    return sorted(rows_of.values())


def _near_pairs(look: NDArray[np.uint64], distance: int) -> Iterator[NDArray[np.int64]]:
    """Yield pairs (n, 2) of positions whose hashes differ in at most `distance` bits.

    By the pigeonhole principle two such hashes agree in at least one of ``distance + 1`` bands of bits, so only
    images that share a band are compared. Images of one hash are a chain, not all pairs.
    """
    unique, first, inverse = np.unique(look, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    same = np.flatnonzero(first[inverse] != np.arange(len(look)))
    yield np.stack([first[inverse[same]], same], axis=1)
    edges = np.linspace(0, _BITS, distance + 2).round().astype(int)
    for low, high in pairwise(edges.tolist()):
        band = (unique >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        ends = np.flatnonzero(np.diff(band[order])) + 1
        for rows in np.split(order, ends):
            if len(rows) > 1:
                pairs = _within(unique, rows, distance)
                if len(pairs):
                    yield first[pairs]


def _within(unique: NDArray[np.uint64], rows: NDArray[np.int64], distance: int) -> NDArray[np.int64]:
    found = []
    for at in range(len(rows) - 1):
        others = rows[at + 1 :]
        near = others[np.bitwise_count(unique[others] ^ unique[rows[at]]) <= distance]
        if len(near):
            found.append(np.stack([np.full(len(near), rows[at]), near], axis=1))
    return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)


def _joined(singles: NDArray[np.int64], pairs: Iterator[NDArray[Any]]) -> list[list[int]]:
    """Join pairs to connected clusters of rows."""
    parent = list(range(len(singles)))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    touched: set[int] = set()
    for some in pairs:
        for a, b in some.tolist():
            touched.update((a, b))
            low, high = sorted((root(a), root(b)))
            parent[high] = low
    rows_of: dict[int, list[int]] = {}
    for one in sorted(touched):
        rows_of.setdefault(root(one), []).append(int(singles[one]))
    return list(rows_of.values())
