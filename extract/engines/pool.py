"""Forward passes side by side on one CPU: each stream has a thread of its own and its share of the processors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from types import TracebackType
from typing import TypeVar

Result = TypeVar("Result")

MOST = 8
"""Streams; each holds the activations of a batch, so that their number must not grow with that of the processors."""


class Streams:
    """Run forward passes in several threads.

    One pass over all processors waits for the slowest of them some hundred times, after every layer, and each decoder
    thread that takes a processor for a while holds up all others. Passes that have a processor each wait for nobody.

    Parameters
    ----------
    n : int, optional
        None = one for each thread that torch would use, at most `MOST`, and these threads are shared out among them.
    """

    def __init__(self, n: int | None = None) -> None:
        import torch

        self._threads = torch.get_num_threads()
        self.n = n or min(self._threads, MOST)
        self._pool = ThreadPoolExecutor(
            self.n, "forward", initializer=torch.set_num_threads, initargs=(max(1, self._threads // self.n),)
        )

    def do(self, work: Callable[[], Result]) -> Future[Result]:
        """Begin one piece of work as soon as a stream is free."""
        return self._pool.submit(work)

    def __enter__(self) -> Streams:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads."""
        import torch

        self._pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads)  # what a thread sets is also what torch gives to threads made later


_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8  # of mallopt(3)
_LARGEST = 2**31 - 1  # what mallopt can be told


@cache
def keep_freed_memory() -> bool:
    """Let the allocator of the C library keep large blocks that were freed, and tell whether it does.

    Left alone it maps each block of more than 32 MiB anew, and gives the end of its heap back. A forward pass on a CPU
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
