"""Distort batches of images at random, by the policies of the views: anew in each epoch, on the device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from extract.inputs.views import Policy

if TYPE_CHECKING:
    import torch

__all__ = ["distort", "windows"]


def distort(images: torch.Tensor, policy: Policy) -> torch.Tensor:
    """Distort images (n, 3, height, width) of grey levels from 0 to 255; returns float32.

    One resampling rotates, shears, shifts, scales, flips and crops; outside, the nearest edge is repeated. The shear
    turns the vertical edges, which keep their length, as in the views. The policy's zoom is drawn as the edge of the
    window that is seen, as Keras does (the views draw the magnification, its inverse). Draws from torch's global
    generator, on the CPU.
    """
    import torch
    from torch.nn import functional

    n = len(images)
    draw = torch.rand(7, n) * 2 - 1
    angle = draw[0] * math.radians(policy.rotation)
    low, high = policy.zoom
    middle, half = (low + high) / 2, (high - low) / 2
    scale_x, scale_y = middle + half * draw[1], middle + half * draw[2]
    if "horizontal" in policy.flips:
        scale_x = torch.where(torch.rand(n) < 0.5, -scale_x, scale_x)
    if "vertical" in policy.flips:
        scale_y = torch.where(torch.rand(n) < 0.5, -scale_y, scale_y)
    move_x, move_y = 2 * policy.shift * draw[4], 2 * policy.shift * draw[5]
    if policy.crop != (1.0, 1.0):
        side = policy.crop[0] + (policy.crop[1] - policy.crop[0]) * torch.rand(n)
        way = (torch.rand(2, n) * 2 - 1) * (1 - side)
        scale_x, scale_y, move_x, move_y = scale_x * side, scale_y * side, move_x + way[0], move_y + way[1]
    slanted = angle + policy.shear * draw[3]
    theta = torch.empty(n, 2, 3)  # output places to input places, both in -1..1
    theta[:, 0, 0], theta[:, 0, 1] = scale_x * angle.cos(), -scale_y * slanted.sin()
    theta[:, 1, 0], theta[:, 1, 1] = scale_x * angle.sin(), scale_y * slanted.cos()
    theta[:, 0, 2], theta[:, 1, 2] = move_x, move_y
    grid = functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return _toned(moved, policy)


def _toned(images: torch.Tensor, policy: Policy) -> torch.Tensor:
    """Brighten, and blur by a Gaussian of the width that the views' three box blurs have."""
    import torch
    from torch.nn import functional

    n, _, height, width = images.shape
    if policy.brightness != (1.0, 1.0):
        factor = policy.brightness[0] + (policy.brightness[1] - policy.brightness[0]) * torch.rand(n, 1, 1, 1)
        images = (images * factor.to(images.device)).clamp(0, 255)
    if policy.blur != (0.0, 0.0):
        radius = (policy.blur[0] + (policy.blur[1] - policy.blur[0]) * torch.rand(n, 1)) * min(height, width)
        reach = math.ceil(3 * policy.blur[1] * min(height, width)) + 1
        places = torch.arange(-reach, reach + 1)
        # A box of radius r has the variance ((2r + 1)^2 - 1) / 12; three of them add up
        kernel = torch.exp(-(places**2) / (2 * ((2 * radius + 1) ** 2 - 1).clamp(min=1e-3) / 4))
        kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0).to(images.device)
        flat = functional.pad(images.reshape(1, 3 * n, height, width), (reach,) * 4, mode="replicate")
        flat = functional.conv2d(flat, kernel[:, None, :, None], groups=3 * n)
        images = functional.conv2d(flat, kernel[:, None, None, :], groups=3 * n).view(n, 3, height, width)
    return images


def windows(images: torch.Tensor, size: int, *, at_random: bool) -> torch.Tensor:
    """Cut a window of (size, size) out of each image: at random, or out of the middle as `Transform` does."""
    import torch

    free = images.shape[2] - size
    if not free:
        return images
    if not at_random:
        start = round(free / 2)
        return images[:, :, start : start + size, start : start + size]
    starts = torch.randint(free + 1, (len(images), 2)).tolist()
    return torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in zip(images, starts, strict=True)])
