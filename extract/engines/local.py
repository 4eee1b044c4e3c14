"""The flow of images through one process: reader -> decoders -> encoders -> sinks.

Each image is read and decoded once, whatever the number of encoders and views; each encoder's own transform runs from
that one RGB array in the thread that decoded it. The calling thread fills batches; their forward passes run on a GPU or
in a pool of threads, and one more thread writes. What is under way is bounded, so memory does not grow with the corpus.
"""

from __future__ import annotations

import math
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from extract.corpora import Dataset
from extract.engines import Cpu, Device, Plan, Sink, choose_device, unused_gpu
from extract.engines.cpu import ForwardPool
from extract.engines.forward import Forward, Running, compile_if_faster, time_passes
from extract.errors import DeviceError, DeviceMemoryError, MachineError, RefusedImageError
from extract.inputs.images import make_decoder
from extract.progress import Timings
from extract.settings import RunSettings

READERS = 4  # threads; they wait for the disk or the network, not for a processor
PATIENCE = 600.0
"""Seconds on the CPU that a run may take without a question, where a GPU is visible and cannot be used."""
_DECODED_BYTES = 3 * 12 * 10**6  # of a photograph of 12 megapixels
Prepared = dict[tuple[int, int], NDArray[Any]]
"""What the batchers need of one image, by batcher and view."""
Sample: TypeAlias = tuple[int, Prepared, RefusedImageError | None, str]
"""One image on its way: its row, what is made of it, why there is nothing, and what is broken beside its pixels."""


class LocalEngine:
    """Threads of this process; an `Engine`.

    Without a device it is the one of the settings; a CPU then gets a pool of threads while the engine is open.
    `forwards` are passes that are built already, by encoder.
    """

    n_readers = READERS

    def __init__(
        self, settings: RunSettings, device: Device | None = None, forwards: Mapping[str, Forward] | None = None
    ) -> None:
        self._settings, self._pools = settings, device is None
        self._device = device or choose_device(settings.device)
        self.facts = self._device.facts(settings.precision)
        self.n_decoders = settings.decode_threads or count_processors()
        nobody_chose = device is None and settings.device == "auto" and isinstance(self._device, Cpu)
        self._unused_gpu = unused_gpu() if nobody_chose else None
        self._decode = make_decoder(settings.decoder)
        self._forwards = dict(forwards or {})
        self.remarks: Counter[str] = Counter()
        self._stack = ExitStack()

    def __enter__(self) -> LocalEngine:
        if self._pools and isinstance(self._device, Cpu):
            self._device = Cpu(pool=self._stack.enter_context(ForwardPool()))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def prepare(self, plans: Sequence[Plan], timings: Timings) -> list[Plan]:
        """Networks are placed, compiled where it pays, and tried where memory may be short."""
        if self._unused_gpu is not None:
            self._check_patience(plans)
        for plan in plans:
            if plan.n_views and plan.encoder.spec.name not in self._forwards:
                self._forwards[plan.encoder.spec.name] = self._place(plan, timings)
        decided = []
        for plan in plans:  # all networks are on the device by now
            forward = self._forwards.get(plan.encoder.spec.name)
            size = self._fitting_batch(forward, plan) if forward else plan.batch_size
            compiled = forward.compiled if forward and plan.compiled is None else bool(plan.compiled)
            decided.append(replace(plan, batch_size=size, compiled=compiled))
        return decided

    def run(
        self,
        dataset: Dataset,
        rows: NDArray[np.int64],
        sinks: Sequence[Sink],
        timings: Timings,
        step: Callable[[int], None],
    ) -> None:
        views = self._settings.augmentation
        # A slot depends on the row in the whole corpus, of which this may be a shard.
        numbers = np.arange(len(dataset.index)) if dataset.index.parent_rows is None else dataset.index.parent_rows
        with ExitStack() as stack:
            forwards = [self._forwards[sink.encoder.spec.name] for sink in sinks]
            # The writer also waits for what is being computed; only past that does it hold up the rest.
            writer = stack.enter_context(SerialWorker(ahead=4 + sum(forward.n_slots for forward in forwards)))
            batchers = [Batcher(*pair, writer, timings) for pair in zip(sinks, forwards, strict=True)]
            # Images that may be read, decoded or waiting: two batches.
            ahead = max(2 * max(one.size for one in batchers) // views.n, self.n_decoders + 1)
            self._settings.echo(self._describe(batchers, ahead))
            readers = stack.enter_context(_pool(min(READERS, len(rows)), "read"))
            decoders = stack.enter_context(_pool(self.n_decoders, "decode", _alone))
            files = ordered(readers, lambda row: (row, _read(dataset, row, timings)), rows.tolist(), ahead=ahead)
            prepare = partial(self._prepare, dataset, batchers, timings)
            for row, prepared, refused, remark in _timed(
                ordered(decoders, lambda file: prepare(*file), files, ahead=ahead), timings
            ):
                if refused is not None:
                    for batcher in batchers:
                        batcher.fail(row, refused)
                if remark:
                    self.remarks[remark] += 1
                for (at, view), pixels in prepared.items():
                    batchers[at].take(row, view, int(numbers[row]) * views.n + view, pixels)
                step(1)
            for batcher in batchers:
                batcher.run()
            with timings.part("wait for the writer"):
                writer.finish()

    def _prepare(
        self, dataset: Dataset, batchers: Sequence[Batcher], timings: Timings, row: int, data: bytes | RefusedImageError
    ) -> Sample:
        """Decode one file, and make the input of each batcher that needs it, in each view; or return why not."""
        if isinstance(data, RefusedImageError):
            return row, {}, data, ""
        try:
            with timings.part("decode"):
                rgb, remark = self._decode.decode(data)
        except RefusedImageError as refused:
            return row, {}, refused, ""
        except MemoryError as error:
            raise _out_of_memory(dataset, row) from error
        views, name = self._settings.augmentation, str(dataset.index.ids[row])
        prepared: Prepared = {}
        with timings.part("transform"):
            for view in range(views.n):
                wanting = [at for at, batcher in enumerate(batchers) if batcher.sink.needed[row, view]]
                pixels = views.make(rgb, name, view) if wanting else rgb
                prepared.update({(at, view): batchers[at].sink.encoder.prepare(pixels) for at in wanting})
        return row, prepared, None, remark

    def _place(self, plan: Plan, timings: Timings) -> Forward:
        with timings.part("compile"):
            return compile_if_faster(
                plan.encoder,
                self._device,
                plan.n_views,
                batch_size=plan.batch_size,
                mode=self._settings.compile,
                begun=plan.compiled,
                precision=self._settings.precision,
                echo=self._settings.echo,
            )

    def _fitting_batch(self, forward: Forward, plan: Plan) -> int:
        """Run one batch where memory may not suffice; a new block halves its batch once, one with rows keeps it."""
        size = plan.batch_size
        if self._device.memory_used() is None:
            return size
        try:
            forward(forward.buffer(size))
        except DeviceMemoryError as error:
            if plan.compiled is not None or size == 1:
                raise
            size //= 2
            self._settings.echo(f"{plan.encoder.spec.name}: {error}; {size} is tried")
            forward(forward.buffer(size))
        return size

    def _check_patience(self, plans: Sequence[Plan]) -> None:
        """Refuse a long run on the CPU that nobody chose; warn of a short one."""
        seconds = 0.0
        for plan in plans:
            if plan.n_views and plan.encoder.module is not None:
                forward = Forward(plan.encoder, self._device, precision=self._settings.precision)
                seconds += plan.n_views * time_passes([forward], plan.batch_size, n_passes=2)[0]
        if seconds > PATIENCE:
            long = f"{seconds / 3600:.1f} hours" if seconds > 7200 else f"{seconds / 60:.0f} minutes"
            raise DeviceError(
                f"{self._unused_gpu}; or give --device cpu, with which the networks take about {long} here"
            )
        self._settings.echo(f"warning: {self._unused_gpu}; the CPU is used instead")

    def _describe(self, batchers: Sequence[Batcher], ahead: int) -> str:
        """Word the device, and how much memory the run will take: what was taken until now, and images on their way."""
        encoders = [one.sink.encoder for one in batchers]
        inputs = sum(np.dtype(one.input_dtype).itemsize * math.prod(one.input_shape) for one in encoders)
        host = _peak_bytes() + ahead * inputs + count_processors() * _DECODED_BYTES
        words = [
            *describe_passes(self.facts.name, self.facts.autocast, [one.sink for one in batchers]),
            f"{self.n_decoders} decoder threads",
            f"about {host / 2**30:.1f} GiB of memory",
        ]
        own = self._device.memory_used()
        return ", ".join(words) + ("" if own is None else f" and {own / 2**30:.1f} GiB of the device's")


def describe_passes(device: str, autocast: str | None, sinks: Sequence[Sink]) -> list[str]:
    """Word device, precision and batch size of a run."""
    sizes = sorted({sink.batch_size for sink in sinks if sink.encoder.module is not None})
    batches = [f"batches of {' and '.join(map(str, sizes))}"] if sizes else []
    return [f"{device}: {autocast or 'float32'}", *batches]


class Batcher:
    """Fill the batches of one encoder, run them, and hand their vectors to its sink.

    A forward pass always has the full batch size, and each view of an image has its own slot in it. The last bits of a
    vector depend on the slot, since libraries of kernels cut a batch into pieces, but not on what is in the other
    slots. So vectors do not depend on which images failed, where a run was interrupted, or who made which rows.
    """

    def __init__(self, sink: Sink, forward: Forward, writer: SerialWorker, timings: Timings) -> None:
        self.sink = sink
        self.size = sink.batch_size
        self._forward, self._writer, self._timings = forward, writer, timings
        self._batch = forward.buffer(self.size)
        self._places: dict[int, tuple[int, int]] = {}  # by slot, the row and view that are in it

    def take(self, row: int, view: int, number: int, prepared: NDArray[Any]) -> None:
        """Put one view of shape (*encoder.input_shape) into the batch, and run the batch if it is full."""
        slot = number % self.size
        if slot in self._places:  # the images between were done before, or failed
            self.run()
        self._batch[slot] = prepared
        self._places[slot] = row, view
        if len(self._places) == self.size:
            self.run()

    def fail(self, row: int, refused: RefusedImageError) -> None:
        """Record that an image has no vector."""
        if self.sink.needed[row].any():
            self._writer.submit(partial(self.sink.fail, row, refused.status, str(refused)))

    def run(self) -> None:
        """Run the batch, however full, and hand its vectors to the writer."""
        if not self._places:
            return
        with self._timings.part("wait for the device"):  # the whole pass, where it runs in this thread
            self._forward.check_parity(self._batch)
            running = self._forward.start(self._batch)
        slots, places = list(self._places), np.array(list(self._places.values()), dtype=np.int64)
        self._places = {}
        with self._timings.part("wait for the writer"):
            self._writer.submit(partial(self._write, slots, places, running))
        with self._timings.part("wait for the device"):
            self._batch = self._forward.buffer(self.size)

    def _write(self, slots: list[int], places: NDArray[np.int64], running: Running) -> None:
        with self._timings.part("wait for vectors"):
            vectors = running()
        self._timings.add("forward", running.seconds)
        with self._timings.part("write"):
            self.sink.write(places[:, 0], places[:, 1], {tap: values[slots] for tap, values in vectors.items()})


class SerialWorker:
    """One thread that does what it is given, in order; the giver waits once `ahead` things are undone.

    An exception of the work is raised in the giver, at one of the next calls or at the end.
    """

    def __init__(self, *, ahead: int) -> None:
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._waiting: deque[Future[None]] = deque()

    def submit(self, work: Callable[[], None]) -> None:
        """Hand over one piece of work."""
        self._waiting.append(self._pool.submit(work))
        while self._waiting and (len(self._waiting) > self._ahead or self._waiting[0].done()):
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait until all work is done."""
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> SerialWorker:
        return self

    def __exit__(self, error: object, *_more: object) -> None:
        """End the thread; what was handed over before an error is still done."""
        self._pool.shutdown(wait=True)
        if error is None:
            self.finish()


Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Iterator[Result]:
    """Map in threads; results come in the order of `items`, and at most `ahead` are under way or waiting.

    While the consumer is busy with one result, up to `ahead` others are made. An exception of `function` is raised
    where its result would have come.
    """
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def count_processors() -> int:
    """Return how many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _peak_bytes() -> int:
    """Return the largest size that this process has had, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _read(dataset: Dataset, row: int, timings: Timings) -> bytes | RefusedImageError:
    with timings.part("read"):
        try:
            return dataset.files.read(row)
        except RefusedImageError as refused:
            return refused
        except MemoryError as error:
            raise _out_of_memory(dataset, row) from error


def _out_of_memory(dataset: Dataset, row: int) -> MachineError:
    return MachineError(
        f"the memory ran out at image {str(dataset.index.ids[row])!r}; what was written stays: free some memory, or "
        "lower --batch-size, and give the same command again"
    )


def _timed(samples: Iterator[Sample], timings: Timings) -> Iterator[Sample]:
    """Count how long the calling thread waits for decoded images."""
    while True:
        with timings.part("wait for images"):
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
    torch.set_num_threads(1)
