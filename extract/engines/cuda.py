"""CUDA: the last inch between a batch in host memory and one GPU."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from extract.engines.device import (
    Device,
    Function,
    Landed,
    Left,
    Outputs,
    channels_last,
    device_errors,
    try_convolution,
)
from features_store.errors import first_line

_WHEELS = ((13, 0), (12, 8), (12, 6), (11, 8))
"""Versions of CUDA that torch has had wheels for, newest first."""


class Cuda(Device):
    """One GPU of NVIDIA.

    By itself it computes in float16 rather than bfloat16 wherever there are tensor cores (compute capability 7): at the
    same speed float16 keeps 3 bits more of each activation. What is computed in float32 is really float32: TF32, whose
    mantissas have 10 bits, is off. The index is among the GPUs that torch sees, which CUDA_VISIBLE_DEVICES decides.
    """

    kind = "cuda"
    batch_size = 128
    n_slots = 2  # one is filled while the GPU reads the other

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False

    @classmethod
    def visible(cls) -> str | None:
        """Name a GPU that the driver's own program or a device file shows."""
        if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1", "NoDevFiles"):
            return None
        listed = re.search(r"^GPU \d+: (.+?)(?: \(UUID.*)?$", _smi("-L"), re.MULTILINE)
        if listed:
            return listed.group(1)
        return "an NVIDIA GPU" if glob.glob("/dev/nvidia[0-9]*") else None

    @classmethod
    def problem(cls, index: int = 0) -> str | None:
        """Say why torch cannot use the GPU; a small convolution is tried, for cards older than torch's kernels."""
        if torch.version.cuda is None:
            return f"torch {torch.__version__} is built without CUDA"
        try:
            torch.cuda.init()
            n_devices = torch.cuda.device_count()
            if index >= n_devices:
                return f"torch sees {n_devices} CUDA devices" if n_devices else "torch sees no CUDA device here"
            try_convolution(torch.device("cuda", index))
        except (RuntimeError, AssertionError) as error:
            return first_line(error)
        return None

    @classmethod
    def remedy(cls) -> str:
        """Give the pip line of the newest torch that the installed driver can run."""
        version = re.search(r"CUDA Version: (\d+)\.(\d+)", _smi())
        if version is None:
            return "install NVIDIA's driver and a CUDA build of torch (https://pytorch.org/get-started/locally)"
        newest = (int(version.group(1)), int(version.group(2)))
        fitting = next((wheel for wheel in _WHEELS if wheel <= newest), None)
        if fitting is None:
            return f"update NVIDIA's driver, which knows CUDA {newest[0]}.{newest[1]}; torch needs 11.8 or newer"
        index = "https://download.pytorch.org/whl/cu" + "".join(map(str, fitting))
        return f"pip install --force-reinstall torch torchvision --index-url {index}"

    def name(self) -> str:
        memory = torch.cuda.get_device_properties(self.index).total_memory / 2**30
        return f"cuda:{self.index} ({torch.cuda.get_device_name(self.index)}, {memory:.0f} GiB)"

    def identity(self) -> Mapping[str, Any]:
        return {"device": "cuda", "device_name": torch.cuda.get_device_name(self.index), "tf32": False}

    def precisions(self) -> tuple[str, ...]:
        """Emulated types are none."""
        with torch.cuda.device(self.index):
            bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("float16", "bfloat16") if bfloat16 else ("float16",)

    def default_precision(self) -> str | None:
        return "float16" if torch.cuda.get_device_capability(self.index)[0] >= 7 else None

    def memory(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return page-locked memory, from which the GPU copies while the CPU goes on."""
        with device_errors(self.name()):
            return channels_last(shape, dtype, pinned=True)

    def start(self, function: Function, batch: NDArray[Any]) -> tuple[Left, Landed]:
        """Return while the GPU works."""
        with device_errors(self.name()), torch.cuda.device(self.index):
            begun = _reached()
            pixels = torch.from_numpy(batch).to(self.address, non_blocking=True)
            uploaded = _reached()
            outputs = function(pixels.contiguous(memory_format=torch.channels_last))
            # Into page-locked memory, in the GPU's own time.
            landed = [tensor.float().to("cpu", non_blocking=True) for tensor in outputs]
            done = _reached()

        def left() -> None:
            with device_errors(self.name()):
                uploaded.synchronize()

        def wait() -> tuple[Outputs, float]:
            with device_errors(self.name()):
                done.synchronize()
                return [tensor.numpy() for tensor in landed], begun.elapsed_time(done) / 1000

        return left, wait

    def random_state(self) -> torch.Tensor:
        return torch.cuda.get_rng_state(self.index)

    def set_random_state(self, state: torch.Tensor) -> None:
        torch.cuda.set_rng_state(state, self.index)

    def memory_used(self) -> int:
        return torch.cuda.max_memory_reserved(self.index)


def _reached() -> torch.cuda.Event:
    """Return the moment, in the device's time, at which all that it was given until now is done.

    A thread that waits for it sleeps: one that spins would take a processor from the decoders.
    """
    event = torch.cuda.Event(enable_timing=True, blocking=True)
    event.record()
    return event


def _smi(*arguments: str) -> str:
    """Return what ``nvidia-smi`` prints; nothing if it is not there or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
