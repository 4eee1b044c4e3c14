"""Tar and zip archives read in place: a table of members is built once, then every file is read by its offset.

Nothing is unpacked, and nothing is written. Of a tar only the headers are read (512 bytes a member); of a zip only the
directory at its end. Reading members is safe from several threads at once.
"""

from __future__ import annotations

import os
import threading
import weakref
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import CorpusError, RefusedImageError
from extract.inputs.files import MAX_BYTES, insist
from features_store import Status

MAX_MEMBER = 1 << 30  # bytes of a list or table; a forged size must not fill the memory
_START = 1 << 10  # packed bytes that are enough to see how a member begins
_LOCAL_HEADER = 30  # bytes of a zip member's local header before its name
STORED, DEFLATED = 0, 8  # the zip methods that are read
_PACKED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


class SharedFile:
    """One file, read at any offset by any number of threads; opened when it is first read, in each process anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._fd: int | None = None

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer at the end of the file."""
        fd = self._fd if self._fd is not None else self._open()
        data = self._read_once(fd, size, offset)
        while 0 < len(data) < size:  # the system may give less at once
            part = self._read_once(fd, size - len(data), offset + len(data))
            if not part:
                break
            data += part
        return data

    def _read_at(self, fd: int, size: int, offset: int) -> bytes:
        with self._lock:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.read(fd, size)

    _read_once = staticmethod(os.pread) if hasattr(os, "pread") else _read_at  # Windows has no pread

    def _open(self) -> int:
        if self._fd is None:
            with self._lock:
                if self._fd is None:
                    fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
                    weakref.finalize(self, os.close, fd)
                    self._fd = fd
        return self._fd

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]


@dataclass(frozen=True)
class Members:
    """The table of an archive's files.

    Parameters
    ----------
    position : dict
        Canonical name to row of the arrays; a hard link has the row of its target.
    offsets, packed, sizes : ndarray of shape (n_members,), int64
        Where the bytes begin (of a zip: the local header), how many lie there, how many they are unpacked.
    modified : ndarray of shape (n_members,), float64
        Seconds since 1970; NaN = not recorded.
    methods : ndarray of shape (n_members,), uint8, optional
        Zip methods; None = a tar.
    checksums : ndarray of shape (n_members,), uint32, optional
        CRC-32 of the unpacked bytes; None = the archive has none.
    left_out : mapping of str to int
        Members that can be no image (links, devices, names that lead out of the archive), by reason.
    n_escaped : int
        Members whose names are not UTF-8.
    names : tuple of str, optional
        By row, how the server spells the name of a remote file. None = an archive.
    """

    position: dict[str, int]
    offsets: NDArray[np.int64]
    packed: NDArray[np.int64]
    sizes: NDArray[np.int64]
    modified: NDArray[np.float64]
    methods: NDArray[np.uint8] | None = None
    checksums: NDArray[np.uint32] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    n_escaped: int = 0
    names: tuple[str, ...] | None = None

    def place(self, row: int) -> Place:
        """Return where a member lies."""
        method = None if self.methods is None else int(self.methods[row])
        checksum = None if self.checksums is None else int(self.checksums[row])
        return Place(int(self.offsets[row]), int(self.packed[row]), int(self.sizes[row]), method, checksum)


class Stored:
    """Images inside an archive: the source of an index.

    Parameters
    ----------
    rows : ndarray of shape (n_images,), int64
        Row of each image in the table of members; -1 = it is not there.
    names : ndarray of shape (n_images,), str
        For messages.

    Attributes
    ----------
    left_out : mapping of str to int
        Members of the archive that can be no image, by reason.
    """

    def __init__(self, file: SharedFile, members: Members, rows: NDArray[np.int64], names: NDArray[Any]) -> None:
        self._file, self._names, self.left_out = file, names, members.left_out
        there = rows >= 0
        self._offsets, self._packed, self._sizes = (
            np.where(there, column[rows] if len(column) else -1, -1)
            for column in (members.offsets, members.packed, members.sizes)
        )
        self._modified = np.where(there, members.modified[rows] if len(members.modified) else np.nan, np.nan)
        self._methods, self._checksums = (
            None if column is None or not len(column) else column[rows]
            for column in (members.methods, members.checksums)
        )

    def __len__(self) -> int:
        return len(self._names)

    def read(self, row: int) -> bytes:
        """Return the bytes of the image in `row`; see `extract.inputs.files.ImageFiles.read`."""
        if self._offsets[row] < 0:
            raise RefusedImageError(Status.MISSING, f"{self._file.path.name} holds no {self._names[row]}")
        method = None if self._methods is None else int(self._methods[row])
        checksum = None if self._checksums is None else int(self._checksums[row])
        place = Place(int(self._offsets[row]), int(self._packed[row]), int(self._sizes[row]), method, checksum)
        # An error of the system is one of the whole archive, and says nothing about this member.
        data: bytes = insist(self._file.path, lambda: read_member(self._file, place, MAX_BYTES), of_the_file=False)
        return data

    def modified(self, row: int) -> float:
        """Return when the image in `row` was last changed: seconds since 1970, NaN = not recorded."""
        return float(self._modified[row])


@dataclass(frozen=True)
class Place:
    """Where one member lies; see `Members`."""

    offset: int
    packed: int
    size: int
    method: int | None = None
    checksum: int | None = None


def read_member(file: SharedFile, place: Place, limit: int = MAX_MEMBER) -> bytes:
    """Return the bytes of one member.

    Raises RefusedImageError.
    """
    if max(place.size, place.packed) > limit:
        raise RefusedImageError(Status.TOO_LARGE, f"{max(place.size, place.packed)} bytes; at most {limit} are read")
    data = file.read(place.offset, place.size) if place.method is None else _unzipped(file, place)
    if len(data) != place.size:
        raise RefusedImageError(Status.TRUNCATED, f"{len(data)} of {place.size} bytes are there")
    if place.checksum is not None and zlib.crc32(data) != place.checksum:
        raise RefusedImageError(Status.UNDECODABLE, "the checksum of the zip member is wrong")
    return data


def read_start(file: SharedFile, place: Place, size: int) -> bytes:
    """Return the first bytes of a member; none if it cannot be read."""
    try:
        if place.method is None:
            return file.read(place.offset, min(size, place.size))
        return _unzipped(file, place, size)[:size]
    except (RefusedImageError, OSError):
        return b""


def _unzipped(file: SharedFile, place: Place, limit: int = -1) -> bytes:
    """Unpack a zip member; with a limit only about as many bytes of it."""
    header = file.read(place.offset, _LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise RefusedImageError(Status.UNDECODABLE, "the zip directory points to no member")
    start = _LOCAL_HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    raw = file.read(place.offset + start, place.packed if limit < 0 else min(place.packed, limit + _START))
    if place.method == STORED:
        return raw
    if place.method != DEFLATED:
        reason = f"zip method {place.method} is not read; pack it anew with deflate, or unpack it"
        raise RefusedImageError(Status.UNDECODABLE, reason)
    try:
        # One byte more than promised shows a forged size without unpacking it all.
        return zlib.decompressobj(-15).decompress(raw, place.size + 1 if limit < 0 else limit)
    except zlib.error as error:
        raise RefusedImageError(Status.UNDECODABLE, f"the zip member is damaged: {error}") from error


def refuse_packed(path: Path, start: bytes) -> None:
    """Raise the error for a compressed tar: it has no offsets that could be read at.

    Raises CorpusError.
    """
    for magic, tool in _PACKED.items():
        if start.startswith(magic):
            msg = (
                f"{path} is compressed as a whole, so no image in it can be read by itself; "
                f"decompress it once ({tool} --keep {path.name}) and give the .tar"
            )
            raise CorpusError(msg)
