"""Matrices in files of other formats, as arrays that stay on the disk: .npy, .npz, .csv, .mat (version 7.3), .h5.

These files are not trusted: nothing is unpickled, no link is followed out of an HDF5 file, no foreign filter is loaded.
"""

from __future__ import annotations

import csv
import errno
import math
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import h5py
import numpy as np
from numpy.typing import NDArray

from features_store import chunked
from features_store.atomic import open_regular, typed_path, zip_source
from features_store.errors import AffectoryError, FormatError, MismatchError, UnsafeFileError, first_line, unknown_name
from features_store.hdf5 import check_storage, opened
from features_store.passport import json_object
from features_store.schema import FORMAT, Status, repeated_name

MAX_RATIO = 1000  # bytes of an array over bytes of its file; honest compression stays far below
_TEXT_BYTES = 16 * 2**20
_MAX_LINE = 16 * 2**20  # characters; a million numbers
_MAX_NAME = 4096  # characters of one id in a MATLAB cell


@dataclass(frozen=True)
class Matrix:
    """Vectors in a file of another format, with what else the file holds."""

    shape: tuple[int, ...]  # (n_rows, *shape of one vector)
    dtype: np.dtype[Any]
    take: Callable[[int, int], NDArray[Any]]  # rows from start to just before stop
    ids: list[str] | None = None
    names: tuple[str, ...] | None = None  # what each value means
    passport: dict[str, Any] | None = None
    status: NDArray[np.uint8] | None = field(default=None, repr=False)  # (n_rows,), which rows failed


@contextmanager
def open_matrix(
    path: Path, *, key: str | None = None, ids_key: str | None = None, scratch: Path | None = None
) -> Iterator[Matrix]:
    """Open a matrix by the ending of its file's name."""
    openers = {".npy": _npy, ".npz": _npz, ".csv": _csv, ".mat": _mat, ".h5": _hdf5, ".hdf5": _hdf5}
    if path.suffix.lower() not in openers:
        raise FormatError(f"{path} cannot be imported: its name ends in {path.suffix!r}; valid: {', '.join(openers)}")
    path = typed_path(path)
    try:
        open_regular(path, links=True).close()  # a pipe or a device is refused before a library waits for it
    except FileNotFoundError as error:
        raise FormatError(f"{path} is not there; give the path of a matrix ({', '.join(openers)})") from error
    with ExitStack() as stack:
        with _readable(path):
            matrix = stack.enter_context(openers[path.suffix.lower()](path, key, ids_key, scratch or path.parent))
        if len(matrix.shape) < 2 or min(matrix.shape) < 1 or matrix.dtype.char not in chunked.NUMBERS:
            raise FormatError(
                f"{path} holds {matrix.dtype} of shape {matrix.shape}; expected numbers of shape (n_rows, n_values)"
            )

        def take(start: int, stop: int) -> NDArray[Any]:
            with _readable(path):
                return matrix.take(start, stop)

        yield replace(matrix, take=take)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn damage in a foreign file into a `FormatError` that names it."""
    try:
        yield
    except AffectoryError:
        raise
    except (OSError, RuntimeError, KeyError, EOFError, ValueError, csv.Error, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        what = first_line(error)
        raise FormatError(f"{path} cannot be read, it is damaged or another kind of file ({what})") from error


# ---- numpy ----------------------------------------------------------------------------------------------------------


def _load(path: Path, what: object = None) -> NDArray[Any]:
    """Open an array; `what` is its name in errors, where the file is a temporary one."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError as error:
        raise UnsafeFileError(
            f"{what or path} is no array of plain numbers or text ({first_line(error)}); nothing is unpickled"
        ) from error


def _of_array(array: NDArray[Any], **rest: Any) -> Matrix:
    return Matrix(array.shape, array.dtype, lambda start, stop: array[start:stop], **rest)


@contextmanager
def _npy(path: Path, key: str | None, ids_key: str | None, scratch: Path) -> Iterator[Matrix]:
    yield _of_array(_load(path))


@contextmanager
def _npz(path: Path, key: str | None, ids_key: str | None, scratch: Path) -> Iterator[Matrix]:
    with path.open("rb") as file, zipfile.ZipFile(zip_source(file)) as archive:
        members = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if (twice := repeated_name(members)) is not None:
            raise FormatError(f"{path} holds two arrays of the name {twice!r}; one would be taken for the other")

        def array(name: str) -> NDArray[Any]:
            unpacked = scratch / f"{members.index(name)}.npy"
            if archive.getinfo(f"{name}.npy").file_size > MAX_RATIO * path.stat().st_size:
                raise UnsafeFileError(
                    f"{path} was refused: {name!r} unpacks to more than {MAX_RATIO} times the size of the file"
                )
            with archive.open(f"{name}.npy") as source, unpacked.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
            return _load(unpacked, f"{path}: {name!r}")

        ours = [name.removesuffix("/vectors").removeprefix("blocks/") for name in members if name.endswith("/vectors")]
        if key in ours or (key is None and len(ours) == 1):
            block = f"blocks/{key or ours[0]}"
            yield _of_array(
                array(f"{block}/vectors"),
                ids=_texts(array("images/id")),
                names=tuple(_texts(array(f"{block}/names"))) if f"{block}/names" in members else None,
                passport=json_object(str(array(f"{block}/passport")), f"{path}: {block}/passport"),
                status=np.array(array(f"{block}/status")),
            )
            return
        ids_name = ids_key or ("ids" if "ids" in members else None)
        chosen = key or _only_one([name for name in members if name != ids_name], path)
        for name in (chosen, ids_name):
            if name is not None and name not in members:
                raise FormatError(f"{path}: " + unknown_name("array", name, members))
        yield _of_array(array(chosen), ids=_texts(array(ids_name)) if ids_name else None)


def _texts(array: NDArray[Any]) -> list[str]:
    """Return ids from an array of text or of UTF-8 bytes."""
    if array.dtype.char not in "SU" or array.ndim != 1:
        raise FormatError(f"ids must be one row of text; got {array.dtype} of shape {array.shape}")
    return [one.decode() if isinstance(one, bytes) else one for one in array.tolist()]


# ---- csv ------------------------------------------------------------------------------------------------------------


@contextmanager
def _csv(path: Path, key: str | None, ids_key: str | None, scratch: Path) -> Iterator[Matrix]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(_lines(file, path), strict=True)
        header = next(rows, [])
        named = header[:1] == [""] or ids_key in header  # as pandas titles its index, and numbers its columns
        titled = len(header) > 1 and (named or not all(_is_number(cell) for cell in header[1:]))
        id_column, columns = _columns(header if titled else [str(n) for n in range(len(header))], key, ids_key, path)
        if not titled:
            file.seek(0)
        ids: list[str] = []
        empty: list[bool] = []
        with (scratch / "numbers").open("wb") as numbers:
            for line, row in _numbered_rows(rows, path, titled=titled):
                if len(row) != len(header):
                    raise FormatError(f"{path} line {line} has {len(row)} cells; expected {len(header)}")
                cells = [row[column] for column in columns]
                ids.append(row[id_column])
                empty.append(not any(cells))
                try:
                    numbers.write(_numbers(cells))
                except ValueError as error:
                    shown = str(error).replace("np.str_", "")[-60:]
                    raise FormatError(f"{path} line {line} holds something that is no number: {shown}") from error
    if not ids:
        raise FormatError(f"{path} holds no rows")
    array = np.memmap(scratch / "numbers", np.float64, "r", shape=(len(ids), len(columns)))
    names = _names([header[column] for column in columns], key) if titled else None
    plain = names == tuple(str(n) for n in range(len(columns)))
    status = np.where(empty, Status.MISSING, Status.WRITTEN).astype(np.uint8)
    yield _of_array(array, ids=ids, names=None if plain else names, status=status)


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield lines; one that is endless, as in a file of holes, must not fill the memory."""
    while line := file.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
            raise FormatError(f"{path} has a line of more than {_MAX_LINE:,} characters, so it is no table of numbers")
        yield line


def _numbered_rows(rows: Any, path: Path, *, titled: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with the line of the file on which it begins."""
    begins = 1 + titled
    try:
        for row in rows:
            if row:
                yield begins, row
            begins = rows.line_num + titled  # without titles the first line was read twice
    except csv.Error as error:
        raise FormatError(f"{path} cannot be read from line {begins} on: {error}; is a quote left open?") from error


def _columns(header: Sequence[str], key: str | None, ids_key: str | None, path: Path) -> tuple[int, list[int]]:
    if (twice := repeated_name(header)) is not None:
        raise FormatError(f"{path} has several columns of the name {twice[:80]!r}; each needs a name of its own")
    if ids_key is not None and ids_key not in header:
        raise FormatError(f"{path}: " + unknown_name("column", ids_key, header[:20]))
    id_column = header.index(ids_key) if ids_key is not None else 0
    columns = [
        n
        for n, name in enumerate(header)
        if n != id_column and (name.startswith(f"{key}:") if key else not name.startswith(("task:", "split:")))
    ]
    if not columns:
        raise FormatError(f"{path} has no columns of numbers{f' that begin with {key}:' if key else ''} beside its ids")
    return id_column, columns


def _names(titles: Sequence[str], key: str | None) -> tuple[str, ...]:
    """Return titles without the name of their block, ``BLOCK:NAME``, where all are of one block."""
    blocks = {title.partition(":")[:2] for title in titles}
    before = f"{key}:" if key else "".join(blocks.pop()) if len(blocks) == 1 and ":" in titles[0] else ""
    return tuple(title.removeprefix(before) for title in titles)


def _is_number(cell: str) -> bool:
    try:
        _numbers([cell])
    except ValueError:
        return False
    return True


def _numbers(cells: Sequence[str]) -> bytes:
    strange = next((cell for cell in cells if "_" in cell or not cell.isascii()), None)
    if strange is not None:  # Python reads 1_000, and the digits of other scripts
        raise ValueError(repr(strange))
    return np.array([cell or "nan" for cell in cells]).astype(np.float64).tobytes()


# ---- hdf5, MATLAB ----------------------------------------------------------------------------------------------------


@contextmanager
def _hdf5(path: Path, key: str | None, ids_key: str | None, scratch: Path) -> Iterator[Matrix]:
    """Open a dataset of an HDF5 file."""
    with opened(path) as file:
        if key is None and file.attrs.get("format") in (FORMAT, FORMAT.encode()):
            raise FormatError(
                f"{path} is a dump; bring it together with others by `features-store merge` (--join aligns by id)"
            )
        chosen = key or _only_one([name for name in file if name != ids_key], path)
        dataset = _dataset(file, chosen, path)
        ids = None if ids_key is None else _texts_of(_dataset(file, ids_key, path), dataset.shape[0], path)
        matrix = _unpacked(dataset, scratch, path, ids)
    yield matrix


@contextmanager
def _mat(path: Path, key: str | None, ids_key: str | None, scratch: Path) -> Iterator[Matrix]:
    """Open a variable of a MATLAB file of version 7.3."""
    if not h5py.is_hdf5(path):
        raise FormatError(f"{path} is no MATLAB file of version 7.3; save it again with save(..., '-v7.3')")
    with opened(path) as file:
        chosen = key or _only_one([name for name in file if name not in (ids_key, "#refs#", "#subsystem#")], path)
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
    if dtype.char not in chunked.NUMBERS or not dataset.id.get_type().equal(h5py.h5t.py_create(dtype)):
        raise FormatError(f"{path}: {dataset.name!r} holds {dtype}, or an unusual kind of it; expected plain numbers")
    if len(shape) < 2 or min(shape) < 1:
        raise FormatError(f"{path} holds {dtype} of shape {shape}; expected numbers of shape (n_rows, n_values)")
    place = scratch / "numbers"
    n_values = math.prod(shape[1:])
    row_bytes = n_values * dtype.itemsize
    with place.open("wb") as file:
        file.truncate(shape[0] * row_bytes)
        for corner, values in chunked.pieces(dataset):
            first = corner[::-1] if turned else corner
            _scatter(file, values.T if turned else values, first, shape)

    def take(start: int, stop: int) -> NDArray[Any]:
        rows = max(0, min(stop, shape[0]) - start)
        read = np.fromfile(place, dtype, rows * n_values, offset=start * row_bytes)
        return read.reshape(rows, *shape[1:])

    return Matrix(shape, dtype, take, ids)


def _scatter(file: BinaryIO, values: NDArray[Any], first: tuple[int, ...], shape: tuple[int, ...]) -> None:
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
    check_storage(where, path)
    return where


def _count(n: int, n_rows: int, path: Path) -> None:
    if n != n_rows:
        raise MismatchError(f"{path} has {n_rows} rows and there are {n} ids; each row needs one")


def _texts_of(dataset: h5py.Dataset, n_rows: int, path: Path) -> list[str]:
    """Read ids from one row of text, of fixed or of variable length."""
    text = h5py.check_string_dtype(dataset.dtype)
    if text is None or dataset.ndim != 1:
        raise FormatError(
            f"{path}: {dataset.name!r} is {dataset.dtype} of shape {dataset.shape}; ids must be one row of text"
        )
    _count(dataset.shape[0], n_rows, path)
    if text.length is not None:
        return [one.decode() for one in chunked.read(dataset).tolist()]
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
        return ["".join(map(chr, column)).rstrip() for column in chunked.read(dataset).T.tolist()]
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
    return [_cell(places.get(address), path) for address in chunked.read(dataset).ravel().tolist()]


def _cell(cell: h5py.Dataset | None, path: Path) -> str:
    if not isinstance(cell, h5py.Dataset) or cell.dtype != np.uint16 or not 0 < cell.size <= _MAX_NAME:
        raise FormatError(f"{path}: a cell among the ids is no text of at most {_MAX_NAME} characters")
    check_storage(cell, path)
    codes: list[int] = chunked.read(cell).ravel().tolist()
    return b"".join(code.to_bytes(2, "little") for code in codes).decode("utf-16-le")


def _only_one(names: Sequence[str], path: Path) -> str:
    """Return the name of the only array of a file, or ask for one."""
    if len(names) != 1:
        raise FormatError(
            f"{path} holds {len(names)} arrays ({', '.join(names)}); name one with --key, and the ids with --ids-key"
        )
    return names[0]
