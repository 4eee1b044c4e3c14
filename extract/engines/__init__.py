"""Where forward passes run: the table of devices, and the choice among them."""

from __future__ import annotations

import re

from extract.engines.cuda import Cuda
from extract.engines.device import Cpu, Device
from extract.errors import DeviceError
from features_store.errors import unknown_name

DEVICES: dict[str, type[Device]] = {"cpu": Cpu, "cuda": Cuda}
PRECISIONS = ("auto", "float32", "bfloat16", "float16")

__all__ = ["DEVICES", "PRECISIONS", "Cpu", "Cuda", "Device", "autocast_dtype", "choose_device", "unused_gpu"]


def choose_device(name: str = "auto") -> Device:
    """Return a device that was tried: it runs a small convolution here.

    Raises DeviceError.
    """
    if name == "auto":
        return DEVICES["cpu"]() if DEVICES["cuda"].problem() else DEVICES["cuda"]()
    kind, colon, number = name.partition(":")
    if kind not in DEVICES or (colon and (kind == "cpu" or not re.fullmatch(r"\d{1,3}", number))):
        raise DeviceError(unknown_name("device", name, ("auto", *DEVICES, "cuda:N")))
    index = int(number or 0)
    problem = DEVICES[kind].problem(index)
    if problem:
        msg = f"--device {name}: {problem}; use --device cpu, or {DEVICES[kind].remedy()}"
        raise DeviceError(msg)
    return DEVICES[kind](index)


def unused_gpu() -> str | None:
    """Say why a GPU that this machine shows cannot be used, and what to do; None = there is none, or it is usable."""
    gpu = DEVICES["cuda"]
    shown = gpu.visible()
    problem = shown and gpu.problem()
    return f"{shown} is visible here and cannot be used ({problem}): {gpu.remedy()}" if problem else None


def autocast_dtype(device: Device, precision: str = "auto") -> str | None:
    """Return the type of mixed precision on a device, None for plain float32.

    Raises DeviceError.
    """
    if precision not in PRECISIONS:
        raise DeviceError(unknown_name("precision", precision, PRECISIONS))
    if precision == "auto":
        return device.default_precision()
    if precision == "float32":
        return None
    if precision not in device.precisions():
        valid = ", ".join(("float32", *device.precisions()))
        msg = f"--precision {precision} is not possible on {device.name()}; valid there: {valid}"
        raise DeviceError(msg)
    return precision
