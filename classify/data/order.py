"""The order in which a pass visits the rows: fully shuffled, or by blocks where the file is larger than memory."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import numpy as np

from classify.data.rows import RowMatrix, Rows

if TYPE_CHECKING:
    import torch

__all__ = ["physical_memory", "shuffled_by_blocks", "shuffles_by_blocks"]

CHOICES = ("auto", "blocks", "full")

BLOCK_ROWS = 256  # neighbours read together: 5.8 MB at 11,368 half-precision features
POOL_BLOCKS = 64  # blocks mixed with each other: 373 MB of the page cache


def shuffled_by_blocks(
    n_rows: int, generator: torch.Generator, *, block: int = BLOCK_ROWS, pool: int = POOL_BLOCKS
) -> np.ndarray:
    """Return a random order of the rows that reads a file nearly in sequence.

    The rows are cut into blocks of neighbours, at a place drawn anew for each pass; the blocks are shuffled, and the
    rows of each *pool* of consecutive blocks are shuffled among themselves. A row is equally likely at any place, as
    in a full shuffle; rows of one block stay within one pool.
    """
    import torch

    def draw(n: int) -> np.ndarray:
        return torch.randperm(n, generator=generator).numpy()

    phase = int(torch.randint(block, (1,), generator=generator))
    edges = np.unique(np.clip(np.arange(phase - block, n_rows + block, block), 0, n_rows))
    blocks = [np.arange(start, stop) for start, stop in itertools.pairwise(edges)]
    shuffled = [blocks[i] for i in draw(len(blocks))]
    pools = [np.concatenate(shuffled[i : i + pool]) for i in range(0, len(shuffled), pool)]
    return np.concatenate([rows[draw(len(rows))] for rows in pools])


def shuffles_by_blocks(choice: str, rows: Rows) -> bool:
    """Decide how *rows* are shuffled; "auto": by blocks if their vectors fill more than half of the memory."""
    if choice == "auto":
        return isinstance(rows, RowMatrix) and rows.stored_bytes > physical_memory() / 2
    return choice == "blocks"


def physical_memory() -> int:
    """Return the machine's memory in bytes; where the system doesn't say, a laptop's 8 GiB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30
