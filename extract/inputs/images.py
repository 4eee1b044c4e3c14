"""Find image files, decode them to RGB, and refuse what cannot be trusted.

The rule, the same whatever the decoder: an image is ``(height, width, 3)`` uint8 sRGB values, upright. What becomes of
each kind of file stands in docs/images.md; `extract.inputs.pixels` reads what files declare of their samples,
`extract.inputs.jpeg` sees that the data of a JPEG are whole. A file whose data end too early is refused, never filled
up with grey. Pixels and metadata are apart: a picture with broken metadata is a picture.
"""

from __future__ import annotations

import importlib
import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from extract.errors import EncoderError, RefusedImageError
from extract.inputs.formats import heif_is_installed
from extract.inputs.jpeg import Structure, decode_checked
from extract.inputs.pixels import to_rgb
from features_store import Status
from features_store.errors import first_line, unknown_name

# Pillow knows formats that start other programs or hold scripts (EPS, PDF, WMF ...); images of a corpus are these.
# A multi-picture JPEG (MPO) comes in as JPEG.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP", "HEIF")
MAX_PIXELS = 178_956_970  # 0.5 GB as RGB; where Pillow, too, speaks of a decompression bomb
MAX_ASPECT = 500  # a resize keeps the ratio: at 1:500 a 256-pixel edge already makes 33 million pixels
DECODERS = ("fast", "pillow")

_ORIENTATION = 0x0112
_JPEG = b"\xff\xd8"
# How Pillow, libjpeg and torch say that there is no memory; it is never the fault of one image.
_NO_MEMORY = ("out of memory", "insufficient memory", "allocate memory", "enough memory")
_OF_METADATA = (SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error, OSError)
Decoder = Callable[[bytes], NDArray[np.uint8]]


def find_images(root: Path) -> list[str]:
    """List the image files under a folder."""
    from extract.inputs.walk import Disk

    disk = Disk(root)
    return [disk.file(name) or name for name in disk.census().images]


def make_decoder(name: str = "fast") -> Decoder:
    """Return the function that turns the bytes of a file into an RGB array."""
    if name not in DECODERS:
        raise EncoderError(unknown_name("decoder", name, DECODERS))
    from PIL import Image

    if heif_is_installed():
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()  # loads Pillow's plugins here, once, rather than in several threads at the same time
    # Pillow warns of large images and of bad metadata; both have their own rule here.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # torchvision announces that its decoder will go; until then it is the fastest that is installed anyway.
    warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities of TorchVision")
    formats = [one for one in FORMATS if one in Image.OPEN]  # a build of Pillow may lack one
    jpeg = _torchvision_jpeg() if name == "fast" else None

    def decode(data: bytes) -> NDArray[np.uint8]:
        return _decode(data, formats, jpeg)

    _prove(decode)
    return decode


def _prove(decode: Decoder) -> None:
    """Decode one good image: a decoder that is broken as a whole must not look like a corpus of bad files."""
    from PIL import Image

    for form in ("PNG", "JPEG"):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), "white").save(file, form)
        decode(file.getvalue())


def _decode(data: bytes, formats: list[str], jpeg: Decoder | None) -> NDArray[np.uint8]:
    from PIL import Image

    if not data:
        raise RefusedImageError(Status.TRUNCATED, "the file is empty")
    structure = Structure(data) if data.startswith(_JPEG) else None
    try:
        try:
            pixels, orientation = _pixels(data, formats, jpeg, structure)
        except _OF_METADATA:
            bare = without_metadata(data)
            if bare == data:
                raise
            pixels, orientation = _pixels(bare, formats, jpeg, structure and Structure(bare))
    except (RefusedImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise RefusedImageError(Status.TOO_LARGE, str(error)) from error
    except Exception as error:  # decoders meet hostile bytes with errors of any kind; all mean one thing here
        if any(words in str(error).lower() for words in _NO_MEMORY):
            raise MemoryError(first_line(error)) from error
        _refuse(data, error)
    if structure is None and ends_early(data):
        raise RefusedImageError(Status.TRUNCATED, "the end of the file is missing")
    return np.ascontiguousarray(_upright(pixels, orientation))


def _pixels(
    data: bytes, formats: list[str], jpeg: Decoder | None, structure: Structure | None
) -> tuple[NDArray[np.uint8], int]:
    """Return the pixels as they are stored, and the orientation that the metadata give."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=formats) as image:
        _check_size(image.size)
        if structure is None or not structure.checkable or len(image.tile) != 1:
            pixels = to_rgb(image, data)
        else:
            pixels = _checked_jpeg(image, data, jpeg, structure)
        try:
            orientation = int(image.getexif().get(_ORIENTATION, 1))
        except Exception:  # metadata can be broken in as many ways as pixels, and are none
            orientation = 1
        return pixels, orientation


def _checked_jpeg(image: Any, data: bytes, jpeg: Decoder | None, structure: Structure) -> NDArray[np.uint8]:
    """Decode a JPEG, and see that it is whole.

    The fast decoder does not say where it stopped. So a picture of one scan that it ends in the grey of missing data,
    or whose data look odd, is decoded by the other one, too; and so is every picture of several scans.
    """
    if jpeg is not None and image.mode in ("RGB", "L") and structure.n_scans == 1:
        pixels = jpeg(data)
        if not structure.may_end_early(pixels) and not structure.looks_odd(
            structure.parts[0][0], structure.parts[-1][1]
        ):
            return pixels
        decode_checked(image, structure)
        return pixels
    decode_checked(image, structure)
    return to_rgb(image, data)


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if min(size) < 1:
        raise RefusedImageError(Status.UNDECODABLE, f"the image has {width} x {height} pixels")
    if width * height > MAX_PIXELS or max(size) > MAX_ASPECT * min(size):
        reason = f"{width} x {height} pixels; at most {MAX_PIXELS} and a ratio of {MAX_ASPECT} are read"
        raise RefusedImageError(Status.TOO_LARGE, reason)


def _refuse(data: bytes, error: Exception) -> NoReturn:
    words = re.sub(r" ?<_io\.BytesIO.*?>", "", first_line(error))  # Pillow names the place in memory
    status = Status.TRUNCATED if ends_early(data) or "truncated" in words else Status.UNDECODABLE
    raise RefusedImageError(status, words) from error


def ends_early(data: bytes) -> bool:
    """Tell whether the bytes of a known format stop before its end mark.

    Decoders differ in what they say of a cut file, and some are content as soon as they have all pixels; the end
    marks of the formats are the same for all.
    """
    if data.startswith(_JPEG):
        return not data.rstrip(b"\0").endswith(b"\xff\xd9")
    if data.startswith(b"\x89PNG"):
        return b"IEND\xaeB`\x82" not in data
    if data.startswith(b"GIF8"):
        return not data.rstrip(b"\0").endswith(b";")
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    return False


def without_metadata(data: bytes) -> bytes:
    """Return a PNG or JPEG with what its pixels and its orientation need, and nothing else; others as they are."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data[:8] + b"".join(_needed_chunks(data))
    if data.startswith(_JPEG):
        return data[:2] + b"".join(_needed_segments(data))
    return data


def _needed_chunks(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind, chunk = data[at + 4 : at + 8], data[at:end]
        whole = len(chunk) >= 12 and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind[:1].isupper() or kind in (b"tRNS", b"acTL", b"fcTL", b"fdAT") or (kind == b"eXIf" and whole):
            yield chunk
        at = end


def _needed_segments(data: bytes) -> Iterator[bytes]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        code, exif = data[at + 1], data[at + 4 : at + 8] == b"Exif"
        # The first and the last tell how colours are coded.
        if not (0xE0 <= code <= 0xEF or code == 0xFE) or code in (0xE0, 0xEE) or (code == 0xE1 and exif):
            yield data[at:end]
        at = end
    yield data[at:]


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo the eight EXIF orientations (CIPA DC-008, tag 0x0112); other values mean upright."""
    swapped = pixels.transpose(1, 0, 2) if orientation in (5, 6, 7, 8) else pixels
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return swapped[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def decoder_words(name: str) -> str:
    """Return what really decodes under a name, for passports."""
    return "torchvision for JPEG, else pillow" if name == "fast" and _torchvision_jpeg() else "pillow"


def _torchvision_jpeg() -> Decoder | None:
    """Return torchvision's JPEG decoder; None in the releases that have none any more."""
    import torch

    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None

    def decode(data: bytes) -> NDArray[np.uint8]:
        raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        # (3, height, width), strided so that the permuted view is contiguous
        pixels: NDArray[np.uint8] = decode_jpeg(raw, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()
        return pixels

    return decode
