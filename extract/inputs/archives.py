"""Tar and zip archives read in place: a table of members is built once, then every file is read by its offset.

Nothing is unpacked, and nothing is written. Of a tar only the headers are read (512 bytes a member) by a reader of our
own: it takes less than a third of the time of `tarfile` and, unlike it, refuses damage in the middle, sizes that are no
numbers and names of any length. Of a zip the directory is read by `zipfile`. Several threads may read members.
"""

from __future__ import annotations

import math
import re
import struct
import time
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from extract.errors import CorpusError, RefusedImageError
from extract.inputs.files import MAX_BYTES, canonical, is_escaped, same_name
from extract.inputs.shared_file import SharedFile
from features_store import Status
from features_store.atomic import zip_source
from features_store.errors import first_line

MAX_TABLE = 1 << 30  # bytes of a list or table; a forged size must not fill the memory
MEMBER = np.dtype(
    [
        *(("offset", np.int64), ("packed", np.int64), ("size", np.int64), ("modified", np.float64)),
        *(("method", np.int16), ("checksum", np.uint32)),
    ]
)
"""Where the bytes of a member begin (of a zip: its local header), how many lie there, how many they are unpacked,
seconds since 1970 (NaN = not recorded); of a zip its method and CRC-32."""
PLAIN = -1  # method of a member that lies in the archive as it is

_STORED, _DEFLATED = 0, 8  # the zip methods that are read
_START = 1 << 10  # packed bytes that are enough to see how a member begins
_LOCAL_HEADER = 30  # bytes of a zip member's local header before its name
_PACKED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_BLOCK = 512  # bytes: unit of a tar
_MAX_NAME = 1 << 20  # bytes of a long name or an extended header
_MAX_PADDING = 64 << 20  # bytes behind the end of a tar that are looked over
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
# Name, size, moment, checksum, type flag, link, magic, prefix
_FIELDS = struct.Struct("100s24x12s12s8sc100s6s82x155s12x")
_EXTRAS = (b"L", b"K", b"x", b"g")
_LENGTH = re.compile(rb"([0-9]{1,8}) ")
_DIGITS = re.compile(rb" *([0-7]*)[ ]*")

# name, type flag, offset, size, modified, target of a hard link; a class costs 1 s in 6
_Header: TypeAlias = tuple[str, bytes, int, int, float, str]


# ---- reading members ------------------------------------------------------------------------------------------------


def read_member(file: SharedFile, member: Any, limit: int = MAX_BYTES) -> bytes:
    """Return the bytes of a member, a row of `MEMBER`."""
    size, largest = int(member["size"]), int(max(member["size"], member["packed"]))
    if largest > limit:
        raise RefusedImageError(Status.TOO_LARGE, f"{largest} bytes; at most {limit} are read")
    plain = member["method"] == PLAIN
    data = file.read(int(member["offset"]), size) if plain else _unzip(file, member)
    if len(data) != size:
        raise RefusedImageError(Status.TRUNCATED, f"{len(data)} of {size} bytes are there")
    if not plain and zlib.crc32(data) != member["checksum"]:
        raise RefusedImageError(Status.UNDECODABLE, "the checksum of the zip member is wrong")
    return data


def read_start(file: SharedFile, member: Any, size: int) -> bytes:
    """Return the first bytes of a member; none if it cannot be read."""
    try:
        if member["method"] == PLAIN:
            return file.read(int(member["offset"]), min(size, int(member["size"])))
        return _unzip(file, member, size)[:size]
    except (RefusedImageError, OSError):
        return b""


def _unzip(file: SharedFile, member: Any, limit: int = -1) -> bytes:
    """Unpack a zip member; with a limit only about as many bytes of it."""
    offset, packed, method = int(member["offset"]), int(member["packed"]), int(member["method"])
    header = file.read(offset, _LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise RefusedImageError(Status.UNDECODABLE, "the zip directory points to no member")
    start = _LOCAL_HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    raw = file.read(offset + start, packed if limit < 0 else min(packed, limit + _START))
    if method == _STORED:
        return raw
    if method != _DEFLATED:
        raise RefusedImageError(
            Status.UNDECODABLE, f"zip method {method} is not read; pack it anew with deflate, or unpack it"
        )
    try:
        # One byte more than promised shows a forged size without unpacking it all.
        return zlib.decompressobj(-15).decompress(raw, int(member["size"]) + 1 if limit < 0 else limit)
    except zlib.error as error:
        raise RefusedImageError(Status.UNDECODABLE, f"the zip member is damaged: {error}") from error


# ---- tables of members ----------------------------------------------------------------------------------------------


class MemberTable:
    """The files of an archive, or behind a URL: canonical name to row, and what is known of each row."""

    def __init__(self, place: Any) -> None:
        self.place = place
        self.position: dict[str, int] = {}  # a hard link has the row of its target
        self.members = np.zeros(0, MEMBER)
        self.left_out: Counter[str] = Counter()  # what can be no image (links, devices, names that lead out), by reason
        self.n_escaped = 0  # members whose names are not UTF-8
        self.names: list[str] = []  # by row, how a server spells the name of a remote file; empty = an archive

    def enter(self, raw: str, row: int, *, leads_out: str) -> bool:
        """Enter a member by its canonical name; False = its name leads out, and it is counted under that reason."""
        name = member_name(raw)
        if name is None:
            self.left_out[leads_out] += 1
            return False
        if self.position.get(name, row) != row:
            raise same_name(self.place, name)
        self.position[name] = row
        self.n_escaped += is_escaped(raw)
        return True

    def fill(self, **columns: Any) -> MemberTable:
        """Set the columns of `members`; those that are not given are zero."""
        self.members = np.zeros(len(columns["size"]), MEMBER)
        for name, values in columns.items():
            self.members[name] = values
        return self


def member_name(raw: str) -> str | None:
    """Return the canonical name of a member of an archive, or None if it could lead out of the archive."""
    if not raw or raw.startswith("/") or "\\" in raw or "\0" in raw or raw[1:2] == ":":
        return None
    if ".." in raw and ".." in raw.split("/"):
        return None
    return canonical(raw) or None


_LEADS_OUT = "a name that leads out of the archive, or has a backslash"


def read_table(path: Any, file: SharedFile) -> MemberTable:
    """Read the table of members of a tar or zip."""
    start = file.read(0, _BLOCK)
    for magic, tool in _PACKED.items():
        if start.startswith(magic):
            raise CorpusError(
                f"{path} is compressed as a whole, so no image in it can be read by itself; "
                f"decompress it once ({tool} --keep {path.name}) and give the .tar"
            )
    if start.startswith(b"PK"):
        return _zip_table(path)
    if len(start) < _BLOCK or not _is_header(start, start[148:156]):
        raise CorpusError(f"{path} is neither a tar nor a zip; give the folder of the corpus, or its .tar or .zip")
    return _tar_table(path, file)


def _tar_table(path: Path, file: SharedFile) -> MemberTable:
    table = MemberTable(path)
    offsets, sizes, modified = array("q"), array("q"), array("d")
    for raw, flag, offset, size, moment, target in _headers(path, file):
        if flag in _REGULAR:
            if table.enter(raw, len(offsets), leads_out=_LEADS_OUT):
                offsets.append(offset)
                sizes.append(size)
                modified.append(moment)
        elif flag == _HARD_LINK:  # the target comes first, by the format
            row = table.position.get(member_name(target) or "", -1)
            if row >= 0:
                table.enter(raw, row, leads_out=_LEADS_OUT)
            else:
                table.left_out["a hard link whose file is not in the archive"] += 1
        elif flag != _FOLDER:
            table.left_out[_LEFT_OUT.get(flag, "a member of an unknown kind in the archive")] += 1
    return table.fill(offset=offsets, packed=sizes, size=sizes, modified=modified, method=PLAIN)


def _headers(path: Path, file: SharedFile) -> Iterator[_Header]:
    """Walk over the members; long names (GNU) and extended headers (POSIX) are taken into the member they precede."""
    from tqdm import tqdm

    end, at = path.stat().st_size, 0
    window, window_at, step = b"", 0, 0
    n_seen = 0
    extra: Mapping[str, str] = {}  # of headers before the member
    with tqdm(total=end, desc=f"members of {path.name}", unit="B", unit_scale=True, delay=2, disable=None) as bar:
        while at + _BLOCK <= end:
            if at + _BLOCK > window_at + len(window):
                window, window_at = file.read(at, _NARROW if step > _WIDE // 4 else _WIDE), at
            block = window[at - window_at : at - window_at + _BLOCK]
            if len(block) == _BLOCK and not block.strip(b"\0"):
                _check_end(path, file, at)
                return
            if len(block) < _BLOCK:
                break
            name, flag, offset, size, modified, target = _parse(path, block, at)
            if extra and flag not in _EXTRAS:
                name, digits = extra.get("path", name), extra.get("size", str(size))
                if re.fullmatch("[0-9]{1,18}", digits) is None:  # 18 digits are more bytes than any file has
                    raise _damaged(path, at, f"the size of the member is {digits[:40]!r}, which is no number of bytes")
                size = int(digits)
                target = extra.get("linkpath", target)
                flag = _SPARSE if flag in _REGULAR and any(key.startswith("GNU.sparse") for key in extra) else flag
            size = 0 if flag in _WITHOUT_BYTES else size
            if offset + size > end:
                name = name if len(name) <= 200 else f"{name[:200]}..."
                raise CorpusError(
                    f"{path} is cut: its member {name!r} would end at byte {offset + size}, and the file at {end}; "
                    "fetch it again"
                )
            if flag in _EXTRAS:
                if flag != b"g":
                    extra = {**extra, **_extra(path, file, flag, offset, size)}
            else:
                yield name, flag, offset, size, modified, target
                extra = {}
            step = offset + -(-size // _BLOCK) * _BLOCK - at
            at += step
            n_seen += 1
            if not n_seen % _SHOWN:
                bar.update(at - bar.n)
    raise CorpusError(
        f"{path} is cut: it ends at byte {end} behind {n_seen} headers, without the block of zeros that ends a tar, so "
        "members may be missing; fetch it again"
    )


def _check_end(path: Path, file: SharedFile, at: int) -> None:
    """Refuse an archive with members behind its end, as where two were joined or zeros lie within one."""
    for begin in range(at, at + _MAX_PADDING, _MAX_NAME):
        piece = file.read(begin, _MAX_NAME)
        if not piece:
            return
        if not piece.strip(b"\0"):
            continue
        first = (len(piece) - len(piece.lstrip(b"\0"))) // _BLOCK * _BLOCK
        block = piece[first : first + _BLOCK]
        if len(block) == _BLOCK and _is_header(block, block[148:156]):
            raise CorpusError(
                f"{path} has an end at byte {at} and another member at byte {begin + first}: two archives were joined, "
                "or zeros lie within one; unpack it with `tar --ignore-zeros -xf`, or fetch it again"
            )
        return


def _damaged(path: Path, at: int, what: str) -> CorpusError:
    return CorpusError(f"{path} is damaged: at byte {at} {what}; fetch it again")


def _parse(path: Path, block: bytes, at: int) -> _Header:
    raw, size_field, moment_field, check_field, flag, link, magic, prefix = _FIELDS.unpack(block)
    if not _is_header(block, check_field):
        raise _damaged(path, at, "there should be the header of a member")
    raw = raw.partition(b"\0")[0]
    if magic == b"ustar\0" and prefix[0]:
        raw = prefix.partition(b"\0")[0] + b"/" + raw
    if flag == b"\0" and raw.endswith(b"/"):  # so folders were written before 1988
        flag = _FOLDER
    try:
        size = _number(size_field)
    except ValueError as error:
        raise _damaged(path, at, "the header has no size") from error
    try:
        modified = float(_number(moment_field))
    except ValueError:  # before 1970, or nonsense; no image depends on it
        modified = math.nan
    target = _decoded(link.partition(b"\0")[0]) if flag == _HARD_LINK else ""
    return _decoded(raw), flag, at + _BLOCK, size, modified, target


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")  # `canonical` escapes what is not UTF-8


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
            raise ValueError("a negative or impossible number")
        return value
    digits = _DIGITS.fullmatch(field.partition(b"\0")[0])
    if digits is None:  # Python would read signs and underscores, too
        raise ValueError("no octal number")
    return int(digits[1] or b"0", 8)


def _extra(path: Path, file: SharedFile, flag: bytes, offset: int, size: int) -> dict[str, str]:
    """Read a long name or link (GNU), or an extended header (POSIX)."""
    if size > _MAX_NAME:
        raise CorpusError(f"{path} has a name of {size} bytes at byte {offset}; at most {_MAX_NAME} are read")
    data = file.read(offset, size)
    if flag in (b"L", b"K"):
        return {"path" if flag == b"L" else "linkpath": _decoded(data.split(b"\0", 1)[0])}
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at]:  # some writers fill it up with zeros
        length = _LENGTH.match(data, at)
        stop = at + int(length[1]) if length else 0
        key, equals, value = data[length.end() if length else 0 : max(stop - 1, 0)].partition(b"=")
        if not equals or stop > len(data) or data[stop - 1 : stop] != b"\n":
            raise _damaged(path, offset + at, "there is no record of an extended header")
        found[_decoded(key)] = _decoded(value)
        at = stop
    return found


def _zip_table(path: Path) -> MemberTable:
    n_bytes = path.stat().st_size
    try:
        with path.open("rb") as raw, zipfile.ZipFile(zip_source(raw)) as archive:
            listed, end = archive.infolist(), archive.start_dir
    except Exception as error:  # `zipfile` meets damage with errors of many kinds
        raise CorpusError(f"{path} is no whole zip ({first_line(error)}); fetch it again") from error
    table = MemberTable(path)
    kept: list[zipfile.ZipInfo] = []
    for info in listed:
        if info.is_dir():
            continue
        if info.external_attr >> 28 == 0xA:  # the Unix type of a symbolic link
            table.left_out["a symbolic link in the archive"] += 1
        elif info.flag_bits & 1:
            table.left_out["an encrypted member of the archive"] += 1
        elif table.enter(info.filename, len(kept), leads_out=_LEADS_OUT):
            if not 0 <= info.file_size < 1 << 62 or not 0 <= info.header_offset <= n_bytes:
                what = f"its member {info.filename[:200]!r} has an impossible size or place"
                raise CorpusError(f"{path} is damaged: {what}; fetch it again")
            kept.append(info)
    _refuse_overlap(path, kept, end)
    return table.fill(
        offset=[info.header_offset for info in kept],
        packed=[info.compress_size for info in kept],
        size=[info.file_size for info in kept],
        modified=[_seconds(info.date_time) for info in kept],
        method=[info.compress_type if 0 <= info.compress_type < 255 else 255 for info in kept],
        checksum=[info.CRC for info in kept],
    )


def _refuse_overlap(path: Path, members: list[zipfile.ZipInfo], end: int) -> None:
    """Refuse members that share bytes, or reach into the directory: one of them would be read as the other."""
    in_order = sorted(members, key=lambda info: info.header_offset)
    starts = [*(info.header_offset for info in in_order[1:]), end]
    for info, following in zip(in_order, starts, strict=True):
        # The local header has 30 bytes and the name at least.
        if info.header_offset + _LOCAL_HEADER + len(info.orig_filename) + info.compress_size > following:
            what = f"its member {info.filename[:200]!r} reaches into what follows it"
            raise CorpusError(f"{path} is damaged: {what}; fetch it again")


def _seconds(moment: tuple[int, int, int, int, int, int]) -> float:
    try:
        return time.mktime((*moment, 0, 0, -1))
    except (ValueError, OverflowError):
        return math.nan
