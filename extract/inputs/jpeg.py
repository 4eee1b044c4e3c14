"""Whether the data of a JPEG are whole, from its first scan to its end mark.

libjpeg fills missing data up with grey and skips surplus data, with a warning that neither Pillow nor torchvision hands
on. Here two checks of each scan (and of each part between restart markers that looks odd) replace the warning: a few
bytes before the end the decoder must still need data, and behind the end it must need none. Pillow's decoder shows both
while it decodes: given its bytes in pieces, it leaves those of a block that it cannot finish, and takes everything
where it only looks for the next marker.

`Structure` reads the markers, which costs next to nothing; `decode_checked` decodes with Pillow and checks.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import RefusedImageError
from features_store import Status

_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_NOT_RESTART = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ONES = b"\xff\x00"  # eight 1 bits: no code of any Huffman table, so they end no block by chance
_AHEAD = 20  # pairs: a decoder looks up to 16 bytes ahead
_STEPS = 8  # a decoder within a block takes everything at most in one of seven steps, for it fills 57 bits at once
_MAX_PARTS = 32  # between restart markers; where there are more, only those that look odd are checked
_ODD_RUN = b"\1" * 6  # words of 8 bytes
_HIGH_BITS = np.uint64(0x8080808080808080)
_NO_CONTROL = np.uint64(0x7878787878787878)  # brings bytes from 8 on to the high bit


class Structure:
    """The markers of a JPEG; one that lacks a scan, or has other restart markers than its picture needs, is refused."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size, self.frame = data, (0, 0), 0
        self.restart_interval = self.n_scans = 0
        self.components: dict[int, tuple[int, int]] = {}  # horizontal and vertical sampling, by id
        self.parts: list[tuple[int, int]] = []  # begin and end of coded data: scans, cut at restarts
        self._missing: dict[int, list[int]] = {}  # by component, bits of each coefficient still to come; -1 = all
        at = 2
        while True:
            found = _MARKER.search(self.data, at)
            if found is None:
                raise RefusedImageError(Status.TRUNCATED, "the end of the file is missing")
            code, at = self.data[found.start() + 1], found.end()
            if code == 0xD9:
                break
            if code == 0x01 or 0xD0 <= code <= 0xD8:
                continue
            end = at + int.from_bytes(self.data[at : at + 2], "big")
            if end > len(self.data):
                raise RefusedImageError(Status.TRUNCATED, "the file ends within a header")
            at = self._segment(code, self.data[at + 2 : end], end)
        if self.frame in _HUFFMAN_FRAMES and (not self.n_scans or any(map(any, self._missing.values()))):
            raise RefusedImageError(Status.TRUNCATED, "scans of the picture are missing")

    @property
    def checkable(self) -> bool:
        """Whether `decode_checked` knows the coding."""
        return self.frame in _HUFFMAN_FRAMES and bool(self.parts)

    @property
    def mcu(self) -> tuple[int, int]:
        """Width and height of the smallest coded unit, pixels."""
        if len(self.components) == 1:
            return 8, 8
        return 8 * max(h for h, _ in self.components.values()), 8 * max(v for _, v in self.components.values())

    def _segment(self, code: int, body: bytes, end: int) -> int:
        if code in _FRAMES and not self.frame:
            self.frame = code
            self.size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
            for at in range(6, len(body) - 2, 3):
                self.components[body[at]] = (body[at + 1] >> 4 or 1, body[at + 1] & 15 or 1)
                self._missing[body[at]] = [-1] * 64
        elif code == 0xDD:
            self.restart_interval = int.from_bytes(body[:2], "big")
        elif code == 0xDA:
            return self._scan(body, end)
        return end

    def _scan(self, header: bytes, begin: int) -> int:
        pattern = _NOT_RESTART if self.restart_interval else _MARKER
        found = pattern.search(self.data, begin)
        if found is None:
            raise RefusedImageError(Status.TRUNCATED, "the end of the file is missing")
        end = found.start()
        names = header[1 : 1 + 2 * header[0] : 2] if header else b""
        first, last, low = (*header[-3:-1], header[-1] & 15) if len(header) >= 6 else (0, 63, 0)
        if self.frame != 0xC2:
            first, last, low = 0, 63, 0
        for name in set(names):
            if name in self._missing and last < 64:
                self._missing[name][first : last + 1] = [low] * (last + 1 - first)
        self.n_scans += 1
        self.parts += self._cut(begin, end, names) if self.restart_interval else [(begin, end)]
        return end

    def _cut(self, begin: int, end: int, names: bytes) -> list[tuple[int, int]]:
        marks = [found.start() for found in _RESTART.finditer(self.data, begin, end)]
        codes = [self.data[at + 1] & 7 for at in marks]
        wanted = (self._n_units(names) - 1) // self.restart_interval
        if codes != [at % 8 for at in range(wanted)] and codes != [at % 8 for at in range(wanted + 1)]:
            reason = f"{len(marks)} restart markers, and {wanted} in their order are needed"
            raise RefusedImageError(Status.TRUNCATED, reason)
        return list(zip([begin, *(at + 2 for at in marks)], [*marks, end], strict=True))

    def _n_units(self, names: bytes) -> int:
        """Count the coded units of a scan; a scan of one component has its own blocks as units."""
        across, down = (max(sampling) for sampling in zip(*self.components.values(), strict=True))
        unit = (8 * across, 8 * down)
        size = self.size
        if len(names) == 1 and names[0] in self.components:
            h, v = self.components[names[0]]
            unit, size = (8, 8), (math.ceil(size[0] * h / across), math.ceil(size[1] * v / down))
        return math.ceil(size[0] / unit[0]) * math.ceil(size[1] / unit[1])

    def looks_odd(self, begin: int, end: int) -> bool:
        """Tell whether coded data hold what no coder writes of a photograph: 48 bytes of text, or of one value."""
        words = np.frombuffer(self.data, "<u8", (end - begin) // 8, begin)
        text = ((words & _HIGH_BITS) == 0) & (((words + _NO_CONTROL) & _HIGH_BITS) == _HIGH_BITS)
        same = words == (words & 0xFF) * np.uint64(0x0101010101010101)
        return _ODD_RUN in text.tobytes() or _ODD_RUN in same.tobytes()

    def may_end_early(self, pixels: NDArray[np.uint8]) -> bool:
        """Tell whether the last block of a decoded picture could be the grey that stands for missing data.

        Its last pixel is 128 in all colours, unless it mixes with those of the block before: then only in brightness.
        """
        last = pixels[-1, -1].astype(np.int64)
        if np.abs(last - 128).max() <= 1:
            return True
        edge = any((length - 1) % unit < 2 for length, unit in zip(self.size, self.mcu, strict=True))
        return edge and abs(int(last @ (299, 587, 114)) - 128_000) <= 3000

    def checked_parts(self) -> list[tuple[int, int]]:
        """Return the parts whose ends are checked."""
        if len(self.parts) <= _MAX_PARTS:
            return self.parts
        return [one for at, one in enumerate(self.parts, 1) if at == len(self.parts) or self.looks_odd(*one)]


class _Feeder:
    """Pillow's decoder, given its bytes piece by piece."""

    def __init__(self, image: Any) -> None:
        from PIL import Image

        image.load_prepare()
        _, extents, _, arguments = image.tile[0]
        image.tile = []
        self._decoder = Image._getdecoder(image.mode, "jpeg", arguments, image.decoderconfig)
        self._decoder.setimage(image.im, extents)
        self._left = b""
        self.ended = False

    def feed(self, more: bytes) -> bool:
        """Decode as far as the bytes go; tell whether all were taken."""
        if self.ended:
            return True
        given = self._left + more
        taken, error = self._decoder.decode(given)
        if taken < 0:
            if error < 0:
                words = f"the decoder ends with error {error}"
                raise MemoryError(words) if error == -9 else RefusedImageError(Status.UNDECODABLE, words)
            self.ended = True
            return True
        self._left = given[taken:]
        return not self._left


def decode_checked(image: Any, structure: Structure) -> None:
    """Decode an open JPEG of Pillow into itself, and check that each of its scans is whole."""
    data, feeder, at = structure.data, _Feeder(image), 0
    for begin, last in structure.checked_parts():
        end = begin + len(data[begin:last].rstrip(b"\xff"))  # fill bytes may stand before a marker
        pieces = _pieces(data[max(begin, end - 2 * _STEPS) : end])[-_STEPS:]
        tail = end - sum(map(len, pieces))
        feeder.feed(data[at:tail])
        at = end
        taken = [feeder.feed(piece) for piece in pieces]
        if len(taken) == _STEPS and all(taken) and tail > begin:
            raise RefusedImageError(Status.TRUNCATED, "the picture is damaged: it has more data than pixels")
        feeder.feed(_ONES * _AHEAD)
        if not all([feeder.feed(_ONES) for _ in range(_STEPS)]):
            raise RefusedImageError(Status.TRUNCATED, "the picture ends early: data of its pixels are missing")
    feeder.feed(data[at:] + b"\xff\xd9")
    if not feeder.ended:
        raise RefusedImageError(Status.TRUNCATED, "the picture ends early")


def _pieces(tail: bytes) -> list[bytes]:
    """Cut bytes into single ones; one that follows 0xFF stays with it."""
    return [found.group() for found in re.finditer(rb"\xff+.?|[^\xff]", tail, re.DOTALL)]
