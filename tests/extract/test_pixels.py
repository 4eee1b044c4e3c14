"""Every row of the table in docs/images.md, against pictures that are made with numpy and written byte by byte."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.errors import RefusedImageError
from extract.inputs.images import SUFFIXES, make_decoder
from features_store import Status

DOCS = (Path(__file__).parents[2] / "docs/images.md").read_text()
GREY = np.arange(0, 256, 16, dtype=np.uint8).reshape(2, 8)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
HALF = np.full((2, 8, 1), 128, np.uint8)
THREE = np.repeat(GREY[..., None], 3, axis=2)
_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f"}
# Tags: 258 bits, 262 photometric interpretation, 277 channels, 320 colours, 338 extra channels, 339 sign, 340 and 341
# the least and the highest value.


def tiff(samples: bytes, order: str = "<", **tags: tuple[int, list[float]]) -> bytes:
    """A TIFF of 8 x 2 pixels in one strip, its tags given by number: (type, values)."""
    table = {256: (4, [8]), 257: (4, [2]), 259: (3, [1]), 273: (4, [8]), 277: (3, [1]), 278: (4, [2])}
    table |= {279: (4, [len(samples)])} | {int(name[1:]): value for name, value in tags.items()}
    at = 8 + len(samples)
    behind, entries, extra = at + 2 + 12 * len(table) + 4, b"", b""
    for tag, (kind, values) in sorted(table.items()):
        data = struct.pack(f"{order}{len(values)}{_TYPES[kind]}", *values)
        if len(data) > 4:
            data, extra = struct.pack(f"{order}I", behind + len(extra)), extra + data + b"\0" * (len(data) % 2)
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
    return start + samples + struct.pack(f"{order}H", len(table)) + entries + b"\0" * 4 + extra


def grey_tiff(bits: int, photometric: int = 1, order: str = "<", **tags: tuple[int, list[float]]) -> bytes:
    if bits >= 16:
        samples = (GREY.astype(np.uint64) << (bits - 8)).astype(f"{order}u{bits // 8}").tobytes()
    else:
        samples = packed(GREY >> (8 - bits) if bits < 8 else GREY.astype(np.uint16) << (bits - 8), bits)
    return tiff(samples, order, t258=(3, [bits]), t262=(3, [photometric]), **tags)


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of samples, the highest bit first."""
    each = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(each.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def signed_tiff(bits: int, **tags: tuple[int, list[float]]) -> bytes:
    samples = ((GREY.astype(np.int64) - 128) << (bits - 8)).astype(f"<i{bits // 8}")
    return tiff(samples.tobytes(), t258=(3, [bits]), t262=(3, [1]), t339=(3, [2]), **tags)


def colour_tiff(samples: np.ndarray, photometric: int = 2, extra: int | None = None, bits: int = 8) -> bytes:
    tags = {} if extra is None else {"t338": (3, [extra])}
    n = samples.shape[-1]
    return tiff(samples.tobytes(), t258=(3, [bits] * n), t262=(3, [photometric]), t277=(3, [n]), **tags)


def plane_tiff(samples: np.ndarray) -> bytes:
    """A plane for each of three channels, in a strip of its own."""
    size, n = samples[..., 0].nbytes, samples.shape[-1]
    tags = {"t273": (4, [8 + size * k for k in range(n)]), "t279": (4, [size] * n), "t284": (3, [2])}
    kind = {"t258": (3, [8 * samples.itemsize] * n), "t262": (3, [2]), "t277": (3, [n])}
    return tiff(np.moveaxis(samples, -1, 0).tobytes(), **kind, **tags)


def png(samples: bytes, bits: int, kind: int, *, chunks: bytes = b"") -> bytes:
    rows = [samples[at : at + len(samples) // 2] for at in (0, len(samples) // 2)]
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    header = struct.pack(">IIBBBBB", 8, 2, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes, *, checksum: int | None = None) -> bytes:
    right = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", right)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def over_white(colour: np.ndarray, alpha: float) -> np.ndarray:
    return colour * alpha + 255 * (1 - alpha)


def scaled(bits: int) -> np.ndarray:
    return (THREE >> (8 - bits)).astype(int) * 255 // (2**bits - 1)


def palette(scale: int) -> list[float]:
    return [int(value) * scale for value in [*range(256), *range(255, -1, -1), *(at // 2 for at in range(256))]]


def marked(value: int) -> np.ndarray:
    return np.where(value == THREE, 255, THREE)


SRGB_RANGE = {"t340": (4, [0]), "t341": (4, [255])}
REFUSED = None
TRIPLES = np.array(palette(1), dtype=np.uint8).reshape(3, 256).T.copy()
HIGH16 = ((GREY.astype(np.uint16) << 8) + 77).astype(">u2")
CASES: dict[str, list[tuple[str, bytes, np.ndarray | None]]] = {
    "u8": [
        ("tiff", grey_tiff(8), THREE),
        ("png", png(GREY.tobytes(), 8, 0), THREE),
        ("colour tiff", colour_tiff(COLOUR), COLOUR),
        ("colour png", png(COLOUR.tobytes(), 8, 2), COLOUR),
        ("bmp", saved(Image.fromarray(COLOUR), "BMP"), COLOUR),
        ("jpeg 2000", saved(Image.fromarray(COLOUR), "JPEG2000"), COLOUR),
        ("webp", saved(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR),
    ],
    "u1 u2 u4": [
        *((f"tiff {bits}", grey_tiff(bits), scaled(bits)) for bits in (1, 2, 4)),
        *((f"png {bits}", png(packed(GREY >> (8 - bits), bits), bits, 0), scaled(bits)) for bits in (1, 2, 4)),
    ],
    "u12 u16": [
        ("tiff 12", grey_tiff(12), THREE),
        ("tiff 16", grey_tiff(16), THREE),
        ("tiff 16, big-endian", grey_tiff(16, order=">"), THREE),
        ("png 16", png(HIGH16.tobytes(), 16, 0), THREE),
        ("colour png 16", png(((COLOUR.astype(np.uint16) << 8) + 9).astype(">u2").tobytes(), 16, 2), COLOUR),
        ("colour tiff 16", colour_tiff(COLOUR.astype("<u2") << 8, bits=16), COLOUR),
        ("pgm 16", b"P5 8 2 65535\n" + HIGH16.tobytes(), THREE),
    ],
    "white is zero": [
        *((f"tiff {bits}", grey_tiff(bits, 0), 255 - scaled(min(bits, 8))) for bits in (1, 2, 4, 8, 16)),
    ],
    "white is zero, rare": [
        ("tiff 12", grey_tiff(12, 0), REFUSED),
        ("tiff 16, big-endian", grey_tiff(16, 0, order=">"), REFUSED),
        ("tiff 32", grey_tiff(32, 0), REFUSED),
    ],
    "u32": [
        ("big-endian", grey_tiff(32, order=">"), REFUSED),
        ("small", tiff(GREY.astype("<u4").tobytes(), t258=(3, [32]), t262=(3, [1])), REFUSED),
        ("whole range", grey_tiff(32), REFUSED),
    ],
    "s8 s16 s32": [(f"{bits}", signed_tiff(bits), REFUSED) for bits in (8, 16, 32)],
    "declared": [
        ("u32", tiff(GREY.astype("<u4").tobytes(), t258=(3, [32]), t262=(3, [1]), **SRGB_RANGE), THREE),
        ("s8", signed_tiff(8, t340=(6, [-128]), t341=(6, [127])), THREE),
        ("s16", signed_tiff(16, t340=(8, [-(2**15)]), t341=(8, [2**15 - 1])), THREE),
        (
            "u16 of 12",
            tiff((GREY.astype("<u2") << 4).tobytes(), t258=(3, [16]), t262=(3, [1]), t340=(3, [0]), t341=(3, [4095])),
            THREE,
        ),
        ("empty", signed_tiff(16, t340=(8, [5]), t341=(8, [5])), REFUSED),
    ],
    "float": [
        ("tiff", tiff(GREY.astype("<f4").tobytes(), t258=(3, [32]), t262=(3, [1]), t339=(3, [3])), REFUSED),
    ],
    "maxval": [
        ("pgm", b"P5 8 2 15\n" + (GREY >> 4).tobytes(), scaled(4)),
        ("pgm 12", b"P5 8 2 4095\n" + (GREY.astype(np.uint16) << 4).astype(">u2").tobytes(), THREE),
        ("ppm", b"P6 8 2 15\n" + (COLOUR >> 4).tobytes(), (COLOUR >> 4).astype(int) * 17),
    ],
    "palette": [
        ("png", png(GREY.tobytes(), 8, 3, chunks=chunk(b"PLTE", TRIPLES.tobytes())), COLOUR),
        ("tiff", tiff(GREY.tobytes(), t258=(3, [8]), t262=(3, [3]), t320=(3, palette(257))), COLOUR),
        ("tiff, 0 to 255", tiff(GREY.tobytes(), t258=(3, [8]), t262=(3, [3]), t320=(3, palette(1))), COLOUR),
    ],
    "alpha": [
        ("png", png(np.concatenate([COLOUR, HALF], -1).tobytes(), 8, 6), over_white(COLOUR, 128 / 255)),
        ("grey png", png(np.concatenate([GREY[..., None], HALF], -1).tobytes(), 8, 4), over_white(THREE, 128 / 255)),
        ("tiff", colour_tiff(np.concatenate([COLOUR, HALF], -1), extra=2), over_white(COLOUR, 128 / 255)),
        ("premultiplied", colour_tiff(np.concatenate([COLOUR // 2, HALF], -1), extra=1), COLOUR // 2 + 127.0),
        ("grey tiff", colour_tiff(np.concatenate([GREY[..., None], HALF], -1), 1, 2), over_white(THREE, 128 / 255)),
    ],
    "planes": [
        ("8 bits", plane_tiff(COLOUR), COLOUR),
        ("16 bits", plane_tiff(COLOUR.astype("<u2") << 8), REFUSED),
        ("white is zero", grey_tiff(8, 0, t284=(3, [2])), REFUSED),
        ("1 bit", grey_tiff(1, 0, t284=(3, [2])), REFUSED),
    ],
    "extra": [
        ("colour", colour_tiff(np.concatenate([COLOUR, HALF], -1), extra=0), COLOUR),
        ("grey", colour_tiff(np.concatenate([GREY[..., None], HALF], -1), 1, 0), THREE),
    ],
    "transparent": [
        ("png", png(GREY.tobytes(), 8, 0, chunks=chunk(b"tRNS", b"\0\x30")), marked(0x30)),
        (
            "png 4",
            png(packed(GREY >> 4, 4), 4, 0, chunks=chunk(b"tRNS", b"\0\3")),
            np.where(scaled(4) == 51, 255, scaled(4)),
        ),
        ("png 1", png(packed(GREY >> 7, 1), 1, 0, chunks=chunk(b"tRNS", b"\0\0")), np.full((2, 8, 3), 255)),
        ("png 16", png(HIGH16.tobytes(), 16, 0, chunks=chunk(b"tRNS", b"\x30\x4d")), marked(0x30)),
        ("colour png", png(THREE.tobytes(), 8, 2, chunks=chunk(b"tRNS", b"\0\x30" * 3)), marked(0x30)),
    ],
    "transparent colour16": [
        (
            "png",
            png((THREE.astype(np.uint16) << 8).astype(">u2").tobytes(), 16, 2, chunks=chunk(b"tRNS", b"\0\1" * 3)),
            REFUSED,
        ),
    ],
    "cmyk": [
        ("tiff", colour_tiff(np.concatenate([COLOUR, HALF], -1), 5), (255 - COLOUR.astype(int)) * 127 / 255),
    ],
    "metadata": [
        ("eXIf", png(GREY.tobytes(), 8, 0, chunks=chunk(b"eXIf", b"\xff\0nothing")), THREE),
        ("checksum", png(GREY.tobytes(), 8, 0, chunks=chunk(b"tEXt", b"a\0b", checksum=1)), THREE),
        ("animation", png(GREY.tobytes(), 8, 0, chunks=chunk(b"acTL", b"\0")), THREE),
        (
            "frame",
            png(GREY.tobytes(), 8, 0, chunks=chunk(b"acTL", bytes(7) + b"\1") + chunk(b"fcTL", b"\7" * 26)),
            THREE,
        ),
        ("text", png(GREY.tobytes(), 8, 0, chunks=chunk(b"zTXt", b"a\0\0" + zlib.compress(b" " * (2 << 20)))), THREE),
        (
            "profile",
            png(GREY.tobytes(), 8, 0, chunks=chunk(b"iCCP", b"a\0\0" + zlib.compress(b" " * (2 << 20)))),
            THREE,
        ),
    ],
}


@pytest.fixture(params=["torchvision", "pillow"])
def decode(request):
    return make_decoder(request.param)


@pytest.mark.parametrize("kind", CASES)
def test_what_becomes_of_each_kind_of_file(decode, kind) -> None:
    """Equal to the twin within what an alpha of 8 bits can round; or refused in one sentence."""
    for name, data, expected in CASES[kind]:
        if expected is REFUSED:
            with pytest.raises(RefusedImageError) as refused:
                decode(data)
            assert refused.value.status == Status.UNDECODABLE, name
            assert "\n" not in str(refused.value)
        else:
            found = decode(data)
            tolerance = 1.5 if kind in ("alpha", "cmyk") else 0
            assert found.shape == (2, 8, 3), name
            assert np.abs(found.astype(float) - expected).max() <= tolerance, name


def test_the_table_and_the_cases_are_of_the_same_kinds() -> None:
    """A row without a case, or a case without a row, is noticed; three rows have tests of their own elsewhere."""
    rows = set(re.findall(r"^\| `([^`]+)` ", DOCS, re.MULTILINE))
    assert rows == set(CASES) | {"orientation", "animation"}


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_broken_metadata_do_not_turn_the_picture(decode, photos, form) -> None:
    """An orientation that can be read is applied though other metadata are broken; one that cannot means upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(photos["chelsea"][:32, :48])
    good = saved(picture, form, exif=exif)
    assert decode(good).shape == (48, 32, 3)
    if form == "PNG":
        broken = good[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(b" " * (2 << 20))) + good[33:]
        assert np.array_equal(decode(broken), decode(good))
    else:
        broken = good.replace(b"Exif\0\0MM", b"Exif\0\0XX").replace(b"Exif\0\0II", b"Exif\0\0XX")
        assert broken != good
        assert decode(broken).shape == (32, 48, 3)


@pytest.mark.parametrize("coding", ["jpeg", "tiff_adobe_deflate", "group4"])
def test_a_tiff_whose_strip_is_damaged_is_refused(decode, photos, coding) -> None:
    """Zeros or too few bytes in the second half of a strip; what nothing can check is refused, whole or not."""
    picture = Image.fromarray(photos["chelsea"][:96, :128]).convert("1" if coding == "group4" else "RGB")
    data = saved(picture, "TIFF", compression=coding)
    with Image.open(io.BytesIO(data)) as image:
        at, n = image.tag_v2[273][0], image.tag_v2[279][0]
    half = at + n // 2
    for damaged in (data[:half] + bytes(n - n // 2) + data[at + n :], data.replace(data[half : at + n], b"", 1)):
        with pytest.raises(RefusedImageError):
            decode(damaged)
    if coding == "group4":
        with pytest.raises(RefusedImageError, match="compression 4"):
            decode(data)
    else:
        assert decode(data).shape == (96, 128, 3)


def test_formats(decode, photos) -> None:
    """AVIF and JPEG 2000 are read and never when cut; the content decides, not the name; scripts are not started."""
    picture = Image.fromarray(photos["chelsea"][:64, :96])
    for form in ("AVIF", "JPEG2000"):
        data = saved(picture, form)
        assert np.abs(decode(data).astype(int) - np.asarray(picture)).mean() < 8
        for cut in (3, len(data) // 3, len(data) // 2):
            with pytest.raises(RefusedImageError):
                decode(data[:-cut])
    for form in ("PDF", "EPS", "ICO", "TGA", "PCX"):
        with pytest.raises(RefusedImageError):
            decode(saved(picture, form))
    assert {".jfif", ".avif", ".jp2", ".jpe", ".pjpeg"} <= SUFFIXES
    assert not {".eps", ".pdf", ".psd", ".wmf", ".fits"} & SUFFIXES
