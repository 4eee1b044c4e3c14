"""From what a file declares of its samples to eight bits of red, green and blue.

Pillow's modes do not hold how many bits a sample has, whether it is signed, or whether zero is white. So that is read
from the file: a sample of n bits runs from 0 to 2^n - 1, and its eight highest bits are kept; where white is zero, the
picture is inverted; alpha and transparent colours are laid over white. A sample without a declared scale is refused.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import RefusedImageError
from extract.inputs.jpeg import Structure, decode_checked
from features_store import Status

_COMPRESSION, _OFFSETS, _COUNTS, _JPEG_TABLES = 259, (273, 324), (279, 325), 347  # of strips, of tiles
_DEFLATE, _JPEG = (8, 32946), 7
# Bilevel facsimiles and the first JPEG of TIFF: their decoders put white or grey for what is missing, and do not tell.
_UNCHECKED = (2, 3, 4, 6)
_BITS, _PHOTOMETRIC, _COLORMAP, _EXTRA, _FORMAT, _LOWEST, _HIGHEST = 258, 262, 320, 338, 339, 340, 341
_PLANES, _FILL_ORDER = 284, 266
_UNSIGNED, _SIGNED = 1, 2
_WHITE_IS_ZERO = 0
_NO_SCALE = "their scale is not declared; convert them to 8 or 16 bits without a sign"


def to_rgb(image: Any, data: bytes) -> NDArray[np.uint8]:
    """Return an open Pillow image, made from `data`, as (height, width, 3) values."""
    from PIL import Image

    if image.mode == "F":
        samples = "float samples"
        raise _no_scale(samples)
    if image.format == "TIFF":
        _check_coded(image, data)
        rgb = _from_tiff(image)
    elif image.format == "PNG":
        rgb = _from_png(image, png_bits(data))
    elif image.mode.startswith("I"):
        if image.format not in ("PPM", "JPEG2000"):  # of these Pillow itself brings the samples to 16 bits
            samples = f"samples of mode {image.mode}"
            raise _no_scale(samples)
        rgb = _grey(_high_bytes(np.asarray(image), 16))
    elif image.format == "JPEG2000":
        rgb = _from_jpeg_2000(image, jpeg_2000_bits(data))
    else:
        rgb = _over_white(image)
    return np.asarray(rgb) if isinstance(rgb, Image.Image) else rgb


def _from_tiff(image: Any) -> Any:
    tags = image.tag_v2
    bits, signs = _numbers(tags, _BITS, 1), _numbers(tags, _FORMAT, _UNSIGNED)
    declared, without_scale = _LOWEST in tags and _HIGHEST in tags, _SIGNED in signs or max(bits) > 16
    if without_scale or (declared and image.mode.startswith("I")):
        words = f"{'signed' if _SIGNED in signs else 'unsigned'} samples of {max(bits)} bits"
        if not declared or len(bits) > 1:
            raise _no_scale(words)
        values = np.asarray(image)
        if _SIGNED in signs and max(bits) == 8:
            values = values.view(np.int8)
        elif _SIGNED not in signs and max(bits) > 16:
            values = values.view(np.uint32)
        low, high = (float(_numbers(tags, tag, 0)[0]) for tag in (_LOWEST, _HIGHEST))
        if not low < high:
            raise _no_scale(words)
        scaled = (values.astype(np.float64) - low) * (256 / (high - low + 1))
        grey = np.clip(np.floor(scaled), 0, 255).astype(np.uint8)
    elif image.mode.startswith("I"):
        grey = _high_bytes(np.asarray(image), bits[0])
    else:
        return _over_white(_eight_bit_palette(image, tags))
    return _grey(255 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey)


def _check_coded(image: Any, data: bytes) -> None:
    """Check strips and tiles whose decoder does not: the checksum of deflate, the data of JPEG, planes.

    Raises RefusedImageError.
    """
    from PIL import Image

    tags, most = image.tag_v2, image.width * image.height * 64 + 2**16  # bytes, eight 64-bit channels
    coding = tags.get(_COMPRESSION, 1)
    if coding in _UNCHECKED:
        reason = f"TIFF compression {coding}: nothing tells whether its data are whole; save the picture in another one"
        raise RefusedImageError(Status.UNDECODABLE, reason)
    plain = set(_numbers(tags, _BITS, 1)) == {8} and tags.get(_PHOTOMETRIC) != _WHITE_IS_ZERO
    if tags.get(_PLANES) == 2 and coding == 1 and not (plain and tags.get(_FILL_ORDER, 1) == 1):
        reason = "a plane for each channel, not of 8 bits from black: Pillow reads it as that; save it without planes"
        raise RefusedImageError(Status.UNDECODABLE, reason)
    for piece in _pieces(tags, data) if coding in (*_DEFLATE, _JPEG) else ():
        if coding in _DEFLATE:
            unpacker = zlib.decompressobj()
            try:
                unpacked = unpacker.decompress(piece, most)
            except zlib.error as error:
                raise RefusedImageError(Status.UNDECODABLE, f"deflated data are damaged: {error}") from error
            if not unpacker.eof and len(unpacked) < most:
                raise RefusedImageError(Status.TRUNCATED, "deflated data end early")
            continue
        tables = tags.get(_JPEG_TABLES, b"")
        whole = tables[:-2] + piece[2:] if tables else piece
        structure = Structure(whole)
        with Image.open(io.BytesIO(whole), formats=["JPEG"]) as part:
            if structure.checkable:
                decode_checked(part, structure)


def _pieces(tags: Any, data: bytes) -> Iterator[bytes]:
    for offsets, counts in zip(_OFFSETS, _COUNTS, strict=True):
        for at, n in zip(_numbers(tags, offsets, ()), _numbers(tags, counts, ()), strict=False):
            yield data[at : at + n]


def _numbers(tags: Any, tag: int, default: Any) -> tuple[Any, ...]:
    value = tags.get(tag, default)
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _eight_bit_palette(image: Any, tags: Any) -> Any:
    """Return a palette image; colours that were written as 0 to 255, where 0 to 65,535 is the rule, are meant so."""
    colours = tags.get(_COLORMAP) if image.mode == "P" else None
    if colours and max(colours) < 256:
        n = len(colours) // 3
        triples = zip(colours[:n], colours[n : 2 * n], colours[2 * n :], strict=False)
        image.load()
        image.putpalette([value for triple in triples for value in triple])
    return image


def _from_png(image: Any, bits: int) -> Any:
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        rgb = _grey(_high_bytes(values, 16))
        if isinstance(transparent, int):
            rgb = np.where((values == transparent)[..., None], np.uint8(255), rgb)
        return rgb
    if transparent is not None and bits == 16 and image.mode == "RGB":
        raise RefusedImageError(Status.UNDECODABLE, "a transparent colour of 16 bits is not read; flatten the picture")
    if isinstance(transparent, int) and image.mode in ("1", "L") and bits < 8:
        image.load()
        image.info["transparency"] = transparent * 255 // ((1 << bits) - 1)  # Pillow scales the samples, not this
    return _over_white(image)


def _from_jpeg_2000(image: Any, bits: int) -> Any:
    """Scale samples of fewer than 8 bits to the whole range; Pillow only shifts them."""
    rgb = np.asarray(_over_white(image))
    if bits >= 8 or image.mode not in ("L", "RGB"):
        return rgb
    return (rgb.astype(np.uint16) >> (8 - bits)) * 255 // ((1 << bits) - 1)


def png_bits(data: bytes) -> int:
    """Return the bits per sample of a PNG."""
    return data[24] if len(data) > 24 else 8


def jpeg_2000_bits(data: bytes) -> int:
    """Return the bits of the first component of a JPEG 2000."""
    at = data.find(b"\xff\x4f\xff\x51")
    return 8 if at < 0 or len(data) < at + 43 else (struct.unpack_from(">B", data, at + 42)[0] & 0x7F) + 1


def _high_bytes(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    return np.clip(values.astype(np.int64) >> max(bits - 8, 0), 0, 255).astype(np.uint8)


def _grey(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(values[..., None], 3, axis=2)


def _over_white(image: Any) -> Any:
    from PIL import Image

    image.load()
    if image.mode == "La":  # there is no way from it to RGBA but this
        image = image.convert("LA")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def _no_scale(samples: str) -> RefusedImageError:
    return RefusedImageError(Status.UNDECODABLE, f"{samples}: {_NO_SCALE}")
