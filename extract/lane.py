"""One encoder within a run: its rows to do, the batch that fills up, its forward pass, its blocks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extract.clock import Clock
from extract.encoders import Network
from extract.flow import OneWorker
from extract.forward import Forward
from extract.passports import Circumstances, passport_of
from features_store import BlockSpec, BlockWriter, Index, Status, open_store


class Lane:
    """Feed one network and write what it gives.

    A forward pass always has the full batch size, the last one too: vectors then do not depend on where a run was
    interrupted.

    Parameters
    ----------
    network : Network
    index : Index
    store : Path
        Folder of the blocks; each is made, or gone on with.
    made : Circumstances
        Device, decoder and so on, for the passports.
    batch_size : int
    stack : ExitStack
        Closes the blocks.
    """

    def __init__(
        self, network: Network, index: Index, store: Path, *, made: Circumstances, batch_size: int, stack: ExitStack
    ) -> None:
        self.network = network
        self.writers: dict[str, BlockWriter] = {}
        for tap in network.encoder.taps:
            block = network.encoder.block(tap.name)
            spec = BlockSpec(
                block,
                network.shapes[tap.name],
                passport_of(network, tap.name, index, made),
                dtype=made.dtype,
                names=network.names.get(tap.name),
            )
            self.writers[tap.name] = stack.enter_context(BlockWriter(store / f"{block}.h5", index, spec))
        self._pending = {tap: _mask(writer, len(index)) for tap, writer in self.writers.items()}
        self.needed: NDArray[np.bool_] = np.logical_or.reduce(list(self._pending.values()))
        self._forward = Forward(network, made.device) if self.needed.any() else None
        self._batch = np.zeros((batch_size, *network.input_shape), dtype=network.input_dtype)
        self._rows: list[int] = []

    def take(self, row: int, prepared: NDArray[np.generic], clock: Clock, worker: OneWorker) -> None:
        """Put one prepared image into the batch, and run the batch if it is full."""
        self._batch[len(self._rows)] = prepared
        self._rows.append(row)
        if len(self._rows) == len(self._batch):
            self.run(clock, worker)

    def fail(self, row: int, status: Status, worker: OneWorker) -> None:
        """Record that an image has no vector."""
        for tap, writer in self.writers.items():
            if self._pending[tap][row]:
                worker.do(partial(writer.fail, [row], status))

    def run(self, clock: Clock, worker: OneWorker) -> None:
        """Run the batch, however full, and hand its vectors to the writer."""
        if not self._rows or self._forward is None:
            return
        with clock.part("forward"):
            vectors = self._forward(self._batch)
        rows, self._rows = np.array(self._rows, dtype=np.int64), []
        with clock.part("wait for the writer"):
            worker.do(partial(self._write, rows, vectors, clock))

    def finish(self) -> None:
        """Make everything durable, and seal the blocks in which no row is pending any more."""
        for writer in self.writers.values():
            writer.flush()
            if not len(writer.pending()) and not open_store(writer.path).blocks[writer.spec.name].sealed:
                writer.seal()

    def _write(self, rows: NDArray[np.int64], vectors: Mapping[str, NDArray[np.float32]], clock: Clock) -> None:
        with clock.part("write"):
            for tap, writer in self.writers.items():
                # A run that was killed may have finished some taps of a row and not others.
                open_ = np.flatnonzero(self._pending[tap][rows])
                writer.write(rows[open_], vectors[tap][open_])


def _mask(writer: BlockWriter, n_images: int) -> NDArray[np.bool_]:
    mask = np.zeros(n_images, dtype=bool)
    mask[writer.pending()] = True
    return mask
