"""One encoder within a run: the batch that fills up, its forward pass, and on to its sink."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from extract.encoders import Encoder
from extract.engines.forward import Forward, Running
from extract.timings import Clock
from features_store import Status


class Sink(Protocol):
    """Where the vectors of one network go.

    Attributes
    ----------
    needed : ndarray of shape (n_images, n_views), bool
        Which views are still to be made, for any tap.
    """

    needed: NDArray[np.bool_]

    def write(
        self, rows: NDArray[np.int64], views: NDArray[np.int64], vectors: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """Take the vectors of some views, by tap: each (n, ...)."""

    def fail(self, row: int, status: Status, reason: str) -> None:
        """Record that an image has no vector, in any view that is still to be made."""


class Lane:
    """Feed one network, and hand on what it gives.

    A forward pass always has the full batch size, and each view of an image has its own slot in it. The last bits of a
    vector depend on the slot, since libraries of kernels cut a batch into pieces, but not on what is in the other
    slots. So vectors do not depend on which images failed, where a run was interrupted, or who made which rows.

    Parameters
    ----------
    sink : Sink
        Says what is needed, and takes it.
    """

    def __init__(self, network: Encoder, sink: Sink, forward: Forward, *, batch_size: int) -> None:
        self.network = network
        self.sink = sink
        self.needed = sink.needed
        self._forward = forward
        self.batch_size = batch_size
        self.n_slots = forward.n_slots
        self._batch = forward.buffer(batch_size)
        self._places: dict[int, tuple[int, int]] = {}  # by slot, the row and view that are in it

    def take(
        self, place: tuple[int, int], number: int, prepared: NDArray[np.generic], clock: Clock, worker: OneWorker
    ) -> None:
        """Put one prepared view into the batch, and run the batch if it is full.

        Shapes: place (int, int); prepared (*network.input_shape).
        """
        slot = number % len(self._batch)
        if slot in self._places:  # the images between were done before, or failed
            self.run(clock, worker)
        self._batch[slot] = prepared
        self._places[slot] = place
        if len(self._places) == len(self._batch):
            self.run(clock, worker)

    def fail(self, row: int, status: Status, reason: str, worker: OneWorker) -> None:
        """Record that an image has no vector."""
        if self.needed[row].any():
            worker.do(partial(self.sink.fail, row, status, reason))

    def run(self, clock: Clock, worker: OneWorker) -> None:
        """Run the batch, however full, and hand its vectors to the writer."""
        if not self._places:
            return
        with clock.part("wait for the device"):  # the whole pass, where it runs in this thread
            running = self._forward.start(self._batch)
        slots, places = list(self._places), np.array(list(self._places.values()), dtype=np.int64)
        self._places = {}
        with clock.part("wait for the writer"):
            worker.do(partial(self._write, slots, places, running, clock))
        with clock.part("wait for the device"):
            self._batch = self._forward.buffer(self.batch_size)

    def _write(self, slots: list[int], places: NDArray[np.int64], running: Running, clock: Clock) -> None:
        with clock.part("wait for vectors"):
            found = running()
        clock.add("forward", running.seconds)
        with clock.part("write"):
            self.sink.write(places[:, 0], places[:, 1], {tap: rows[slots] for tap, rows in found.items()})


Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Iterator[Result]:
    """Map in threads; results come in the order of `items`, and at most `ahead` are under way or waiting.

    While the consumer is busy with one result, up to `ahead` others are made. An exception of `function` is raised
    where its result would have come.
    """
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class OneWorker:
    """One thread that does what it is given, in order; the giver waits once `ahead` things are undone.

    An exception of the work is raised in the giver, at one of the next calls or at the end.
    """

    def __init__(self, *, ahead: int) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._waiting: deque[Future[None]] = deque()
        self._ahead = ahead

    def do(self, work: Callable[[], None]) -> None:
        """Hand over one piece of work."""
        self._waiting.append(self._pool.submit(work))
        while self._waiting and (len(self._waiting) > self._ahead or self._waiting[0].done()):
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait until all work is done."""
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> OneWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread; what was handed over before an error is still done."""
        self._pool.shutdown(wait=True)
        if kind is None:
            self.finish()
