"""GPUs of Apple (MPS) and Intel (XPU): one thread copies to the device, computes, and copies back.

Copies that do not block give wrong values on MPS, so these block, from memory that is not page-locked. They are not
proven: each encoder is compared with the CPU before its first batch is used (`Device.proven`).
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from numpy.typing import NDArray

from extract.engines.device import Device, Function, Landed, Left, Outputs, device_errors, try_convolution
from features_store.errors import first_line


class Blocking(Device):
    """A device that a thread of its own drives, batch after batch, with copies that block."""

    batch_size = 32
    n_slots = 2  # one is filled while the device computes the other
    proven = False

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        self._thread = ThreadPoolExecutor(1, self.kind)

    def start(self, function: Function, batch: NDArray[Any]) -> tuple[Left, Landed]:
        """Return while the thread works."""

        def upload() -> torch.Tensor:
            with device_errors(self.name()):
                return torch.from_numpy(batch).to(self.address, copy=True)

        def run(uploaded: Future[torch.Tensor]) -> tuple[Outputs, float]:
            start = time.perf_counter()
            with device_errors(self.name()):
                pixels = uploaded.result().contiguous(memory_format=torch.channels_last)
                outputs = [tensor.float().to("cpu", copy=True).numpy() for tensor in function(pixels)]
            return outputs, time.perf_counter() - start

        uploaded = self._thread.submit(upload)
        return uploaded.result, self._thread.submit(run, uploaded).result


class Mps(Blocking):
    """The GPU of an Apple computer; by itself it computes in float32."""

    kind = "mps"

    @classmethod
    def problem(cls, index: int = 0) -> str | None:
        if not torch.backends.mps.is_available():
            return "torch sees no GPU of Apple here" if torch.backends.mps.is_built() else "this torch has no MPS"
        return "there is one GPU of Apple at most" if index else _failure(torch.device("mps"))

    @classmethod
    def remedy(cls) -> str:
        return "an Apple computer with macOS 14 or newer and torch for arm64"

    def name(self) -> str:
        return f"mps ({self.identity()['device_name']})"

    def identity(self) -> Mapping[str, Any]:
        """Older releases of torch cannot name the chip."""
        return {"device": "mps", "device_name": getattr(torch.backends.mps, "get_name", platform.machine)()}

    def precisions(self) -> tuple[str, ...]:
        return ("float16",)

    def memory_used(self) -> int:
        """Return what is taken now, as torch keeps no largest number."""
        return torch.mps.driver_allocated_memory()


class Xpu(Blocking):
    """One GPU of Intel; by itself it computes in float32."""

    kind = "xpu"

    @classmethod
    def problem(cls, index: int = 0) -> str | None:
        n_devices = torch.xpu.device_count() if torch.xpu.is_available() else 0
        return f"torch sees {n_devices} XPU devices" if index >= n_devices else _failure(torch.device("xpu", index))

    @classmethod
    def remedy(cls) -> str:
        return "pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/xpu"

    def name(self) -> str:
        return f"xpu:{self.index} ({self.identity()['device_name']})"

    def identity(self) -> Mapping[str, Any]:
        return {"device": "xpu", "device_name": torch.xpu.get_device_name(self.index)}

    def precisions(self) -> tuple[str, ...]:
        return ("bfloat16", "float16")

    def memory_used(self) -> int:
        return torch.xpu.max_memory_reserved(self.index)


def _failure(device: torch.device) -> str | None:
    """Return why a small convolution does not run, or gives something else than it should."""
    try:
        try_convolution(device)
    except RuntimeError as error:
        return first_line(error)
    return None
