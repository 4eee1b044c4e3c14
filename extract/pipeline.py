"""The algorithm of extraction: reader -> decoders -> encoders -> writer.

Each image is read and decoded once, whatever the number of encoders; each encoder's own transform runs from that one
RGB array in the thread that decoded it. The forward passes run one after the other in the main thread, and one more
thread writes. What is under way is bounded, so memory does not grow with the corpus.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.clock import Clock
from extract.corpora import Reading
from extract.encoders import Network
from extract.errors import RefusedImageError
from extract.flow import OneWorker, ordered
from extract.images import Decoder, make_decoder
from extract.lane import Lane
from extract.passports import Circumstances
from extract.stores import claim_index
from extract.summary import Bar, Summary, summarise
from features_store import Status

READERS = 4  # threads; they wait for the disk or the network, not for a processor


@dataclass(frozen=True)
class Settings:
    """How a run is done, whatever its corpus and encoders.

    Parameters
    ----------
    made : Circumstances
        Device, precision, decoder, type of the vectors.
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


@dataclass(frozen=True)
class Sample:
    """One image on its way: what each lane needs of it, or why there is nothing."""

    row: int
    prepared: dict[int, NDArray[Any]]
    status: Status = Status.WRITTEN


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
    index, n_images = reading.index, len(reading.index)
    claim_index(store, index)
    clock, decode = Clock(), make_decoder(settings.made.decoder)
    batch_size = min(settings.batch_size, n_images)
    n_decoders = settings.decoders or os.cpu_count() or 1
    with ExitStack() as stack:
        lanes = [
            Lane(network, index, store, made=settings.made, batch_size=batch_size, stack=stack) for network in networks
        ]
        todo = np.flatnonzero(np.logical_or.reduce([lane.needed for lane in lanes])[: settings.limit])
        bar = stack.enter_context(Bar(len(todo), clock, show=settings.progress))
        worker = stack.enter_context(OneWorker(ahead=4))
        readers = stack.enter_context(_pool(min(READERS, max(len(todo), 1)), "read"))
        decoders = stack.enter_context(_pool(n_decoders, "decode"))
        files = ordered(readers, lambda row: (row, _read(reading, row, clock)), todo.tolist(), ahead=2 * batch_size)
        samples = ordered(decoders, lambda file: _prepare(*file, decode, lanes, clock), files, ahead=2 * batch_size)
        for sample in _timed(samples, clock):
            for at, lane in enumerate(lanes):
                if sample.status != Status.WRITTEN and lane.needed[sample.row]:
                    lane.fail(sample.row, sample.status, worker)
                elif at in sample.prepared:
                    lane.take(sample.row, sample.prepared[at], clock, worker)
            bar.step()
        for lane in lanes:
            lane.run(clock, worker)
        with clock.part("wait for the writer"):
            worker.finish()
        for lane in lanes:
            lane.finish()
        return summarise(lanes, clock, n_done=len(todo), n_images=n_images, n_decoders=n_decoders)


def _read(reading: Reading, row: int, clock: Clock) -> bytes | Status:
    with clock.part("read"):
        try:
            return reading.source.read(row)
        except RefusedImageError as refused:
            return refused.status


def _prepare(row: int, data: bytes | Status, decode: Decoder, lanes: list[Lane], clock: Clock) -> Sample:
    """Decode one file and make the input of each lane that needs it."""
    if isinstance(data, Status):
        return Sample(row, {}, data)
    try:
        with clock.part("decode"):
            rgb = decode(data)
    except RefusedImageError as refused:
        return Sample(row, {}, refused.status)
    with clock.part("transform"):
        return Sample(row, {at: lane.network.prepare(rgb) for at, lane in enumerate(lanes) if lane.needed[row]})


def _timed(samples: Iterator[Sample], clock: Clock) -> Iterator[Sample]:
    """Count how long the main thread waits for decoded images."""
    while True:
        with clock.part("wait for images"):
            sample = next(samples, None)
        if sample is None:
            return
        yield sample


@contextmanager
def _pool(n_threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads that, when left early, forgets what it has not begun."""
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
