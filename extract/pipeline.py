"""The algorithm of extraction: claim the store, find what is pending, let an engine make it, close what is complete."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extract.blocks import Blocks
from extract.clock import Clock
from extract.corpora import Reading
from extract.encoders import Network
from extract.forward import Forward
from extract.lane import Lane
from extract.local_engine import Images, LocalEngine
from extract.passports import Circumstances
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
        Images per forward pass; at most the size of the corpus is used.
    limit : int, optional
        Only the first `limit` images of the index are done, the others stay pending. None = all.
    decoders : int, optional
        Threads. None = one per processor.
    progress : bool
        Show a bar on the standard error stream.
    """

    made: Circumstances
    batch_size: int
    limit: int | None = None
    decoders: int | None = None
    progress: bool = True


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
    images = Images(index.ids, reading.source, made.views)
    batch_size = min(settings.batch_size, len(index) * made.views.n)
    engine = LocalEngine(made.decoder, batch_size=batch_size, n_decoders=settings.decoders)
    with ExitStack() as stack:
        blocks = [Blocks(network, index, store, made=made, stack=stack) for network in networks]
        needed = np.logical_or.reduce([one.needed.any(axis=1) for one in blocks])
        todo = np.flatnonzero(needed[: settings.limit])
        bar = stack.enter_context(Bar(len(todo), clock, show=settings.progress))
        lanes = [
            Lane(network, sink, Forward(network, made.device) if sink.needed.any() else None, batch_size=batch_size)
            for network, sink in zip(networks, blocks, strict=True)
        ]
        engine.encode(images, todo.tolist(), lanes, clock, step=bar.step)
        for one in blocks:
            one.finish()
        return summarise(blocks, clock, n_done=len(todo), n_images=len(index), n_decoders=engine.n_decoders)
