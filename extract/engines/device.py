"""The interface of a device, and the CPU.

A device places a network, lends host memory for batches, and runs passes. A pass that was started has two moments that
can be waited for: the batch has left its host memory, and the vectors have landed in host memory. Either wait raises
what the device died of, as one sentence.
"""

from __future__ import annotations

import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.engines.pool import keep_freed_memory
from extract.errors import DeviceFault, DeviceMemoryError, ExtractError
from features_store.errors import first_line

if TYPE_CHECKING:
    import torch

    from extract.engines.pool import Streams

Outputs = list[NDArray[np.float32]]
Function = Callable[["torch.Tensor"], Sequence["torch.Tensor"]]


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
        Images per forward pass where nothing else is asked.
    n_slots : int
        Batches that can be under way, or be filled, at one time.
    """

    kind: str
    batch_size: int
    n_slots: int

    def __init__(self, index: int = 0) -> None:
        self.index = index

    @property
    def address(self) -> str:
        """The device as torch writes it."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @classmethod
    def visible(cls) -> str | None:
        """Name the hardware if the system shows it, whether torch can use it or not."""
        return None

    @classmethod
    def problem(cls, index: int = 0) -> str | None:
        """Say why the device cannot be used; None = it can."""
        del index
        return None

    @classmethod
    def remedy(cls) -> str:
        """Say what makes the device usable."""
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
        """Return the type of mixed precision where none is asked for; None = float32."""
        return None

    @abstractmethod
    def place(self, module: torch.nn.Module) -> torch.nn.Module:
        """Move a network to the device, channels last: convolutions run about twice as fast on this layout."""

    @abstractmethod
    def memory(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return host memory for a batch of shape (n, channels, height, width), in the layout that is read fastest."""

    @abstractmethod
    def start(self, function: Function, batch: NDArray[Any]) -> Pending:
        """Start `function` over a batch of pixels."""

    def memory_used(self) -> int | None:
        """Return the largest number of bytes that were taken on the device; None = it has no memory of its own."""
        return None


class Cpu(Device):
    """The processor.

    float32 unless asked: bfloat16 is slower on most CPUs, three times as fast on those with matrix units (AMX), and
    moves vectors by a cosine of 0.9995 to 0.9999.

    Parameters
    ----------
    index : int
        Of no meaning here.
    streams : Streams, optional
        Passes run side by side in them. None = in the calling thread, with all of torch's threads.
    """

    kind = "cpu"
    batch_size = 8  # larger ones cost a CPU more in memory traffic

    def __init__(self, index: int = 0, *, streams: Streams | None = None) -> None:
        super().__init__(index)
        self.streams = streams
        self.n_slots = 1 if streams is None else streams.n + 1

    def name(self) -> str:
        """See `Device.name`."""
        return f"cpu ({platform.machine()}, {os.cpu_count()} processors)"

    def identity(self) -> Mapping[str, Any]:
        """See `Device.identity`."""
        return {"device": "cpu", "device_name": platform.machine()}

    def precisions(self) -> tuple[str, ...]:
        """See `Device.precisions`."""
        return ("bfloat16",)

    def place(self, module: torch.nn.Module) -> torch.nn.Module:
        """See `Device.place`."""
        import torch

        keep_freed_memory()
        placed: Any = module  # torch types no such call
        return placed.to(memory_format=torch.channels_last)

    def memory(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """See `Device.memory`."""
        return channels_last(shape, dtype, pinned=False)

    def start(self, function: Function, batch: NDArray[Any]) -> Pending:
        """See `Device.start`; without streams the pass is over when this returns."""

        def work() -> tuple[Outputs, float]:
            import torch

            start = time.perf_counter()
            with device_errors("cpu"):
                pixels = torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)
                # Compiled code may write its next answer into the same memory, hence the copies.
                outputs = [tensor.float().numpy().copy() for tensor in function(pixels)]
            return outputs, time.perf_counter() - start

        if self.streams is None:
            done = work()
            return Pending(lambda: None, lambda: done)
        future = self.streams.do(work)
        return Pending(lambda: wait_for([future]), future.result)


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
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in words:
            msg = f"{name} has not enough memory for this batch ({words}); give a smaller --batch-size"
            raise DeviceMemoryError(msg) from error
        msg = f"the forward pass failed on {name}: {words}; what was written stays, and the same command resumes it"
        raise DeviceFault(msg) from error
