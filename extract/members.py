"""Tables of members: the headers of a tar, or the directory of a zip."""

from __future__ import annotations

import math
import struct
import time
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from extract.archives import Members, SharedFile, refuse_packed, safe_name
from extract.errors import CorpusError

_BLOCK = 512  # bytes: unit of a tar
_MAX_NAME = 1 << 20  # bytes of a long name or an extended header
_WIDE, _NARROW = 1 << 16, 1 << 11  # bytes read at once: wide where members are small and lie close to each other
_SHOWN = 1000  # members from one step of the bar to the next
_REGULAR = (b"0", b"\0", b"7")
_FIELDS = struct.Struct("100s24x12s12s8sc100x6s82x155s12x")  # name, size, moment, checksum, kind, magic, prefix

_Header: TypeAlias = tuple[str, bytes, int, int, float]  # name, kind, offset, size, modified; a class costs 1 s in 6


def members_of(path: Path, file: SharedFile | None = None) -> Members:
    """Read the table of members of a tar or zip.

    Parameters
    ----------
    path : Path
    file : SharedFile, optional
        How it is read; None = as a file on a disk.

    Raises
    ------
    CorpusError
        If it is neither, is compressed as a whole, or ends too early.
    """
    file = file or SharedFile(path)
    start = file.read(0, _BLOCK)
    refuse_packed(path, start)
    if start.startswith(b"PK"):
        return _members_of_zip(path)
    if len(start) < _BLOCK or not _is_header(start, start[148:156]):
        msg = f"{path} is neither a tar nor a zip; give the folder of the corpus, or its .tar or .zip"
        raise CorpusError(msg)
    return _members_of_tar(path, file)


def _members_of_tar(path: Path, file: SharedFile) -> Members:
    position: dict[str, int] = {}
    offsets, sizes, modified, n_refused = array("q"), array("q"), array("d"), 0
    for raw, kind, offset, size, moment in _headers(path, file):
        if kind == b"5":  # a folder
            continue
        name = safe_name(raw)
        if kind not in _REGULAR or name is None:
            n_refused += 1
            continue
        position[name] = len(offsets)
        offsets.append(offset)
        sizes.append(size)
        modified.append(moment)
    every = np.array(sizes, dtype=np.int64)
    return Members(position, np.array(offsets, dtype=np.int64), every, every, np.array(modified), None, n_refused)


def _headers(path: Path, file: SharedFile) -> Iterator[_Header]:
    """Walk over the members; long names (GNU) and extended headers (POSIX) are taken into the member they precede."""
    from tqdm import tqdm

    end, at = path.stat().st_size, 0
    window, window_at, step = b"", 0, 0
    n_seen = 0
    long_name, long_size = "", -1  # what a header before the member says of it
    with tqdm(total=end, desc=f"members of {path.name}", unit="B", unit_scale=True, delay=2, disable=None) as bar:
        while at + _BLOCK <= end:
            if at + _BLOCK > window_at + len(window):
                window, window_at = file.read(at, _NARROW if step > _WIDE // 4 else _WIDE), at
            block = window[at - window_at : at - window_at + _BLOCK]
            if len(block) < _BLOCK or (not block[0] and not block.strip(b"\0")):
                return
            name, kind, offset, size, modified = _parse(path, block, at)
            if long_size >= 0:
                size = long_size
            if offset + size > end:
                raise CorpusError(_cut(path, long_name or name, offset + size, end))
            if kind in (b"L", b"x"):
                extra = _extra(path, file, kind, offset, size)
                long_name, long_size = extra.get("path", long_name), int(extra.get("size", long_size))
            elif kind not in (b"K", b"g"):
                yield long_name or name, kind, offset, size, modified
                long_name, long_size = "", -1
            step = offset + -(-size // _BLOCK) * _BLOCK - at
            at += step
            n_seen += 1
            if not n_seen % _SHOWN:
                bar.update(at - bar.n)


def _cut(path: Path, name: str, wanted: int, end: int) -> str:
    return f"{path} is cut: its member {name!r} would end at byte {wanted}, and the file at {end}; fetch it again"


def _parse(path: Path, block: bytes, at: int) -> _Header:
    name, size_field, moment_field, check_field, kind, magic, prefix = _FIELDS.unpack(block)
    if not _is_header(block, check_field):
        msg = f"{path} is damaged: at byte {at} there should be the header of a member; fetch it again"
        raise CorpusError(msg)
    name = name.partition(b"\0")[0]
    if magic == b"ustar\0" and prefix[0]:
        name = prefix.partition(b"\0")[0] + b"/" + name
    try:
        size = _number(size_field)
    except ValueError as error:
        msg = f"{path} is damaged: the header at byte {at} has no size; fetch it again"
        raise CorpusError(msg) from error
    try:
        modified = float(_number(moment_field))
    except ValueError:  # before 1970, or nonsense; no image depends on it
        modified = math.nan
    return name.decode("utf-8", "replace"), kind, at + _BLOCK, size, modified


def _is_header(block: bytes, check_field: bytes) -> bool:
    """Tell whether the checksum of a header, the sum of its bytes, is right; its own eight count as blanks."""
    try:
        written = int(check_field.strip(b" \0") or b"-1", 8)
    except ValueError:
        return False
    # The low half of Adler-32 is 1 + the sum of the bytes, modulo 65,521: far quicker than adding them here.
    return zlib.adler32(block) & 0xFFFF == (1 + written - 8 * 32 + sum(check_field)) % 65_521


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base 256, for sizes from 8 GiB
        value = int.from_bytes(field[1:], "big") | (field[0] & 0x3F) << 88
        if field[0] & 0x40 or value > 1 << 62:
            msg = "a negative or impossible number"
            raise ValueError(msg)
        return value
    return int(field.strip(b" \0") or b"0", 8)


def _extra(path: Path, file: SharedFile, kind: bytes, offset: int, size: int) -> dict[str, str]:
    if size > _MAX_NAME:
        msg = f"{path} has a name of {size} bytes at byte {offset}; at most {_MAX_NAME} are read"
        raise CorpusError(msg)
    data = file.read(offset, size)
    if kind == b"L":
        return {"path": data.split(b"\0", 1)[0].decode("utf-8", "replace")}
    found: dict[str, str] = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(data):
            break
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        data = data[int(length) :]
    if not found.get("size", "0").isdecimal():
        del found["size"]
    return found


def _members_of_zip(path: Path) -> Members:
    try:
        with path.open("rb") as raw, zipfile.ZipFile(raw) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        msg = f"{path} is no whole zip ({error}); fetch it again"
        raise CorpusError(msg) from error
    position: dict[str, int] = {}
    kept: list[zipfile.ZipInfo] = []
    for info in listed:
        name = safe_name(info.filename)
        link = info.external_attr >> 28 == 0xA  # the Unix type of a symbolic link
        if name is None or link or info.flag_bits & 1:  # bit 0: encrypted
            continue
        if not info.is_dir():
            position[name] = len(kept)
            kept.append(info)
    n_folders = sum(info.is_dir() for info in listed)
    return Members(
        position,
        np.array([info.header_offset for info in kept], dtype=np.int64),
        np.array([info.compress_size for info in kept], dtype=np.int64),
        np.array([info.file_size for info in kept], dtype=np.int64),
        np.array([_seconds(info.date_time) for info in kept], dtype=np.float64),
        np.array([info.compress_type if info.compress_type < 255 else 255 for info in kept], dtype=np.uint8),
        len(listed) - len(kept) - n_folders,
        np.array([info.CRC for info in kept], dtype=np.uint32),
    )


def _seconds(moment: tuple[int, int, int, int, int, int]) -> float:
    try:
        return time.mktime((*moment, 0, 0, -1))
    except (ValueError, OverflowError):
        return float("nan")
