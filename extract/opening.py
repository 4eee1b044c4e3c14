"""The start of a run: which blocks there are, which networks are needed for them, and how each will run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extract.blocks import Blocks
from extract.clock import Clock
from extract.compilation import Compilation, compiled_before
from extract.encoders import Network
from extract.forward import Forward
from extract.passports import Circumstances
from features_store import Index, Status


@dataclass(frozen=True)
class Opened:
    """One network and its blocks within a run.

    Parameters
    ----------
    network : Network
    blocks : Blocks
    forward : Forward, optional
        None = nothing is to be made in this process.
    """

    network: Network
    blocks: Blocks
    forward: Forward | None


@dataclass(frozen=True)
class Opening:
    """Open the blocks of several networks.

    Parameters
    ----------
    index : Index
    store : Path
    made : Circumstances
    limit : int, optional
        As in `extract.pipeline.Settings`.
    retry : tuple of Status
        Failures that are tried again.
    compilation : Compilation, optional
        None = no network runs in this process.
    """

    index: Index
    store: Path
    made: Circumstances
    limit: int | None
    retry: tuple[Status, ...]
    compilation: Compilation | None

    def open(self, networks: Sequence[Network], stack: ExitStack, clock: Clock) -> list[Opened]:
        """Return the networks in their order; `stack` closes their blocks.

        A block says whether compiled code made it, and nothing in it can be changed later: so a network with new
        blocks is compiled before they are made. Blocks that are there come first, as they may refuse to be gone on
        with, and nobody wants to wait for a compiler to learn that.

        Raises
        ------
        MismatchError
            If a block in the store was made in another way.
        """
        before = [compiled_before(network.encoder, self.store) for network in networks]
        opened: dict[int, Opened] = {}
        for at in sorted(range(len(networks)), key=lambda at: before[at] is None):
            open_one = self._new if before[at] is None else self._known
            opened[at] = open_one(networks[at], stack, clock)
        return [opened[at] for at in range(len(networks))]

    def _known(self, network: Network, stack: ExitStack, clock: Clock) -> Opened:
        before = compiled_before(network.encoder, self.store)
        blocks = self._blocks(network, stack, compiled=bool(before))
        n_views = int(blocks.needed[: self.limit].sum())
        forward = None
        if n_views and self.compilation is not None:
            forward = self.compilation.forward(network, n_views, clock, before=before)
        return Opened(network, blocks, forward)

    def _new(self, network: Network, stack: ExitStack, clock: Clock) -> Opened:
        if self.compilation is None:
            return Opened(network, self._blocks(network, stack, compiled=False), None)
        n_views = len(self.index) if self.limit is None else min(self.limit, len(self.index))
        forward = self.compilation.forward(network, n_views * self.made.views.n, clock, before=None)
        return Opened(network, self._blocks(network, stack, compiled=forward.compiled), forward)

    def _blocks(self, network: Network, stack: ExitStack, *, compiled: bool) -> Blocks:
        made = replace(self.made, compiled=compiled)
        return Blocks(network, self.index, self.store, made=made, stack=stack, retry=self.retry)


def needed_rows(opened: Sequence[Opened]) -> NDArray[np.bool_]:
    """Tell which images are needed in any view for any block: (n_images,) bool."""
    return np.asarray(np.logical_or.reduce([one.blocks.needed.any(axis=1) for one in opened]))
