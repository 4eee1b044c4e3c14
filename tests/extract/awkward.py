"""Awkward images: the forms in which real corpora hold pictures, and what each must look like after decoding.

The expected pixels come from Pillow, by the rule that ``extract/inputs/images.py`` documents.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageOps

ORIENTATION = 0x0112


@dataclass(frozen=True)
class Awkward:
    """One file and the RGB picture that it stands for."""

    data: bytes
    expected: Image.Image


def _file(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _plain(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")


def _high_byte(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)).convert("RGB")


def _made(data: bytes, rule: Callable[[Image.Image], Image.Image] = _plain) -> Awkward:
    with Image.open(io.BytesIO(data)) as image:
        return Awkward(data, rule(image))


def _exif(image: Image.Image, orientation: int) -> Awkward:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return _made(_file(image, "JPEG", quality=92, exif=exif), lambda one: ImageOps.exif_transpose(one).convert("RGB"))


def _palette(photo: Image.Image) -> Image.Image:
    palette = photo.quantize(200)
    palette.info["transparency"] = 3
    return palette


def _sixteen_bits(photo: Image.Image) -> Image.Image:
    grey = np.asarray(photo.convert("L")).astype(np.uint16)
    return Image.fromarray((grey << 8) + (grey // 2))


def awkward_images(photo: np.ndarray) -> dict[str, Awkward]:
    """Make the set from one photograph.

    Parameters
    ----------
    photo : ndarray of shape (height, width, 3), uint8
    """
    whole = Image.fromarray(photo)
    small = whole.resize((480, 320))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = {
        "portrait": _made(_file(whole.resize((300, 640)), "JPEG", quality=90)),
        "panorama": _made(_file(whole.resize((2000, 200)), "JPEG", quality=90)),
        "tiny": _made(_file(whole.resize((20, 13)), "PNG")),
        "large": _made(_file(whole.resize((6000, 4000)), "JPEG", quality=85)),
        "greyscale": _made(_file(small.convert("L"), "JPEG", quality=90)),
        "sixteen bits": _made(_file(_sixteen_bits(small), "PNG"), _high_byte),
        "palette": _made(_file(_palette(small), "PNG", transparency=3), _over_white),
        "cmyk": _made(_file(small.convert("CMYK"), "JPEG", quality=90)),
        "progressive": _made(_file(small, "JPEG", quality=90, progressive=True)),
        "webp": _made(_file(small, "WEBP", quality=90)),
        "bmp": _made(_file(small, "BMP")),
        "gif": _made(_file(small.quantize(128), "GIF")),
        "animation": _made(
            _file(small.quantize(64), "GIF", save_all=True, append_images=[ImageOps.mirror(small).quantize(64)])
        ),
        "icc": _made(_file(small, "JPEG", quality=90, icc_profile=srgb)),
    }
    return made | {f"exif {orientation}": _exif(small, orientation) for orientation in range(1, 9)}
