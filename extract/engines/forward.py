"""The forward pass of one network on one device: slots, precision, and whether it is compiled."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from extract.encoders.spec import Encoder
from extract.encoders.weights import silence_logging
from extract.engines.cpu import Cpu
from extract.engines.device import Device, Function, Landed, Left
from extract.errors import DeviceError
from features_store.errors import first_line

Vectors = dict[str, NDArray[np.float32]]

FLOAT32_DRIFT, MIXED_DRIFT = 0.01, 0.1
"""How far, in shares of their length, the vectors of a batch may be from those of the CPU: 0.1 is a cosine of 0.995."""
COMPILE_SECONDS = 60.0
"""What compiling one network costs a CPU with two cores: 25 to 100 seconds for the networks of the profile `fusion`."""
COMPILE_GAIN = 0.1
"""Share of the time of a forward pass that compiling saves on most networks with convolutions; up to a half."""


class Running:
    """A pass that was started: calling it waits for the vectors, (n, *shape) float32 by tap. Safe in other threads."""

    def __init__(self, landed: Landed, taps: Sequence[str]) -> None:
        self._landed, self._taps = landed, taps
        self.seconds = 0.0  # that the device took; known once the vectors are there

    def __call__(self) -> Vectors:
        """Wait for the vectors, and return them."""
        outputs, self.seconds = self._landed()
        return dict(zip(self._taps, outputs, strict=True))


class Forward:
    """Run batches of one network, which is moved to the device.

    With `compiled` the first batch compiles it, weights frozen in, and takes minutes; every batch must have the shape
    of that one.
    """

    def __init__(self, network: Encoder, device: Device, *, precision: str = "auto", compiled: bool = False) -> None:
        self.network = network
        self.device = device
        self.compiled = compiled and network.module is not None
        self._autocast = device.autocast(precision)
        self._taps = [tap.name for tap in network.spec.taps]
        self._function = None if network.module is None else self._on_device(device.place(network.module))
        if network.module is not None:
            cast = getattr(network.module, "cast", None)
            if cast not in (None, self._autocast):
                raise DeviceError(f"{network.spec.name} was cast to {cast} for another pass; build it anew")
            if self._autocast and device.proven:  # the others need weights of float32, see `check_parity`
                cast_once(network.module, self._autocast)
        self._slots: list[NDArray[Any]] = []
        self._left: list[Left] = []  # by slot
        self._n_started = 0
        self._compared = False

    @property
    def n_slots(self) -> int:
        """Batches that can be under way, or be filled, at one time."""
        return 1 if self._function is None else self.device.n_slots

    def buffer(self, batch_size: int) -> NDArray[Any]:
        """Return an array of shape (batch_size, *network.input_shape) to fill and then to `start`.

        It is in the layout that the device reads fastest, and is given out again `n_slots` batches later.
        """
        if not self._slots or len(self._slots[0]) != batch_size:
            shape, dtype = (batch_size, *self.network.input_shape), self.network.input_dtype
            make = np.zeros if self._function is None else self.device.memory
            self._slots = [make(shape, dtype) for _ in range(self.n_slots)]
            self._left = [_at_once] * self.n_slots
            self._n_started = 0
        at = self._n_started % self.n_slots
        self._left[at]()
        return self._slots[at]

    def start(self, batch: NDArray[Any]) -> Running:
        """Begin the pass over a batch of shape (n, *network.input_shape).

        The device works on while the caller fills the next buffer; `batch` must be left alone until the vectors are
        there, unless it came from `buffer`. On the CPU without a pool the pass is over when this returns.
        """
        at = self._n_started % self.n_slots
        self._n_started += 1
        if self._function is None:  # what was prepared are the vectors, on every device
            vectors = batch.copy()
            return Running(lambda: ([vectors], 0.0), self._taps)
        left, landed = self.device.start(self._function, batch)
        if self._slots:
            self._left[at] = left
        return Running(landed, self._taps)

    def __call__(self, batch: NDArray[Any]) -> Vectors:
        """Return the vectors of a batch; see `start`."""
        return self.start(batch)()

    def check_parity(self, batch: NDArray[Any]) -> None:
        """Compare the first batch with the CPU in float32, where the device is not proven."""
        module = self.network.module
        if module is None or self._function is None or self.device.proven or self._compared:
            return
        self._compared = True
        _, landed = self.device.start(self._function, batch)  # in no slot of ours
        outputs, _ = landed()
        module.to("cpu")
        expected = Forward(self.network, Cpu(), precision="float32")(batch)
        self.device.place(module)
        most = FLOAT32_DRIFT if self._autocast is None else MIXED_DRIFT
        for found, (tap, vectors) in zip(outputs, expected.items(), strict=True):
            drift = float(np.linalg.norm(found - vectors) / max(float(np.linalg.norm(vectors)), 1e-12))
            if not drift <= most:  # NaN is no small drift
                raise DeviceError(
                    f"{self.device.name()} gives wrong vectors: the first batch of {self.network.spec.name} differs "
                    f"from the CPU by {drift:.2g} of its length in {tap}, and at most {most} may; give --device cpu"
                )

    def _on_device(self, module: torch.nn.Module) -> Function:
        """Return the function from uint8 pixels to one tensor per tap."""
        network, taps = self.network, self._taps

        def whole(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x = network.normalise(pixels) if network.normalise else pixels
            outputs = network.outputs(module, x) if network.outputs else {}
            return tuple(outputs[tap] for tap in taps)

        # torch keeps what it compiled by code object, and at most eight things for each: every network gets its own.
        name = re.sub("[^A-Za-z0-9]", "_", network.spec.name)
        whole.__code__ = whole.__code__.replace(co_name=f"forward_of_{name}")
        run: Callable[..., Any] = whole
        if self.compiled:
            run = torch.compile(whole, dynamic=False, options=dict(self.device.compile_options))
        kind, dtype = torch.device(self.device.address).type, getattr(torch, self._autocast or "float32")

        def in_modes(pixels: torch.Tensor) -> Sequence[torch.Tensor]:
            # The modes belong to the thread that runs the pass.
            with torch.inference_mode(), torch.autocast(kind, dtype, enabled=self._autocast is not None):
                return run(pixels)

        return in_modes


def cast_once(network: Any, precision: str) -> None:
    """Give convolutions and dense layers the weights that autocast would make of theirs anew in every batch.

    The vectors stay the same to the bit, and the weights take half the memory. Left as they are: layers with a forward
    of their own, which may do something else with their weights; torch's attention, which has a fast way for weights
    of float32; and the classifier, which computes in float32.
    """
    classifier: Any = getattr(network, "get_classifier", torch.nn.Identity)()
    kept = list(classifier if isinstance(classifier, tuple) else [classifier])
    kept += [layer for layer in network.modules() if isinstance(layer, torch.nn.MultiheadAttention)]
    left = set(torch.nn.ModuleList(kept).modules())
    plain = (torch.nn.Conv1d.forward, torch.nn.Conv2d.forward, torch.nn.Linear.forward)
    for layer in network.modules():
        if layer not in left and type(layer).forward in plain:
            for parameter in layer.parameters(recurse=False):
                parameter.data = parameter.data.to(getattr(torch, precision))
    network.cast = precision


def compile_if_faster(
    network: Encoder,
    device: Device,
    n_views: int,
    *,
    batch_size: int,
    mode: str = "auto",
    begun: bool | None = None,
    precision: str = "auto",
    echo: Callable[[str], None] = print,
) -> Forward:
    """Return the forward pass of a network, compiled if the pending views times the measured gain repay it.

    The mode "auto" measures for new blocks: where even the usual gain could not repay the compile, the plain network
    runs; else it is compiled, and kept if it is faster (a vision transformer may be slower). On a GPU "auto" never
    compiles. Blocks that were begun with compiled code, or without it, are continued so: an interrupted run ends with
    the bytes of an undisturbed one. `begun` None = they are new.
    """
    plain, name = Forward(network, device, precision=precision), network.spec.name
    measured = mode == "auto" and begun is None
    if network.module is None or mode == "off" or (mode == "auto" and begun is False):
        return plain
    if measured:
        if not isinstance(device, Cpu):
            return plain
        (seconds,) = time_passes([plain], batch_size, n_passes=2)  # the first pass is slow
        if n_views * seconds * COMPILE_GAIN < COMPILE_SECONDS:
            return plain
    echo(f"{name}: is compiled first, which takes a minute or two (--compile off leaves it as it is)")
    compiled = Forward(network, device, precision=precision, compiled=True)
    try:
        with warnings.catch_warnings(), silence_logging():
            warnings.simplefilter("ignore")  # of torch's own future
            compiled(compiled.buffer(batch_size))
    except Exception as error:  # there is no end to what can be missing: a compiler, its headers, an operator
        echo(f"{name}: cannot be compiled here ({first_line(error)}) and runs as it is, only slower")
        return plain
    if measured:
        fast, slow = time_passes([compiled, plain], batch_size, n_passes=5)
        if fast >= slow:
            echo(f"{name}: is no faster when compiled, and runs as it is")
            return plain
    return compiled


def time_passes(forwards: Sequence[Forward], batch_size: int, *, n_passes: int) -> list[float]:
    """Return the seconds per view of each forward pass while all threads for passes are busy.

    They run in turn, and the shortest pass counts: what else the machine does only ever adds to a pass.
    """
    shortest = [float("inf")] * len(forwards)
    for _ in range(n_passes):
        for at, forward in enumerate(forwards):
            start = time.perf_counter()
            forward(forward.buffer(batch_size))
            shortest[at] = min(shortest[at], time.perf_counter() - start)
    return [seconds / batch_size / max(1, one.n_slots - 1) for seconds, one in zip(shortest, forwards, strict=True)]


def _at_once() -> None:
    return None
