"""Images of a store that training has seen: a head, found by name, by bytes, by equal vectors, by group; a network.

The passport of a network that `extract fit` trained says on which part of which split. A head may learn from its
vectors, as long as it is scored on other images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import TaskError
from features_store.passport import weights as passport_weights

if TYPE_CHECKING:
    from features_store import Store

Seen = Mapping[str, NDArray[np.bool_]]
"""By way, (n_images,): ``name``, ``content``, ``vectors``, where they can be compared; ``network``: that of a block was
trained on them; ``group``: a mate of these."""
_WAYS = {
    "name": "by name",
    "content": "by equal bytes",
    "vectors": "by equal vectors",
    "network": "by the network of a block",
    "group": "as mates of their groups",
}


def find_seen(store: Store, ids: NDArray[np.str_], trained_on: Store | None, blocks: Sequence[str]) -> Seen:
    """Look for images in a store that a head was fitted on."""
    by = {"name": np.isin(store.ids, ids)}
    if trained_on is not None:
        rows = np.flatnonzero(np.isin(trained_on.ids, ids))
        if store.content is not None and trained_on.content is not None:
            by["content"] = first_equal(store.content, trained_on.content[rows]) >= 0
        pairs = [
            (store.block(name).digests, trained_on.block(name).digests) for name in blocks if name in trained_on.blocks
        ]
        if len(pairs) == len(blocks) and all(mine is not None and theirs is not None for mine, theirs in pairs):
            mine, theirs = (np.concatenate([np.asarray(one[side])[:, 0] for one in pairs], axis=1) for side in (0, 1))
            by["vectors"] = store.usable(blocks) & (first_equal(mine, theirs[rows]) >= 0)
    if trained := find_trained(store, blocks):
        by["network"] = np.any(list(trained.values()), axis=0)
    if store.groups is not None:
        groups = np.asarray(store.groups)
        found = np.any(list(by.values()), axis=0)
        by["group"] = (groups >= 0) & np.isin(groups, groups[found]) & ~found
    return by


def first_equal(rows: NDArray[Any], known: NDArray[Any]) -> NDArray[np.int64]:
    """Return for each row of bytes the first of *known* that equals it, -1 = none; rows of zeros are unknown."""
    first: dict[bytes, int] = {}
    for at, one in enumerate(known):
        if one.any():
            first.setdefault(one.tobytes(), at)
    return np.array([first.get(one.tobytes(), -1) for one in rows], dtype=np.int64)


def count_seen(seen: Seen, among: NDArray[np.bool_]) -> dict[str, int]:
    """Count images of *among*, each under the first way in which it was found."""
    counts, rest = {}, among.copy()
    for way, rows in seen.items():
        counts[way] = int((rows & rest).sum())
        rest &= ~rows
    return counts


def seen_words(seen: Seen, among: NDArray[np.bool_]) -> str:
    """Say how many images of *among* were seen, and how."""
    counts = count_seen(seen, among)
    n = sum(counts.values())
    if not n:
        return f"no image (compared {' and '.join(f'by {way}' for way in seen if way != 'group')})"
    listed = ", ".join(f"{count:,} {_WAYS[way]}" for way, count in counts.items() if count)
    return f"{n:,} image{'' if n == 1 else 's'} ({listed})"


def find_trained(store: Store, blocks: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Return, for each block of a network that was trained on images of the store, which these are: (n_images,)."""
    every = {name: _trained_on(store, store.block(name).passport) for name in blocks}
    return {name: images for name, images in every.items() if images is not None and images.any()}


def _trained_on(store: Store, passport: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    fitted = passport_weights(passport).get("fitted_on")
    if not isinstance(fitted, Mapping):
        return None
    same_images = fitted.get("index_digest") == store.index_digest
    split = store.splits.get(str(fitted.get("split")))
    if not (same_images or fitted.get("corpus") == store.corpus.get("name")) or split is None or not split.has_parts:
        return None  # trained elsewhere; a part of the images, as a subset has them, keeps the names of its splits
    labels = store.labels.get(str(fitted.get("task")))
    train: NDArray[np.bool_] = split.values == 0
    return train if labels is None else train & labels.known


def refuse_trained(
    store: Store, trained: Mapping[str, NDArray[np.bool_]], scored: Mapping[str, NDArray[np.int64]]
) -> None:
    """Refuse to score images, by what they are called, that a network was trained on, as `find_trained` has them."""
    for name, images in trained.items():
        for part, rows in scored.items():
            if n := int(images[rows].sum()):
                split = store.block(name).passport["weights"]["fitted_on"]["split"]
                raise TaskError(
                    f"the network of block {name!r} was trained on {n} of the {len(rows)} {part} images, so their "
                    "scores would say nothing; leave the block out with --blocks, or score on images outside the "
                    f"training part of split {split!r}"
                )
