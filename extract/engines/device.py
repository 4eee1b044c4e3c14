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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import DeviceError, DeviceFault, DeviceMemoryError, ExtractError
from features_store.errors import first_line, unknown_name

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
Outputs = list[NDArray[np.float32]]
Function = Callable[["torch.Tensor"], Sequence["torch.Tensor"]]


@dataclass(frozen=True)
class DeviceFacts:
    """What passports and a run must know of a device, in whichever process it is.

    Parameters
    ----------
    identity : mapping
        What the passport's environment says.
    autocast : str, optional
        Type of mixed precision. None = float32 throughout.
    batch_size : int
        Images per forward pass if nobody asks for another number.
    """

    kind: str
    name: str
    identity: Mapping[str, Any]
    autocast: str | None
    batch_size: int


@dataclass(frozen=True)
class Pending:
    """A pass that was started.

    Parameters
    ----------
    left : callable
        Returns when the batch has left its host memory, which may then be filled again.
    landed : callable
        Returns the outputs, one array per tap, and the seconds that the device computed. Safe in another thread.
    """

    left: Callable[[], object]
    landed: Callable[[], tuple[Outputs, float]]


class Device(ABC):
    """One device that runs networks; a process drives one.

    Attributes
    ----------
    kind : str
        As torch calls it.
    batch_size : int
        Images per forward pass if nobody asks for another number.
    n_slots : int
        Batches that can be under way, or be filled, at one time.
    proven : bool
        False = each encoder is compared with the CPU on the first batch of a run.
    compile_options : dict
        Of torch's inductor. Frozen weights are constants, so that batch norms are folded and weights packed once.
    """

    kind: str
    batch_size: int
    n_slots: int
    proven = True
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
        """Return what the passport's environment says of the device."""

    @abstractmethod
    def precisions(self) -> tuple[str, ...]:
        """Name the types of mixed precision that the device computes in."""

    def default_precision(self) -> str | None:
        """Return the type of mixed precision that "auto" means; None = float32."""
        return None

    def autocast(self, precision: str = "auto") -> str | None:
        """Return the type of mixed precision, None for plain float32.

        Raises DeviceError.
        """
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
        """Return what passports and a run must know; raises DeviceError for a precision that is not possible."""
        return DeviceFacts(self.kind, self.name(), self.identity(), self.autocast(precision), self.batch_size)

    def place(self, module: torch.nn.Module) -> torch.nn.Module:
        """Move a network to the device, channels last: convolutions run about twice as fast on this layout."""
        import torch

        placed: Any = module  # torch types no such call
        with device_errors(self.name()):
            return placed.to(device=self.address).to(memory_format=torch.channels_last)

    @abstractmethod
    def memory(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return host memory for a batch of shape (n, channels, height, width), in the layout that is read fastest."""

    @abstractmethod
    def start(self, function: Function, batch: NDArray[Any]) -> Pending:
        """Start `function` over a batch of pixels."""

    def memory_used(self) -> int | None:
        """Return the largest number of bytes that were taken on the device; None = it has no memory of its own."""
        return None


def try_convolution(device: torch.device) -> None:
    """Run a small convolution.

    Raises DeviceFault.
    """
    import torch

    ones = torch.ones((1, 1, 8, 8), device=device)
    total = float(torch.nn.functional.conv2d(ones, ones[:, :, :3, :3]).sum())
    if total != 9.0 * 36:
        raise DeviceFault(f"a convolution of ones gives {total} instead of 324")


def channels_last(shape: tuple[int, ...], dtype: str, *, pinned: bool) -> NDArray[Any]:
    """Return zeros of shape (n, channels, height, width) that lie as (n, height, width, channels)."""
    import torch

    n, n_channels, height, width = shape
    memory = torch.zeros((n, height, width, n_channels), dtype=getattr(torch, dtype), pin_memory=pinned)
    return memory.permute(0, 3, 1, 2).numpy()


@contextmanager
def device_errors(name: str) -> Iterator[None]:
    """Turn what a device dies of into one sentence.

    Raises DeviceMemoryError, DeviceFault.
    """
    import torch

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
