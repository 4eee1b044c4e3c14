"""Tables of members: the headers of a tar, or the directory of a zip."""

from __future__ import annotations

import math
import re
import struct
import time
import zipfile
import zlib
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from extract.errors import CorpusError
from extract.inputs.archives import Members, SharedFile, refuse_packed
from extract.inputs.names import decoded, is_escaped, member_name, twins
from features_store.errors import first_line

_BLOCK = 512  # bytes: unit of a tar
_MAX_NAME = 1 << 20  # bytes of a long name or an extended header
_WIDE, _NARROW = 1 << 16, 1 << 11  # bytes read at once: wide where members are small and lie close to each other
_SHOWN = 1000  # members from one step of the bar to the next
_REGULAR = (b"0", b"\0", b"7")
_HARD_LINK, _FOLDER, _SPARSE = b"1", b"5", b"S"
_WITHOUT_BYTES = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders: their size is not that of any bytes
_LEFT_OUT = {
    b"2": "a symbolic link in the archive",
    b"3": "a device in the archive",
    b"4": "a device in the archive",
    b"6": "a named pipe in the archive",
    _SPARSE: "a file with holes in the archive (pack it without --sparse)",
}
_LEADS_OUT = "a name that leads out of the archive, or has a backslash"
_NO_TARGET = "a hard link whose file is not in the archive"
_FIELDS = struct.Struct("100s24x12s12s8sc100s6s82x155s12x")  # name, size, moment, checksum, kind, link, magic, prefix
_EXTRAS = (b"L", b"K", b"x", b"g")
_LENGTH = re.compile(rb"([0-9]{1,8}) ")
_DIGITS = re.compile(rb" *([0-7]*)[ ]*")

# name, kind, offset, size, modified, target of a hard link; a class costs 1 s in 6
_Header: TypeAlias = tuple[str, bytes, int, int, float, str]


def members_of(path: Path, file: SharedFile | None = None) -> Members:
    """Read the table of members of a tar or zip.

    Raises CorpusError.
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


class _Table:
    """The table of members while it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position: dict[str, int] = {}
        self.left_out: dict[str, int] = {}
        self.n_escaped = 0

    def leave_out(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def enter(self, raw: str, row: int) -> bool:
        """Enter a member by its canonical name; False = it is left out.

        Raises CorpusError.
        """
        name = member_name(raw)
        if name is None:
            self.leave_out(_LEADS_OUT)
            return False
        if self.position.get(name, row) != row:
            raise twins(self.path, name)
        self.position[name] = row
        self.n_escaped += is_escaped(raw)
        return True


def _members_of_tar(path: Path, file: SharedFile) -> Members:
    table = _Table(path)
    offsets, sizes, modified = array("q"), array("q"), array("d")
    for raw, kind, offset, size, moment, target in _headers(path, file):
        if kind in _REGULAR:
            if table.enter(raw, len(offsets)):
                offsets.append(offset)
                sizes.append(size)
                modified.append(moment)
        elif kind == _HARD_LINK:  # the target comes first, by the format
            row = table.position.get(member_name(target) or "", -1)
            if row >= 0:
                table.enter(raw, row)
            else:
                table.leave_out(_NO_TARGET)
        elif kind != _FOLDER:
            table.leave_out(_LEFT_OUT.get(kind, "a member of an unknown kind in the archive"))
    every = np.array(sizes, dtype=np.int64)
    places = np.array(offsets, dtype=np.int64)
    return Members(
        table.position,
        places,
        every,
        every,
        np.array(modified),
        left_out=table.left_out,
        n_escaped=table.n_escaped,
    )


def _headers(path: Path, file: SharedFile) -> Iterator[_Header]:
    """Walk over the members; long names (GNU) and extended headers (POSIX) are taken into the member they precede."""
    from tqdm import tqdm

    end, at = path.stat().st_size, 0
    window, window_at, step = b"", 0, 0
    n_seen = 0
    extra: Mapping[str, str] = {}  # what headers before the member say of it
    with tqdm(total=end, desc=f"members of {path.name}", unit="B", unit_scale=True, delay=2, disable=None) as bar:
        while at + _BLOCK <= end:
            if at + _BLOCK > window_at + len(window):
                window, window_at = file.read(at, _NARROW if step > _WIDE // 4 else _WIDE), at
            block = window[at - window_at : at - window_at + _BLOCK]
            if len(block) < _BLOCK or (not block[0] and not block.strip(b"\0")):
                return
            name, kind, offset, size, modified, target = _parse(path, block, at)
            if extra and kind not in _EXTRAS:
                name, size = extra.get("path", name), _long_size(path, at, extra.get("size"), size)
                target = extra.get("linkpath", target)
                kind = _SPARSE if kind in _REGULAR and any(key.startswith("GNU.sparse") for key in extra) else kind
            size = 0 if kind in _WITHOUT_BYTES else size
            if offset + size > end:
                raise CorpusError(_cut(path, name, offset + size, end))
            if kind in _EXTRAS:
                if kind != b"g":
                    extra = {**extra, **_extra(path, file, kind, offset, size)}
            else:
                yield name, kind, offset, size, modified, target
                extra = {}
            step = offset + -(-size // _BLOCK) * _BLOCK - at
            at += step
            n_seen += 1
            if not n_seen % _SHOWN:
                bar.update(at - bar.n)


def _cut(path: Path, name: str, wanted: int, end: int) -> str:
    name = name if len(name) <= 200 else f"{name[:200]}..."
    return f"{path} is cut: its member {name!r} would end at byte {wanted}, and the file at {end}; fetch it again"


def _damaged(path: Path, at: int, what: str) -> CorpusError:
    return CorpusError(f"{path} is damaged: {what} at byte {at}; fetch it again")


def _parse(path: Path, block: bytes, at: int) -> _Header:
    raw, size_field, moment_field, check_field, kind, link, magic, prefix = _FIELDS.unpack(block)
    if not _is_header(block, check_field):
        msg = f"{path} is damaged: at byte {at} there should be the header of a member; fetch it again"
        raise CorpusError(msg)
    raw = raw.partition(b"\0")[0]
    if magic == b"ustar\0" and prefix[0]:
        raw = prefix.partition(b"\0")[0] + b"/" + raw
    if kind == b"\0" and raw.endswith(b"/"):  # so folders were written before 1988
        kind = _FOLDER
    try:
        size = _number(size_field)
    except ValueError as error:
        msg = f"{path} is damaged: the header at byte {at} has no size; fetch it again"
        raise CorpusError(msg) from error
    try:
        modified = float(_number(moment_field))
    except ValueError:  # before 1970, or nonsense; no image depends on it
        modified = math.nan
    target = decoded(link.partition(b"\0")[0]) if kind == _HARD_LINK else ""
    return decoded(raw), kind, at + _BLOCK, size, modified, target


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
    digits = _DIGITS.fullmatch(field.partition(b"\0")[0])
    if digits is None:  # Python would read signs and underscores, too
        msg = "no octal number"
        raise ValueError(msg)
    return int(digits[1] or b"0", 8)


def _extra(path: Path, file: SharedFile, kind: bytes, offset: int, size: int) -> dict[str, str]:
    """Read a long name or link (GNU), or an extended header (POSIX)."""
    if size > _MAX_NAME:
        msg = f"{path} has a name of {size} bytes at byte {offset}; at most {_MAX_NAME} are read"
        raise CorpusError(msg)
    data = file.read(offset, size)
    if kind in (b"L", b"K"):
        return {"path" if kind == b"L" else "linkpath": decoded(data.split(b"\0", 1)[0])}
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at]:  # some writers fill it up with zeros
        length = _LENGTH.match(data, at)
        stop = at + int(length[1]) if length else 0
        key, equals, value = data[length.end() if length else 0 : max(stop - 1, 0)].partition(b"=")
        if not equals or stop > len(data) or data[stop - 1 : stop] != b"\n":
            raise _damaged(path, offset + at, "there is no record of an extended header")
        found[decoded(key)] = decoded(value)
        at = stop
    return found


def _long_size(path: Path, at: int, text: str | None, size: int) -> int:
    if text is None:
        return size
    if re.fullmatch("[0-9]{1,18}", text) is None:  # 18 digits are more bytes than any file has
        raise _damaged(path, at, f"the size of the member is {text[:40]!r}, which is no number of bytes,")
    return int(text)


def _members_of_zip(path: Path) -> Members:
    n_bytes = path.stat().st_size
    try:
        with path.open("rb") as raw, zipfile.ZipFile(raw) as archive:
            listed, end = archive.infolist(), archive.start_dir
    except Exception as error:  # damage meets the zipfile module with errors of many kinds
        msg = f"{path} is no whole zip ({first_line(error)}); fetch it again"
        raise CorpusError(msg) from error
    table = _Table(path)
    kept: list[zipfile.ZipInfo] = []
    for info in listed:
        if info.is_dir():
            continue
        if info.external_attr >> 28 == 0xA:  # the Unix type of a symbolic link
            table.leave_out("a symbolic link in the archive")
        elif info.flag_bits & 1:
            table.leave_out("an encrypted member of the archive")
        elif table.enter(info.filename, len(kept)):
            if not 0 <= info.file_size < 1 << 62 or not 0 <= info.header_offset <= n_bytes:
                what = f"its member {info.filename[:200]!r} has an impossible size or place"
                msg = f"{path} is damaged: {what}; fetch it again"
                raise CorpusError(msg)
            kept.append(info)
    _refuse_overlap(path, kept, end)
    return Members(
        table.position,
        np.array([info.header_offset for info in kept], dtype=np.int64),
        np.array([info.compress_size for info in kept], dtype=np.int64),
        np.array([info.file_size for info in kept], dtype=np.int64),
        np.array([_seconds(info.date_time) for info in kept], dtype=np.float64),
        np.array([info.compress_type if info.compress_type < 255 else 255 for info in kept], dtype=np.uint8),
        np.array([info.CRC for info in kept], dtype=np.uint32),
        table.left_out,
        table.n_escaped,
    )


def _refuse_overlap(path: Path, members: list[zipfile.ZipInfo], end: int) -> None:
    """Refuse members that share bytes, or reach into the directory: one of them would be read as the other."""
    in_order = sorted(members, key=lambda info: info.header_offset)
    starts = [*(info.header_offset for info in in_order[1:]), end]
    for info, following in zip(in_order, starts, strict=True):
        # The local header has 30 bytes and the name at least.
        if info.header_offset + 30 + len(info.orig_filename) + info.compress_size > following:
            msg = f"{path} is damaged: its member {info.filename[:200]!r} reaches into what follows it; fetch it again"
            raise CorpusError(msg)


def _seconds(moment: tuple[int, int, int, int, int, int]) -> float:
    try:
        return time.mktime((*moment, 0, 0, -1))
    except (ValueError, OverflowError):
        return float("nan")
