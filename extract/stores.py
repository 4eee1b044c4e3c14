"""The index of a folder store: written once, compared ever after."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from features_store import Index, MismatchError, Store, open_store
from features_store.assembly import write_dump
from features_store.origin import Origin
from features_store.schema import INDEX_FILE


def claim_index(store: Path, index: Index, origin: Origin | None = None) -> None:
    """Write ``index.h5`` if the store has none; else see that it is of the same images, labels and splits.

    Parameters
    ----------
    store : Path
        The folder; made if need be.
    index : Index
    origin : Origin, optional
        Of a shard, the index that it was cut from, and the rows.

    Raises
    ------
    MismatchError
        Saying what differs.
    """
    path = store / INDEX_FILE
    if not path.exists():
        store.mkdir(parents=True, exist_ok=True)
        write_dump(path, index, [], origin=origin)
        return
    there = open_store(path)
    if there.index_digest != index.digest:
        msg = (
            f"{path} lists other images than the corpus: {_ids_difference(there, index)}; "
            "choose another --store, or the options and data that it was made with"
        )
        raise MismatchError(msg)
    differing = _differing(there, index)
    if differing:
        msg = (
            f"{path} has the images of the corpus, but other {', '.join(differing)}; choose the options that it was "
            "made with, or remove index.h5 (the vectors stay valid) and run again"
        )
        raise MismatchError(msg)


def _ids_difference(there: Store, index: Index) -> str:
    ours, theirs = set(index.ids.tolist()), set(map(str, there.ids))
    parts = [f"{len(theirs)} there, {len(ours)} here"]
    for words, names in (("only there", theirs - ours), ("only here", ours - theirs)):
        if names:
            parts.append(f"{len(names)} {words} such as {min(names)!r}")
    if len(parts) == 1:
        parts.append("the same images in another order")
    if dict(there.corpus) != dict(index.corpus):
        parts.append(f"made as {dict(there.corpus)}, now {dict(index.corpus)}")
    return "; ".join(parts)


def _differing(there: Store, index: Index) -> list[str]:
    found = []
    for word, theirs, ours in (("labels", there.labels, index.labels), ("split", there.splits, index.splits)):
        for name in sorted(theirs.keys() | ours.keys()):
            one, other = theirs.get(name), ours.get(name)
            if one is None or other is None or not np.array_equal(one.values, other.values, equal_nan=word == "labels"):
                found.append(f"{word} {name!r}")
    return found
