"""Equal and nearly equal images, and what they mean for splits and labels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store import Index

DISTANCE = 4  # bits of 64 in which the perceptual hashes of near-duplicates may differ
_BITS = 64


def find_clusters(
    index: Index,
    file_sha256: NDArray[np.uint8],
    phash: NDArray[np.uint64],
    has_phash: NDArray[np.bool_],
    *,
    distance: int = DISTANCE,
) -> list[dict[str, Any]]:
    """Find the exact and the near-duplicates of a corpus.

    A cluster has the `ids` of images that are the same picture, whether all have equal bytes (`exact`), the splits in
    which they lie in more than one part, and the tasks in which they have different labels.

    Each image of a near-duplicate cluster is at most `distance` bits from some other one in it. An exact cluster is
    listed by itself, and again within a near one only if that has other images too.

    Shapes: file_sha256 (n_images, 32) uint8, zeros = not read; phash, has_phash (n_images,).
    """
    read = np.flatnonzero(file_sha256.any(axis=1))
    digests = np.ascontiguousarray(file_sha256[read]).view("V32").ravel()
    exact = [read[rows].tolist() for rows in _equal_rows(np.unique(digests, return_inverse=True)[1].reshape(-1))]
    first_of = np.arange(len(phash))
    for rows in exact:
        first_of[rows] = rows[0]
    singles = np.flatnonzero((first_of == np.arange(len(phash))) & has_phash)  # one image for each content
    copies = {rows[0]: rows for rows in exact}
    near = [
        sorted(row for single in singles[rows].tolist() for row in copies.get(single, [single]))
        for rows in _equal_rows(_components(phash[singles], distance))
    ]
    found = [(rows, True) for rows in sorted(exact)] + [(rows, False) for rows in sorted(near)]
    return [_cluster(index, rows, exact=exact) for rows, exact in found]


def _equal_rows(values: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Group the rows of equal values, where there is more than one."""
    order = np.argsort(values, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(values[order])) + 1)
    return [rows for rows in groups if len(rows) > 1]


def _cluster(index: Index, rows: list[int], *, exact: bool) -> dict[str, Any]:
    crosses = [
        name for name, split in index.splits.items() if len(np.unique(split.values[rows][split.values[rows] >= 0])) > 1
    ]
    conflicting = []
    for name, labels in index.labels.items():
        values = labels.values[rows][labels.known[rows]]
        if len(values) > 1 and (values != values[0]).any():
            conflicting.append(name)
    ids = index.ids[rows].tolist()
    return {"ids": ids, "exact": exact, "crosses_splits": crosses, "conflicting_tasks": conflicting}


def _components(phash: NDArray[np.uint64], distance: int) -> NDArray[np.int32]:
    """Number the connected components of images whose hashes differ in at most `distance` bits: (n,)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *_near_pairs(phash, distance)])
    graph = coo_matrix((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(len(phash), len(phash)))
    return np.asarray(connected_components(graph, directed=False)[1])


def _near_pairs(phash: NDArray[np.uint64], distance: int) -> Iterator[NDArray[np.int64]]:
    """Yield pairs (n, 2) of positions whose hashes differ in at most `distance` bits.

    By the pigeonhole principle two such hashes agree in at least one of ``distance + 1`` bands of bits, so only
    images that share a band are compared. Images of one hash are a chain, not all pairs.
    """
    unique, first, inverse = np.unique(phash, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    same = np.flatnonzero(first[inverse] != np.arange(len(phash)))
    yield np.stack([first[inverse[same]], same], axis=1)
    edges = np.linspace(0, _BITS, distance + 2).round().astype(int)
    for low, high in pairwise(edges.tolist()):
        band = (unique >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        for rows in _equal_rows(band):
            for at in range(len(rows) - 1):
                others = rows[at + 1 :]
                near = others[np.bitwise_count(unique[others] ^ unique[rows[at]]) <= distance]
                if len(near):
                    yield first[np.stack([np.full(len(near), rows[at]), near], axis=1)]
