"""Joining dumps: other blocks of the same images, or other images of the same blocks.

The order in which dumps are given never matters, and the parts of a dump, however it was cut, give the whole again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features_store import passport
from features_store.align import Placed, combined_index, locate
from features_store.assembly import NewBlock, Source, gathered, progress_bar, write_dump
from features_store.block import Block
from features_store.errors import MismatchError
from features_store.origin import Origin, origin_of, shared
from features_store.schema import BlockSpec, Status
from features_store.store import Store, open_store

Mode = Literal["blocks", "rows", "join"]
# Which state of a row wins over which: a vector over a failure, a failure over "not yet tried".
_RANK = np.arange(256, dtype=np.uint8)
_RANK[Status.PENDING] = 255


@dataclass(frozen=True)
class Merged:
    """What `merge` wrote.

    Attributes
    ----------
    mode : {"blocks", "rows", "join"}
        All inputs had one index; or their images were put one after the other; or only common images were kept.
    lost : mapping
        For each input how many of its images are not in the result.
    blocks : mapping
        For each block how many of its vectors are still pending.
    """

    path: Path
    mode: Mode
    n_images: int
    lost: Mapping[str, int]
    blocks: Mapping[str, int]


def merge(paths: Sequence[Path | str], path: Path | str, *, join: bool = False, force: bool = False) -> Merged:
    """Merge stores into one dump.

    Stores over one index are united: all their blocks, and the rows that each has of a block they share. Stores over
    different indexes must hold different images of the same blocks; their rows are put together in the order of
    the index they were cut from, or, if there is none, in the order of their ids.

    Raises MismatchError.
    """
    stores = [open_store(one) for one in paths]
    if not stores:
        raise MismatchError("merge needs at least one store")
    one_index = len({store.index_digest for store in stores}) == 1
    mode: Mode = "blocks" if one_index else "join" if join else "rows"
    families = _families(stores)
    one_origin = shared([origin for _, origin in families])
    raw_ids, origin = _images(families, mode)
    placed = [Placed(store, locate(store.raw_ids, raw_ids)) for store in stores]
    if mode == "rows":
        _same_blocks(stores)
    index = combined_index(raw_ids, placed, one_numbering=mode != "rows" or one_origin)
    names = sorted({name for store in stores for name in store.blocks})
    blocks = [
        _united([(one.store.blocks[name], one.rows) for one in placed if name in one.store.blocks]) for name in names
    ]
    _check_overlaps(blocks, raw_ids)
    write_dump(Path(path), index, blocks, origin=origin if one_origin else None, force=force)
    return Merged(
        Path(path),
        mode,
        len(raw_ids),
        {str(given): one.store.n_images - int((one.rows >= 0).sum()) for given, one in zip(paths, placed, strict=True)},
        {block.spec.name: int((block.status == Status.PENDING).sum()) for block in blocks},
    )


# ---- images ---------------------------------------------------------------------------------------------------------


def _families(stores: Sequence[Store]) -> list[tuple[Store, Origin]]:
    """Return one store for each index, with what is known about where its rows came from."""
    families: dict[str, tuple[Store, Origin]] = {}
    for store in stores:
        origin = origin_of(store)
        known = families.get(store.index_digest)
        # Of several descriptions of one index, the one that does not depend on the order of the inputs.
        if known is None or _choice(origin, store) < _choice(known[1], store):
            families[store.index_digest] = (store, origin)
    return [families[digest] for digest in sorted(families)]


def _choice(origin: Origin, store: Store) -> tuple[bool, str]:
    return origin.digest == store.index_digest, origin.digest


def _images(families: Sequence[tuple[Store, Origin]], mode: Mode) -> tuple[NDArray[np.bytes_], Origin]:
    """Choose the images of the result and their order."""
    if mode == "blocks":
        return families[0][0].raw_ids, families[0][1]
    return _common(families) if mode == "join" else _appended(families)


def _appended(families: Sequence[tuple[Store, Origin]]) -> tuple[NDArray[np.bytes_], Origin]:
    raw_ids = np.concatenate([store.raw_ids for store, _ in families])
    names, counts = np.unique(raw_ids, return_counts=True)
    if (counts > 1).any():
        twice = names[counts > 1]
        raise MismatchError(
            f"{len(twice)} images are in more than one of the dumps, which have different indexes; the first is "
            f"{twice[0].decode()!r}: keep only common images with --join, or cut them out of one with `subset`"
        )
    origin = Origin(families[0][1].digest, np.concatenate([origin.rows for _, origin in families]))
    if not shared([origin for _, origin in families]):
        return names, origin
    if len(np.unique(origin.rows)) != len(raw_ids):
        raise MismatchError(
            "two images claim the same row of the index that they were cut from; these dumps are not cuts of one store"
        )
    order = np.argsort(origin.rows)
    return raw_ids[order], origin.cut(order)


def _common(families: Sequence[tuple[Store, Origin]]) -> tuple[NDArray[np.bytes_], Origin]:
    store, origin = families[0]
    kept = np.ones(store.n_images, dtype=bool)
    in_order = True
    for other, _ in families[1:]:
        rows = locate(other.raw_ids, store.raw_ids)
        kept &= rows >= 0
    if not kept.any():
        raise MismatchError(
            f"the dumps have no image in common: ids look like {store.raw_ids[0].decode()!r} and "
            f"{families[-1][0].raw_ids[0].decode()!r}; bring the ids into one spelling first"
        )
    common = np.flatnonzero(kept)
    for other, _ in families[1:]:
        in_order = in_order and bool((np.diff(locate(other.raw_ids, store.raw_ids[common])) > 0).all())
    if not in_order:
        common = common[np.argsort(store.raw_ids[common])]
    return store.raw_ids[common], origin.cut(common)


def _same_blocks(stores: Sequence[Store]) -> None:
    families: dict[str, set[str]] = {}
    for store in stores:
        families.setdefault(store.index_digest, set()).update(store.blocks)
    for store in stores:
        missing = set().union(*families.values()) - families[store.index_digest]
        if missing:
            raise MismatchError(
                f"{store.paths[0]} has other images than the rest, and lacks the block {min(missing)!r}; blocks over "
                "different indexes are never put side by side silently: --join keeps the images that all have"
            )


# ---- blocks ---------------------------------------------------------------------------------------------------------


def _united(parts: Sequence[tuple[Block, NDArray[np.int64]]]) -> NewBlock:
    blocks = [block for block, _ in parts]
    for block in blocks[1:]:
        _same_making(blocks[0], block)
    first = blocks[0].spec
    united = BlockSpec(
        first.name,
        first.shape,
        passport.merged([block.passport for block in blocks]),
        first.dtype,
        first.n_views,
        first.names,
    )
    sources = tuple(Source(block, rows) for block, rows in parts)
    status = sources[0].status()
    choice = np.zeros(status.shape, dtype=np.int16)
    for number, source in enumerate(sources[1:], start=1):
        other = source.status()
        better = _RANK[other] < _RANK[status]
        status[better], choice[better] = other[better], number
    return NewBlock(united, sources, status, choice)


def _same_making(one: Block, other: Block) -> None:
    fields: list[tuple[str, Any, Any]] = [
        ("shape of a vector", one.item_shape, other.item_shape),
        ("views", one.shape[1], other.shape[1]),
        ("dtype", one.dtype.name, other.dtype.name),
        ("names of the values", _named(one), _named(other)),
    ]
    found = [f"{name}: {left} / {right}" for name, left, right in fields if left != right]
    found += passport.differences(one.passport, other.passport)
    if found:
        raise MismatchError(
            f"block {one.name!r} was made in two ways, in {one.path} / in {other.path}: {'; '.join(sorted(found))}; "
            "rows of both cannot stand in one block"
        )


def _named(block: Block) -> str:
    if block.names is None:
        return "none"
    return f"{len(block.names)} with SHA-256 {hashlib.sha256(chr(0).join(block.names).encode()).hexdigest()[:12]}"


def _check_overlaps(blocks: Sequence[NewBlock], raw_ids: NDArray[np.bytes_]) -> None:
    """Refuse two different vectors for one image."""
    for new in blocks:
        for number, source in enumerate(new.sources):
            chosen = (new.choice != number) & (new.status == Status.WRITTEN)
            twice = chosen & (source.status() == Status.WRITTEN) if chosen.any() else chosen
            for view in range(new.spec.n_views):
                for winner in np.unique(new.choice[twice[:, view], view]).tolist():
                    rows = np.flatnonzero(twice[:, view] & (new.choice[:, view] == winner))
                    _compare(new.sources[winner], source, rows, view, raw_ids)


def _compare(one: Source, other: Source, rows: NDArray[np.int64], view: int, raw_ids: NDArray[np.bytes_]) -> None:
    with progress_bar(len(rows), f"comparing {one.block.name}", unit="row") as advance:
        for piece, (left, right) in gathered([one, other], rows, view=view):
            differs = piece[(left.view(np.uint8) != right.view(np.uint8)).any(axis=1)]
            if len(differs):
                raise MismatchError(
                    f"block {one.block.name!r} has different vectors for {raw_ids[differs[0]].decode()!r} in "
                    f"{one.block.path} and in {other.block.path}; cut the image out of one of them with `subset`"
                )
            advance(len(piece))
