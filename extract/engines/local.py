"""The flow of images through one process: reader -> decoders -> encoders -> sinks.

Each image is read and decoded once, whatever the number of encoders and views; each encoder's own transform runs from
that one RGB array in the thread that decoded it. The calling thread fills batches; their forward passes run on a GPU or
in streams of this process, and one more thread writes. What is under way is bounded, so memory does not grow with the
corpus.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.engines import Device
from extract.engines.batcher import Lane, OneWorker, ordered
from extract.errors import MachineError, RefusedImageError
from extract.inputs.files import ImageFiles
from extract.inputs.images import make_decoder
from extract.inputs.views import Views
from extract.timings import Clock

_DECODED_BYTES = 3 * 12 * 10**6  # of a photograph of 12 megapixels
READERS = 4  # threads; they wait for the disk or the network, not for a processor


@dataclass(frozen=True)
class Images:
    """Images that can be read and looked at in several ways.

    Parameters
    ----------
    numbers : ndarray of shape (n_images,), int64
        Row of each image in the whole corpus, of which these may be a part.
    """

    ids: NDArray[Any]
    source: ImageFiles
    numbers: NDArray[np.int64]
    views: Views


@dataclass(frozen=True)
class Sample:
    """One image on its way: what each lane needs of it, by lane and view, or why there is nothing."""

    row: int
    prepared: dict[tuple[int, int], NDArray[Any]]
    refused: RefusedImageError | None = None


class LocalEngine:
    """Threads of this process.

    Parameters
    ----------
    n_decoders : int, optional
        Threads. None = one per processor.
    """

    def __init__(self, decoder: str, *, n_decoders: int | None = None) -> None:
        self.n_decoders = n_decoders or usable_processors()
        self._decode = make_decoder(decoder)

    def encode(
        self, images: Images, rows: Sequence[int], lanes: list[Lane], clock: Clock, *, step: Callable[[int], None]
    ) -> None:
        """Give the lanes what they need of some rows."""
        ahead = self.queued(lanes, images.views.n)
        with ExitStack() as stack:
            # The writer also waits for what is being computed; only past that is it the one who holds up the rest.
            worker = stack.enter_context(OneWorker(ahead=4 + sum(lane.n_slots for lane in lanes)))
            readers = stack.enter_context(_pool(min(READERS, max(len(rows), 1)), "read"))
            decoders = stack.enter_context(_pool(self.n_decoders, "decode", _alone))
            files = ordered(readers, lambda row: (row, _read(images, row, clock)), rows, ahead=ahead)
            samples = ordered(decoders, lambda file: self._prepare(images, *file, lanes, clock), files, ahead=ahead)
            for sample in _timed(samples, clock):
                number = int(images.numbers[sample.row]) * images.views.n
                _feed(sample, number, lanes, clock, worker)
                step(1)
            for lane in lanes:
                lane.run(clock, worker)
            with clock.part("wait for the writer"):
                worker.finish()

    def queued(self, lanes: Sequence[Lane], n_views: int) -> int:
        """Return how many images may be read, decoded or waiting at a time: two batches."""
        return max(2 * max((lane.batch_size for lane in lanes), default=1) // n_views, self.n_decoders + 1)

    def _prepare(
        self, images: Images, row: int, data: bytes | RefusedImageError, lanes: list[Lane], clock: Clock
    ) -> Sample:
        """Decode one file and make the input of each lane that needs it, in each view."""
        if isinstance(data, RefusedImageError):
            return Sample(row, {}, data)
        try:
            with clock.part("decode"):
                rgb = self._decode(data)
        except RefusedImageError as refused:
            return Sample(row, {}, refused)
        except MemoryError as error:
            raise MachineError(_out_of_memory(images, row)) from error
        prepared: dict[tuple[int, int], NDArray[Any]] = {}
        with clock.part("transform"):
            for view in range(images.views.n):
                wanting = [at for at, lane in enumerate(lanes) if lane.needed[row, view]]
                pixels = images.views.make(rgb, str(images.ids[row]), view) if wanting else rgb
                prepared.update({(at, view): lanes[at].network.prepare(pixels) for at in wanting})
        return Sample(row, prepared)


def usable_processors() -> int:
    """Return how many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def expected_memory(device: Device, lanes: Sequence[Lane], queued: int) -> str:
    """Say how much memory a run will take: what was taken until now, and the images on their way."""
    own = device.memory_used()
    inputs = sum(np.dtype(lane.network.input_dtype).itemsize * math.prod(lane.network.input_shape) for lane in lanes)
    host = _peak_bytes() + queued * inputs + usable_processors() * _DECODED_BYTES
    words = f"about {host / 2**30:.1f} GiB of memory"
    return words if own is None else f"{words} and {own / 2**30:.1f} GiB of the device's"


def _peak_bytes() -> int:
    """Return the largest size that this process has had, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _feed(sample: Sample, number: int, lanes: list[Lane], clock: Clock, worker: OneWorker) -> None:
    if sample.refused is not None:
        for lane in lanes:
            lane.fail(sample.row, sample.refused.status, str(sample.refused), worker)
    for (at, view), prepared in sample.prepared.items():
        lanes[at].take((sample.row, view), number + view, prepared, clock, worker)


def _read(images: Images, row: int, clock: Clock) -> bytes | RefusedImageError:
    with clock.part("read"):
        try:
            return images.source.read(row)
        except RefusedImageError as refused:
            return refused
        except MemoryError as error:
            raise MachineError(_out_of_memory(images, row)) from error


def _out_of_memory(images: Images, row: int) -> str:
    return (
        f"the memory ran out at image {str(images.ids[row])!r}; what was written stays: free some memory, or lower "
        "--batch-size, and give the same command again"
    )


def _timed(samples: Iterator[Sample], clock: Clock) -> Iterator[Sample]:
    """Count how long the calling thread waits for decoded images."""
    while True:
        with clock.part("wait for images"):
            sample = next(samples, None)
        if sample is None:
            return
        yield sample


@contextmanager
def _pool(n_threads: int, name: str, begin: Callable[[], None] | None = None) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads that, when left early, forgets what it has not begun."""
    pool = ThreadPoolExecutor(n_threads, name, begin)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _alone() -> None:
    """Let torch's kernels run in the calling thread, beside others that do the same."""
    import torch

    torch.set_num_threads(1)
