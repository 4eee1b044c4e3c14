"""Shards: some rows of a corpus as a corpus of their own, which `features-store merge` puts together again."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from extract.corpora.record import Reading
from extract.errors import CorpusError
from extract.sources import Source
from features_store.origin import Origin
from features_store.subset import index_rows


class Cut:
    """Some rows of a source, numbered anew."""

    def __init__(self, source: Source, rows: NDArray[np.int64]) -> None:
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, row: int) -> bytes:
        """See `extract.sources.Source.read`."""
        return self._source.read(int(self._rows[row]))

    def modified(self, row: int) -> float:
        """See `extract.sources.Source.modified`."""
        return self._source.modified(int(self._rows[row]))


def shard(reading: Reading, text: str) -> Reading:
    """Cut a corpus to the rows from A to just before B.

    A shard has an index of its own, so a store of it is as large as its rows, and it keeps where they came from, so
    that merging puts them back into their order.

    Raises CorpusError.
    """
    n_images = len(reading.index)
    match = re.fullmatch(r"(\d*):(\d*)", text)
    first, last = (int(match[1] or 0), int(match[2] or n_images)) if match else (0, 0)
    if not first < last <= n_images:
        msg = f"--rows {text} names no rows of {n_images}; write A:B with 0 <= A < B <= {n_images}: A to just before B"
        raise CorpusError(msg)
    rows = np.arange(first, last)
    if len(rows) == n_images:
        return reading
    index = reading.index
    return replace(
        reading, index=index_rows(index, rows), source=Cut(reading.source, rows), origin=Origin(index.digest, rows)
    )
