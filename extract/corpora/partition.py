"""Seeded splits for corpora that come without one."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

VALIDATION, TEST = 0.1, 0.2


def stratified(ids: Sequence[str], strata: Sequence[Hashable], *, seed: int) -> NDArray[np.int8]:
    """Part images 70/10/20 into train, validation and test, the same in each stratum.

    The order in a stratum is that of a hash of seed and id: it depends on no random generator and on no order of
    the images, and adding images moves few others.

    Parameters
    ----------
    ids : sequence of str, length n_images
    strata : sequence, length n_images
        For example the classes.
    seed : int

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
        rows.sort(key=lambda row: hashlib.sha256(f"{seed}:{ids[row]}".encode()).digest())
        n_test, n_validation = round(TEST * len(rows)), round(VALIDATION * len(rows))
        parts[rows[:n_test]] = 2
        parts[rows[n_test : n_test + n_validation]] = 1
    return parts
