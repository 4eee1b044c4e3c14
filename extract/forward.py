"""The forward pass of one network: devices, memory layout, precision, compilation."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.encoders.record import Network
from extract.errors import DeviceError
from extract.memory import keep_freed_memory
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
    """

    def __init__(self, network: Network, device: str, *, precision: str = "auto", compiled: bool = False) -> None:
        self.network = network
        self.device = device
        self.compiled = compiled and network.module is not None
        self._precision = autocast_dtype(device, precision)
        if device == "cpu" and network.module is not None:
            keep_freed_memory()
        self._replicas = self._placed(network.module)
        self._slots: list[_PlainSlot] = []
        self._n_started = 0

    def buffer(self, batch_size: int) -> NDArray[Any]:
        """Return an array of shape (batch_size, *network.input_shape) to fill and then to `start`.

        It is in the layout that the device reads fastest, and is given out again two batches per device later.
        """
        n_slots = 2 * len(self._replicas) if self.device == "cuda" else 1
        if not self._slots:
            make: type[_PlainSlot] = _Slot if self.network.module is not None else _PlainSlot
            self._slots = [make(self.network, batch_size, pinned=self.device == "cuda") for _ in range(n_slots)]
        return self._slots[self._n_started % n_slots].wait()

    def start(self, batch: NDArray[Any]) -> Callable[[], Vectors]:
        """Begin the pass over a batch; the function returned waits for its vectors.

        A GPU works on while the caller fills the next buffer; `batch` must be left alone until the vectors are there,
        unless it came from `buffer`. On the CPU the pass is over when this returns.

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
            (tap,) = self.network.encoder.taps
            vectors = {tap.name: batch.copy()}
            return lambda: vectors
        import torch

        device, whole = self._replicas[at]
        autocast = torch.autocast(
            self.device, getattr(torch, self._precision or "float32"), enabled=self._precision is not None
        )
        with torch.inference_mode(), autocast:
            pixels = torch.from_numpy(batch).to(device, non_blocking=True)
            if slot is not None and device.type == "cuda":
                slot.sent(device)
            outputs = whole(pixels.contiguous(memory_format=torch.channels_last))
            # From a GPU into pinned memory, in its own time
            landed = [tensor.float().to("cpu", non_blocking=True) for tensor in outputs]
        taps = [tap.name for tap in self.network.encoder.taps]
        if device.type == "cpu":
            # Compiled code may write its next answer into the same memory
            vectors = {tap: tensor.numpy().copy() for tap, tensor in zip(taps, landed, strict=True)}
            return lambda: vectors
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(device))

        def wait() -> Vectors:
            done.synchronize()
            return {tap: tensor.numpy() for tap, tensor in zip(taps, landed, strict=True)}

        return wait

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
            replicas.append((device, torch.compile(whole, dynamic=False, options=_OPTIONS) if self.compiled else whole))
        return replicas

    def _whole(self, module: torch.nn.Module) -> Callable[..., tuple[torch.Tensor, ...]]:
        network, taps = self.network, [tap.name for tap in self.network.encoder.taps]

        def whole(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x = network.normalise(pixels) if network.normalise else pixels
            outputs = network.outputs(module, x) if network.outputs else {}
            return tuple(outputs[tap] for tap in taps)

        # torch keeps what it compiled by code object, and at most eight things for each: every network gets its own.
        whole.__code__ = whole.__code__.replace(
            co_name=f"forward_of_{re.sub('[^A-Za-z0-9]', '_', network.encoder.name)}"
        )
        return whole


_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"freezing": True}
"""Of the inductor: weights become constants, so that batch norms are folded and weights packed once."""


class _PlainSlot:
    """Memory for one batch of vectors."""

    def __init__(self, network: Network, batch_size: int, *, pinned: bool) -> None:
        del pinned  # never goes to a device
        self.array: NDArray[Any] = np.zeros((batch_size, *network.input_shape), dtype=network.input_dtype)

    def wait(self) -> NDArray[Any]:
        return self.array

    def sent(self, device: torch.device) -> None:
        raise NotImplementedError


class _Slot(_PlainSlot):
    """Memory for one batch of pixels: channels last, and page-locked if it is to go to a GPU while the CPU goes on."""

    def __init__(self, network: Network, batch_size: int, *, pinned: bool) -> None:
        import torch

        n_channels, height, width = network.input_shape
        kind = getattr(torch, network.input_dtype)
        memory = torch.zeros((batch_size, height, width, n_channels), dtype=kind, pin_memory=pinned)
        self.array = memory.permute(0, 3, 1, 2).numpy()
        self._sent: torch.cuda.Event | None = None

    def wait(self) -> NDArray[Any]:
        """Return the array once its last batch has left it."""
        if self._sent is not None:
            self._sent.synchronize()
        return self.array

    def sent(self, device: torch.device) -> None:
        """Remember the moment, in the device's time, at which the batch has left."""
        import torch

        self._sent = torch.cuda.Event()
        self._sent.record(torch.cuda.current_stream(device))
