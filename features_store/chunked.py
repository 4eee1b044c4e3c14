"""Decoding chunks that other programs wrote, without the filters of libhdf5: for import, ids, labels and splits.

libhdf5 inflates a chunk to whatever size it claims (a megabyte of zeros, deflated, becomes a gigabyte), and returns
foreign memory where one inflates to less than its shape needs. Here a chunk has its exact size or is refused.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features_store.errors import FormatError

_CHECKSUM_BYTES = 4
_MODULUS = 65_535
NUMBERS = np.typecodes["Float"] + np.typecodes["AllInteger"]  # what numpy calls plain numbers
_PIECE_BYTES = 4 * 2**20
_SLACK = 1024  # deflate makes data that cannot be compressed a little longer


def read(dataset: h5py.Dataset) -> NDArray[Any]:
    """Read a whole dataset, chunked or not; of another type than numbers and text, its bytes as integers."""
    whole: NDArray[Any] | None = None
    for corner, values in pieces(dataset):
        if whole is None:
            whole = np.empty(dataset.shape, values.dtype)
        whole[tuple(slice(c, c + n) for c, n in zip(corner, values.shape, strict=True))] = values
    if whole is None:
        raise FormatError(f"{dataset.name} is empty")
    return whole


def pieces(dataset: h5py.Dataset) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
    """Read a dataset of a file that `hdf5` has checked, a piece at a time, each with the place of its corner."""
    raw = dataset.dtype if dataset.dtype.char in f"{NUMBERS}S" else np.dtype(f"<u{dataset.id.get_type().get_size()}")
    if dataset.ndim == 0 or dataset.size == 0:
        raise FormatError(f"{dataset.name} is empty, or a single value")
    if dataset.chunks is None:
        yield from _contiguous_pieces(dataset, raw)
        return
    for corner in itertools.product(*(range(0, n, c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))):
        chunk = _chunk(dataset, corner, raw)
        yield corner, chunk[tuple(slice(0, n - c) for n, c in zip(dataset.shape, corner, strict=True))]


def _contiguous_pieces(dataset: h5py.Dataset, raw: np.dtype[Any]) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
    compact = dataset.id.get_create_plist().get_layout() == h5py.h5d.COMPACT
    offset, end = dataset.id.get_offset(), dataset.file.id.get_filesize()
    if not compact and (offset is None or offset + dataset.nbytes > end):
        raise FormatError(f"{dataset.name} was never written, or the end of it is cut off")
    step = max(1, _PIECE_BYTES // max(1, dataset.nbytes // max(1, dataset.shape[0])))
    for start in range(0, dataset.shape[0], step):
        if raw == dataset.dtype:
            values = np.asarray(dataset[start : start + step])
        else:
            values = np.empty((min(step, dataset.shape[0] - start), *dataset.shape[1:]), raw)
            chosen = dataset.id.get_space()
            chosen.select_hyperslab((start, *[0] * (dataset.ndim - 1)), values.shape)
            dataset.id.read(h5py.h5s.create_simple(values.shape), chosen, values, dataset.id.get_type())
        yield (start, *[0] * (dataset.ndim - 1)), values


def _chunk(dataset: h5py.Dataset, corner: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read the chunk that begins at `corner`."""
    stored = dataset.id.get_chunk_info_by_coord(corner)
    if stored.byte_offset is None:
        raise FormatError(f"{dataset.name} has a chunk at {corner} that was never written; write all of it")
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    n_bytes = math.prod(dataset.chunks) * dtype.itemsize
    raw = b""
    if stored.size <= n_bytes + n_bytes // 100 + _SLACK:
        mask, raw = dataset.id.read_direct_chunk(corner)
        used = [code for number, code in enumerate(filters) if not mask >> number & 1]
        raw = _decoded(raw, used, n_bytes, dtype.itemsize)
    if len(raw) != n_bytes:
        raise FormatError(f"{dataset.name} has a chunk at {corner} that does not hold the {n_bytes} bytes of its shape")
    return np.frombuffer(raw, dtype=dtype).reshape(dataset.chunks)


def _decoded(raw: bytes, filters: list[int], n_bytes: int, itemsize: int) -> bytes:
    """Undo the filters, the last one first; never make more than one byte too many."""
    for code in reversed(filters):
        if code == h5py.h5z.FILTER_FLETCHER32:
            raw, stored = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
            if not _agrees(raw, stored):
                raise FormatError("a chunk does not agree with its checksum (fletcher32): it was damaged")
        elif code == h5py.h5z.FILTER_SHUFFLE:
            whole = len(raw) // itemsize * itemsize
            raw = np.frombuffer(raw[:whole], np.uint8).reshape(itemsize, -1).T.tobytes() + raw[whole:]
        else:
            inflate = zlib.decompressobj()
            try:
                raw = inflate.decompress(raw, n_bytes + _CHECKSUM_BYTES + 1)
            except zlib.error as error:
                raise FormatError(f"a deflated chunk is damaged: {error}") from error
    return raw


def _agrees(data: bytes, stored: bytes) -> bool:
    """Compare data with the checksum that HDF5 keeps of them, two sums of 16-bit words modulo 65,535."""
    words = np.frombuffer(data + bytes(len(data) % 2), ">u2").astype(np.int64)
    weights = np.arange(len(words), 0, -1) % _MODULUS
    sums = [int(words.sum()) % _MODULUS, int((words * weights).sum()) % _MODULUS]
    return [int.from_bytes(stored[:2], "little") % _MODULUS, int.from_bytes(stored[2:], "little") % _MODULUS] == sums
