"""Matrices in HDF5 files that are no dumps, and in MATLAB files of version 7.3; neither is trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from features_store.errors import FormatError, UnsafeFileError, unknown_name
from features_store.matrix import MAX_RATIO, Matrix, only_one
from features_store.schema import FORMAT

_LOSSLESS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_MAX_NAME = 4096  # characters of one id in a MATLAB cell


@contextmanager
def hdf5(path: Path, key: str | None, ids_key: str | None, scratch: Path) -> Iterator[Matrix]:
    """Open a dataset of an HDF5 file."""
    with h5py.File(path, "r", locking=False) as file:
        if key is None and file.attrs.get("format") in (FORMAT, FORMAT.encode()):
            msg = f"{path} is a dump; bring it together with others by `features-store merge` (--join aligns by id)"
            raise FormatError(msg)
        chosen = key or only_one([name for name in file if name != ids_key], path)
        dataset = _dataset(file, chosen, path)
        ids = None
        if ids_key is not None:
            raw = _dataset(file, ids_key, path)
            if h5py.check_string_dtype(raw.dtype) is None or raw.ndim != 1:
                msg = f"{path}: {ids_key!r} is {raw.dtype} of shape {raw.shape}; ids must be one row of text"
                raise FormatError(msg)
            ids = raw.asstr()[:].tolist()
        yield Matrix(dataset.shape, dataset.dtype, lambda start, stop: dataset[start:stop], ids)


@contextmanager
def mat(path: Path, key: str | None, ids_key: str | None, scratch: Path) -> Iterator[Matrix]:
    """Open a variable of a MATLAB file of version 7.3."""
    if not h5py.is_hdf5(path):
        msg = f"{path} is no MATLAB file of version 7.3; save it again with save(..., '-v7.3')"
        raise FormatError(msg)
    with h5py.File(path, "r", locking=False) as file:
        chosen = key or only_one([name for name in file if name not in (ids_key, "#refs#", "#subsystem#")], path)
        dataset = _dataset(file, chosen, path)
        ids = None if ids_key is None else _cells(file, _dataset(file, ids_key, path), path)
        # MATLAB counts columns first, so its n x d matrix is stored as d x n.
        yield Matrix(dataset.shape[::-1], dataset.dtype, lambda start, stop: dataset[..., start:stop].T, ids)


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Open a dataset after looking at each link on the way, and at where its bytes are."""
    where: Any = file
    for part in name.strip("/").split("/"):
        if not isinstance(where, h5py.Group) or part not in where:
            listed = list(where)[:20] if isinstance(where, h5py.Group) else []
            raise FormatError(f"{path}: " + unknown_name("dataset", name, listed))
        if not isinstance(where.get(part, getlink=True), h5py.HardLink):
            msg = f"{path} was refused: {name!r} leads over a soft or external link"
            raise UnsafeFileError(msg)
        where = where[part]
    if not isinstance(where, h5py.Dataset):
        msg = f"{path}: {name!r} is a group; give the path of a dataset, one of: {', '.join(list(where)[:20])}"
        raise FormatError(msg)
    return _own_bytes(where, path)


def _own_bytes(dataset: h5py.Dataset, path: Path) -> h5py.Dataset:
    plist = dataset.id.get_create_plist()
    codes = {plist.get_filter(number)[0] for number in range(plist.get_nfilters())}
    if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count() or codes - _LOSSLESS:
        msg = f"{path} was refused: {dataset.name!r} keeps its data in another file, or needs a filter plug-in"
        raise UnsafeFileError(msg)
    if dataset.size * dataset.dtype.itemsize > MAX_RATIO * path.stat().st_size:
        msg = f"{path} was refused: {dataset.name!r} claims {dataset.size} values, far more than the file can hold"
        raise UnsafeFileError(msg)
    return dataset


def _cells(file: h5py.File, dataset: h5py.Dataset, path: Path) -> list[str]:
    """Read ids from a MATLAB cell array of text, or from a matrix of characters with one id in each row."""
    if dataset.dtype == np.uint16 and dataset.ndim == 2:
        return ["".join(map(chr, column)).rstrip() for column in dataset[()].T.tolist()]
    if h5py.check_ref_dtype(dataset.dtype) is not h5py.Reference:
        msg = f"{path}: {dataset.name!r} is {dataset.dtype}; ids must be a cell array of text, or a character matrix"
        raise FormatError(msg)
    return [_cell(file, reference, path) for reference in dataset[()].ravel()]


def _cell(file: h5py.File, reference: h5py.Reference, path: Path) -> str:
    cell = file[reference] if reference else None
    if not isinstance(cell, h5py.Dataset) or cell.dtype != np.uint16 or cell.size > _MAX_NAME:
        msg = f"{path}: a cell among the ids is no text of at most {_MAX_NAME} characters"
        raise FormatError(msg)
    codes: list[int] = _own_bytes(cell, path)[()].ravel().tolist()
    return b"".join(code.to_bytes(2, "little") for code in codes).decode("utf-16-le")
