"""Joining dumps: other blocks of the same images, or other images of the same blocks.

The order in which dumps are given never matters, and the parts of a dump, however it was cut, give the whole again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features_store import passport, seal
from features_store.align import (
    PIECE_BYTES,
    BlockRows,
    Placed,
    combined_index,
    gathered,
    locate,
    other_companions,
    refuse_other_groups,
)
from features_store.atomic import atomic_write
from features_store.console import progress_bar
from features_store.disk import reserve
from features_store.dump import open_store
from features_store.errors import FormatError, MismatchError
from features_store.hdf5 import add_block, fill_index, new_dump
from features_store.schema import FAILURES, BlockSpec, Index, Status
from features_store.store import Block, Store
from features_store.writer import BlockWriter

Mode = Literal["blocks", "rows", "join"]
# Which state of a row wins over which: a vector over a failure, a failure over "not yet tried".
_RANK = np.arange(256, dtype=np.uint8)
_RANK[Status.PENDING] = 255


def merge(
    paths: Sequence[Path | str | Sequence[Path]],
    path: Path | str,
    *,
    join: bool = False,
    force: bool = False,
    labels: bool = True,
) -> dict[str, Any]:
    """Merge stores into one dump.

    Stores over one index are united: all their blocks, and the rows that each has of a block they share. Stores over
    different indexes must hold different images of the same blocks; their rows are put together in the order of
    the index they were cut from, or, if there is none, in the order of their ids. With `join`, only the images that all
    have are kept. Without `labels` the dump is one of a folder whose ``index.h5`` has labels and splits.

    Returns the facts: the mode, how many images each input has that the result has not (`lost`), how many images have
    other companions in their groups than an input gives them (`regrouped`), and how many vectors of each block are
    still pending (`blocks`).
    """
    stores = [open_store(one) for one in paths]
    if not stores:
        raise MismatchError("merge needs at least one store")
    one_index = len({store.index_digest for store in stores}) == 1
    mode: Mode = "blocks" if one_index else "join" if join else "rows"
    if one_index:
        refuse_other_groups(stores)
    families = _families(stores)
    one_parent = len({_parent(store)[0] for store in families}) == 1
    raw_ids, parent_rows = _images(families, mode, one_parent=one_parent)
    placed = [Placed(store, locate(store.raw_ids, raw_ids)) for store in stores]
    if mode == "rows":
        _same_blocks(stores)
    index = combined_index(raw_ids, placed, one_numbering=mode != "rows" or one_parent)
    if one_parent:
        index = replace(index, parent_digest=_parent(families[0])[0], parent_rows=parent_rows)
    names = sorted({name for store in stores for name in store.blocks})
    blocks = [
        _united([BlockRows(one.store.blocks[name], one.rows) for one in placed if name in one.store.blocks])
        for name in names
    ]
    for block in blocks:
        _check_overlaps(block, raw_ids)
    write_dump(Path(path), index, blocks, force=force, labels=labels)
    return {
        "path": str(path),
        "mode": mode,
        "n_images": len(raw_ids),
        "regrouped": int(other_companions(index, placed).sum()),
        "lost": {str(p): one.store.n_images - int((one.rows >= 0).sum()) for p, one in zip(paths, placed, strict=True)},
        "blocks": {block.spec.name: int((block.status == Status.PENDING).sum()) for block in blocks},
    }


# ---- images ---------------------------------------------------------------------------------------------------------


def _parent(store: Store) -> tuple[str, NDArray[np.int64]]:
    """Return the digest of the index that a store was cut from (or its own), and its rows there."""
    rows = np.arange(store.n_images) if store.parent_rows is None else store.parent_rows
    return store.parent_digest or store.index_digest, rows


def _families(stores: Sequence[Store]) -> list[Store]:
    """Return one store for each index; of several, the one that does not depend on the order of the inputs."""

    def preference(store: Store) -> tuple[bool, str]:
        digest, _ = _parent(store)
        return digest == store.index_digest, digest

    families: dict[str, Store] = {}
    for store in stores:
        known = families.get(store.index_digest)
        if known is None or preference(store) < preference(known):
            families[store.index_digest] = store
    return [families[digest] for digest in sorted(families)]


def _images(families: Sequence[Store], mode: Mode, *, one_parent: bool) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """Choose the images of the result and their order; return them with their rows in the parent index."""
    if mode == "blocks":
        return families[0].raw_ids, _parent(families[0])[1]
    if mode == "join":
        return _common(families)
    raw_ids = np.concatenate([store.raw_ids for store in families])
    names, counts = np.unique(raw_ids, return_counts=True)
    if (counts > 1).any():
        twice = names[counts > 1]
        raise MismatchError(
            f"{len(twice)} images are in more than one of the dumps, which have different indexes; the first is "
            f"{twice[0].decode()!r}: keep only common images with --join, or cut them out of one with `subset`"
        )
    rows = np.concatenate([_parent(store)[1] for store in families])
    if not one_parent:
        return names, rows
    if len(np.unique(rows)) != len(raw_ids):
        raise MismatchError(
            "two images claim the same row of the index that they were cut from; these dumps are not cuts of one store"
        )
    order = np.argsort(rows)
    return raw_ids[order], rows[order]


def _common(families: Sequence[Store]) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """Keep the images that all have, in the order of the stores if it is one, else by id."""
    store = families[0]
    rows = [locate(other.raw_ids, store.raw_ids) for other in families[1:]]
    common = np.flatnonzero(np.all([found >= 0 for found in rows], axis=0))
    if not len(common):
        raise MismatchError(
            f"the dumps have no image in common: ids look like {store.raw_ids[0].decode()!r} and "
            f"{families[-1].raw_ids[0].decode()!r}; bring the ids into one spelling first"
        )
    if not all((np.diff(found[common]) > 0).all() for found in rows):
        common = common[np.argsort(store.raw_ids[common])]
    return store.raw_ids[common], _parent(store)[1][common]


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


def _united(sources: Sequence[BlockRows]) -> NewBlock:
    first = sources[0].block
    for source in sources[1:]:
        _refuse_other_making(first, source.block)
    spec = replace(first.spec, passport=passport.merged([source.block.passport for source in sources]))
    status = sources[0].status()
    choice = np.zeros(status.shape, dtype=np.int16)
    for number, source in enumerate(sources[1:], start=1):
        other = source.status()
        better = _RANK[other] < _RANK[status]
        status[better], choice[better] = other[better], number
    return NewBlock(spec, sources, status, choice)


def _refuse_other_making(one: Block, other: Block) -> None:
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


def _check_overlaps(new: NewBlock, raw_ids: NDArray[np.bytes_]) -> None:
    """Refuse two different vectors for one image."""
    for number, source in enumerate(new.sources):
        chosen = (new.choice != number) & (new.status == Status.WRITTEN)
        twice = chosen & (source.status() == Status.WRITTEN) if chosen.any() else chosen
        for view in range(new.spec.n_views):
            for winner in np.unique(new.choice[twice[:, view], view]).tolist():
                rows = np.flatnonzero(twice[:, view] & (new.choice[:, view] == winner))
                _compare(new.sources[winner], source, rows, view, raw_ids)


def _compare(one: BlockRows, other: BlockRows, rows: NDArray[np.int64], view: int, raw_ids: NDArray[np.bytes_]) -> None:
    with progress_bar(len(rows), f"comparing {one.block.name}", unit="row") as advance:
        for piece, (left, right) in gathered([one, other], rows, view=view):
            differs = piece[(left.view(np.uint8) != right.view(np.uint8)).any(axis=1)]
            if len(differs):
                raise MismatchError(
                    f"block {one.block.name!r} has different vectors for {raw_ids[differs[0]].decode()!r} in "
                    f"{one.block.path} and in {other.block.path}; cut the image out of one of them with `subset`"
                )
            advance(len(piece))


# ---- writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewBlock:
    """A block to be written from rows of others."""

    spec: BlockSpec
    sources: Sequence[BlockRows]
    status: NDArray[np.uint8]  # (n_images, n_views), the state that each row shall have
    choice: NDArray[np.int16]  # (n_images, n_views), which source gives the vector where the state is WRITTEN


def write_dump(
    path: Path, index: Index, blocks: Sequence[NewBlock], *, force: bool = False, labels: bool = True
) -> None:
    """Write an index and blocks into one dump, which appears whole or not at all.

    A block without pending rows is sealed. Vectors are copied piece by piece.
    """
    with atomic_write(path, force=force) as temporary:
        with new_dump(temporary) as file:
            fill_index(file, index, labels=labels)
            for block in blocks:
                add_block(file, block.spec, len(index))
        reserve(temporary)
        # Each vector is copied once and hashed once for the seal.
        n_bytes = sum(2 * block.status.size * _row_bytes(block.spec) for block in blocks)
        with progress_bar(n_bytes, f"writing {path.name}") as advance:
            for block in blocks:
                _fill(temporary, index, block, advance)


def _fill(path: Path, index: Index, new: NewBlock, advance: Callable[[int], object]) -> None:
    n_bytes = _row_bytes(new.spec)
    step = max(1, PIECE_BYTES // n_bytes)
    with BlockWriter(path, index, new.spec) as writer:
        for view in range(new.spec.n_views):
            status = new.status[:, view]
            written = np.flatnonzero(status == Status.WRITTEN)
            for start in range(0, len(written), step):
                rows = written[start : start + step]
                writer.write(rows, _chosen(new, rows, view), view=view)
                advance(len(rows) * n_bytes)
            for failure in FAILURES:
                rows = np.flatnonzero(status == failure)
                if len(rows):
                    writer.fail(rows, failure, view=view)
        writer.flush()
        if not len(writer.pending()):
            writer.seal(progress=lambda n: advance(n * new.spec.n_views * n_bytes))


def _chosen(new: NewBlock, rows: NDArray[np.int64], view: int) -> NDArray[Any]:
    """Gather neighbouring rows from the sources that give them, so that the new file is written from front to back."""
    choice = new.choice[rows, view]
    vectors = np.empty((len(rows), new.spec.n_features), dtype=new.spec.dtype)
    for number in np.unique(choice).tolist():
        mine = choice == number
        source = new.sources[number]
        taken = source.rows[rows[mine]]
        found = np.empty((len(taken), new.spec.n_features), dtype=new.spec.dtype)
        source.block.gather(taken, found, view=view)
        _check(source.block, taken, found, view)
        vectors[mine] = found
    return vectors


def _check(block: Block, rows: NDArray[np.int64], vectors: NDArray[Any], view: int) -> None:
    """Compare vectors with their digests, so that damage in a source is never sealed into a copy."""
    stored = block.digests
    if stored is None:
        return
    computed = seal.digest_rows(vectors, np.full(len(rows), Status.WRITTEN, dtype=np.uint8))
    damaged = rows[(computed != stored[rows, view]).any(axis=1)]
    if len(damaged):
        raise FormatError(
            f"{block.path}: block {block.name!r} is damaged in row {damaged[0]} (view {view}), which does not "
            "agree with its digest; run `features-store verify` on it, and extract or fetch it again"
        )


def _row_bytes(spec: BlockSpec) -> int:
    """Return the bytes of one vector."""
    return spec.n_features * np.dtype(spec.dtype).itemsize
