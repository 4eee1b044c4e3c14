"""One encoder within a run: the batch that fills up, its forward pass, and on to its sink."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from extract.blocks import Sink
from extract.clock import Clock
from extract.encoders import Network
from extract.flow import OneWorker
from extract.forward import Forward
from features_store import Status


class Lane:
    """Feed one network, and hand on what it gives.

    A forward pass always has the full batch size, the last one too: vectors then do not depend on where a run was
    interrupted.

    Parameters
    ----------
    network : Network
    sink : Sink
        Says what is needed, and takes it.
    forward : Forward, optional
        None = nothing is needed.
    batch_size : int
    """

    def __init__(self, network: Network, sink: Sink, forward: Forward | None, *, batch_size: int) -> None:
        self.network = network
        self.sink = sink
        self.needed = sink.needed
        self._forward = forward
        self._batch = np.zeros((batch_size, *network.input_shape), dtype=network.input_dtype)
        self._places: list[tuple[int, int]] = []  # row and view of what is in the batch

    def take(self, place: tuple[int, int], prepared: NDArray[np.generic], clock: Clock, worker: OneWorker) -> None:
        """Put one prepared view (row, view) into the batch, and run the batch if it is full."""
        self._batch[len(self._places)] = prepared
        self._places.append(place)
        if len(self._places) == len(self._batch):
            self.run(clock, worker)

    def fail(self, row: int, status: Status, worker: OneWorker) -> None:
        """Record that an image has no vector."""
        if self.needed[row].any():
            worker.do(partial(self.sink.fail, row, status))

    def run(self, clock: Clock, worker: OneWorker) -> None:
        """Run the batch, however full, and hand its vectors to the writer."""
        if not self._places or self._forward is None:
            return
        with clock.part("forward"):
            vectors = self._forward(self._batch)
        places, self._places = np.array(self._places, dtype=np.int64), []
        with clock.part("wait for the writer"):
            worker.do(partial(self._write, places, vectors, clock))

    def _write(self, places: NDArray[np.int64], vectors: Mapping[str, NDArray[np.float32]], clock: Clock) -> None:
        with clock.part("write"):
            self.sink.write(places[:, 0], places[:, 1], {tap: rows[: len(places)] for tap, rows in vectors.items()})
