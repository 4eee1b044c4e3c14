"""The forward pass of one network: devices, memory layout, precision, compilation."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.encoders.record import Network
from extract.errors import DeviceError
from extract.memory import keep_freed_memory
from extract.streams import Streams
from features_store.errors import unknown_name

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
BATCH_SIZES = {"cpu": 8, "cuda": 128}
"""By device, images per forward pass where nothing else is asked; larger ones cost a CPU more in memory traffic."""

Vectors = dict[str, NDArray[np.float32]]


def choose_device(name: str = "auto") -> str:
    """Return ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    DeviceError
        If the name is not valid, or torch sees no such device.
    """
    import torch

    if name not in DEVICES:
        raise DeviceError(unknown_name("device", name, DEVICES))
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        msg = "--device cuda: torch sees no CUDA device here; use --device cpu, or install a CUDA build of torch"
        raise DeviceError(msg)
    if name == "auto":
        return "cuda" if available else "cpu"
    return name


def autocast_dtype(device: str, precision: str = "auto") -> str | None:
    """Return the type of mixed precision on a device, None for plain float32.

    By itself float16 rather than bfloat16 wherever there are tensor cores (compute capability 7): at the same speed it
    keeps 3 bits more of each activation. CPUs stay in float32 unless asked: bfloat16 is slower on most, three times as
    fast on those with matrix units (AMX), and moves vectors by a cosine of 0.9995 to 0.9999.

    Raises
    ------
    DeviceError
        If `precision` is not valid on the device.
    """
    import torch

    if precision not in PRECISIONS:
        raise DeviceError(unknown_name("precision", precision, PRECISIONS))
    if precision == "float16" and device == "cpu":
        msg = "--precision float16 is for CUDA; on the CPU give float32, or bfloat16 where the processor has AMX"
        raise DeviceError(msg)
    if precision == "auto":
        tensor_cores = device == "cuda" and torch.cuda.get_device_capability()[0] >= 7
        return "float16" if tensor_cores else None
    return None if precision == "float32" else precision


class Forward:
    """Run batches of one network, on the CPU or on every CUDA device that torch sees, each batch on the next one.

    Parameters
    ----------
    network : Network
        Its module is moved to the device; to several devices, as copies.
    device : {"cpu", "cuda"}
    precision : {"auto", "float32", "bfloat16", "float16"}
        See `autocast_dtype`.
    compiled : bool
        Compile it with ``torch.compile``, weights frozen in. Happens at the first batch, which then takes minutes;
        every batch must have the shape of that one.
    streams : Streams, optional
        On the CPU, where passes run side by side. None = in the calling thread, with all of torch's threads.
    """

    def __init__(
        self,
        network: Network,
        device: str,
        *,
        precision: str = "auto",
        compiled: bool = False,
        streams: Streams | None = None,
    ) -> None:
        self.network = network
        self.device = device
        here = device == "cpu" and network.module is not None
        self.streams = streams if here else None
        self.compiled = compiled and network.module is not None
        self._precision = autocast_dtype(device, precision)
        if here:
            keep_freed_memory()
        self._taps = [tap.name for tap in network.encoder.taps]
        self._replicas = self._placed(network.module)
        self._slots: list[_PlainSlot] = []
        self._n_started = 0

    @property
    def n_slots(self) -> int:
        """Batches that can be under way, or be filled, at one time."""
        if self.streams is not None:
            return self.streams.n + 1
        return 2 * len(self._replicas) if self.device == "cuda" else 1

    def buffer(self, batch_size: int) -> NDArray[Any]:
        """Return an array of shape (batch_size, *network.input_shape) to fill and then to `start`.

        It is in the layout that the device reads fastest, and is given out again `n_slots` batches later.
        """
        if not self._slots:
            make: type[_PlainSlot] = _Slot if self.network.module is not None else _PlainSlot
            self._slots = [make(self.network, batch_size, pinned=self.device == "cuda") for _ in range(self.n_slots)]
        return self._slots[self._n_started % self.n_slots].wait()

    def start(self, batch: NDArray[Any]) -> Callable[[], Vectors]:
        """Begin the pass over a batch; the function returned waits for its vectors.

        A GPU, or a stream, works on while the caller fills the next buffer; `batch` must be left alone until the
        vectors are there, unless it came from `buffer`. On the CPU without streams the pass is over when this returns.

        Parameters
        ----------
        batch : ndarray of shape (n, *network.input_shape)

        Returns
        -------
        callable
            Gives a dict by tap: (n, *shape) float32. Safe in another thread.
        """
        slot = self._slots[self._n_started % len(self._slots)] if self._slots else None
        at = self._n_started % max(len(self._replicas), 1)
        self._n_started += 1
        if not self._replicas:  # no network: what was prepared are the vectors
            (tap,) = self._taps
            vectors = {tap: batch.copy()}
            return lambda: vectors
        if self.device == "cuda":
            return self._on_gpu(batch, slot, *self._replicas[at])
        if self.streams is None:
            vectors = self._on_cpu(batch)
            return lambda: vectors
        future = self.streams.do(lambda: self._on_cpu(batch))
        if slot is not None:
            slot.taken(lambda: wait_for([future]))
        return future.result

    def _on_cpu(self, batch: NDArray[Any]) -> Vectors:
        import torch

        with self._modes():
            pixels = torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)
            outputs = self._replicas[0][1](pixels)
            # Compiled code may write its next answer into the same memory
            return {tap: tensor.float().numpy().copy() for tap, tensor in zip(self._taps, outputs, strict=True)}

    def _on_gpu(
        self, batch: NDArray[Any], slot: _PlainSlot | None, device: torch.device, whole: Callable[..., Any]
    ) -> Callable[[], Vectors]:
        import torch

        with self._modes():
            pixels = torch.from_numpy(batch).to(device, non_blocking=True)
            if slot is not None:
                slot.taken(_reached(device).synchronize)
            outputs = whole(pixels.contiguous(memory_format=torch.channels_last))
            # From a GPU into pinned memory, in its own time
            landed = [tensor.float().to("cpu", non_blocking=True) for tensor in outputs]
        done = _reached(device)

        def wait() -> Vectors:
            done.synchronize()
            return {tap: tensor.numpy() for tap, tensor in zip(self._taps, landed, strict=True)}

        return wait

    @contextmanager
    def _modes(self) -> Iterator[None]:
        import torch

        kind = getattr(torch, self._precision or "float32")
        with torch.inference_mode(), torch.autocast(self.device, kind, enabled=self._precision is not None):
            yield

    def __call__(self, batch: NDArray[Any]) -> Vectors:
        """Return the vectors of a batch; see `start`."""
        return self.start(batch)()

    def _placed(self, module: torch.nn.Module | None) -> list[tuple[torch.device, Callable[..., Any]]]:
        """Return the network on each device, from uint8 pixels to one tensor per tap."""
        if module is None:
            return []
        import torch

        names = [f"cuda:{at}" for at in range(torch.cuda.device_count())] if self.device == "cuda" else ["cpu"]
        replicas: list[tuple[torch.device, Callable[..., Any]]] = []
        for at, name in enumerate(names):
            device, one = torch.device(name), copy.deepcopy(module) if at else module
            # Convolutions of both oneDNN and cuDNN run about twice as fast on this layout. torch types no such call.
            placed: Any = one.to(device=device)
            whole = self._whole(placed.to(memory_format=torch.channels_last))
            if self.compiled:
                whole = torch.compile(whole, dynamic=False, options=_OPTIONS[self.device])
            replicas.append((device, whole))
        return replicas

    def _whole(self, module: torch.nn.Module) -> Callable[..., tuple[torch.Tensor, ...]]:
        network, taps = self.network, self._taps

        def whole(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x = network.normalise(pixels) if network.normalise else pixels
            outputs = network.outputs(module, x) if network.outputs else {}
            return tuple(outputs[tap] for tap in taps)

        # torch keeps what it compiled by code object, and at most eight things for each: every network gets its own.
        whole.__code__ = whole.__code__.replace(
            co_name=f"forward_of_{re.sub('[^A-Za-z0-9]', '_', network.encoder.name)}"
        )
        return whole


def _reached(device: torch.device) -> torch.cuda.Event:
    """Return the moment, in the device's time, at which all that it was told until now is done."""
    import torch

    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


_OPTIONS: dict[str, dict[str, str | int | bool | Callable[..., Any]]] = {
    "cpu": {"freezing": True, "cpp_wrapper": True},
    "cuda": {"freezing": True},
}
"""Of the inductor, by device. Frozen weights are constants, so that batch norms are folded and weights packed once. A
pass that is one call of C++ leaves Python's lock to other streams and to the decoders while it runs."""


class _PlainSlot:
    """Memory for one batch of vectors."""

    def __init__(self, network: Network, batch_size: int, *, pinned: bool) -> None:
        del pinned  # never goes to a device
        self.array: NDArray[Any] = np.zeros((batch_size, *network.input_shape), dtype=network.input_dtype)
        self._left: Callable[[], object] = _at_once

    def wait(self) -> NDArray[Any]:
        """Return the array once its last batch has left it."""
        self._left()
        return self.array

    def taken(self, left: Callable[[], object]) -> None:
        """Note that a batch is being read; `left` returns when it has been."""
        self._left = left


class _Slot(_PlainSlot):
    """Memory for one batch of pixels: channels last, and page-locked if it is to go to a GPU while the CPU goes on."""

    def __init__(self, network: Network, batch_size: int, *, pinned: bool) -> None:
        import torch

        n_channels, height, width = network.input_shape
        kind = getattr(torch, network.input_dtype)
        memory = torch.zeros((batch_size, height, width, n_channels), dtype=kind, pin_memory=pinned)
        self.array = memory.permute(0, 3, 1, 2).numpy()
        self._left = _at_once


def _at_once() -> None:
    return None
