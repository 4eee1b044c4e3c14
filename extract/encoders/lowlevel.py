"""Colours, edges and textures of an image without any network: what the systems before deep networks used.

Colour histograms: Siersdorfer et al. 2010. Colourfulness: Hasler and Süsstrunk 2003, equation 12. GIST-like energies:
Oliva and Torralba 2001. Local binary patterns: Ojala et al. 2002. Histograms of gradients: Dalal and Triggs 2005.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.encoders.spec import Encoder, EncoderSpec
from extract.encoders.weights import Weights
from extract.inputs.transforms import Transform

SIDE = 128  # pixels; the whole picture is squashed to this square
BINS = 16  # of each colour histogram
SCALES, DIRECTIONS = 4, 8  # of the Gabor filters
GRID = 4  # the energies are averaged in 4 x 4 fields
LBP_GRID = 2
HOG_ORIENTATIONS, HOG_CELL = 9, 32

Floats = NDArray[np.floating[Any]]


def published(spec: EncoderSpec) -> str:
    """Return what passports call the published weights: there are none."""
    del spec
    return ""


def build(spec: EncoderSpec, weights: Weights, resizer: str) -> Encoder:
    """Return an encoder without a network: `prepare` computes the vector itself, and `weights` has no meaning."""
    del weights
    transform = Transform((SIDE, SIDE), (SIDE, SIDE), "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), resizer)

    def prepare(rgb: NDArray[np.uint8]) -> Floats:
        return describe(transform.apply(rgb).transpose(1, 2, 0))

    names = feature_names()
    return Encoder(
        spec=spec,
        prepare=prepare,
        input_shape=(len(names),),
        input_dtype="float32",
        shapes={"features": (len(names),)},
        weights={},
        transform={"resize": [SIDE, SIDE], "interpolation": "bicubic", "features": 1},
        names={"features": names},
    )


def reference(encoder: Encoder) -> Callable[[Any], dict[str, Any]]:
    """Return the way from a Pillow image to the vector with Pillow's own resize."""
    del encoder
    from PIL import Image

    def vectors(picture: Any) -> dict[str, Any]:
        return {"features": describe(np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))}

    return vectors


def describe(rgb: NDArray[np.uint8]) -> Floats:
    """Return all low-level features of one square image.

    Shapes: rgb (128, 128, 3) uint8; returns (973,) float32.
    """
    from skimage.color import rgb2hsv

    unit = rgb.astype(np.float32) / 255
    grey = unit @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601 luma
    parts = (
        _histograms(unit),
        _histograms(rgb2hsv(unit)),
        _colourfulness(unit),
        _gabor_energies(grey),
        _binary_patterns(grey),
        _gradients(grey),
    )
    return np.concatenate(parts).astype(np.float32)


@cache
def feature_names() -> tuple[str, ...]:
    """Return what each value means, in the order of `describe`."""
    names = [f"{channel} {bin_}/{BINS}" for channel in ["red", "green", "blue"] for bin_ in range(BINS)]
    names += [f"{channel} {bin_}/{BINS}" for channel in ["hue", "saturation", "value"] for bin_ in range(BINS)]
    names += ["colourfulness"]
    names += [
        f"gabor wavelength {2 ** (scale + 2)} direction {180 * turn / DIRECTIONS:g} field {row},{column}"
        for scale in range(SCALES)
        for turn in range(DIRECTIONS)
        for row in range(GRID)
        for column in range(GRID)
    ]
    names += [
        f"lbp {pattern} field {row},{column}"
        for row in range(LBP_GRID)
        for column in range(LBP_GRID)
        for pattern in range(10)
    ]
    blocks = SIDE // HOG_CELL - 1
    names += [
        f"hog block {row},{column} cell {y},{x} direction {180 * turn / HOG_ORIENTATIONS:g}"
        for row in range(blocks)
        for column in range(blocks)
        for y in range(2)
        for x in range(2)
        for turn in range(HOG_ORIENTATIONS)
    ]
    return tuple(names)


def _histograms(channels: NDArray[Any]) -> Floats:
    """Return the share of pixels per bin: (height, width, 3) in [0, 1] -> (3 * BINS,)."""
    bins = np.minimum((channels * BINS).astype(np.int64), BINS - 1).reshape(-1, 3)
    counts = np.bincount((bins + BINS * np.arange(3)).ravel(), minlength=3 * BINS)
    return (counts / len(bins)).astype(np.float32)


def _colourfulness(unit: Floats) -> Floats:
    red, green, blue = np.moveaxis(unit, 2, 0)
    opponent = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, -1)
    spread = np.linalg.norm(opponent.std(axis=1))
    return np.array([spread + 0.3 * np.linalg.norm(opponent.mean(axis=1))], dtype=np.float32)


def _gabor_energies(grey: Floats) -> Floats:
    """Return the mean response of each filter in each field: (128, 128) -> (SCALES * DIRECTIONS * GRID**2,)."""
    from torch import fft, from_numpy

    # torch's transform of single precision takes a third of the time of scipy's
    spectrum = fft.fft2(from_numpy(grey - grey.mean()))
    responses = np.abs(fft.ifft2(spectrum * from_numpy(_gabor_bank())).numpy())  # (filters, 128, 128)
    field = SIDE // GRID
    # The innermost sums first: they run along the memory
    energies = responses.reshape(-1, GRID, field, GRID, field).mean(axis=4).mean(axis=2)
    found: Floats = energies.astype(np.float32).ravel()
    return found


@cache
def _gabor_bank() -> Floats:
    """Return the transfer functions: (filters, 128, 128), each a bump about its frequency, one octave wide."""
    cycles = np.fft.fftfreq(SIDE)  # per pixel
    radius = np.hypot(cycles[:, None], cycles[None, :])
    angle = np.arctan2(cycles[:, None], cycles[None, :])
    radius[0, 0] = 1e-9  # the mean has been taken out already
    bank = []
    for scale in range(SCALES):
        octaves = np.log2(radius * 2 ** (scale + 2))  # from the centre of this scale
        for turn in range(DIRECTIONS):
            off = np.angle(np.exp(1j * (angle - np.pi * turn / DIRECTIONS)))
            bank.append(np.exp(-2 * octaves**2 - (off * DIRECTIONS / np.pi) ** 2))
    return np.array(bank, dtype=np.float32)


def _binary_patterns(grey: Floats) -> Floats:
    """Return the share of each uniform pattern (8 neighbours, radius 1) per field: (128, 128) -> (40,)."""
    from skimage.feature import local_binary_pattern

    patterns = local_binary_pattern((grey * 255).astype(np.uint8), 8, 1, method="uniform").astype(np.int64)
    field = SIDE // LBP_GRID
    cells = patterns.reshape(LBP_GRID, field, LBP_GRID, field).swapaxes(1, 2).reshape(LBP_GRID**2, -1)
    counts = np.stack([np.bincount(cell, minlength=10) for cell in cells])
    return (counts / field**2).astype(np.float32).ravel()


def _gradients(grey: Floats) -> Floats:
    from skimage.feature import hog

    found: Floats = hog(
        grey,
        orientations=HOG_ORIENTATIONS,
        pixels_per_cell=(HOG_CELL, HOG_CELL),
        cells_per_block=(2, 2),
        block_norm="L2-Hys",
    )
    return found
