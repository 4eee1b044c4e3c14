"""Writing a whole dump whose rows come from other blocks: the one way in which dumps are cut and joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store import seal
from features_store.atomic import atomic_write
from features_store.block import Block
from features_store.disk import reserve
from features_store.dump import add_block, fill_index, new_dump
from features_store.errors import FormatError
from features_store.origin import Origin, write_origin
from features_store.schema import FAILURES, BlockSpec, Index, Status
from features_store.writer import BlockWriter

PIECE_BYTES = 4 * 2**20  # of vectors, copied or compared at a time: memory does not grow with the dump


@dataclass(frozen=True)
class Source:
    """A block that gives rows to a new one.

    Attributes
    ----------
    rows : ndarray of shape (n_images,), int64
        For each image of the new index its row in `block`, or -1.
    """

    block: Block
    rows: NDArray[np.int64]

    def status(self) -> NDArray[np.uint8]:
        """State of the new index's rows in this block, (n_images, n_views) uint8; absent rows are pending."""
        status = self.block.status[self.rows]
        status[self.rows < 0] = Status.PENDING
        return status


@dataclass(frozen=True)
class NewBlock:
    """A block to be written.

    Attributes
    ----------
    status : ndarray of shape (n_images, n_views), uint8
        The state that each row shall have.
    choice : ndarray of shape (n_images, n_views), int16
        Number of the source that gives the vector, where the state is `Status.WRITTEN`.
    """

    spec: BlockSpec
    sources: tuple[Source, ...]
    status: NDArray[np.uint8]
    choice: NDArray[np.int16]


def from_one(block: Block, rows: NDArray[np.int64]) -> NewBlock:
    """Describe a block that takes its rows from one other."""
    source = Source(block, rows)
    status = source.status()
    return NewBlock(block.spec, (source,), status, np.zeros(status.shape, dtype=np.int16))


def write_dump(
    path: Path, index: Index, blocks: Sequence[NewBlock], *, origin: Origin | None = None, force: bool = False
) -> None:
    """Write an index and blocks into one dump, which appears whole or not at all.

    A block without pending rows is sealed. Vectors are copied piece by piece.
    """
    with atomic_write(path, force=force) as temporary:
        with new_dump(temporary) as file:
            fill_index(file, index)
            if origin is not None and origin.digest != index.digest:
                write_origin(file, origin)
            for block in blocks:
                add_block(file, block.spec, len(index))
        reserve(temporary)
        # Each vector is copied once and hashed once for the seal.
        n_bytes = sum(2 * block.status.size * row_bytes(block.spec) for block in blocks)
        with progress_bar(n_bytes, f"writing {path.name}") as advance:
            for block in blocks:
                _fill(temporary, index, block, advance)


def _fill(path: Path, index: Index, new: NewBlock, advance: Callable[[int], object]) -> None:
    n_bytes = row_bytes(new.spec)
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


def gathered(
    sources: Sequence[Source], rows: NDArray[np.int64], *, view: int
) -> Iterator[tuple[NDArray[np.int64], list[NDArray[np.floating]]]]:
    """Iterate over some rows of a new index, a few MiB at a time.

    Shapes: rows (n,) int64; vectors (n, n_features).
    """
    if not len(rows):
        return
    widest = max(source.block.n_features * source.block.dtype.itemsize for source in sources)
    step = max(1, PIECE_BYTES // widest)
    buffers = [
        np.empty((min(step, len(rows)), source.block.n_features), dtype=source.block.dtype) for source in sources
    ]
    for start in range(0, len(rows), step):
        piece = rows[start : start + step]
        for source, buffer in zip(sources, buffers, strict=True):
            source.block.gather(source.rows[piece], buffer[: len(piece)], view=view)
        yield piece, [buffer[: len(piece)] for buffer in buffers]


def row_bytes(spec: BlockSpec) -> int:
    """Return the bytes of one vector."""
    return spec.n_features * np.dtype(spec.dtype).itemsize


@contextmanager
def progress_bar(total: int, what: str, *, unit: str = "B") -> Iterator[Callable[[int], object]]:
    """Show a progress bar on a terminal's error stream, if the work takes longer than two seconds."""
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit=unit, unit_scale=True, delay=2, disable=None, leave=False) as bar:
        yield bar.update
