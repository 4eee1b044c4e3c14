"""Splits of a corpus: the published one, read from lists of names, or a seeded one where there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store import Split

PARTS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2}
"""Names of folders, and of values in tables, that mean a part of a split."""


def published_split(
    name: str,
    lists: Iterable[tuple[int, Sequence[str]]],
    row_of: Mapping[str, int],
    n_images: int,
    *,
    folds: bool = False,
) -> tuple[Split, str]:
    """Make a split from published lists (part or fold, image names); images on no list are unused.

    Returns also the note on names without an image, and on images that stand on two lists: "" = there are none.
    """
    values = np.full(n_images, -1, dtype=np.int8)
    absent: list[str] = []
    twice: list[str] = []
    for value, names in lists:
        for image in names:
            row = row_of.get(image, -1)
            if row < 0:
                absent.append(image)
            elif values[row] not in (-1, value):
                twice.append(image)
            if row >= 0:
                values[row] = value
    notes = [
        f"{len(found)} {what} (the first is {found[0]!r})"
        for found, what in (
            (absent, "names on its lists have no image in the corpus"),
            (twice, "images stand on two of its lists; the later list is used"),
        )
        if found
    ]
    split = Split(name, values, "folds" if folds else "parts", "published")
    return split, f"split {name!r}: {'; '.join(notes)}" if notes else ""


def seeded_split(
    name: str,
    ids: Sequence[str],
    strata: Any,
    *,
    seed: int,
    groups: NDArray[np.int64] | None = None,
    validation: float = 0.1,
    test: float = 0.2,
) -> Split:
    """Make a seeded, stratified split that keeps groups whole; see `draw_parts`."""
    parts = draw_parts(ids, np.asarray(strata).tolist(), groups, seed=seed, validation=validation, test=test)
    return Split(name, parts, source="made")


def draw_parts(
    ids: Sequence[str],
    strata: Sequence[Hashable],
    groups: NDArray[Any] | None = None,
    *,
    seed: int,
    validation: float = 0.1,
    test: float = 0.2,
) -> NDArray[np.int8]:
    """Draw train, validation and test (0, 1, 2), in equal shares from each stratum; a group stays in one part.

    The order within a stratum is that of a hash of seed and id: it depends on no random generator and on no order of
    the images, and adding images moves few others. Where strata are so small that a part would stay empty, the part
    takes its share of all images, no more than one from a stratum as long as that is possible; it stays empty only if
    there are one or two images. A group is drawn by the id and the stratum of its first image.
    """
    if groups is not None:
        firsts, unit_of = units_of(groups)
        ids, strata = [ids[row] for row in firsts], [strata[row] for row in firsts]
        return draw_parts(ids, strata, seed=seed, validation=validation, test=test)[unit_of]
    by_stratum: dict[Hashable, list[int]] = {}
    for row, stratum in enumerate(strata):
        by_stratum.setdefault(stratum, []).append(row)
    parts = np.zeros(len(ids), dtype=np.int8)
    for rows in by_stratum.values():
        rows.sort(key=lambda row: draw_key(ids[row], seed))
        n_test, n_validation = round(test * len(rows)), round(validation * len(rows))
        parts[rows[:n_test]] = 2
        parts[rows[n_test : n_test + n_validation]] = 1
    for part, share in ((2, test), (1, validation)):
        if share and not (parts == part).any():
            left = [[row for row in rows if not parts[row]] for rows in by_stratum.values()]
            left.sort(key=lambda rows: (-len(rows), draw_key(ids[rows[0]], seed) if rows else b""))
            # Each stratum keeps its last training image as long as another one has more.
            depth = max(map(len, left), default=0)
            turns = [rows[at] for at in range(depth) for rows in left if at < len(rows) - 1]
            turns += [rows[-1] for rows in left if rows]
            parts[turns[: min(max(1, round(share * len(ids))), len(turns) - 1)]] = part
    return parts


def units_of(groups: NDArray[Any]) -> tuple[list[int], NDArray[np.int64]]:
    """Number what a split keeps whole, groups and single images: first row of each unit, and the unit of each row."""
    number: dict[tuple[bool, int], int] = {}
    firsts: list[int] = []
    units = np.empty(len(groups), dtype=np.int64)
    for row, group in enumerate(groups.tolist()):
        key = (True, group) if group >= 0 else (False, row)
        units[row] = number.setdefault(key, len(number))
        if units[row] == len(firsts):
            firsts.append(row)
    return firsts, units


def draw_key(image_id: str, seed: int) -> bytes:
    """Return the key by which images are sorted for a seeded draw."""
    return hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
