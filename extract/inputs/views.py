"""Views: several looks at one image, so that a head can train on augmented images without seeing pixels again.

View 0 is the image itself. Every other view is drawn from the id of the image and the number of the view, and from
nothing else: no seed, no random generator, no order of work. A view is made from the decoded image, before any
encoder's own transform (which still takes its own resize and centre crop), so all encoders see the same view.

Large images are first reduced by a whole factor to a shorter edge of 448 to 895 pixels, and of images longer than 2:1
the middle is taken, which is where the encoders look too. Geometry is one affine map with bilinear interpolation; what
comes from outside the image repeats its edge. All coefficients are multiples of 2^-16, whose products are exact in
double precision: the pixels do not depend on how a processor rounds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import EncoderError
from features_store.errors import unknown_name

VERSION = 1  # of what a policy's numbers mean; it stands in passports
EDGE, RATIO = 448, 2
MAX_VIEWS = 1000
_STEP = 1 << 16
_Range = tuple[float, float]


@dataclass(frozen=True)
class Policy:
    """What the views of an image may look like; each number is drawn evenly from its range.

    Parameters
    ----------
    crop : (float, float)
        Edges of a window with the image's ratio, relative to the image's; the window lies anywhere inside.
    rotation, shear : float
        Largest angle in both directions: degrees, radians.
    shift : float
        Largest way in both directions along each axis, relative to the edge.
    zoom : (float, float)
        Magnification, drawn for each axis alone: above 1 shows less of the image, larger. (`extract fit` draws its
        inverse.)
    flips : tuple of {"horizontal", "vertical"}
        Each is done to half of the views.
    blur : (float, float)
        Radius of a box blur that is done three times (nearly a Gaussian), relative to the shorter edge.
    brightness : (float, float)
        Factor of the grey levels.
    window : float
        Share of the shorter edge that the network sees of an image whose aspect is kept (its `crop`); that window then
        lies anywhere in the image, and not in its middle. 0 = it stays there. (`extract fit` draws it by itself.)
    """

    crop: _Range = (1.0, 1.0)
    rotation: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    zoom: _Range = (1.0, 1.0)
    flips: tuple[str, ...] = ()
    blur: _Range = (0.0, 0.0)
    brightness: _Range = (1.0, 1.0)
    window: float = 0.0


POLICIES: dict[str, Policy] = {
    # MediaEval 2021: "random crop, blur, brightness, rotation"; the ranges are ours.
    "mediaeval": Policy(crop=(0.8, 1.0), rotation=15, blur=(0.0, 0.005), brightness=(0.8, 1.2)),
    # For maps of ResNet-101: a crop of 0.875 before that of the network, horizontal flip, up to 20 degrees.
    "flip-rotate-crop": Policy(crop=(0.875, 0.875), rotation=20, flips=("horizontal",)),
    # The same as the thesis had it: its network sees .875 of the shorter edge, at random in training.
    "random-crop": Policy(window=0.875, rotation=20, flips=("horizontal",)),
    # Emosepar: rotation 80, shifts 0.2, shear 0.2, zoom 0.2, both flips. Its shear is read as radians, as the
    # library of the time did: 0.2 degrees would be nothing.
    "strong": Policy(rotation=80, shear=0.2, shift=0.2, zoom=(0.8, 1.2), flips=("horizontal", "vertical")),
}


@dataclass(frozen=True)
class Views:
    """How many views of each image are made, and which.

    Parameters
    ----------
    n : int
        View 0 included.
    policy : str
        Of the others; a name of `POLICIES`.
    """

    n: int = 1
    policy: str = "mediaeval"

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise EncoderError(unknown_name("policy of views", self.policy, POLICIES))
        if not 1 <= self.n <= MAX_VIEWS:
            raise EncoderError(f"{self.n} views were requested; 1 (the image itself) to {MAX_VIEWS} can be made")

    def record(self) -> Mapping[str, Any] | None:
        """Return the entry of a passport; None where there is the image alone."""
        if self.n == 1:
            return None
        policy = asdict(POLICIES[self.policy])
        if not policy["window"]:  # as version 1 had it throughout
            del policy["window"]
        return {"n": self.n, "policy": self.policy, "version": VERSION, **policy}

    def make(self, rgb: NDArray[np.uint8], image_id: str, view: int) -> NDArray[np.uint8]:
        """Return one view of a decoded image.

        Shapes: rgb (height, width, 3) uint8; returns (height, width, 3) uint8.
        """
        if view == 0:
            return rgb
        draws, policy = _Draws(image_id, view), POLICIES[self.policy]
        small = _reduced(rgb)
        return _toned(_moved(small, policy, draws), policy, draws, edge=min(small.shape[:2]))


CANONICAL = Views()
"""Each image as it is, and nothing else."""


class _Draws:
    """Even draws by name; a policy that draws one more thing leaves the others as they were."""

    def __init__(self, image_id: str, view: int) -> None:
        self._key = f"{view}\0{image_id}\0"

    def between(self, name: str, ends: _Range) -> float:
        digest = hashlib.sha256((self._key + name).encode()).digest()
        share = (int.from_bytes(digest[:8], "big") >> 11) / (
            1 << 53
        )  # every double in [0, 1) on this grid alike likely
        return ends[0] + share * (ends[1] - ends[0])

    def around(self, name: str, most: float) -> float:
        return self.between(name, (-most, most))


def _reduced(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    height, width = rgb.shape[:2]
    high, wide = min(height, RATIO * width), min(width, RATIO * height)
    top, left = (height - high) // 2, (width - wide) // 2
    middle = rgb[top : top + high, left : left + wide]
    factor = min(high, wide) // EDGE
    if factor < 2:
        return middle
    return np.asarray(Image.fromarray(np.ascontiguousarray(middle)).reduce(factor))


def _moved(rgb: NDArray[np.uint8], policy: Policy, draws: _Draws) -> NDArray[np.uint8]:
    """Crop, rotate, shear, shift, zoom and flip with one interpolation."""
    from PIL import Image

    size = np.array([rgb.shape[1], rgb.shape[0]], dtype=np.float64)  # x, y
    side = draws.between("crop", policy.crop)
    window = np.maximum(np.round(size * side), 1)
    free = (size - window) / 2
    centre = size / 2 + [draws.around("crop x", free[0]), draws.around("crop y", free[1])]
    centre += [draws.around(f"shift {axis}", policy.shift * edge) for axis, edge in zip("xy", size, strict=True)]
    if policy.window:
        free = size - policy.window * size.min()
        centre += [draws.around("window x", free[0] / 2), draws.around("window y", free[1] / 2)]
    matrix = _on_grid(_matrix(policy, draws))  # from the view to the image, both about their centres
    start = _on_grid(centre - matrix @ (window / 2))
    corners = start + [matrix @ [x, y] for x in (0, window[0]) for y in (0, window[1])]
    before = np.maximum(np.ceil(-corners.min(axis=0)), 0).astype(int) + 1
    after = np.maximum(np.ceil(corners.max(axis=0) - size), 0).astype(int) + 1
    wide = np.pad(rgb, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge")
    (a, b), (d, e) = matrix.tolist()
    c, f = (start + before).tolist()
    image, shape = Image.fromarray(wide), (int(window[0]), int(window[1]))
    return np.asarray(image.transform(shape, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR))


def _matrix(policy: Policy, draws: _Draws) -> NDArray[np.float64]:
    angle = math.radians(draws.around("rotation", policy.rotation))
    shear = draws.around("shear", policy.shear)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    slant = np.array([[1.0, -math.sin(shear)], [0.0, math.cos(shear)]])
    scale = [1 / draws.between(f"zoom {axis}", policy.zoom) for axis in "xy"]
    for at, flip in enumerate(("horizontal", "vertical")):
        if flip in policy.flips and draws.between(flip, (0, 1)) < 0.5:
            scale[at] = -scale[at]
    return turn @ slant @ np.diag(scale)


def _toned(rgb: NDArray[np.uint8], policy: Policy, draws: _Draws, *, edge: int) -> NDArray[np.uint8]:
    """Blur and brighten."""
    from PIL import Image, ImageFilter

    radius = round(draws.between("blur", policy.blur) * edge * 16) / 16  # pixels
    factor = round(draws.between("brightness", policy.brightness) * _STEP) / _STEP
    image = Image.fromarray(rgb)
    for _ in range(3 if radius else 0):
        image = image.filter(ImageFilter.BoxBlur(radius))
    if factor != 1:
        image = image.point([min(int(level * factor + 0.5), 255) for level in range(256)] * 3)
    return np.asarray(image)


def _on_grid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    gridded: NDArray[np.float64] = np.round(values * _STEP) / _STEP
    return gridded
