"""Where the rows of a cut dump came from, so that its pieces can be put together in their first order.

A dump that was cut out of another keeps, for each image, the row that the image had there (FORMAT.md section 8). Cuts
of cuts keep the rows of the first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from features_store import chunked as chunks
from features_store.errors import FormatError
from features_store.hdf5 import opened, text_of
from features_store.store import Store

_ROWS = "images/row"


@dataclass(frozen=True)
class Origin:
    """The index that a dump was cut from.

    Attributes
    ----------
    digest : str
        The digest of that index; a dump that was never cut is its own origin.
    rows : ndarray of shape (n_images,), int64
        The row of each image in that index.
    """

    digest: str
    rows: NDArray[np.int64]

    def cut(self, rows: NDArray[np.int64]) -> Origin:
        """Return the origin of some rows of the dump."""
        return Origin(self.digest, self.rows[rows])


def origin_of(store: Store) -> Origin:
    """Return where the rows of a store came from; itself, if it was never cut.

    Raises FormatError.
    """
    for path in store.paths:
        found = _read(path, store.n_images)
        if found is not None:
            return found
    return Origin(store.index_digest, np.arange(store.n_images))


def shared(origins: Sequence[Origin]) -> bool:
    """Tell whether all were cut from one index."""
    return len({origin.digest for origin in origins}) == 1


def write_origin(file: h5py.File, origin: Origin) -> None:
    """Write ``/images/row`` into a dump that is being made."""
    file[_ROWS] = np.asarray(origin.rows, dtype="<i8")
    utf8 = h5py.string_dtype("utf-8", 64)
    file[_ROWS].attrs.create("origin", np.array(origin.digest.encode(), dtype=utf8), dtype=utf8)


def _read(path: Path, n_images: int) -> Origin | None:
    # The store was opened before, so the file has passed every check of its links and types.
    with opened(path) as file:
        dataset = file.get(_ROWS)
        if dataset is None:
            return None
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype != np.dtype("<i8") or dataset.shape != (n_images,):
            raise FormatError(f"{path}: /{_ROWS} must be one int64 for each of the {n_images} images")
        rows, digest = chunks.read(dataset), text_of(dataset, "origin")
    if re.fullmatch(r"[0-9a-f]{64}", digest) is None:
        raise FormatError(f"{path}: /{_ROWS} has attribute origin {digest[:80]!r}; expected 64 hexadecimal digits")
    if rows.min() < 0 or len(np.unique(rows)) != n_images:
        raise FormatError(f"{path}: /{_ROWS} must name each row of the origin at most once, from 0")
    return Origin(digest, rows)
