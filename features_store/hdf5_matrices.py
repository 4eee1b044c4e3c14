"""Matrices in HDF5 files that are no dumps, and in MATLAB files of version 7.3; neither is trusted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from features_store import chunked as chunks
from features_store.errors import FormatError, MismatchError, UnsafeFileError, unknown_name
from features_store.hdf5 import check_storage, opened
from features_store.matrix import Matrix, only_one
from features_store.schema import FORMAT

_TEXT_BYTES = 16 * 2**20
_MAX_NAME = 4096  # characters of one id in a MATLAB cell


@contextmanager
def hdf5(path: Path, key: str | None, ids_key: str | None, scratch: Path) -> Iterator[Matrix]:
    """Open a dataset of an HDF5 file."""
    with opened(path) as file:
        if key is None and file.attrs.get("format") in (FORMAT, FORMAT.encode()):
            raise FormatError(
                f"{path} is a dump; bring it together with others by `features-store merge` (--join aligns by id)"
            )
        chosen = key or only_one([name for name in file if name != ids_key], path)
        dataset = _dataset(file, chosen, path)
        ids = None if ids_key is None else _texts(_dataset(file, ids_key, path), dataset.shape[0], path)
        matrix = _unpacked(dataset, scratch, path, ids)
    yield matrix


@contextmanager
def mat(path: Path, key: str | None, ids_key: str | None, scratch: Path) -> Iterator[Matrix]:
    """Open a variable of a MATLAB file of version 7.3."""
    if not h5py.is_hdf5(path):
        raise FormatError(f"{path} is no MATLAB file of version 7.3; save it again with save(..., '-v7.3')")
    with opened(path) as file:
        chosen = key or only_one([name for name in file if name not in (ids_key, "#refs#", "#subsystem#")], path)
        dataset = _dataset(file, chosen, path)
        ids = None if ids_key is None else _cells(file, _dataset(file, ids_key, path), dataset.shape[-1], path)
        # MATLAB counts columns first, so its n x d matrix is stored as d x n.
        matrix = _unpacked(dataset, scratch, path, ids, turned=True)
    yield matrix


def _unpacked(
    dataset: h5py.Dataset, scratch: Path, path: Path, ids: list[str] | None, *, turned: bool = False
) -> Matrix:
    """Decode a dataset once, a chunk at a time, into a plain file from which rows are taken.

    Neither the memory that this takes nor the time depends on the layout that a stranger chose.
    """
    shape = dataset.shape[::-1] if turned else dataset.shape
    dtype = dataset.dtype
    if dtype.kind not in "fiu" or not dataset.id.get_type().equal(h5py.h5t.py_create(dtype)):
        raise FormatError(f"{path}: {dataset.name!r} holds {dtype}, or an unusual kind of it; expected plain numbers")
    if len(shape) < 2 or min(shape) < 1:
        raise FormatError(f"{path} holds {dtype} of shape {shape}; expected numbers of shape (n_rows, n_values)")
    place = scratch / "numbers"
    n_values = math.prod(shape[1:])
    row_bytes = n_values * dtype.itemsize
    with place.open("wb") as file:
        file.truncate(shape[0] * row_bytes)
        for corner, values in chunks.pieces(dataset):
            first = corner[::-1] if turned else corner
            _scatter(file, values.T if turned else values, first, shape)

    def take(start: int, stop: int) -> np.ndarray:
        rows = max(0, min(stop, shape[0]) - start)
        read = np.fromfile(place, dtype, rows * n_values, offset=start * row_bytes)
        return read.reshape(rows, *shape[1:])

    return Matrix(shape, dtype, take, ids)


def _scatter(file: BinaryIO, values: np.ndarray, first: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Write a piece of an array to its place in a file that holds the whole, each run of neighbours at once."""
    axis = len(shape) - 1  # the runs cover the axes behind it as a whole
    while axis > 0 and values.shape[axis] == shape[axis]:
        axis -= 1
    strides = [math.prod(shape[n + 1 :]) for n in range(len(shape))]
    runs = np.ascontiguousarray(values).reshape(math.prod(values.shape[:axis]), -1)
    corners = np.zeros(1, dtype=np.int64)
    for n in range(axis):
        corners = (corners[:, None] + (first[n] + np.arange(values.shape[n])) * strides[n]).ravel()
    for start, run in zip((corners + first[axis] * strides[axis]).tolist(), runs, strict=True):
        file.seek(start * values.itemsize)
        file.write(run.data)


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Open a dataset after looking at each link on the way, and at where its bytes are."""
    where: Any = file
    for part in name.strip("/").split("/"):
        if not isinstance(where, h5py.Group) or part not in where:
            listed = list(where)[:20] if isinstance(where, h5py.Group) else []
            raise FormatError(f"{path}: " + unknown_name("dataset", name, listed))
        if not isinstance(where.get(part, getlink=True), h5py.HardLink):
            raise UnsafeFileError(f"{path} was refused: {name!r} leads over a soft or external link")
        where = where[part]
    if not isinstance(where, h5py.Dataset):
        raise FormatError(
            f"{path}: {name!r} is a group; give the path of a dataset, one of: {', '.join(list(where)[:20])}"
        )
    return _own_bytes(where, path)


def _own_bytes(dataset: h5py.Dataset, path: Path) -> h5py.Dataset:
    check_storage(dataset, path)
    return dataset


def _whole(dataset: h5py.Dataset, path: Path) -> np.ndarray:
    """Read a small dataset as a whole; of another type than numbers and text, its bytes as integers."""
    if dataset.ndim == 0 or dataset.size == 0:
        raise FormatError(f"{path}: {dataset.name!r} is empty, or a single value")
    whole: np.ndarray | None = None
    for corner, values in chunks.pieces(dataset):
        if whole is None:
            whole = np.empty(dataset.shape, values.dtype)
        whole[tuple(slice(c, c + n) for c, n in zip(corner, values.shape, strict=True))] = values
    return np.asarray(whole)


def _count(n: int, n_rows: int, path: Path) -> None:
    if n != n_rows:
        raise MismatchError(f"{path} has {n_rows} rows and there are {n} ids; each row needs one")


def _texts(dataset: h5py.Dataset, n_rows: int, path: Path) -> list[str]:
    """Read ids from one row of text, of fixed or of variable length."""
    kind = h5py.check_string_dtype(dataset.dtype)
    if kind is None or dataset.ndim != 1:
        raise FormatError(
            f"{path}: {dataset.name!r} is {dataset.dtype} of shape {dataset.shape}; ids must be one row of text"
        )
    _count(dataset.shape[0], n_rows, path)
    if kind.length is not None:
        return [one.decode() for one in _whole(dataset, path).tolist()]
    if dataset.id.get_create_plist().get_nfilters():
        raise FormatError(
            f"{path}: {dataset.name!r} is text of variable length that is compressed; give the ids in a file (--ids)"
        )
    ids: list[str] = []
    step = max(1, _TEXT_BYTES // path.stat().st_size)  # each of them may claim as much as there is in the file
    for start in range(0, n_rows, step):
        ids += dataset.asstr()[start : start + step].tolist()
        if max(map(len, ids[start:])) > _MAX_NAME:
            raise FormatError(f"{path}: an id among {dataset.name!r} has more than {_MAX_NAME} characters")
    return ids


def _cells(file: h5py.File, dataset: h5py.Dataset, n_rows: int, path: Path) -> list[str]:
    """Read ids from a MATLAB cell array of text, or from a matrix of characters with one id in each row."""
    if dataset.dtype == np.uint16 and dataset.ndim == 2:
        _count(dataset.shape[1], n_rows, path)
        return ["".join(map(chr, column)).rstrip() for column in _whole(dataset, path).T.tolist()]
    if h5py.check_ref_dtype(dataset.dtype) is not h5py.Reference:
        raise FormatError(
            f"{path}: {dataset.name!r} is {dataset.dtype}; ids must be a cell array of text, or a character matrix"
        )
    _count(dataset.size, n_rows, path)
    # A reference is the address of an object, and MATLAB keeps the contents of all cells in one group.
    places: dict[int, h5py.Dataset] = {}
    if isinstance(file.get("#refs#", getlink=True), h5py.HardLink):
        members = file["#refs#"]
        for name in members:
            if isinstance(members.get(name, getlink=True), h5py.HardLink):
                places[h5py.h5o.get_info(members[name].id).addr] = members[name]
    return [_cell(places.get(address), path) for address in _whole(dataset, path).ravel().tolist()]


def _cell(cell: h5py.Dataset | None, path: Path) -> str:
    if not isinstance(cell, h5py.Dataset) or cell.dtype != np.uint16 or not 0 < cell.size <= _MAX_NAME:
        raise FormatError(f"{path}: a cell among the ids is no text of at most {_MAX_NAME} characters")
    codes: list[int] = _whole(_own_bytes(cell, path), path).ravel().tolist()
    return b"".join(code.to_bytes(2, "little") for code in codes).decode("utf-16-le")
