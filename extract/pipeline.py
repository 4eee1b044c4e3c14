"""The algorithm of extraction: claim the store, find what is pending, let an engine make it, close what is complete."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from extract.corpora import Dataset
from extract.digests import DigestingSource
from extract.encoders import Encoder
from extract.engines import DEVICES, Cpu, Device
from extract.engines.batcher import Lane
from extract.engines.compilation import Compilation
from extract.engines.local import READERS, Images, LocalEngine, expected_memory
from extract.engines.pool import Streams
from extract.engines.ray import Cluster, RayEngine, Work
from extract.inputs.files import SkipUnreadable
from extract.opening import Opened, Opening, needed_rows
from extract.settings import Circumstances
from extract.stores import check_or_write_index
from extract.summary import Bar, Summary, summarise, with_failures
from extract.timings import Clock
from features_store import Index, Status
from features_store.writer import FailureLimit


def _say_nothing(_line: str) -> None:
    return None


@dataclass(frozen=True)
class Settings:
    """How a run is done, whatever its corpus and encoders.

    Parameters
    ----------
    made : Circumstances
        Device, precision, decoder, views, type of the vectors.
    batch_size : int, optional
        Images per forward pass. None = as the blocks were begun on such a device, or what suits the device.
    limit : int, optional
        Only the first `limit` images of the index are done, the others stay pending. None = all.
    decoders : int, optional
        Threads. None = one per processor.
    progress : bool
        Show a bar on the standard error stream.
    cluster : Cluster, optional
        Actors that do the work. None = threads of this process do it.
    compile : {"auto", "on", "off"}
        See `extract.engines.compilation.Compilation`; actors never compile.
    retry : tuple of Status
        Failures of earlier runs that are tried again.
    content : bool
        Store the SHA-256 of every image file in the index.
    max_failed : FailureLimit
        Images that may fail; above it blocks stay open.
    skip_unreadable : bool
        A file that cannot be read counts as missing, whatever the cause. False = the run stops.
    tell : callable
        Takes one line for people.
    device : Device, optional
        None = the first one of the kind that `made` names.
    unused_gpu : str, optional
        Why a GPU that is visible here is not used, where nobody asked for the CPU.
    """

    made: Circumstances
    batch_size: int | None = None
    limit: int | None = None
    decoders: int | None = None
    progress: bool = True
    cluster: Cluster | None = None
    compile: str = "auto"
    retry: tuple[Status, ...] = ()
    content: bool = False
    max_failed: FailureLimit = field(default_factory=FailureLimit)
    skip_unreadable: bool = False
    tell: Callable[[str], None] = _say_nothing
    device: Device | None = None
    unused_gpu: str | None = None


def run(reading: Dataset, networks: list[Encoder], store: Path, settings: Settings) -> Summary:
    """Make the blocks of all networks over one corpus, or go on with them.

    Parameters
    ----------
    reading : Dataset
        Index and source.
    store : Path
        Folder; gets ``index.h5`` and one file per block.

    Returns
    -------
    Summary

    Raises
    ------
    MismatchError
        If the store is of another index, or a block in it was made in another way.
    """
    index, made = reading.index, settings.made
    check_or_write_index(store, index)
    clock = Clock()
    numbers = np.arange(len(index)) if index.parent_rows is None else index.parent_rows
    files = SkipUnreadable(reading.files) if settings.skip_unreadable else reading.files
    digesting = DigestingSource(files, store) if settings.content else None
    source = digesting if digesting is not None and settings.cluster is None else files
    images = Images(index.ids, source, numbers, made.views)
    engine = LocalEngine(made.decoder, n_decoders=settings.decoders)
    n_decoders, n_readers = engine.n_decoders, READERS
    with ExitStack() as stack:
        opening = _opening(index, store, settings, stack)
        opened = opening.open(networks, stack, clock)
        todo = np.flatnonzero(needed_rows(opened)[: settings.limit])
        bar = stack.enter_context(Bar(len(todo), clock, show=settings.progress))
        if settings.cluster is not None and len(todo):
            # A network whose blocks are complete is not even sent to the actors.
            open_ = [one for one in opened if one.blocks.needed.any()]
            work = Work(images, [one.network for one in open_], made, [one.batch_size for one in open_])
            ray = RayEngine(settings.cluster, work, settings.decoders)
            settings.tell(f"{settings.cluster.actors} actors of Ray, each on {_words(made, open_)}")
            ray.encode(todo, [one.blocks for one in open_], clock, step=bar.step)
            n_decoders, n_readers = (n * settings.cluster.actors for n in (ray.n_decoders, READERS))
        elif len(todo):
            lanes = [
                Lane(one.network, one.blocks, one.forward, batch_size=one.batch_size)
                for one in opened
                if one.forward is not None
            ]
            if opening.compilation is not None:
                device = opening.compilation.device
                memory = expected_memory(device, lanes, engine.queued(lanes, made.views.n))
                settings.tell(f"{_words(made, opened, device)}, {engine.n_decoders} decoder threads, {memory}")
            engine.encode(images, todo.tolist(), lanes, clock, step=bar.step)
        for one in opened:
            one.blocks.finish(settings.max_failed)
        if digesting is not None:
            with clock.part("content"):
                rows = range(len(index))[: settings.limit]
                digesting.finish(rows, store, index, used=todo.tolist())
        blocks = [one.blocks for one in opened]
        summary = summarise(
            blocks, clock, n_done=len(todo), n_images=len(index), n_decoders=n_decoders, n_readers=n_readers
        )
        return with_failures(summary, blocks, settings.max_failed)


def _opening(index: Index, store: Path, settings: Settings, stack: ExitStack) -> Opening:
    """Say how the blocks are opened; with a device of this process, unless actors do the work."""
    size = settings.batch_size or settings.made.batch_size or DEVICES[settings.made.device].batch_size
    made, here = replace(settings.made, batch_size=size), None
    if settings.cluster is None:
        device = settings.device or DEVICES[made.device]()
        if isinstance(device, Cpu):
            device = Cpu(streams=stack.enter_context(Streams()))
        made = replace(made, identity=device.identity())
        here = Compilation(settings.compile, device, settings.tell, made.precision)
    return Opening(
        index,
        store,
        made,
        settings.batch_size,
        settings.limit,
        settings.retry,
        settings.tell,
        here,
        settings.unused_gpu,
    )


def _words(made: Circumstances, opened: list[Opened], device: Device | None = None) -> str:
    """Name the device, precision and batch size of a run."""
    name = device.name() if device else f"{made.device} ({(made.identity or {}).get('device_name', 'any')})"
    sizes = sorted({one.batch_size for one in opened if one.network.module is not None})
    batches = f", batches of {' and '.join(map(str, sizes))}" if sizes else ""
    return f"{name}: {made.precision}{batches}"
