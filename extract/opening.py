"""The start of a run: which blocks there are, which networks are needed for them, and how each will run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extract.blocks import Blocks
from extract.encoders import Encoder, EncoderSpec
from extract.engines.compilation import Compilation, seconds_per_view
from extract.engines.forward import Forward
from extract.errors import DeviceError, DeviceMemoryError
from extract.settings import Circumstances
from extract.timings import Clock
from features_store import Index, Status, open_store
from features_store.passport import alternatives

PATIENCE = 600.0
"""Seconds on the CPU that a run may take without being asked, where a GPU is visible and cannot be used."""


@dataclass(frozen=True)
class Opened:
    """One network and its blocks within a run.

    Parameters
    ----------
    forward : Forward, optional
        None = nothing is to be made in this process.
    batch_size : int
        Images per forward pass.
    """

    network: Encoder
    blocks: Blocks
    forward: Forward | None
    batch_size: int


@dataclass(frozen=True)
class Begun:
    """How the blocks of an encoder that are in a store were begun."""

    compiled: bool
    device: str
    batch_size: int | None


@dataclass(frozen=True)
class Opening:
    """Open the blocks of several networks.

    Parameters
    ----------
    made : Circumstances
        Its batch size is what new blocks get.
    batch_size : int, optional
        What was asked for. None = as the blocks were begun on such a device, or `made.batch_size`.
    limit : int, optional
        As in `extract.pipeline.Settings`.
    retry : tuple of Status
        Failures that are tried again.
    tell : callable
        Takes one line for people.
    compilation : Compilation, optional
        None = no network runs in this process.
    unused_gpu : str, optional
        Why a GPU that is visible here is not used.
    """

    index: Index
    store: Path
    made: Circumstances
    batch_size: int | None
    limit: int | None
    retry: tuple[Status, ...]
    tell: Callable[[str], None]
    compilation: Compilation | None
    unused_gpu: str | None = None

    def open(self, networks: Sequence[Encoder], stack: ExitStack, clock: Clock) -> list[Opened]:
        """Return the networks in their order; `stack` closes their blocks.

        Blocks that are there come first, as they may refuse to be continued, and nobody wants to wait for a compiler
        to learn that. A block says whether compiled code made it and in which batches, and both stay as they are once
        it has rows: so a network is compiled, and tried, before its new blocks are made.

        Raises MismatchError, DeviceError, DeviceMemoryError.
        """
        begun = [begun_as(network.spec, self.store) for network in networks]
        sizes = [self._size(before) for before in begun]
        blocks = {
            at: self._blocks(networks[at], stack, compiled=before.compiled, batch_size=sizes[at])
            for at, before in enumerate(begun)
            if before is not None
        }
        n_new = len(self.index) if self.limit is None else min(self.limit, len(self.index))
        n_views = [
            int(blocks[at].needed[: self.limit].sum()) if at in blocks else n_new * self.made.views.n
            for at in range(len(networks))
        ]
        forwards: list[Forward | None] = [None] * len(networks)
        if self.compilation is not None:
            if self.unused_gpu is not None:
                self._check_patience(self.compilation, networks, n_views, sizes)
            for at in np.flatnonzero(n_views).tolist():
                before = begun[at]
                forwards[at] = self.compilation.forward(
                    networks[at],
                    n_views[at],
                    clock,
                    batch_size=sizes[at],
                    before=None if before is None else before.compiled,
                )
            for at, forward in enumerate(forwards):  # all networks are on the device by now
                if forward is not None:
                    sizes[at] = self._try(forward, sizes[at], new=at not in blocks)
        for at, network in enumerate(networks):
            if at not in blocks:
                compiled = forwards[at] is not None and forwards[at].compiled  # type: ignore[union-attr]
                blocks[at] = self._blocks(network, stack, compiled=compiled, batch_size=sizes[at])
        return [Opened(network, blocks[at], forwards[at], sizes[at]) for at, network in enumerate(networks)]

    def _size(self, before: Begun | None) -> int:
        begun = before.batch_size if before is not None and before.device == self.made.device else None
        return self.batch_size or begun or self.made.batch_size or 1

    def _try(self, forward: Forward, batch_size: int, *, new: bool) -> int:
        """Run one batch where memory may not suffice; return the batch size with which it does."""
        if forward.device.memory_used() is None:
            return batch_size
        try:
            forward(forward.buffer(batch_size))
        except DeviceMemoryError as error:
            if not new or batch_size == 1:
                raise
            self.tell(f"{forward.network.spec.name}: {error}; {batch_size // 2} is tried")
        else:
            return batch_size
        forward(forward.buffer(batch_size // 2))
        return batch_size // 2

    def _check_patience(
        self, compilation: Compilation, networks: Sequence[Encoder], n_views: Sequence[int], sizes: Sequence[int]
    ) -> None:
        seconds = 0.0
        for network, n, size in zip(networks, n_views, sizes, strict=True):
            if n and network.module is not None:
                forward = Forward(network, compilation.device, precision=compilation.precision)
                seconds += n * min(seconds_per_view(forward, size) for _ in range(2))  # the first pass is slow
        if seconds > PATIENCE:
            long = f"{seconds / 3600:.1f} hours" if seconds > 7200 else f"{seconds / 60:.0f} minutes"
            msg = f"{self.unused_gpu}; or give --device cpu, with which the networks take about {long} here"
            raise DeviceError(msg)
        self.tell(f"warning: {self.unused_gpu}; the CPU is used instead")

    def _blocks(self, network: Encoder, stack: ExitStack, *, compiled: bool, batch_size: int) -> Blocks:
        made = replace(self.made, compiled=compiled, batch_size=batch_size)
        return Blocks(network, self.index, self.store, made=made, stack=stack, retry=self.retry, tell=self.tell)


def begun_as(encoder: EncoderSpec, store: Path) -> Begun | None:
    """Tell how the blocks of an encoder in a store were begun; None = there is no block."""
    paths = [store / f"{encoder.block(tap.name)}.h5" for tap in encoder.taps]
    there = [path for path in paths if path.exists()]
    if not there:
        return None
    passports = [block.passport for path in there for block in open_store(path).blocks.values()]
    records = [
        record for one in passports for record in alternatives(one.get("environment")) if isinstance(record, dict)
    ]
    sizes = {record.get("batch_size") for record in records}
    size = sizes.pop() if len(sizes) == 1 else None
    devices = {str(record.get("device")) for record in records}
    return Begun(
        compiled=any(record.get("compiled") is True for record in records),
        device=devices.pop() if len(devices) == 1 else "",
        batch_size=size if isinstance(size, int) and size > 0 else None,
    )


def needed_rows(opened: Sequence[Opened]) -> NDArray[np.bool_]:
    """Tell which images are needed in any view for any block: (n_images,) bool."""
    return np.asarray(np.logical_or.reduce([one.blocks.needed.any(axis=1) for one in opened]))
