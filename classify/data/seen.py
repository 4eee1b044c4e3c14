"""Images of a store that a head was fitted on: by name, by the bytes of the picture, by equal vectors, by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store import Store


@dataclass(frozen=True)
class Seen:
    """Which images of a store were among those that a head was fitted on.

    Parameters
    ----------
    by : mapping of str to ndarray of shape (n_images,), bool
        ``name``, ``content``, ``vectors``, each where it could be compared; ``group``: a group mate of one of them.
    """

    by: dict[str, NDArray[np.bool_]]

    @property
    def rows(self) -> NDArray[np.bool_]:
        """Which images are left out of a test: (n_images,) bool."""
        return np.any(list(self.by.values()), axis=0)

    def counts(self, among: NDArray[np.bool_]) -> dict[str, int]:
        """Count images of *among*, each under the first way in which it was found."""
        found, rest = {}, among.copy()
        for way, rows in self.by.items():
            found[way] = int((rows & rest).sum())
            rest &= ~rows
        return found

    def words(self, among: NDArray[np.bool_]) -> str:
        """Say how many images of *among* were seen, and how."""
        counts = self.counts(among)
        told = ", ".join(f"{count:,} {_WAYS[way]}" for way, count in counts.items() if count)
        compared = " and ".join(f"by {way}" for way in self.by if way != "group")
        n = sum(counts.values())
        return f"{n:,} image{'' if n == 1 else 's'} ({told})" if n else f"no image (compared {compared})"


_WAYS = {
    "name": "by name",
    "content": "by equal bytes",
    "vectors": "by equal vectors",
    "group": "as mates of their groups",
}


def find_seen(store: Store, ids: NDArray[np.str_], trained_on: Store | None, blocks: Sequence[str]) -> Seen:
    """Look for images in a store that a head was fitted on."""
    by = {"name": np.isin(store.ids, ids)}
    if trained_on is not None:
        rows = np.flatnonzero(np.isin(trained_on.ids, ids))
        if store.content is not None and trained_on.content is not None:
            by["content"] = _equal_rows(store.content, trained_on.content[rows])
        pairs = [
            (store.block(name).digests, trained_on.block(name).digests) for name in blocks if name in trained_on.blocks
        ]
        if len(pairs) == len(blocks) and all(mine is not None and theirs is not None for mine, theirs in pairs):
            mine, theirs = (np.concatenate([np.asarray(one[side])[:, 0] for one in pairs], axis=1) for side in (0, 1))
            usable = store.usable(blocks)
            by["vectors"] = usable & _equal_rows(mine, theirs[rows])
    if store.groups is not None:
        groups = np.asarray(store.groups)
        found = np.any(list(by.values()), axis=0)
        by["group"] = (groups >= 0) & np.isin(groups, groups[found]) & ~found
    return Seen(by)


def _equal_rows(rows: NDArray[Any], known: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which rows of bytes are among known ones; rows of zeros are unknown."""
    mine, theirs = (np.ascontiguousarray(each).view(f"V{each.shape[1]}").ravel() for each in (rows, known))
    wanted = {one.tobytes() for one in theirs}
    return np.array([one.tobytes() in wanted for one in mine], dtype=np.bool_) & rows.any(axis=1)
