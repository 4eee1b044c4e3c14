"""Decoding by the documented rule, and refusing with the right status."""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from extract.errors import EncoderError, RefusedImageError
from extract.inputs.disk import find_images
from extract.inputs.images import (
    BROKEN_EXIF,
    BROKEN_ICC,
    BROKEN_METADATA,
    DECODERS,
    MAX_ASPECT,
    find_decoder,
    heif_is_installed,
    make_decoder,
)
from features_store import Status


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.fixture(params=["torchvision", "pillow"])
def decode(request):
    return make_decoder(request.param)


@pytest.fixture(scope="module")
def photo(photos):
    return Image.fromarray(photos["chelsea"][:120, :160])


def status_of(decode, data: bytes) -> Status:
    with pytest.raises(RefusedImageError) as refused:
        decode(data)
    return refused.value.status


# ---- the rule ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_come_back_as_they_are(decode, photo, form):
    assert np.array_equal(decode(encoded(photo, form)), np.asarray(photo))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_jpeg_equals_pillows_own_pixels(decode, photo, options):
    data = encoded(photo, "JPEG", **options)
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_exif_orientation_is_applied(decode, photo, orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo, form, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode(data), np.asarray(upright))


def test_grey_becomes_three_equal_channels(decode, photo):
    for form in ("PNG", "JPEG"):
        rgb = decode(encoded(photo.convert("L"), form))
        assert rgb.shape == (120, 160, 3)
        assert np.array_equal(rgb[..., 0], rgb[..., 2])


def test_sixteen_bits_keep_the_high_byte(decode):
    grey = (np.arange(256, dtype=np.uint16).reshape(16, 16) << 8) + 77
    rgb = decode(encoded(Image.fromarray(grey), "PNG"))
    assert np.array_equal(rgb[..., 1], np.arange(256).reshape(16, 16))


def test_transparent_pixels_are_laid_over_white(decode):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[2:, :, 3] = 255
    rgb = decode(encoded(Image.fromarray(rgba), "PNG"))
    assert rgb[0, 0].tolist() == [255, 255, 255]
    assert rgb[3, 3].tolist() == [200, 0, 0]


def test_palette_with_a_transparent_entry_is_laid_over_white(decode):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    rgb = decode(encoded(palette, "PNG", transparency=0))
    assert rgb.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_cmyk_jpeg_and_webp_are_read(decode, photo):
    near = np.asarray(photo).astype(int)
    for data in (encoded(photo.convert("CMYK"), "JPEG", quality=95), encoded(photo, "WEBP", quality=95)):
        assert np.abs(decode(data) - near).mean() < 6


def test_the_first_frame_of_an_animation_is_taken(decode):
    red, blue = Image.new("RGB", (9, 7), "red"), Image.new("RGB", (9, 7), "blue")
    rgb = decode(encoded(red, "GIF", save_all=True, append_images=[blue]))
    assert rgb[3, 3].tolist() == [255, 0, 0]


def test_a_wrong_extension_does_not_matter_and_appended_data_does_not_either(decode, photo):
    data = encoded(photo, "JPEG")
    assert np.array_equal(decode(data + b"film" * 1000), decode(data))


# ---- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_cut_file_is_never_embedded(decode, photo, form):
    data = encoded(photo, form)
    cuts = {1, 2, 3, 5, 8, 13, 21, len(data) // 3, len(data) // 2, len(data) - 40}
    found = {status_of(decode, data[:-cut]) for cut in cuts}
    assert found <= {Status.TRUNCATED, Status.UNDECODABLE}
    assert Status.TRUNCATED in found


@pytest.mark.parametrize("cut", [1, 2, 10, 100, 1000])
def test_a_cut_jpeg_is_called_truncated(decode, photo, cut):
    assert status_of(decode, encoded(photo, "JPEG")[:-cut]) == Status.TRUNCATED


def test_empty_is_truncated_and_text_is_undecodable(decode):
    assert status_of(decode, b"") == Status.TRUNCATED
    assert status_of(decode, b"<html>404 not found</html>" * 9) == Status.UNDECODABLE


def png_header(width: int, height: int) -> bytes:
    pixels = zlib.compress(b"\0" * 1000)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_too_large_before_it_is_decoded(decode):
    assert status_of(decode, png_header(60_000, 60_000)) == Status.TOO_LARGE
    assert status_of(decode, png_header(14_000, 14_000)) == Status.TOO_LARGE


def test_an_extreme_ratio_is_too_large(decode):
    assert status_of(decode, encoded(Image.new("RGB", (2, 2 * MAX_ASPECT + 1)), "PNG")) == Status.TOO_LARGE
    assert decode(encoded(Image.new("RGB", (2, 2 * MAX_ASPECT)), "PNG")).shape == (2 * MAX_ASPECT, 2, 3)


def test_formats_that_run_programs_are_refused(decode):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    assert status_of(decode, postscript) == Status.UNDECODABLE


def test_float_pixels_are_refused(decode):
    assert status_of(decode, encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")) == Status.UNDECODABLE


def test_an_unknown_decoder_is_named():
    with pytest.raises(EncoderError, match=r"unknown decoder 'pilow'.*did you mean 'pillow'"):
        make_decoder("pilow")
    assert find_decoder("fast").name == "torchvision"  # the old name


# ---- beside the pixels ----------------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def profile(*, size: int = 128, mark: bytes = b"acsp") -> bytes:
    return size.to_bytes(4, "big") + bytes(32) + mark + bytes(88)


def test_broken_metadata_are_a_remark_that_a_run_can_count(decode, photo):
    """The pixels are those of the file without them; good metadata leave no remark."""
    exif = Image.Exif()
    exif[0x0112] = 1
    jpeg, png = encoded(photo, "JPEG"), encoded(photo, "PNG")
    good = [jpeg, png, encoded(photo, "JPEG", exif=exif), encoded(photo, "PNG", exif=exif)]
    good += [encoded(photo, form, icc_profile=profile()) for form in ("JPEG", "PNG", "WEBP", "TIFF")]
    assert [decode.decode(data).remark for data in good] == [""] * len(good)
    header = good[2].index(b"Exif\0\0") + 6
    cut = good[2][: header + 4] + b"\xff\xff\0\0" + good[2][header + 8 :]  # the first directory lies behind the end
    broken = {
        BROKEN_EXIF: [
            good[2].replace(b"Exif\0\0MM", b"Exif\0\0XX").replace(b"Exif\0\0II", b"Exif\0\0XX"),
            cut,
            png[:33] + chunk(b"eXIf", b"\xff\0nothing") + png[33:],
        ],
        BROKEN_ICC: [
            encoded(photo, "JPEG", icc_profile=b"short"),
            encoded(photo, "PNG", icc_profile=profile(size=4096)),
            encoded(photo, "WEBP", icc_profile=profile(mark=b"none")),
            jpeg[:2] + b"\xff\xe2" + (18).to_bytes(2, "big") + b"ICC_PROFILE\0\1\2xx" + jpeg[2:],  # part 1 of 2
            png[:33] + chunk(b"iCCP", b"a\0\0" + b"no zlib") + png[33:],
        ],
        BROKEN_METADATA: [
            png[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(b" " * (2 << 20))) + png[33:],
            jpeg[:2] + b"\xff\xe0\0\6JFIF" + jpeg[2:],  # too short
        ],
    }
    for remark, files in broken.items():
        for at, data in enumerate(files):
            found = decode.decode(data)
            assert found.remark == remark, at
            assert found.pixels.shape == (120, 160, 3)
    assert np.array_equal(decode(broken[BROKEN_ICC][3]), decode(jpeg))


@pytest.mark.skipif(not heif_is_installed(), reason="Pillow's plug-in for HEIF is not installed")
def test_heif_is_read_upright_over_white_and_never_when_cut(decode, photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo, "HEIF", quality=95)
    assert np.abs(decode(data).astype(int) - np.asarray(photo)).mean() < 3
    assert decode(encoded(photo, "HEIF", exif=exif.tobytes())).shape == (160, 120, 3)
    clear = Image.fromarray(np.dstack([np.asarray(photo), np.zeros((120, 160), np.uint8)]))
    assert decode(encoded(clear, "HEIF")).min() == 255
    for cut in range(1, len(data), len(data) // 30):
        assert status_of(decode, data[:-cut]) in (Status.TRUNCATED, Status.UNDECODABLE)


@pytest.mark.parametrize("name", [name for name, one in DECODERS.items() if one.package])
def test_a_decoder_of_another_package_gives_the_same_pixels_or_names_the_package(photo, name):
    package = DECODERS[name].package
    if importlib.util.find_spec(package) is None:
        with pytest.raises(EncoderError, match=f"pip install {package}"):
            make_decoder(name)
        return
    decode, reference = make_decoder(name), make_decoder("pillow")
    for image in (photo, photo.convert("L"), photo.convert("CMYK")):
        for options in ({}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}):
            data = encoded(image, "JPEG", **options)
            assert np.array_equal(decode(data), reference(data)), options


@pytest.mark.skipif(importlib.util.find_spec("simplejpeg") is None, reason="simplejpeg is not installed")
def test_every_lost_byte_of_a_jpeg_is_seen_by_the_strict_decoder(photo):
    decode = make_decoder("simplejpeg")
    for options in ({}, {"progressive": True}, {"optimize": True}):
        data = encoded(photo, "JPEG", **options)
        for lost in range(1, 30):
            assert status_of(decode, data[: -2 - lost].removesuffix(b"\xff") + b"\xff\xd9") == Status.TRUNCATED
        assert status_of(decode, data[:-2] + bytes(range(1, 9)) + b"\xff\xd9") == Status.TRUNCATED


def test_files_are_found_below_the_root_without_hidden_ones(tmp_path):
    for name in ("b/2.JPG", "a/1.png", "3.webp", "notes.txt", ".hidden.jpg", ".cache/4.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_images(tmp_path) == ["3.webp", "a/1.png", "b/2.JPG"]
