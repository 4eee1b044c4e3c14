"""SHA-256 of the image files, for the index: noted while they are read, kept beside it until the run ends."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extract.errors import RefusedImageError
from extract.inputs.files import ImageFiles
from features_store import Index, MismatchError, open_regular, open_store, write_index
from features_store.schema import INDEX_FILE

JOURNAL = "content.sha256.part"
_BYTES = 32
_READERS = 8  # threads


class DigestingSource:
    """A source that notes the digest of every file it reads.

    The index is one file that appears whole, so the digests wait in a journal next to it: 32 bytes per row, which lie
    in one page of memory each and so are whole or zero after any kill. At the end the index is written anew.

    Parameters
    ----------
    store : Path
        Folder with an index; its digests, and those of a journal that a killed run left, are taken over.
    """

    def __init__(self, source: ImageFiles, store: Path) -> None:
        self._source = source
        index = open_store(store / INDEX_FILE)
        self._ids = index.raw_ids
        self._journal = store / JOURNAL
        # Behind the digests stands that of the index: those that were noted for other images are none of these.
        mark = bytes.fromhex(index.index_digest)
        with open_regular(self._journal, mode="a+b") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _BYTES))
            if file.tell() != len(source) * _BYTES or file.read() != mark:
                file.truncate(0)
                file.truncate(len(source) * _BYTES)
                file.write(mark)
                file.flush()
            self._digests = np.memmap(file, np.uint8, "r+", shape=(len(source), _BYTES))
        if index.content is not None:
            known = index.content.any(axis=1)
            self._digests[known] = index.content[known]
        self._tried = np.zeros(len(source), dtype=bool)

    def __len__(self) -> int:
        return len(self._source)

    def read(self, row: int) -> bytes:
        """See `extract.inputs.files.ImageFiles.read`.

        Raises MismatchError.
        """
        self._tried[row] = True
        data = self._source.read(row)
        digest, known = hashlib.sha256(data).digest(), self._digests[row].tobytes()
        if any(known) and known != digest:
            msg = (
                f"image {self._ids[row].decode()!r} was another picture when its digest was noted (SHA-256 "
                f"{known.hex()[:12]}, now {digest.hex()[:12]}); put the old file back, or extract into another --store"
            )
            raise MismatchError(msg)
        self._digests[row] = np.frombuffer(digest, dtype=np.uint8)
        return data

    def modified(self, row: int) -> float:
        """See `extract.inputs.files.ImageFiles.modified`."""
        return self._source.modified(row)

    def finish(self, rows: Iterable[int], store: Path, index: Index, *, used: Iterable[int] = ()) -> int:
        """Read those of `rows` that have no digest yet, and write the index with all digests."""
        unknown = [row for row in rows if not self._digests[row].any()]
        left = [row for row in sorted({*unknown, *used}) if not self._tried[row]]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="digest") as pool:
            for _ in pool.map(self._try, left):
                pass
        content: NDArray[np.uint8] = np.array(self._digests)
        known = open_store(store / INDEX_FILE).content
        if content.any() and (known is None or not np.array_equal(known, content)):
            write_index(store / INDEX_FILE, replace(index, content=content), force=True)
        del self._digests  # Windows removes no file that is mapped
        self._journal.unlink()
        return int(content.any(axis=1).sum())

    def _try(self, row: int) -> None:
        try:
            self.read(row)
        except RefusedImageError:
            return
