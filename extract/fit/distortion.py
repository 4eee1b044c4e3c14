"""Random distortions of a batch of images in training: rotation, shift, shear, zoom, flips, as one resampling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

__all__ = ["Distortion"]


@dataclass(frozen=True)
class Distortion:
    """How far images are distorted; each is drawn evenly between minus and plus the given value.

    Parameters
    ----------
    rotation : float
        Degrees.
    shift : float
        Share of width and height.
    shear : float
        Angle in radians, as `extract.inputs.views` reads it: the vertical edges turn, and keep their length.
    zoom : float
        Share of the size.
    flips : bool
        Left-right and upside-down, each for half of the images.
    """

    rotation: float = 80.0
    shift: float = 0.2
    shear: float = 0.2
    zoom: float = 0.2
    flips: bool = True

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Distort images (n, 3, height, width); what comes from outside is the nearest edge.

        Draws from torch's global generator, on the CPU.
        """
        n = len(images)
        draw = torch.rand(7, n) * 2 - 1
        angle = draw[0] * math.radians(self.rotation)
        zoom_x, zoom_y = 1 + self.zoom * draw[1], 1 + self.zoom * draw[2]
        if self.flips:
            zoom_x, zoom_y = (torch.where(torch.rand(n) < 0.5, -z, z) for z in (zoom_x, zoom_y))
        slanted = angle + self.shear * draw[3]
        theta = torch.empty(n, 2, 3)  # output places to input places, both in -1..1
        theta[:, 0, 0], theta[:, 0, 1] = zoom_x * angle.cos(), -zoom_y * slanted.sin()
        theta[:, 1, 0], theta[:, 1, 1] = zoom_x * angle.sin(), zoom_y * slanted.cos()
        theta[:, 0, 2], theta[:, 1, 2] = 2 * self.shift * draw[4], 2 * self.shift * draw[5]
        grid = functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
