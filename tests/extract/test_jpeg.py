"""A JPEG whose data are not whole has no pixels, whichever decoder reads it; a whole one always has."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from extract.errors import RefusedImageError
from extract.inputs.images import make_decoder
from features_store import Status

END = b"\xff\xd9"
FORMS: dict[str, dict[str, object]] = {
    "4:2:0": {},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0, "quality": 92},
    "optimized": {"optimize": True},
    "coarse": {"quality": 5},
    "progressive": {"progressive": True},
    "progressive 4:4:4": {"progressive": True, "subsampling": 0},
    "restarts by row": {"restart_marker_rows": 1},
    "restarts by block": {"restart_marker_blocks": 7},
    "progressive with restarts": {"progressive": True, "restart_marker_rows": 2},
    "red, green, blue": {"keep_rgb": True},
    "grey": {"mode": "L"},
    "grey progressive": {"mode": "L", "progressive": True},
    "cmyk": {"mode": "CMYK"},
}


@pytest.fixture(scope="module")
def picture(photos) -> Image.Image:
    return Image.fromarray(photos["chelsea"]).resize((217, 161))  # no whole number of blocks


@pytest.fixture(params=["torchvision", "pillow"])
def decode(request):
    return make_decoder(request.param)


def encoded(picture: Image.Image, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    picture.convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def refused(decode, data: bytes) -> bool:
    try:
        decode(data)
    except RefusedImageError as error:
        return error.status in (Status.TRUNCATED, Status.UNDECODABLE)
    return False


def places(data: bytes, n: int = 50) -> list[int]:
    """Places inside the coded data, from the first scan on."""
    begin = data.index(b"\xff\xda") + 14
    return [begin + (len(data) - 2 - begin) * k // n for k in range(1, n)]


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_picture_closed_with_an_end_mark_is_truncated(decode, picture, form) -> None:
    """Forty-nine cuts; also where the cut falls between two scans, so that no decoder misses anything."""
    data = encoded(picture, **FORMS[form])
    assert not refused(decode, data)
    for at in places(data):
        cut = data[:at].removesuffix(b"\xff") + END
        with pytest.raises(RefusedImageError) as error:
            decode(cut)
        assert error.value.status == Status.TRUNCATED, at
    scans = [at for at in range(len(data)) if data.startswith((b"\xff\xc4", b"\xff\xda"), at)]
    for at in scans[1:]:
        if at > data.index(b"\xff\xda"):
            assert refused(decode, data[:at] + END)


@pytest.mark.parametrize("filling", ["zeros", "ones", "text"])
@pytest.mark.parametrize("form", FORMS)
def test_an_overwritten_page_is_refused(decode, picture, form, filling) -> None:
    """A kilobyte that the disk lost; one in twenty may decode to as many blocks as were there."""
    data = encoded(picture.resize((434, 322)), **FORMS[form])
    page = {"zeros": b"\0" * 1024, "ones": b"\xff" * 1024, "text": b"Not Found. " * 94}[filling][:1024]
    tried = [data[:at] + page + data[at + len(page) :] for at in places(data) if at + len(page) < len(data) - 2]
    passed = sum(not refused(decode, one) for one in tried)
    assert passed <= len(tried) / 20


def test_the_reference_decoder_notices_what_is_left_over(picture) -> None:
    """Twice the data of the picture: libjpeg would ignore the rest."""
    data = encoded(picture)
    begin = data.index(b"\xff\xda") + 14
    assert refused(make_decoder("pillow"), data[:-2] + data[begin:-2] + END)


def flat(value: int) -> Image.Image:
    return Image.new("RGB", (300, 200), (value, value, value))


def half_grey(picture: Image.Image) -> Image.Image:
    made = picture.copy()
    made.paste((128, 128, 128), (0, 80, 217, 161))
    return made


def test_whole_pictures_are_never_refused(decode, picture) -> None:
    """Also those that look like cut ones: grey to the end, flat, tiny, of odd sizes, with data behind the end mark."""
    pictures = [picture, half_grey(picture), flat(0), flat(128), flat(255), Image.linear_gradient("L")]
    pictures += [
        picture.crop((0, 0, width, height)) for width, height in ((1, 1), (3, 5), (17, 33), (16, 16), (200, 8))
    ]
    for image in pictures:
        for options in FORMS.values():
            for quality in (10, 75, 100):
                data = encoded(image, **({"quality": quality} | options))
                reference = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
                assert np.array_equal(decode(data), reference), options
    data = encoded(picture)
    for behind in (b"film" * 999, b"\0" * 4096, data):
        assert not refused(decode, data + behind)
    assert not refused(decode, data[:-2] + b"\xff\xff\xff" + END)  # fill bytes before a marker


def test_a_preview_inside_the_header_does_not_matter(decode, picture) -> None:
    exif = Image.Exif()
    exif[0x010E] = "x"
    body = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0") + encoded(picture.resize((40, 30)))
    data = encoded(picture)
    with_preview = data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]
    assert np.array_equal(decode(with_preview), decode(data))
    at = places(with_preview)[30]
    assert refused(decode, with_preview[:at] + END)
