"""From one decoded image to the pixels that a network sees: resize, crop, and later normalise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import EncoderError

if TYPE_CHECKING:
    import torch

INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "opencv")
CHANNELS = ("RGB", "BGR")


@dataclass(frozen=True)
class Transform:
    """The input of one network; the numbers come from the configuration of its library.

    Parameters
    ----------
    resize : int or (int, int)
        Length of the shorter edge, the ratio kept; or height and width. Pixels.
    crop : (int, int)
        Height and width of the centre crop, not larger than `resize`. Pixels.
    interpolation : {"bicubic", "bilinear", "lanczos", "opencv"}
        Antialiased, except for the last: bilinear between the nearest pixels, as OpenCV resizes by default.
    mean, std : tuple of 3 floats
        Of the channels in [0, 1].
    resizer : {"torchvision", "pillow"}
        Which library resizes. They differ by at most 2 grey levels; Lanczos is always Pillow's.
    channels : {"RGB", "BGR"}
        Their order, for mean and std, too.
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int]
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resizer: str = "torchvision"
    channels: str = "RGB"

    def __post_init__(self) -> None:
        if self.channels not in CHANNELS:
            raise EncoderError(f"channels {self.channels!r} are not supported; valid: {', '.join(CHANNELS)}")
        if self.interpolation not in INTERPOLATIONS:
            raise EncoderError(
                f"interpolation {self.interpolation!r} is not supported; valid: {', '.join(INTERPOLATIONS)}"
            )
        if self.resizer not in RESIZERS:
            raise EncoderError(f"resizer {self.resizer[:40]!r} is not supported; valid: {', '.join(RESIZERS)}")
        edges = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        if self.crop[0] > edges[0] or self.crop[1] > edges[1]:
            raise EncoderError(f"a crop of {self.crop} pixels does not fit into an image resized to {self.resize}")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of what `apply` returns: (3, height, width)."""
        return (3, *self.crop)

    def record(self) -> Mapping[str, Any]:
        """Return the fields for a passport; the resizer has its own place there."""
        fields = asdict(self)
        del fields["resizer"]
        if self.channels == "RGB":  # as format 1.0 has it throughout
            del fields["channels"]
        return fields

    def apply(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize and crop one image.

        Shapes: rgb (height, width, 3) uint8; returns (3, crop height, crop width) uint8.
        """
        height, width = self._resized(rgb.shape[0], rgb.shape[1])
        top = round((height - self.crop[0]) / 2)
        left = round((width - self.crop[1]) / 2)
        end = (top + self.crop[0], left + self.crop[1])
        small = rgb
        if (height, width) != rgb.shape[:2]:
            resize = RESIZERS[_ONLY.get(self.interpolation, self.resizer)]
            small = resize(rgb, (height, width), end, self.interpolation)
        cropped = small[top : end[0], left : end[1]]
        return (cropped if cropped.flags.writeable else cropped.copy()).transpose(2, 0, 1)

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """Turn grey levels into what the network expects, on the device of `batch`.

        Shapes: batch (n, 3, height, width) uint8, or float32, which is overwritten.
        """
        import torch

        # Not made on the device: that waits for all the work that a GPU has before it.
        mean = torch.tensor(self.mean).view(3, 1, 1).to(batch.device, non_blocking=True)
        std = torch.tensor(self.std).view(3, 1, 1).to(batch.device, non_blocking=True)
        if self.channels == "BGR":
            batch = batch.flip(1)
        # The order of torchvision's ToTensor and Normalize: with equal pixels the result is equal to the bit.
        return batch.to(torch.float32).div_(255).sub_(mean).div_(std)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.resize, int):
            return self.resize
        # torchvision.transforms.Resize truncates the longer edge
        if width <= height:
            return int(self.resize * height / width), self.resize
        return self.resize, int(self.resize * width / height)


def _resize_torch(
    rgb: NDArray[np.uint8], size: tuple[int, int], end: tuple[int, int], interpolation: str
) -> NDArray[np.uint8]:
    """Resize to `size`, but make only what lies above and left of `end`: a fifth of the work, equal to the bit."""
    import torch

    writable = rgb if rgb.flags.writeable else rgb.copy()  # torch warns of memory that it must not change
    height, width = rgb.shape[:2]
    # A batch of one whose strides are those of channels last to the letter; else torch returns the other layout
    strides = (3 * height * width, 1, 3 * width, 3)
    image = torch.from_numpy(np.ascontiguousarray(writable)).as_strided((1, 3, height, width), strides)
    # What `torch.nn.functional.interpolate(antialias=True)` calls; that one takes a size or scales, not both
    kernel = {
        "bicubic": torch.ops.aten._upsample_bicubic2d_aa.default,
        "bilinear": torch.ops.aten._upsample_bilinear2d_aa.default,
    }[interpolation]
    down, across = size[0] / height, size[1] / width
    # A pass is left out where an edge stays as long as it was: one row or column more, if that is by chance
    end = (end[0] + (end[0] == height != size[0]), end[1] + (end[1] == width != size[1]))
    if _columns_first(height, width, size):
        image = kernel(image, [end[0], width], False, down, 1.0)  # noqa: FBT003
        down = 1.0
    resized = kernel(image, list(end), False, down, across)[0].permute(1, 2, 0).numpy()  # noqa: FBT003
    return np.asarray(resized)


def _columns_first(height: int, width: int, size: tuple[int, int]) -> bool:
    """Tell whether Pillow goes along the columns before the rows.

    Grey levels are rounded between the passes, so their order shows: in every seventh value, by one level, which moved
    a cosine from 0.999996 to 0.99985. torch goes along the rows first; so did Pillow before version 13, which takes
    the columns first where the height shrinks by more than twice as many pixels as the width (pull request 9549).
    """
    return size[0] < height and height - size[0] > 2 * (width - size[1])


def _resize_pillow(
    rgb: NDArray[np.uint8], size: tuple[int, int], end: tuple[int, int], interpolation: str
) -> NDArray[np.uint8]:
    from PIL import Image

    del end  # Pillow's own resize makes everything
    method = Image.Resampling[interpolation.upper()]
    return np.asarray(Image.fromarray(rgb).resize((size[1], size[0]), method))


def _resize_opencv(
    rgb: NDArray[np.uint8], size: tuple[int, int], end: tuple[int, int], interpolation: str
) -> NDArray[np.uint8]:
    """Resize as OpenCV does by default: two pixels each way, and nothing of those between them."""
    import torch

    del end, interpolation  # there is one way
    image = torch.from_numpy(rgb.transpose(2, 0, 1)[None].astype(np.float32))
    resized = torch.nn.functional.interpolate(image, size, mode="bilinear", align_corners=False)[0]
    return np.asarray(resized.add_(0.5).to(torch.uint8).permute(1, 2, 0).numpy())


RESIZERS = {"torchvision": _resize_torch, "pillow": _resize_pillow, "opencv": _resize_opencv}
"""By name, what resizes: torch's uint8 kernels with antialiasing, Pillow, or what has no antialiasing."""
_ONLY = {"lanczos": "pillow", "opencv": "opencv"}  # interpolations of one resizer
