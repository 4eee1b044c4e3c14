"""Matrices in files of other formats, as arrays that stay on the disk: .npy, .npz, .csv, .mat (version 7.3), .h5.

These files are not trusted: nothing is unpickled, no link is followed out of an HDF5 file, no foreign filter is loaded.
"""

from __future__ import annotations

import csv
import errno
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store.atomic import typed_path
from features_store.errors import AffectoryError, FormatError, UnsafeFileError, first_line, unknown_name
from features_store.hdf5 import json_object
from features_store.hdf5_matrices import hdf5, mat
from features_store.matrix import MAX_RATIO, Matrix, only_one
from features_store.schema import Status


@contextmanager
def open_matrix(
    path: Path, *, key: str | None = None, ids_key: str | None = None, scratch: Path | None = None
) -> Iterator[Matrix]:
    """Open a matrix by the ending of its file's name.

    Raises FormatError, UnsafeFileError.
    """
    openers = {".npy": _npy, ".npz": _npz, ".csv": _csv, ".mat": mat, ".h5": hdf5, ".hdf5": hdf5}
    if path.suffix.lower() not in openers:
        raise FormatError(f"{path} cannot be imported: its name ends in {path.suffix!r}; valid: {', '.join(openers)}")
    path = typed_path(path)
    if not path.is_file():
        raise FormatError(f"{path} is not there; give the path of a matrix ({', '.join(openers)})")
    with ExitStack() as stack:
        with _readable(path):
            matrix = stack.enter_context(openers[path.suffix.lower()](path, key, ids_key, scratch or path.parent))
        if len(matrix.shape) < 2 or min(matrix.shape) < 1 or matrix.dtype.kind not in "fiu":
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


def _load(path: Path) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError as error:
        raise UnsafeFileError(
            f"{path} is no array of plain numbers or text ({first_line(error)}); nothing is unpickled"
        ) from error


def _of_array(array: NDArray[Any], **rest: Any) -> Matrix:
    return Matrix(array.shape, array.dtype, lambda start, stop: array[start:stop], **rest)


@contextmanager
def _npy(path: Path, key: str | None, ids_key: str | None, scratch: Path) -> Iterator[Matrix]:
    yield _of_array(_load(path))


@contextmanager
def _npz(path: Path, key: str | None, ids_key: str | None, scratch: Path) -> Iterator[Matrix]:
    with zipfile.ZipFile(path) as archive:
        members = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]

        def array(name: str) -> NDArray[Any]:
            unpacked = scratch / f"{members.index(name)}.npy"
            if archive.getinfo(f"{name}.npy").file_size > MAX_RATIO * path.stat().st_size:
                raise UnsafeFileError(
                    f"{path} was refused: {name!r} unpacks to more than {MAX_RATIO} times the size of the file"
                )
            with archive.open(f"{name}.npy") as source, unpacked.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
            return _load(unpacked)

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
        chosen = key or only_one([name for name in members if name != ids_name], path)
        for name in (chosen, ids_name):
            if name is not None and name not in members:
                raise FormatError(f"{path}: " + unknown_name("array", name, members))
        yield _of_array(array(chosen), ids=_texts(array(ids_name)) if ids_name else None)


def _texts(array: NDArray[Any]) -> list[str]:
    """Return ids from an array of text or of UTF-8 bytes."""
    if array.dtype.kind not in "SU" or array.ndim != 1:
        raise FormatError(f"ids must be one row of text; got {array.dtype} of shape {array.shape}")
    return [one.decode() if isinstance(one, bytes) else one for one in array.tolist()]


# ---- csv ------------------------------------------------------------------------------------------------------------


@contextmanager
def _csv(path: Path, key: str | None, ids_key: str | None, scratch: Path) -> Iterator[Matrix]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        titled = len(header) > 1 and not all(_is_number(cell) for cell in header[1:])
        id_column, columns = _columns(header if titled else [str(n) for n in range(len(header))], key, ids_key, path)
        if not titled:
            file.seek(0)
        ids: list[str] = []
        empty: list[bool] = []
        with (scratch / "numbers").open("wb") as numbers:
            for line, row in enumerate(rows, start=1 + titled):
                if not row:
                    continue
                if len(row) != len(header):
                    raise FormatError(f"{path} line {line} has {len(row)} cells; expected {len(header)}")
                cells = [row[column] for column in columns]
                ids.append(row[id_column])
                empty.append(not any(cells))
                numbers.write(_numbers(cells, path, line))
    if not ids:
        raise FormatError(f"{path} holds no rows")
    array = np.memmap(scratch / "numbers", np.float32, "r", shape=(len(ids), len(columns)))
    names = tuple(header[column].rpartition(":")[2] for column in columns) if titled else None
    plain = names == tuple(str(n) for n in range(len(columns)))
    status = np.where(empty, Status.MISSING, Status.WRITTEN).astype(np.uint8)
    yield _of_array(array, ids=ids, names=None if plain else names, status=status)


def _columns(header: Sequence[str], key: str | None, ids_key: str | None, path: Path) -> tuple[int, list[int]]:
    twice = sorted({name for name in header if header.count(name) > 1}) if len(set(header)) < len(header) else []
    if twice:
        raise FormatError(f"{path} has several columns of the name {twice[0]!r}; each needs a name of its own")
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


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _numbers(cells: Sequence[str], path: Path, line: int) -> bytes:
    try:
        return np.array([cell or "nan" for cell in cells]).astype(np.float32).tobytes()
    except ValueError as error:
        raise FormatError(f"{path} line {line} holds something that is no number: {str(error)[-60:]}") from error
