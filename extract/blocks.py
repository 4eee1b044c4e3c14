"""The blocks of each encoder within a run: how they were begun, what is pending in them, where the vectors go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extract.encoders import Encoder, EncoderSpec
from extract.engines import Engine, Plan
from extract.engines.device import DeviceFacts
from extract.passport import make_passport
from extract.progress import Timings
from extract.settings import RunSettings
from features_store import BlockSpec, BlockWriter, Index, Status, StoreError, open_store
from features_store.passport import alternatives
from features_store.schema import FAILURES
from features_store.writer import allowed_failures, read_failures, write_failures


def open_blocks(
    store: Path,
    index: Index,
    encoders: Sequence[Encoder],
    engine: Engine,
    settings: RunSettings,
    timings: Timings,
    stack: ExitStack,
) -> list[BlockSink]:
    """Open the blocks of each encoder, and let the engine prepare what is pending in them; `stack` closes the files.

    Blocks that are there come first, as they may refuse to be continued, and nobody wants to wait for a compiler to
    learn that. A block says whether compiled code made it and in which batches, and both stay as they are once it has
    rows: so a network is compiled, and tried, before its new blocks are created.
    """
    sinks: dict[int, BlockSink] = {}
    plans, chosen = [], settings.rows(len(index))
    for at, encoder in enumerate(encoders):
        begun, n_views = _read_begun(encoder.spec, store), len(chosen) * settings.views
        size, compiled = settings.batch_size or engine.facts.batch_size, None
        if begun is not None:
            was_compiled, device, begun_size = begun
            if settings.batch_size is None and device == engine.facts.kind:
                size = begun_size or size
            # Actors never compile; by itself a run goes on as the blocks were begun.
            compiled = {"on": True, "off": False}.get(settings.compile, was_compiled) and settings.engine == "local"
            sinks[at] = BlockSink(store, index, encoder, engine.facts, settings, size, compiled=compiled, stack=stack)
            n_views = int(sinks[at].needed[chosen].sum())
        plans.append(Plan(encoder, n_views, size, compiled))
    for at, plan in enumerate(engine.prepare(plans, timings)):
        if at not in sinks:
            compiled = bool(plan.compiled)
            sinks[at] = BlockSink(
                store, index, plan.encoder, engine.facts, settings, plan.batch_size, compiled=compiled, stack=stack
            )
    return [sinks[at] for at in range(len(encoders))]


class BlockSink:
    """The block files of one encoder in a store, by tap in `writers`; a `Sink`."""

    def __init__(
        self,
        store: Path,
        index: Index,
        encoder: Encoder,
        facts: DeviceFacts,
        settings: RunSettings,
        batch_size: int,
        *,
        compiled: bool,
        stack: ExitStack,
    ) -> None:
        self.encoder, self.batch_size = encoder, batch_size
        self.writers: dict[str, BlockWriter] = {}
        news: list[str] = []
        for tap in encoder.spec.taps:
            block = encoder.spec.block(tap.name)
            spec = BlockSpec(
                block,
                encoder.shapes[tap.name],
                make_passport(encoder, tap.name, index, facts, settings, batch_size=batch_size, compiled=compiled),
                dtype=settings.dtype,
                n_views=settings.views,
                names=encoder.names.get(tap.name),
            )
            writer = stack.enter_context(BlockWriter(store / f"{block}.h5", index, spec))
            writer.reset(FAILURES if settings.retry_failed else ())
            self.writers[tap.name] = writer
            if len(writer.pending()):
                news = news or writer.news
        if news:
            name = encoder.spec.name
            settings.echo(f"{name}: begun with / continued with {'; '.join(news)}; its passports name both")
        self._reasons: dict[int, str] = {}  # by row, of what failed in this run
        self._ids, self._max_failed = index.ids, settings.max_failed
        stack.callback(self._keep_reasons)  # however the run ends
        self._pending = {tap: _pending_views(writer, len(index)) for tap, writer in self.writers.items()}
        self.needed: NDArray[np.bool_] = np.logical_or.reduce(list(self._pending.values()))

    def write(
        self, rows: NDArray[np.int64], views: NDArray[np.int64], vectors: Mapping[str, NDArray[np.float32]]
    ) -> None:
        for tap, writer in self.writers.items():
            # A run that was killed may have finished some taps of a row and not others.
            open_ = self._pending[tap][rows, views]
            for view in np.unique(views[open_]).tolist():
                at = np.flatnonzero(open_ & (views == view))
                writer.write(rows[at], vectors[tap][at], view=view)

    def fail(self, row: int, status: Status, reason: str) -> None:
        self._reasons[row] = reason
        for tap, writer in self.writers.items():
            for view in np.flatnonzero(self._pending[tap][row]).tolist():
                writer.fail([row], status, view=view)

    def finish(self) -> None:
        """Make everything durable, and seal the blocks in which nothing is pending and not too much failed."""
        n_allowed = allowed_failures(self._max_failed, len(self._ids))
        for writer in self.writers.values():
            writer.flush()
            if not writer.sealed and len(writer.failed()) <= n_allowed and not len(writer.pending()):
                writer.seal()

    def failures(self) -> dict[str, tuple[Status, str]]:
        """Return the images that have failed in any block, in this run or before: by id, state and reason."""
        return {name: found for writer in self.writers.values() for name, found in self._failures(writer).items()}

    def _failures(self, writer: BlockWriter) -> dict[str, tuple[Status, str]]:
        before, found = read_failures(writer.path), {}
        for row in writer.failed().tolist():
            name, status = str(self._ids[row]), writer.status_of(row)
            found[name] = status, self._reasons.get(row) or before.get((name, status.reason), "")
        return found

    def _keep_reasons(self) -> None:
        """Write the reasons beside the blocks; they may be lost without harm, so no error of theirs counts."""
        with suppress(OSError, StoreError):
            for writer in self.writers.values():
                failures = self._failures(writer).items()
                write_failures(writer.path, ((name, status.reason, why) for name, (status, why) in failures))


def _pending_views(writer: BlockWriter, n_images: int) -> NDArray[np.bool_]:
    mask = np.zeros((n_images, writer.spec.n_views), dtype=bool)
    for view in range(writer.spec.n_views):
        mask[writer.pending(view), view] = True
    return mask


def _read_begun(encoder: EncoderSpec, store: Path) -> tuple[bool, str, int | None] | None:
    """Read how the blocks of an encoder were begun: compiled, on which kind of device, in which batches; None = not."""
    paths = [store / f"{encoder.block(tap.name)}.h5" for tap in encoder.taps]
    blocks = [block for path in paths if path.exists() for block in open_store(path).blocks.values()]
    if not blocks:
        return None
    environments = [one for block in blocks for one in alternatives(block.passport.get("environment"))]
    records = [one for one in environments if isinstance(one, dict)]
    sizes = [record.get("batch_size") for record in records]
    devices = {str(record.get("device")) for record in records}
    size = sizes[0] if sizes and sizes == sizes[:1] * len(sizes) else None
    return (
        any(record.get("compiled") is True for record in records),
        devices.pop() if len(devices) == 1 else "",
        size if isinstance(size, int) and size > 0 else None,
    )
