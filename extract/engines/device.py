"""The interface of a device.

A device places a network, lends host memory for batches, and runs passes. A pass that was started has two moments that
can be waited for: the batch has left its host memory, and the vectors have landed in host memory. Either wait raises
what the device died of, as one sentence. `Cpu`, `Cuda`, `Mps` and `Xpu` are the last inch to the hardware. A device
that is not `proven` is compared with the CPU, encoder by encoder, on the first batch of every run.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from extract.errors import DeviceError, DeviceFault, DeviceMemoryError, ExtractError
from features_store.errors import first_line, unknown_name

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
Outputs = list[NDArray[np.float32]]
Function = Callable[[torch.Tensor], Sequence[torch.Tensor]]
Left = Callable[[], object]
Landed = Callable[[], tuple[Outputs, float]]
"""The two waits of a pass: the first returns when its batch may be filled again, the second gives the outputs, one
array per tap, and the seconds that the device computed. Both are safe in other threads."""


@dataclass(frozen=True)
class DeviceFacts:
    """What passports and a run must know of a device, in whichever process it is."""

    kind: str
    name: str
    identity: Mapping[str, Any]  # for the environment of passports
    autocast: str | None  # type of mixed precision; None = float32 throughout
    batch_size: int  # images per forward pass, unless another number is given


class Device(ABC):
    """One device that runs networks; a process drives one."""

    kind: str  # as torch calls it
    batch_size: int  # images per forward pass, unless another number is given
    n_slots: int  # batches that can be under way, or be filled, at one time
    proven = True  # False = each encoder is compared with the CPU on the first batch of a run
    # Of torch's inductor. Frozen weights are constants, so that batch norms are folded and weights packed once.
    compile_options: Mapping[str, Any] = {"freezing": True}

    def __init__(self, index: int = 0) -> None:
        self.index = index

    @property
    def address(self) -> str:
        """The device as torch writes it."""
        return f"{self.kind}:{self.index}"

    @classmethod
    def visible(cls) -> str | None:
        """Name the hardware if the system shows it, whether torch can use it or not."""
        return None

    @classmethod
    def problem(cls, index: int = 0) -> str | None:
        """Return why the device cannot be used; None = it can."""
        del index
        return None

    @classmethod
    def remedy(cls) -> str:
        """Return what makes the device usable."""
        return ""

    @abstractmethod
    def name(self) -> str:
        """Name the device and its model for people."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return what the passport's environment holds of the device."""

    @abstractmethod
    def precisions(self) -> tuple[str, ...]:
        """Name the types of mixed precision that the device computes in."""

    def default_precision(self) -> str | None:
        """Return the type of mixed precision that "auto" means; None = float32."""
        return None

    def autocast(self, precision: str = "auto") -> str | None:
        """Return the type of mixed precision, None for plain float32."""
        if precision not in PRECISIONS:
            raise DeviceError(unknown_name("precision", precision, PRECISIONS))
        if precision == "auto":
            return self.default_precision()
        if precision == "float32":
            return None
        if precision not in self.precisions():
            valid = ", ".join(("float32", *self.precisions()))
            raise DeviceError(f"--precision {precision} is not possible on {self.name()}; valid there: {valid}")
        return precision

    def facts(self, precision: str = "auto") -> DeviceFacts:
        """Return what passports and a run must know; a precision that is not possible is refused."""
        return DeviceFacts(self.kind, self.name(), self.identity(), self.autocast(precision), self.batch_size)

    def place(self, module: torch.nn.Module) -> torch.nn.Module:
        """Move a network to the device, channels last: convolutions run about twice as fast on this layout."""
        placed: Any = module  # torch types no such call
        with device_errors(self.name()):
            return placed.to(device=self.address).to(memory_format=torch.channels_last)

    def memory(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return host memory for a batch of shape (n, channels, height, width), in the layout that is read fastest."""
        return channels_last(shape, dtype)

    @abstractmethod
    def start(self, function: Function, batch: NDArray[Any]) -> tuple[Left, Landed]:
        """Start `function` over a batch of pixels."""

    def random_state(self) -> torch.Tensor | None:
        """Return the state of the device's own generator; None = it draws from torch's."""
        return None

    def set_random_state(self, state: torch.Tensor) -> None:
        """Take over a `random_state`."""
        del state
        raise DeviceError(f"{self.name()} has no generator of its own")

    def memory_used(self) -> int | None:
        """Return the largest number of bytes that were taken on the device; None = it has no memory of its own."""
        return None


def try_convolution(device: torch.device) -> None:
    """Run a small convolution."""
    ones = torch.ones((1, 1, 8, 8), device=device)
    total = float(torch.nn.functional.conv2d(ones, ones[:, :, :3, :3]).sum())
    if total != 9.0 * 36:
        raise DeviceFault(f"a convolution of ones gives {total} instead of 324")


def channels_last(shape: tuple[int, ...], dtype: str, *, pinned: bool = False) -> NDArray[Any]:
    """Return zeros of shape (n, channels, height, width) that lie as (n, height, width, channels)."""
    n, n_channels, height, width = shape
    memory = torch.zeros((n, height, width, n_channels), dtype=getattr(torch, dtype), pin_memory=pinned)
    return memory.permute(0, 3, 1, 2).numpy()


@contextmanager
def device_errors(name: str) -> Iterator[None]:
    """Turn what a device dies of into one sentence."""
    try:
        yield
    except ExtractError:
        raise
    except (RuntimeError, MemoryError) as error:
        words = first_line(error)
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or re.search(
            "allocate memory|out of memory", words
        ):
            raise DeviceMemoryError(
                f"{name} has not enough memory for this batch ({words}); give a smaller --batch-size"
            ) from error
        raise DeviceFault(
            f"the forward pass failed on {name}: {words}; what was written stays, and the same command resumes it"
        ) from error
