"""The blocks of one encoder within a run: what is pending in them, and where its vectors go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extract.encoders import Encoder
from extract.passport import passport_of
from extract.settings import Circumstances
from features_store import BlockSpec, BlockWriter, Index, Status, StoreError
from features_store.writer import FailureLimit, read_failures, write_failures


class Blocks:
    """The block files of one network in a store; a `Sink`.

    Parameters
    ----------
    store : Path
        Folder; each block in it is made, or gone on with.
    made : Circumstances
        Device, decoder, views and so on, for the passports.
    stack : ExitStack
        Closes the files.
    retry : sequence of Status
        Failures that become pending again.
    tell : callable
        Takes one line for people: what differs from how the blocks were begun.
    """

    def __init__(
        self,
        network: Encoder,
        index: Index,
        store: Path,
        *,
        made: Circumstances,
        stack: ExitStack,
        retry: Sequence[Status] = (),
        tell: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.writers: dict[str, BlockWriter] = {}
        news: list[str] = []
        for tap in network.spec.taps:
            block = network.spec.block(tap.name)
            spec = BlockSpec(
                block,
                network.shapes[tap.name],
                passport_of(network, tap.name, index, made),
                dtype=made.dtype,
                n_views=made.views.n,
                names=network.names.get(tap.name),
            )
            writer = stack.enter_context(BlockWriter(store / f"{block}.h5", index, spec))
            writer.reset(retry)
            self.writers[tap.name] = writer
            if len(writer.pending()):
                news = news or writer.news
        if news:
            tell(f"{network.spec.name}: begun with / continued with {'; '.join(news)}; its passports name both")
        self.reasons: dict[int, str] = {}  # by row, of what failed in this run
        self._ids = index.ids
        stack.callback(self._keep_reasons)  # however the run ends
        self._pending = {tap: _mask(writer, len(index)) for tap, writer in self.writers.items()}
        self.needed: NDArray[np.bool_] = np.logical_or.reduce(list(self._pending.values()))

    def write(
        self, rows: NDArray[np.int64], views: NDArray[np.int64], vectors: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """See `Sink.write`."""
        for tap, writer in self.writers.items():
            # A run that was killed may have finished some taps of a row and not others.
            open_ = self._pending[tap][rows, views]
            for view in np.unique(views[open_]).tolist():
                at = np.flatnonzero(open_ & (views == view))
                writer.write(rows[at], vectors[tap][at], view=view)

    def fail(self, row: int, status: Status, reason: str) -> None:
        """See `Sink.fail`."""
        self.reasons[row] = reason
        for tap, writer in self.writers.items():
            for view in np.flatnonzero(self._pending[tap][row]).tolist():
                writer.fail([row], status, view=view)

    def finish(self, limit: FailureLimit) -> None:
        """Make everything durable, and seal the blocks in which nothing is pending and not too much failed."""
        for writer in self.writers.values():
            writer.flush()
            if len(writer.pending()) or limit.exceeded(len(writer.failed()), len(self._ids)):
                continue
            if not writer.sealed:
                writer.seal()

    def failures(self) -> dict[str, tuple[Status, str]]:
        """Return the images that have failed in any block, in this run or before: by id, state and reason."""
        return {name: found for writer in self.writers.values() for name, found in self._failures(writer).items()}

    def _failures(self, writer: BlockWriter) -> dict[str, tuple[Status, str]]:
        before, found = read_failures(writer.path), {}
        for row in writer.failed().tolist():
            name, status = str(self._ids[row]), writer.status_of(row)
            found[name] = status, self.reasons.get(row) or before.get((name, status.reason), "")
        return found

    def _keep_reasons(self) -> None:
        """Write the reasons beside the blocks; they may be lost without harm, so no error of theirs counts."""
        with suppress(OSError, StoreError):
            for writer in self.writers.values():
                failures = self._failures(writer).items()
                write_failures(writer.path, ((name, status.reason, why) for name, (status, why) in failures))


def _mask(writer: BlockWriter, n_images: int) -> NDArray[np.bool_]:
    mask = np.zeros((n_images, writer.spec.n_views), dtype=bool)
    for view in range(writer.spec.n_views):
        mask[writer.pending(view), view] = True
    return mask
