"""Forward passes side by side on one CPU: each stream has a thread of its own and its share of the processors."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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
