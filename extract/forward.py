"""The forward pass of one network: device, memory layout, precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.encoders.record import Network
from extract.errors import DeviceError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
BATCH_SIZES = {"cpu": 8, "cuda": 128}
"""By device, images per forward pass where nothing else is asked; larger ones cost a CPU more in memory traffic."""


def choose_device(name: str = "auto") -> str:
    """Return ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    DeviceError
        If the name is not valid, or torch sees no such device.
    """
    import torch

    if name not in DEVICES:
        msg = f"unknown device {name!r}; valid: {', '.join(DEVICES)}"
        raise DeviceError(msg)
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        msg = "--device cuda: torch sees no CUDA device here; use --device cpu, or install a CUDA build of torch"
        raise DeviceError(msg)
    if name == "auto":
        return "cuda" if available else "cpu"
    return name


def autocast_dtype(device: str) -> str | None:
    """Return the type of mixed precision on a device, None for plain float32.

    float16 rather than bfloat16 wherever there are tensor cores (compute capability 7): at the same speed it
    keeps 3 bits more of each activation. CPUs stay in float32, as bfloat16 is slower on most.
    """
    import torch

    if device == "cuda" and torch.cuda.get_device_capability()[0] >= 7:
        return "float16"
    return None


class Forward:
    """Run batches of one network.

    Parameters
    ----------
    network : Network
        Its module is moved to the device.
    device : {"cpu", "cuda"}
    """

    def __init__(self, network: Network, device: str) -> None:
        self.network = network
        self.device = device
        self._module = self._placed(network.module)

    def __call__(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of a batch.

        Parameters
        ----------
        batch : ndarray of shape (n, *network.input_shape)

        Returns
        -------
        dict
            By tap: (n, *shape) float32.
        """
        if self._module is None:  # no network: what was prepared are the vectors
            (tap,) = self.network.encoder.taps
            return {tap.name: batch.copy()}
        import torch

        precision = autocast_dtype(self.device)
        autocast = torch.autocast(self.device, getattr(torch, precision or "float32"), enabled=precision is not None)
        with torch.inference_mode(), autocast:
            pixels = torch.from_numpy(batch).to(self.device, non_blocking=True)
            x = self.network.normalise(pixels) if self.network.normalise else pixels
            x = x.contiguous(memory_format=torch.channels_last)
            outputs = self.network.outputs(self._module, x) if self.network.outputs else {}
            return {tap: tensor.float().cpu().numpy() for tap, tensor in outputs.items()}

    def _placed(self, module: torch.nn.Module | None) -> torch.nn.Module | None:
        if module is None:
            return None
        import torch

        # Convolutions of both oneDNN and cuDNN run about twice as fast on this layout.
        return module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
