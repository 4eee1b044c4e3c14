"""What an engine is, where forward passes run, and the choice among the devices."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from extract.corpora import Dataset
from extract.encoders import Encoder
from extract.engines.accelerators import Mps, Xpu
from extract.engines.cpu import Cpu
from extract.engines.cuda import Cuda
from extract.engines.device import Device, DeviceFacts
from extract.errors import DeviceError
from extract.progress import Timings
from features_store import Status
from features_store.errors import unknown_name

DEVICES: dict[str, type[Device]] = {one.kind: one for one in (Cpu, Cuda, Mps, Xpu)}
"""By kind; "auto" takes the first after the CPU that can be used."""

__all__ = ["DEVICES", "Cpu", "Cuda", "Device", "Engine", "Mps", "Plan", "Sink", "Xpu", "choose_device", "unused_gpu"]


@dataclass(frozen=True)
class Plan:
    """How one encoder is to run."""

    encoder: Encoder
    n_views: int  # pending in any of its blocks
    batch_size: int  # images per forward pass
    compiled: bool | None  # None = the engine decides, since no block was begun


class Sink(Protocol):
    """Where the vectors of one encoder go."""

    encoder: Encoder
    batch_size: int
    needed: NDArray[np.bool_]  # (n_images, n_views): which views are still to be made, for any tap

    def write(
        self, rows: NDArray[np.int64], views: NDArray[np.int64], vectors: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """Take the vectors of some views, by tap: each (n, ...)."""

    def fail(self, row: int, status: Status, reason: str) -> None:
        """Record that an image has no vector, in any view that is still to be made."""


class Engine(Protocol):
    """Makes the vectors of encoders over the images of a corpus; it is a context manager, open during a run."""

    facts: DeviceFacts  # of the device that the networks run on
    n_readers: int  # threads, over all processes
    n_decoders: int
    remarks: Counter[str]  # images that were decoded although something beside their pixels is broken, by what it is

    def prepare(self, plans: Sequence[Plan], timings: Timings) -> list[Plan]:
        """Build what runs the encoders; return the plans, with what was chosen for new blocks."""

    def run(
        self,
        dataset: Dataset,
        rows: NDArray[np.int64],
        sinks: Sequence[Sink],
        timings: Timings,
        step: Callable[[int], None],
    ) -> None:
        """Give the sinks what they need of some rows; `step` counts images."""

    def __enter__(self) -> Engine: ...

    def __exit__(self, *error: object) -> None: ...


def choose_device(name: str = "auto") -> Device:
    """Return a device that was tried: it runs a small convolution here."""
    if name == "auto":
        cpu, *others = DEVICES.values()
        return next((device for device in others if device.problem() is None), cpu)()
    first, colon, number = name.partition(":")
    device = DEVICES.get(first)
    if device is None or (colon and (first == "cpu" or not re.fullmatch(r"\d{1,3}", number))):
        raise DeviceError(unknown_name("device", name, ("auto", *DEVICES, "cuda:N", "cuda:N,M")))
    problem = device.problem(int(number or 0))
    if problem:
        raise DeviceError(f"--device {name}: {problem}; use --device cpu, or {device.remedy()}")
    return device(int(number or 0))


def unused_gpu() -> str | None:
    """Return why a GPU that is visible here cannot be used, and what to do; None = none is, or it can be used."""
    for gpu in DEVICES.values():
        shown = gpu.visible()
        if shown and (problem := gpu.problem()):
            return f"{shown} is visible here and cannot be used ({problem}): {gpu.remedy()}"
    return None
