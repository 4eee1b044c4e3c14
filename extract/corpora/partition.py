"""Seeded splits for corpora that come without one."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

VALIDATION, TEST = 0.1, 0.2


def stratified(
    ids: Sequence[str],
    strata: Sequence[Hashable],
    *,
    seed: int,
    validation: float = VALIDATION,
    test: float = TEST,
) -> NDArray[np.int8]:
    """Part images into train, validation and test, the same in each stratum.

    The order in a stratum is that of a hash of seed and id: it depends on no random generator and on no order of
    the images, and adding images moves few others.

    Parameters
    ----------
    ids : sequence of str, length n_images
    strata : sequence, length n_images
        For example the classes.
    seed : int
    validation, test : float
        Shares in [0, 1].

    Returns
    -------
    ndarray of shape (n_images,), int8
        0 train, 1 validation, 2 test.
    """
    by_stratum: dict[Hashable, list[int]] = {}
    for row, stratum in enumerate(strata):
        by_stratum.setdefault(stratum, []).append(row)
    parts = np.zeros(len(ids), dtype=np.int8)
    for rows in by_stratum.values():
        rows.sort(key=lambda row: order_of(ids[row], seed))
        n_test, n_validation = round(test * len(rows)), round(validation * len(rows))
        parts[rows[:n_test]] = 2
        parts[rows[n_test : n_test + n_validation]] = 1
    return parts


def grouped(
    ids: Sequence[str], strata: Sequence[Hashable], groups: NDArray[Any] | None, *, seed: int
) -> NDArray[np.int8]:
    """Part images as `stratified` does, whole groups together; a group is of the stratum of its first image.

    Parameters
    ----------
    groups : ndarray of shape (n_images,), int, optional
        -1 = alone. None = all alone.
    """
    if groups is None:
        return stratified(ids, strata, seed=seed)
    keys = [f"group {group}" if group >= 0 else ids[row] for row, group in enumerate(groups.tolist())]
    firsts: dict[str, int] = {}
    for row, key in enumerate(keys):
        firsts.setdefault(key, row)
    # A group is hashed by the id of its first image: its number may change when images are added.
    parts = stratified([ids[row] for row in firsts.values()], [strata[row] for row in firsts.values()], seed=seed)
    part_of = dict(zip(firsts, parts.tolist(), strict=True))
    return np.array([part_of[key] for key in keys], dtype=np.int8)


def order_of(image_id: str, seed: int) -> bytes:
    """Return what images are sorted by for a seeded draw."""
    return hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
