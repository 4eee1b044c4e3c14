"""Which files are pictures; decode them to RGB, and refuse what cannot be trusted.

The rule, the same whatever the decoder: an image is ``(height, width, 3)`` uint8 sRGB values, upright. What becomes of
each kind of file stands in docs/images.md; `extract.inputs.pixels` reads what files declare of their samples,
`extract.inputs.jpeg` checks that the data of a JPEG are whole. A file whose data end too early is refused, never filled
up with grey. Pixels and metadata are apart: a picture with broken metadata is a picture, with a remark.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from extract.errors import EncoderError, RefusedImageError
from extract.inputs.jpeg import Structure, decode_checked
from extract.inputs.pixels import to_rgb
from features_store import Status
from features_store.errors import first_line, unknown_name

# ---- which files are pictures, by their names and, for JPEG under any suffix, their first bytes ---------------------

_JPEG_SUFFIXES = (".jfi", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg", ".pjp", ".pjpeg")
_JPEG2000 = (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx")
_OTHER = (".avif", ".avifs", ".bmp", ".dib", ".gif", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
SUFFIXES = frozenset((*_JPEG_SUFFIXES, *_JPEG2000, *_OTHER))
HEIF = frozenset((".heic", ".heif", ".hif"))
NEVER = frozenset((".ai", ".emf", ".eps", ".fit", ".fits", ".pdf", ".ps", ".psb", ".psd", ".svg", ".wmf"))
# Files that lie beside pictures in every corpus: nobody wants half a million of them opened to see their first bytes.
_DATA_SUFFIXES = frozenset(
    f".{one}"
    for one in (
        *("ann", "csv", "db", "doc", "docx", "h5", "hdf5", "htm", "html", "ini", "ipynb", "json", "jsonl", "log"),
        *("m", "mat", "md", "npy", "npz", "parquet", "pickle", "pkl", "py", "rtf", "tsv", "txt", "url", "xls", "xlsx"),
        *("xml", "yaml", "yml", "7z", "bz2", "gz", "rar", "tar", "xz", "zip", "avi", "mkv", "mov", "mp3", "mp4", "wav"),
    )
)
JPEG_START = b"\xff\xd8\xff"
HIDDEN = "hidden (a name that starts with a dot)"


def why_not(name: str, start: Callable[[], bytes]) -> str:
    """Return why a file is no picture that is read; "" = it is one."""
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("."):
        return HIDDEN
    if suffix in SUFFIXES or (suffix in HEIF and heif_is_installed()):
        return ""
    if suffix in HEIF:
        return f"{suffix} (HEIF is read where its plug-in is installed: pip install pillow-heif)"
    if suffix in NEVER:
        return f"{suffix} (a format that is never read)"
    if suffix not in _DATA_SUFFIXES and start().startswith(JPEG_START):
        return ""
    return f"{suffix} (no picture)" if 1 < len(suffix) <= 12 else "no suffix (no picture)"


def heif_is_installed() -> bool:
    """Tell whether Pillow's plug-in for HEIF is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


# ---- decoding -------------------------------------------------------------------------------------------------------

# Pillow knows formats that start other programs or hold scripts (EPS, PDF, WMF ...); images of a corpus are these.
# A multi-picture JPEG (MPO) comes in as JPEG.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP", "HEIF")
MAX_PIXELS = 178_956_970  # 0.5 GB as RGB; where Pillow, too, speaks of a decompression bomb
MAX_ASPECT = 500  # a resize keeps the ratio: at 1:500 a 256-pixel edge already makes 33 million pixels

BROKEN_EXIF, BROKEN_ICC, BROKEN_METADATA = "EXIF is broken", "the ICC profile is broken", "metadata are broken"
"""Remarks on pictures that are read all the same."""

_ORIENTATION = 0x0112
_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
# How Pillow, libjpeg and torch say that there is no memory; it is never the fault of one image.
_NO_MEMORY = ("out of memory", "insufficient memory", "allocate memory", "enough memory")
_OF_METADATA = (SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error, OSError)
_DecodeJpeg = Callable[[bytes], NDArray[np.uint8]]


class Decoded(NamedTuple):
    """A picture: its pixels, (height, width, 3) uint8, and what a run should count of it; "" = nothing."""

    pixels: NDArray[np.uint8]
    remark: str = ""


class DecoderSpec(NamedTuple):
    """A row of `DECODERS`."""

    name: str
    jpeg: Callable[[], _DecodeJpeg | None]
    """Returns the function for JPEGs; None = Pillow decodes everything."""
    resizer: str
    """Row of `extract.inputs.transforms.RESIZERS`."""
    strict: bool = False
    """Its function refuses a JPEG whose data are not whole; else Pillow checks those that may not be."""
    package: str = ""
    """That must be installed beside those of `extract`."""


def _torchvision_jpeg() -> _DecodeJpeg | None:
    """Return torchvision's JPEG decoder; None in the releases that have none any more."""
    import torch

    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None
    # It announces that this decoder will go; until then it is the fastest that is installed anyway.
    warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities of TorchVision")

    def decode(data: bytes) -> NDArray[np.uint8]:
        raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        # (3, height, width), strided so that the permuted view is contiguous
        pixels: NDArray[np.uint8] = decode_jpeg(raw, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()
        return pixels

    return decode


def _simplejpeg() -> _DecodeJpeg | None:
    """Return the decoder of the package simplejpeg, for which each warning of libjpeg is an error."""
    try:
        from simplejpeg import decode_jpeg
    except ImportError as error:
        raise EncoderError(
            "--decoder simplejpeg needs the package simplejpeg: pip install simplejpeg, or choose torchvision or pillow"
        ) from error

    def decode(data: bytes) -> NDArray[np.uint8]:
        try:
            pixels: NDArray[np.uint8] = decode_jpeg(data, colorspace="RGB", strict=True)
        except ValueError as error:
            raise RefusedImageError(Status.TRUNCATED, f"the picture is damaged: {first_line(error)}") from error
        return pixels

    return decode


DECODERS: dict[str, DecoderSpec] = {
    one.name: one
    for one in (
        DecoderSpec("torchvision", _torchvision_jpeg, "torchvision"),
        DecoderSpec("pillow", lambda: None, "pillow"),
        DecoderSpec("simplejpeg", _simplejpeg, "torchvision", strict=True, package="simplejpeg"),
    )
}
_OLD_NAMES = {"fast": "torchvision"}


def find_decoder(name: str) -> DecoderSpec:
    """Look a decoder up."""
    name = _OLD_NAMES.get(name, name)
    if name not in DECODERS:
        raise EncoderError(unknown_name("decoder", name, DECODERS))
    return DECODERS[name]


def decoder_words(name: str) -> str:
    """Return what really decodes under a name, for passports."""
    spec = find_decoder(name)
    return f"{spec.name} for JPEG, else pillow" if spec.jpeg() else "pillow"


def make_decoder(name: str = "torchvision") -> Decoder:
    """Return the function that turns the bytes of a file into an RGB array."""
    return Decoder(find_decoder(name))


class Decoder:
    """The bytes of a file to pixels, (height, width, 3) uint8; safe in several threads."""

    def __init__(self, spec: DecoderSpec) -> None:
        from PIL import Image

        self.name, self.resizer = spec.name, spec.resizer
        if heif_is_installed():
            importlib.import_module("pillow_heif").register_heif_opener()
        Image.init()  # loads Pillow's plugins here, once, rather than in several threads at the same time
        # Pillow warns of large images and of bad metadata; both have their own rule here.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        self._formats = [one for one in FORMATS if one in Image.OPEN]  # a build of Pillow may lack one
        self._jpeg, self._strict = spec.jpeg(), spec.strict
        for form in ("PNG", "JPEG"):  # a decoder that is broken as a whole must not look like a corpus of bad files
            file = io.BytesIO()
            Image.new("RGB", (8, 8), "white").save(file, form)
            self(file.getvalue())

    def __call__(self, data: bytes) -> NDArray[np.uint8]:
        """Return the pixels."""
        return self.decode(data).pixels

    def decode(self, data: bytes) -> Decoded:
        """Return the pixels, and a remark on what is broken beside them."""
        from PIL import Image

        if not data:
            raise RefusedImageError(Status.TRUNCATED, "the file is empty")
        structure = Structure(data) if data.startswith(_JPEG) else None
        try:
            try:
                pixels, orientation, remark = self._decode_unrotated(data, structure)
            except _OF_METADATA:
                bare = without_metadata(data)
                if bare == data:
                    raise
                pixels, orientation, remark = self._decode_unrotated(bare, structure and Structure(bare))
                remark = remark or BROKEN_METADATA
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
        return Decoded(np.ascontiguousarray(_upright(pixels, orientation)), remark)

    def _decode_unrotated(self, data: bytes, structure: Structure | None) -> tuple[NDArray[np.uint8], int, str]:
        """Return the pixels as they are stored, the orientation that the metadata give, and a remark on these."""
        from PIL import Image

        with Image.open(io.BytesIO(data), formats=self._formats) as image:
            _check_size(image.size)
            if structure is None or not structure.checkable or len(image.tile) != 1:
                pixels = to_rgb(image, data)
            else:
                pixels = self._checked_jpeg(image, data, structure)
            try:
                orientation = int(image.getexif().get(_ORIENTATION, 1))
            except Exception:  # metadata can be broken in as many ways as pixels, and are none
                return pixels, 1, BROKEN_EXIF
            return pixels, orientation, _remark(image.info)

    def _checked_jpeg(self, image: Any, data: bytes, structure: Structure) -> NDArray[np.uint8]:
        """Decode a JPEG, and check that it is whole.

        torchvision does not tell where it stopped. So a picture of one scan that it ends in the grey of missing data,
        or whose data look odd, is decoded by Pillow, too; and so is every picture of several scans.
        """
        if self._jpeg is not None and self._strict and image.mode in ("RGB", "L"):
            return self._jpeg(data)
        if self._jpeg is not None and image.mode in ("RGB", "L") and structure.n_scans == 1:
            pixels = self._jpeg(data)
            begin, end = structure.parts[0][0], structure.parts[-1][1]
            if structure.may_end_early(pixels) or structure.looks_odd(begin, end):
                decode_checked(image, structure)
            return pixels
        decode_checked(image, structure)
        return to_rgb(image, data)


def _remark(info: dict[Any, Any]) -> str:
    """Return what is broken of the metadata that Pillow found: as far as their own headers tell."""
    exif = info.get("exif")
    if isinstance(exif, bytes) and exif and not _is_whole_exif(exif):
        return BROKEN_EXIF
    if "icc_profile" in info:
        # Pillow leaves None where its parts do not fit together; a profile begins with its size, and names itself.
        profile = info["icc_profile"] or b""
        if len(profile) < 128 or int.from_bytes(profile[:4], "big") > len(profile) or profile[36:40] != b"acsp":
            return BROKEN_ICC
    return ""


def _is_whole_exif(exif: bytes) -> bool:
    """Tell whether an EXIF block has the header of a TIFF, and its first directory lies inside."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return False
    at = int(struct.unpack_from(f"{order}I", tiff, 4)[0])
    return at + 2 <= len(tiff) and at + 2 + 12 * struct.unpack_from(f"{order}H", tiff, at)[0] <= len(tiff)


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

    Decoders differ in how they report a cut file, and some are content as soon as they have all pixels; the end
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
    if data.startswith(_PNG):
        return data[:8] + b"".join(_needed_chunks(data))
    if data.startswith(_JPEG):
        return data[:2] + b"".join(_needed_segments(data))
    return data


def _needed_chunks(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name, chunk = data[at + 4 : at + 8], data[at:end]
        whole = len(chunk) >= 12 and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if name[:1].isupper() or name == b"tRNS" or (name == b"eXIf" and whole):
            yield chunk
        at = end


def _needed_segments(data: bytes) -> Iterator[bytes]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        code, exif = data[at + 1], data[at + 4 : at + 8] == b"Exif"
        # The first and the last tell how colours are coded; one that is too short does not.
        colours = (code == 0xE0 and end - at >= 18) or code == 0xEE
        if not (0xE0 <= code <= 0xEF or code == 0xFE) or colours or (code == 0xE1 and exif):
            yield data[at:end]
        at = end
    yield data[at:]


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo the eight EXIF orientations (CIPA DC-008, tag 0x0112); other values mean upright."""
    swapped = pixels.transpose(1, 0, 2) if orientation in (5, 6, 7, 8) else pixels
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return swapped[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
