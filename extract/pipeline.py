"""The algorithm of extraction: claim the store, find what is pending, let an engine make it, close what is complete."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extract.clock import Clock
from extract.compilation import Compilation
from extract.corpora import Reading
from extract.digests import DigestingSource
from extract.encoders import Network
from extract.lane import Lane
from extract.local_engine import Images, LocalEngine
from extract.opening import Opening, needed_rows
from extract.passports import Circumstances
from extract.ray_engine import Cluster, RayEngine, Work
from extract.stores import claim_index
from extract.streams import Streams
from extract.summary import Bar, Summary, summarise
from features_store import Index, Status


def _say_nothing(_line: str) -> None:
    return None


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
    compile : {"auto", "on", "off"}
        See `extract.compilation.Compilation`; actors never compile.
    retry : tuple of Status
        Failures of earlier runs that are tried again.
    content : bool
        Store the SHA-256 of every image file in the index.
    tell : callable
        Takes one line for people.
    """

    made: Circumstances
    batch_size: int
    limit: int | None = None
    decoders: int | None = None
    progress: bool = True
    cluster: Cluster | None = None
    compile: str = "auto"
    retry: tuple[Status, ...] = ()
    content: bool = False
    tell: Callable[[str], None] = _say_nothing


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
    digesting = DigestingSource(reading.source, store) if settings.content else None
    source = digesting if digesting is not None and settings.cluster is None else reading.source
    images = Images(index.ids, source, numbers, made.views)
    engine = LocalEngine(made.decoder, batch_size=settings.batch_size, n_decoders=settings.decoders)
    with ExitStack() as stack:
        here = None if settings.cluster is not None else stack.enter_context(Streams())
        opened = _opening(index, store, settings, here).open(networks, stack, clock)
        todo = np.flatnonzero(needed_rows(opened)[: settings.limit])
        bar = stack.enter_context(Bar(len(todo), clock, show=settings.progress))
        if settings.cluster is not None and len(todo):
            # A network whose blocks are complete is not even sent to the actors.
            open_ = [one for one in opened if one.blocks.needed.any()]
            needed = [one.network for one in open_]
            work = Work(images, needed, made, settings.batch_size, settings.decoders)
            RayEngine(settings.cluster, work).encode(todo, [one.blocks for one in open_], clock, step=bar.step)
        elif len(todo):
            lanes = [
                Lane(one.network, one.blocks, one.forward, batch_size=settings.batch_size)
                for one in opened
                if one.forward is not None
            ]
            engine.encode(images, todo.tolist(), lanes, clock, step=bar.step)
        for one in opened:
            one.blocks.finish()
        if digesting is not None:
            with clock.part("content"):
                rows = range(len(index))[: settings.limit]
                digesting.finish(rows, store, index, reading.origin, used=todo.tolist())
        blocks = [one.blocks for one in opened]
        return summarise(blocks, clock, n_done=len(todo), n_images=len(index), n_decoders=engine.n_decoders)


def _opening(index: Index, store: Path, settings: Settings, streams: Streams | None) -> Opening:
    made = settings.made
    here = None
    if streams is not None:
        here = Compilation(settings.compile, made.device, settings.batch_size, settings.tell, made.precision, streams)
    return Opening(index, store, made, settings.limit, settings.retry, here)
