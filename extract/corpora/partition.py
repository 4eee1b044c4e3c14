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
    the images, and adding images moves few others. Where strata are so small that a part would stay empty, it gets its
    share of all images, no more than one from a stratum as long as that is possible; only one or two images leave a
    part empty.

    Shapes: returns (n_images,) int8.
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
    for part, share in ((2, test), (1, validation)):
        if share and not (parts == part).any():
            left = [[row for row in rows if not parts[row]] for rows in by_stratum.values()]
            left.sort(key=lambda rows: (-len(rows), order_of(ids[rows[0]], seed) if rows else b""))
            # Each stratum keeps its last training image as long as another one has more.
            depth = max(map(len, left), default=0)
            turns = [rows[at] for at in range(depth) for rows in left if at < len(rows) - 1]
            turns += [rows[-1] for rows in left if rows]
            parts[turns[: min(max(1, round(share * len(ids))), len(turns) - 1)]] = part
    return parts


def grouped(
    ids: Sequence[str],
    strata: Sequence[Hashable],
    groups: NDArray[Any] | None,
    *,
    seed: int,
    validation: float = VALIDATION,
    test: float = TEST,
) -> NDArray[np.int8]:
    """Part images as `stratified` does, whole groups together; a group is of the stratum of its first image.

    Shapes: groups (n_images,) int.
    """
    if groups is None:
        return stratified(ids, strata, seed=seed, validation=validation, test=test)
    firsts, unit_of = units_of(groups)
    # A group is hashed by the id of its first image: its number may change when images are added.
    parts = stratified(
        [ids[row] for row in firsts],
        [strata[row] for row in firsts],
        seed=seed,
        validation=validation,
        test=test,
    )
    return parts[unit_of]


def units_of(groups: NDArray[Any]) -> tuple[list[int], NDArray[np.int64]]:
    """Number what a split must not part: groups, and images alone.

    Shapes: unit_of (n_images,) int64.
    """
    number: dict[tuple[bool, int], int] = {}
    firsts: list[int] = []
    units = np.empty(len(groups), dtype=np.int64)
    for row, group in enumerate(groups.tolist()):
        key = (True, group) if group >= 0 else (False, row)
        units[row] = number.setdefault(key, len(number))
        if units[row] == len(firsts):
            firsts.append(row)
    return firsts, units


def order_of(image_id: str, seed: int) -> bytes:
    """Return what images are sorted by for a seeded draw."""
    return hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
