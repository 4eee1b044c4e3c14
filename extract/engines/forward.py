"""The forward pass of one network on one device: slots, precision, compilation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.encoders.spec import Encoder
from extract.engines import autocast_dtype
from extract.engines.device import Device, Pending

if TYPE_CHECKING:
    import torch

Vectors = dict[str, NDArray[np.float32]]


class Running:
    """A pass that was started: calling it waits for the vectors, by tap: (n, *shape) float32. Safe in another thread.

    Attributes
    ----------
    seconds : float
        What the device took; known once the vectors are there.
    """

    def __init__(self, pending: Pending, taps: Sequence[str]) -> None:
        self._pending, self._taps = pending, taps
        self.seconds = 0.0

    def __call__(self) -> Vectors:
        """Wait for the vectors, and return them."""
        outputs, self.seconds = self._pending.landed()
        return dict(zip(self._taps, outputs, strict=True))


class Forward:
    """Run batches of one network on a device.

    Parameters
    ----------
    network : Encoder
        Its module is moved to the device.
    precision : {"auto", "float32", "bfloat16", "float16"}
        See `extract.engines.autocast_dtype`.
    compiled : bool
        Compile it with ``torch.compile``, weights frozen in. Happens at the first batch, which then takes minutes;
        every batch must have the shape of that one.
    """

    def __init__(self, network: Encoder, device: Device, *, precision: str = "auto", compiled: bool = False) -> None:
        self.network = network
        self.device = device
        self.compiled = compiled and network.module is not None
        self._autocast = autocast_dtype(device, precision)
        self._taps = [tap.name for tap in network.spec.taps]
        self._function = None if network.module is None else self._whole(device.place(network.module))
        self._slots: list[_Slot] = []
        self._n_started = 0

    @property
    def n_slots(self) -> int:
        """Batches that can be under way, or be filled, at one time."""
        return 1 if self._function is None else self.device.n_slots

    def buffer(self, batch_size: int) -> NDArray[Any]:
        """Return an array of shape (batch_size, *network.input_shape) to fill and then to `start`.

        It is in the layout that the device reads fastest, and is given out again `n_slots` batches later.
        """
        if not self._slots or len(self._slots[0].array) != batch_size:
            shape, dtype = (batch_size, *self.network.input_shape), self.network.input_dtype
            make = np.zeros if self._function is None else self.device.memory
            self._slots = [_Slot(make(shape, dtype)) for _ in range(self.n_slots)]
            self._n_started = 0
        slot = self._slots[self._n_started % self.n_slots]
        slot.left()
        return slot.array

    def start(self, batch: NDArray[Any]) -> Running:
        """Begin the pass over a batch.

        The device works on while the caller fills the next buffer; `batch` must be left alone until the vectors are
        there, unless it came from `buffer`. On the CPU without streams the pass is over when this returns.

        Shapes: batch (n, *network.input_shape).
        Raises DeviceFault.
        """
        slot = self._slots[self._n_started % self.n_slots] if self._slots else None
        self._n_started += 1
        if self._function is None:  # what was prepared are the vectors, on every device
            vectors = batch.copy()
            return Running(Pending(_at_once, lambda: ([vectors], 0.0)), self._taps)
        pending = self.device.start(self._function, batch)
        if slot is not None:
            slot.left = pending.left
        return Running(pending, self._taps)

    def __call__(self, batch: NDArray[Any]) -> Vectors:
        """Return the vectors of a batch; see `start`."""
        return self.start(batch)()

    @contextmanager
    def _modes(self) -> Iterator[None]:
        import torch

        dtype, kind = getattr(torch, self._autocast or "float32"), torch.device(self.device.address).type
        with torch.inference_mode(), torch.autocast(kind, dtype, enabled=self._autocast is not None):
            yield

    def _whole(self, module: torch.nn.Module) -> Callable[[torch.Tensor], Sequence[torch.Tensor]]:
        """Return the function from uint8 pixels to one tensor per tap."""
        network, taps = self.network, self._taps

        def whole(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x = network.normalise(pixels) if network.normalise else pixels
            outputs = network.outputs(module, x) if network.outputs else {}
            return tuple(outputs[tap] for tap in taps)

        # torch keeps what it compiled by code object, and at most eight things for each: every network gets its own.
        whole.__code__ = whole.__code__.replace(co_name=f"forward_of_{re.sub('[^A-Za-z0-9]', '_', network.spec.name)}")
        run: Callable[..., Any] = whole
        if self.compiled:
            import torch

            run = torch.compile(whole, dynamic=False, options=_OPTIONS[self.device.kind])

        def in_modes(pixels: torch.Tensor) -> Sequence[torch.Tensor]:
            with self._modes():  # these belong to the thread that runs the pass
                return run(pixels)

        return in_modes


_OPTIONS: dict[str, dict[str, str | int | bool | Callable[..., Any]]] = {
    "cpu": {"freezing": True, "cpp_wrapper": True},
    "cuda": {"freezing": True},
}
"""Of the inductor, by device. Frozen weights are constants, so that batch norms are folded and weights packed once. A
pass that is one call of C++ leaves Python's lock to other streams and to the decoders while it runs."""


def _at_once() -> None:
    return None


class _Slot:
    """Host memory for one batch, and the wait until its last batch has left it."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        self.left: Callable[[], object] = _at_once
