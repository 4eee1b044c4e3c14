"""A device without hardware that takes the branches of CUDA: it computes later, in its own thread, and can die."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from extract.engines.device import Device, Function, Landed, Left, Outputs, channels_last, device_errors


class Late(Device):
    """Runs on the CPU, but as a GPU does: a batch leaves its memory late, vectors land later, errors stay.

    Subclasses set the class attributes.
    """

    kind = "cuda"
    batch_size = 4
    n_slots = 2
    delay = 0.005  # seconds, at most, before each copy and each pass
    fits = 10**9  # images in a batch
    seed = 0  # of the delays
    dies_at: int | None = None  # number of the pass at which the device dies, for good
    passes: int
    torn: list[int]  # passes whose batch was written over before it had left its memory

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        self.passes, self.torn = 0, []
        self._dead = False
        self._rng = np.random.default_rng(self.seed)
        self._pool = ThreadPoolExecutor(1, "late", torch.set_num_threads, (1,))  # as each stream of a CPU

    @property
    def address(self) -> str:
        return "cpu"

    def name(self) -> str:
        return f"cuda:{self.index} (Late, 1 GiB)"

    def identity(self) -> Mapping[str, Any]:
        return {"device": "cuda", "device_name": "Late", "tf32": False}

    def precisions(self) -> tuple[str, ...]:
        return ("float16",)

    def memory(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        return channels_last(shape, dtype, pinned=False)

    def memory_used(self) -> int:
        return 2**28

    def start(self, function: Function, batch: NDArray[Any]) -> tuple[Left, Landed]:
        left: Future[None] = Future()
        done = self._pool.submit(self._run, function, batch, left, crc32(batch.tobytes()))

        def wait_left() -> None:
            with device_errors(self.name()):
                left.result()

        def landed() -> tuple[Outputs, float]:
            with device_errors(self.name()):
                return done.result()

        return wait_left, landed

    def _run(self, function: Function, batch: NDArray[Any], left: Future[None], sum_: int) -> tuple[Outputs, float]:
        try:
            time.sleep(self._rng.uniform(0, self.delay))
            pixels = torch.from_numpy(batch).clone(memory_format=torch.channels_last)
            if crc32(batch.tobytes()) != sum_:
                self.torn.append(self.passes)
            left.set_result(None)
            time.sleep(self._rng.uniform(0, self.delay))
            self.passes += 1
            if len(batch) > self.fits:
                message = "CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation"
                raise torch.OutOfMemoryError(message)
            self._dead = self._dead or self.passes == self.dies_at
            if self._dead:
                message = "CUDA error: an illegal memory access was encountered\nKernel errors may be asynchronous"
                raise RuntimeError(message)
            start = time.perf_counter()
            outputs = [tensor.float().numpy().copy() for tensor in function(pixels)]
            return outputs, time.perf_counter() - start
        except BaseException as error:
            if not left.done():
                left.set_exception(error)
            raise
