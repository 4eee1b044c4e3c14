"""Decoding chunks that other programs wrote, without the filters of libhdf5.

libhdf5 inflates a chunk to whatever size it claims (a megabyte of zeros, deflated, becomes a gigabyte), and returns
foreign memory where one inflates to less than its shape needs. Here a chunk has its exact size or is refused.
"""

from __future__ import annotations

import itertools
import math
import zlib
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features_store.errors import FormatError

_CHECKSUM_BYTES = 4
_SLACK = 1024  # deflate makes data that cannot be compressed a little longer


def read(dataset: h5py.Dataset) -> NDArray[Any]:
    """Read a whole dataset, chunked or not."""
    if dataset.chunks is None:
        return np.asarray(dataset[()])
    return read_rows(dataset, np.arange(dataset.shape[0]))


def read_rows(dataset: h5py.Dataset, rows: NDArray[np.int64], *, view: int | None = None) -> NDArray[Any]:
    """Read some rows of a dataset.

    Parameters
    ----------
    dataset : h5py.Dataset
        Of plain little-endian numbers or fixed-length text, checked by `safety.check_file`.
    rows : ndarray of int64, shape (n,)
        Ascending.
    view : int, optional
        Only this position of the second axis, which is kept with length 1. None = all.

    Returns
    -------
    ndarray of shape (n, ...)

    Raises
    ------
    FormatError
        If a chunk has not the size that its shape needs.
    """
    if dataset.chunks is None:
        return np.asarray(dataset[rows] if view is None else dataset[rows, view : view + 1])
    first = [0] * (dataset.ndim - 1)
    last = list(dataset.shape[1:])
    if view is not None:
        first[0], last[0] = view, view + 1
    out = np.empty((len(rows), *(b - a for a, b in zip(first, last, strict=True))), dtype=dataset.dtype)
    steps = dataset.chunks
    corners = [range(a // c * c, b, c) for a, b, c in zip(first, last, steps[1:], strict=True)]
    for top in np.unique(rows // steps[0]).tolist():
        a, b = np.searchsorted(rows, [top * steps[0], (top + 1) * steps[0]])
        for corner in itertools.product(*corners):
            chunk = _chunk(dataset, (top * steps[0], *corner))
            low = [max(a, c) for a, c in zip(first, corner, strict=True)]
            high = [min(b, c + n) for b, c, n in zip(last, corner, steps[1:], strict=True)]
            source = tuple(slice(x - c, y - c) for x, y, c in zip(low, high, corner, strict=True))
            target = tuple(slice(x - f, y - f) for x, y, f in zip(low, high, first, strict=True))
            out[(slice(a, b), *target)] = chunk[(rows[a:b] - top * steps[0], *source)]
    return out


def _chunk(dataset: h5py.Dataset, corner: tuple[int, ...]) -> NDArray[Any]:
    """Read the chunk that begins at `corner`; one that was never written holds the fill value."""
    stored = dataset.id.get_chunk_info_by_coord(corner)
    if stored.byte_offset is None:
        return np.full(dataset.chunks, dataset.fillvalue, dtype=dataset.dtype)
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    n_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    raw = b""
    if stored.size <= n_bytes + n_bytes // 100 + _SLACK:
        mask, raw = dataset.id.read_direct_chunk(corner)
        used = [code for number, code in enumerate(filters) if not mask >> number & 1]
        raw = _decoded(raw, used, n_bytes, dataset.dtype.itemsize)
    if len(raw) != n_bytes:
        msg = f"{dataset.name} has a chunk at {corner} that does not hold the {n_bytes} bytes of its shape"
        raise FormatError(msg)
    return np.frombuffer(raw, dtype=dataset.dtype).reshape(dataset.chunks)


def _decoded(raw: bytes, filters: list[int], n_bytes: int, itemsize: int) -> bytes:
    """Undo the filters, the last one first; never make more than one byte too many."""
    for code in reversed(filters):
        if code == h5py.h5z.FILTER_FLETCHER32:
            # The seal and the row digests find damage; this checksum is only cut off.
            raw = raw[:-_CHECKSUM_BYTES]
        elif code == h5py.h5z.FILTER_SHUFFLE:
            whole = len(raw) // itemsize * itemsize
            raw = np.frombuffer(raw[:whole], np.uint8).reshape(itemsize, -1).T.tobytes() + raw[whole:]
        else:
            inflate = zlib.decompressobj()
            try:
                raw = inflate.decompress(raw, n_bytes + _CHECKSUM_BYTES + 1)
            except zlib.error as error:
                msg = f"a deflated chunk is damaged: {error}"
                raise FormatError(msg) from error
    return raw
