"""The algorithm of extraction: claim the store, find what is pending, let an engine make it, close what is complete."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extract.blocks import Blocks
from extract.clock import Clock
from extract.corpora import Reading
from extract.encoders import Network
from extract.forward import Forward
from extract.lane import Lane
from extract.local_engine import Images, LocalEngine
from extract.passports import Circumstances
from extract.ray_engine import Cluster, RayEngine, Work
from extract.stores import claim_index
from extract.summary import Bar, Summary, summarise


@dataclass(frozen=True)
class Settings:
    """How a run is done, whatever its corpus and encoders.

    Parameters
    ----------
    made : Circumstances
        Device, precision, decoder, views, type of the vectors.
    batch_size : int
        Images per forward pass.
    limit : int, optional
        Only the first `limit` images of the index are done, the others stay pending. None = all.
    decoders : int, optional
        Threads. None = one per processor.
    progress : bool
        Show a bar on the standard error stream.
    cluster : Cluster, optional
        Actors that do the work. None = threads of this process do it.
    """

    made: Circumstances
    batch_size: int
    limit: int | None = None
    decoders: int | None = None
    progress: bool = True
    cluster: Cluster | None = None


def run(reading: Reading, networks: list[Network], store: Path, settings: Settings) -> Summary:
    """Make the blocks of all networks over one corpus, or go on with them.

    Parameters
    ----------
    reading : Reading
        Index and source.
    networks : list of Network
    store : Path
        Folder; gets ``index.h5`` and one file per block.
    settings : Settings

    Returns
    -------
    Summary

    Raises
    ------
    MismatchError
        If the store is of another index, or a block in it was made in another way.
    """
    index, made = reading.index, settings.made
    claim_index(store, index, reading.origin)
    clock = Clock()
    numbers = np.arange(len(index)) if reading.origin is None else reading.origin.rows
    images = Images(index.ids, reading.source, numbers, made.views)
    engine = LocalEngine(made.decoder, batch_size=settings.batch_size, n_decoders=settings.decoders)
    with ExitStack() as stack:
        blocks = [Blocks(network, index, store, made=made, stack=stack) for network in networks]
        # A network whose blocks are complete is not even loaded onto the device.
        open_ = [at for at, one in enumerate(blocks) if one.needed.any()]
        networks, sinks = [networks[at] for at in open_], [blocks[at] for at in open_]
        todo = np.flatnonzero(_needed(blocks)[: settings.limit])
        bar = stack.enter_context(Bar(len(todo), clock, show=settings.progress))
        if settings.cluster is not None and len(todo):
            work = Work(images, networks, made.device, made.decoder, settings.batch_size, settings.decoders)
            RayEngine(settings.cluster, work).encode(todo, sinks, clock, step=bar.step)
        elif len(todo):
            lanes = [
                Lane(network, sink, Forward(network, made.device), batch_size=settings.batch_size)
                for network, sink in zip(networks, sinks, strict=True)
            ]
            engine.encode(images, todo.tolist(), lanes, clock, step=bar.step)
        for one in blocks:
            one.finish()
        return summarise(blocks, clock, n_done=len(todo), n_images=len(index), n_decoders=engine.n_decoders)


def _needed(blocks: list[Blocks]) -> NDArray[np.bool_]:
    """Tell which images are needed in any view for any block: (n_images,) bool."""
    return np.asarray(np.logical_or.reduce([one.needed.any(axis=1) for one in blocks]))
