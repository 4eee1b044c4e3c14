"""Heat over a picture: where a map lies in it, several maps as one, the cells of a grid, and the picture to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Heat", "Region", "cell_means", "combined", "covered", "overlay", "region_of"]

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]
FIELD = 64  # rows and columns of heat over a whole picture
_SIDE = 512  # pixels of the longer side of an overlay
_COLOURS = np.array([[255, 237, 160], [253, 141, 60], [189, 0, 38]], dtype=np.float64)  # little to much heat


@dataclass(frozen=True)
class Region:
    """A rectangle in a picture, in shares of its height and width, from 0 to 1."""

    top: float
    left: float
    bottom: float
    right: float


WHOLE = Region(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Heat:
    """What each cell of a rectangle adds to the decision.

    Parameters
    ----------
    cells : ndarray of shape (n_rows, n_columns)
        Log-odds of each cell.
    """

    cells: Floats
    region: Region
    method: str


def region_of(transform: Mapping[str, Any], height: int, width: int) -> Region:
    """Return the part of a picture that a network sees, from the ``transform`` of its passport."""
    resize, crop = transform["resize"], transform.get("crop")
    if crop is None:
        return WHOLE
    if isinstance(resize, int):
        edge = min(height, width)
        high, wide = resize * height / edge, resize * width / edge
    else:
        high, wide = resize
    tall, broad = min(crop[0] / high, 1.0), min(crop[1] / wide, 1.0)
    return Region((1 - tall) / 2, (1 - broad) / 2, (1 + tall) / 2, (1 + broad) / 2)


def combined(heats: Sequence[Heat], weights: Sequence[float]) -> Floats:
    """Lay maps over the whole picture and add them up, (64, 64); 0 where no map reaches.

    Of each map what speaks for the decision counts, brought to a sum of 1, times its weight: maps made in different
    ways have no common unit, but the share of the decision that goes through each of them is known.
    """
    field = np.zeros((FIELD, FIELD))
    for heat, weight in zip(heats, weights, strict=True):
        region, warm = heat.region, np.maximum(heat.cells, 0)
        if not warm.any():
            continue
        area = (region.bottom - region.top) * (region.right - region.left)
        centres = (np.arange(FIELD) + 0.5) / FIELD
        rows = (centres - region.top) / (region.bottom - region.top)
        columns = (centres - region.left) / (region.right - region.left)
        inside = ((rows >= 0) & (rows <= 1))[:, None] & ((columns >= 0) & (columns <= 1))[None, :]
        smooth = _between(_between(warm / warm.sum(), rows).T, columns).T
        field += weight * np.where(inside, smooth * warm.size / area, 0.0)
    return field


def _between(cells: Floats, places: Floats) -> Floats:
    """Interpolate rows of cells, whose centres lie at (i + 1/2) / n, at some places; beyond the last, the last."""
    n = len(cells)
    at = np.clip(places * n - 0.5, 0, n - 1)
    low = np.minimum(at.astype(int), max(n - 2, 0))
    share = (at - low)[:, None]
    found: Floats = cells[low] * (1 - share) + cells[np.minimum(low + 1, n - 1)] * share
    return found


def cell_means(field: Floats, n: int) -> Floats:
    """Return the mean heat of each cell of an n x n grid, flat."""
    size = FIELD // n
    means: Floats = field.reshape(n, size, n, size).mean(axis=(1, 3)).ravel()
    return means


def covered(picture: Picture, cells: NDArray[np.int64], n: int) -> Picture:
    """Return a picture with some cells of an n x n grid filled with its mean colour.

    Shapes: picture (height, width, 3) uint8.
    """
    changed = picture.copy()
    mean = picture.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    rows, columns = (np.linspace(0, length, n + 1).round().astype(int) for length in picture.shape[:2])
    for cell in cells.tolist():
        i, j = divmod(cell, n)
        changed[rows[i] : rows[i + 1], columns[j] : columns[j + 1]] = mean
    return changed


def overlay(picture: Picture, field: Floats) -> Any:
    """Return the picture, greyed, under its heat: what speaks for the decision, from pale to red.

    Shapes: picture (height, width, 3) uint8; field (64, 64).
    """
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((_SIDE, _SIDE))
    warm = np.maximum(field, 0)
    peak = warm.max()
    small = Image.fromarray((warm / peak if peak > 0 else warm).astype(np.float32))
    heat = np.clip(np.asarray(small.resize(image.size, Image.Resampling.BICUBIC)), 0, 1)[:, :, None]
    grey = np.asarray(image.convert("L"), dtype=np.float64)[:, :, None]
    ground = 0.5 * np.asarray(image, dtype=np.float64) + 0.5 * grey
    places = np.linspace(0, 1, len(_COLOURS))
    colour = np.stack([np.interp(heat[:, :, 0], places, _COLOURS[:, k]) for k in range(3)], axis=2)
    opacity = 0.75 * np.sqrt(heat)
    return Image.fromarray((ground * (1 - opacity) + colour * opacity).round().astype(np.uint8))
