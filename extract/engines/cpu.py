"""The processor as a device: forward passes side by side, each in a thread of its own with its share of the cores."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from functools import cache
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray

from extract.engines.device import Device, Function, Landed, Left, Outputs, device_errors

Result = TypeVar("Result")
MOST_PASSES = 8
"""At one time; each holds the activations of a batch, so that their number must not grow with that of the cores."""


class ForwardPool:
    """Threads for forward passes.

    One pass over all cores waits for the slowest of them some hundred times, after every layer, and each decoder
    thread that takes a core for a while holds up all others. Passes that have a core each wait for nobody.
    Without a number there is one for each thread that torch would use, at most `MOST_PASSES`; those threads are divided
    among them.
    """

    def __init__(self, n: int | None = None) -> None:
        self._threads = torch.get_num_threads()
        self.n = n or min(self._threads, MOST_PASSES)
        share = max(1, self._threads // self.n)
        self._pool = ThreadPoolExecutor(self.n, "forward", initializer=torch.set_num_threads, initargs=(share,))

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Begin one piece of work as soon as a thread is free."""
        return self._pool.submit(work)

    def __enter__(self) -> ForwardPool:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads)  # what a thread sets is also what torch gives to threads made later


class Cpu(Device):
    """The processor.

    float32 by itself: bfloat16 is slower on most CPUs, three times as fast on those with matrix units (AMX), and moves
    vectors by a cosine of 0.9995 to 0.9999. In a `pool` passes run side by side; without one they run in the calling
    thread, with all of torch's threads.
    """

    kind = "cpu"
    batch_size = 8  # larger ones cost a CPU more in memory traffic
    # A pass that is one call of C++ leaves Python's lock to other passes and to the decoders while it runs.
    compile_options: Mapping[str, Any] = {"freezing": True, "cpp_wrapper": True}

    def __init__(self, index: int = 0, *, pool: ForwardPool | None = None) -> None:
        super().__init__(index)
        self._pool = pool
        self.n_slots = 1 if pool is None else pool.n + 1

    @property
    def address(self) -> str:
        return "cpu"

    def name(self) -> str:
        return f"cpu ({platform.machine()}, {os.cpu_count()} processors)"

    def identity(self) -> Mapping[str, Any]:
        return {"device": "cpu", "device_name": platform.machine()}

    def precisions(self) -> tuple[str, ...]:
        return ("bfloat16",)

    def place(self, module: torch.nn.Module) -> torch.nn.Module:
        keep_freed_memory()
        return super().place(module)

    def start(self, function: Function, batch: NDArray[Any]) -> tuple[Left, Landed]:
        """Start a pass; without a pool it is over when this returns."""

        def work() -> tuple[Outputs, float]:
            start = time.perf_counter()
            with device_errors("cpu"):
                pixels = torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)
                # Compiled code may write its next answer into the same memory, hence the copies.
                outputs = [tensor.float().numpy().copy() for tensor in function(pixels)]
            return outputs, time.perf_counter() - start

        if self._pool is None:
            done = work()
            return (lambda: None), (lambda: done)
        future = self._pool.submit(work)
        return (lambda: wait_for([future])), future.result


_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8  # of mallopt(3)
_LARGEST = 2**31 - 1  # what mallopt takes


@cache
def keep_freed_memory() -> bool:
    """Let the allocator of the C library keep large blocks that were freed, and return whether it does.

    By itself it maps each block of more than 32 MiB anew, and gives the end of its heap back. A forward pass on a CPU
    makes and frees hundreds of megabytes of activations, so the system had to find and clear every page of them again
    in every pass: a fifth of the time of an EfficientNet-B2. The price is that the process stays as large as it once
    was; what a single block of 1 GiB or more takes is still given back.

    Does nothing where the C library is not the GNU one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    # Older releases refuse such a threshold; to those, no block is large.
    mapped_less = mallopt(_MMAP_THRESHOLD, 1 << 30) or mallopt(_MMAP_MAX, 0)
    # The arenas that threads get of their own take no block of 64 MiB.
    return bool(mapped_less and mallopt(_TRIM_THRESHOLD, _LARGEST) and mallopt(_ARENA_MAX, 1))
