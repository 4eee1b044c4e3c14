"""Saliency maps: Grad-CAM of one network, several maps as one over the picture, cells to cover, and the overlay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
FIELD = 64  # rows and columns of saliency over a whole picture
_SIDE = 512  # pixels of the longer side of an overlay
_COLOURS = np.array([[255, 237, 160], [253, 141, 60], [189, 0, 38]], dtype=np.float64)  # little to much saliency


Region = tuple[float, float, float, float]  # top, left, bottom, right of a rectangle, in shares of height and width
WHOLE: Region = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class SaliencyMap:
    """What each cell of a rectangle adds to the decision, in log-odds (or in units of the value)."""

    cells: Floats  # (n_rows, n_columns)
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
    return (1 - tall) / 2, (1 - broad) / 2, (1 + tall) / 2, (1 + broad) / 2


def grad_cam(network: Any, layer: Any, pixels: Pixels, slopes: Mapping[str, NDArray[np.float32]]) -> SaliencyMap:
    """Carry the gradient of the head, by tap, back to the map that *layer* gives; the ReLU of the paper comes later.

    Shapes: pixels (height, width, 3) uint8.
    """
    import torch
    from captum.attr import LayerGradCam

    class Weighted(torch.nn.Module):
        """The network with a linear end: from pixels to the sum of its values times the gradient of the head."""

        def __init__(self) -> None:
            super().__init__()
            self.module = network.module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            taps = network.outputs(self.module, x)
            parts = [(taps[tap].flatten(1).float() * torch.from_numpy(s)).sum(dim=1) for tap, s in slopes.items()]
            return torch.stack(parts).sum(dim=0)[:, None]

    batch = torch.from_numpy(network.prepare(pixels)[None])
    x = (network.normalise(batch) if network.normalise else batch.float()).requires_grad_()
    cam = LayerGradCam(Weighted(), layer).attribute(x, target=0, relu_attributions=False)
    cells = cam[0, 0].detach().double().numpy()
    return SaliencyMap(cells, region_of(network.transform, *pixels.shape[:2]), "Grad-CAM")


def last_map(network: Any) -> Any:
    """Return the module that gives the last map (channels, height, width) of a network.

    None where there is no network, or where tokens come after the map: it does not show where they look.
    """
    module = network.module
    if module is None or network.outputs is None or getattr(module, "output_fmt", "NCHW") != "NCHW":
        return None
    import torch

    seen: list[tuple[Any, tuple[int, ...]]] = []

    def note(one: Any, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            seen.append((one, tuple(output.shape)))

    hooks = [one.register_forward_hook(note) for one in module.modules() if one is not module]
    try:
        with torch.no_grad():
            blank = torch.zeros((1, *network.input_shape), dtype=getattr(torch, network.input_dtype))
            network.outputs(module, network.normalise(blank) if network.normalise else blank.float())
    finally:
        for hook in hooks:
            hook.remove()
    found = None
    for one, shape in seen:
        if len(shape) == 4 and min(shape[2:]) > 1:
            found = one
        elif len(shape) == 3 and shape[1] > 1:
            found = None
    return found


def combined(maps: Sequence[SaliencyMap], weights: Sequence[float]) -> Floats:
    """Lay maps over the whole picture and add them up, (64, 64); 0 where no map reaches.

    Only the cells of a map that speak for the decision count, divided by their sum, times the map's weight: maps of
    different methods have no common unit, but the share of the decision that each encoder carries is known.
    """
    field, centres = np.zeros((FIELD, FIELD)), (np.arange(FIELD) + 0.5) / FIELD
    for one, weight in zip(maps, weights, strict=True):
        (top, left, bottom, right), positive = one.region, np.maximum(one.cells, 0)
        if not positive.any():
            continue
        high, wide = bottom - top, right - left
        rows, columns = (centres - top) / high, (centres - left) / wide
        inside = ((rows >= 0) & (rows <= 1))[:, None] & ((columns >= 0) & (columns <= 1))[None, :]
        smooth = _between(_between(positive / positive.sum(), rows).T, columns).T
        field += weight * np.where(inside, smooth * positive.size / (high * wide), 0.0)
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
    """Return the mean saliency of each cell of an n x n grid, flat."""
    size = FIELD // n
    means: Floats = field.reshape(n, size, n, size).mean(axis=(1, 3)).ravel()
    return means


def covered(pixels: Pixels, cells: NDArray[np.int64], n: int) -> Pixels:
    """Return a picture with some cells of an n x n grid filled with its mean colour.

    Shapes: pixels (height, width, 3) uint8.
    """
    changed = pixels.copy()
    mean = pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    rows, columns = (np.linspace(0, length, n + 1).round().astype(int) for length in pixels.shape[:2])
    for cell in cells.tolist():
        i, j = divmod(cell, n)
        changed[rows[i] : rows[i + 1], columns[j] : columns[j + 1]] = mean
    return changed


def overlay(pixels: Pixels, field: Floats) -> Any:
    """Return the picture, greyed, under its saliency: what speaks for the decision, from pale to red.

    Shapes: pixels (height, width, 3) uint8; field (64, 64).
    """
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    positive = np.maximum(field, 0)
    peak = positive.max()
    small = Image.fromarray((positive / peak if peak > 0 else positive).astype(np.float32))
    level = np.clip(np.asarray(small.resize(image.size, Image.Resampling.BICUBIC)), 0, 1)
    grey = np.asarray(image.convert("L"), dtype=np.float64)[:, :, None]
    ground = 0.5 * np.asarray(image, dtype=np.float64) + 0.5 * grey
    places = np.linspace(0, 1, len(_COLOURS))
    colour = np.stack([np.interp(level, places, _COLOURS[:, k]) for k in range(3)], axis=2)
    opacity = 0.75 * np.sqrt(level)[:, :, None]
    return Image.fromarray((ground * (1 - opacity) + colour * opacity).round().astype(np.uint8))
