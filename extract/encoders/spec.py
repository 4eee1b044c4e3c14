"""What an encoder is: the record in the table, and the encoder that is built from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import EncoderError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Tap:
    """One layer of an encoder that is kept as a block.

    Parameters
    ----------
    name : str
        ``"pool"``, ``"posteriors"``, ``"embedding"``, ``"tokens"``, ``"concepts"``; for any other layer
        ``MODULE.POOLING``.
    shape : tuple of int
        Of one vector. () = known only when the encoder is built.
    module : str
        Module whose output is kept. Empty for the taps that the library itself knows.
    pooling : str
        How that output becomes a vector: one of `extract.encoders.readout.POOLINGS`.
    """

    name: str
    shape: tuple[int, ...] = ()
    module: str = ""
    pooling: str = ""


@dataclass(frozen=True)
class EncoderSpec:
    """The record of a frozen network: where it comes from, and the taps that are kept.

    Parameters
    ----------
    name : str
        As on the command line.
    library : str
        As passports call it: ``"timm"``, ``"open_clip"``, or ``"affectory"`` for what needs none.
    architecture : str
        Name of the model in its library.
    taps : tuple of Tap
        In the order of the blocks.
    builder : str
        Row of `extract.encoders.LIBRARIES`. Empty = that of the library's name.
    needs_hub, needs_weights : bool
        Published weights are fetched from a model hub on first use; False for what computes without a network.
    geometry : mapping
        Of the input, where it is not the library's own: fields of timm's configuration.
    stem : str
        What the names of its blocks start with. Empty = its own name.
    folder : Path, optional
        Of the checkpoint, for a network that `extract fit` trained.
    """

    name: str
    description: str
    library: str
    architecture: str
    taps: tuple[Tap, ...]
    builder: str = ""
    needs_hub: bool = True
    needs_weights: bool = True
    geometry: Mapping[str, Any] = field(default_factory=dict)
    stem: str = ""
    folder: Path | None = None

    def block(self, tap: str) -> str:
        """Return the name of a tap's block; every character of it may stand in a file name."""
        return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', self.stem or self.name)}.{tap}"

    def n_features(self) -> int:
        """Return how many values all taps have together; 0 if that is known only when the encoder is built."""
        return sum(int(np.prod(tap.shape)) for tap in self.taps) if all(tap.shape for tap in self.taps) else 0


@dataclass(frozen=True)
class Encoder:
    """An encoder with its weights, ready to run.

    Parameters
    ----------
    prepare : callable
        One image, (height, width, 3) uint8, to what the forward pass takes; runs in several threads at once.
    input_shape, input_dtype : tuple of int, str
        Of what `prepare` returns.
    shapes : mapping
        By tap, the shape of one vector.
    weights, transform : mapping
        For the passport: source and sha256, empty for an encoder without weights; everything that `prepare` does.
    module : torch.nn.Module, optional
        In evaluation mode, on the CPU. None = `prepare` gives the vector itself.
    normalise : callable, optional
        uint8 batch to float32 batch, on the device.
    outputs : callable, optional
        ``outputs(module, batch)`` to a tensor per tap, each (n, ...).
    names : mapping
        By tap, what each value means; taps without words are left out.
    details : mapping
        By tap, what else the passport must hold for the block to be recomputed; taps that need nothing are left out.
    notes : tuple of str
        What a user must know of the weights.
    """

    spec: EncoderSpec
    prepare: Callable[[NDArray[np.uint8]], NDArray[Any]]
    input_shape: tuple[int, ...]
    shapes: Mapping[str, tuple[int, ...]]
    weights: Mapping[str, Any]
    transform: Mapping[str, Any]
    input_dtype: str = "uint8"
    module: torch.nn.Module | None = None
    normalise: Callable[[torch.Tensor], torch.Tensor] | None = None
    outputs: Callable[[torch.nn.Module, torch.Tensor], Mapping[str, torch.Tensor]] | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for tap in self.spec.taps:
            built = self.shapes.get(tap.name)
            if built is None or (tap.shape and built != tap.shape):
                raise EncoderError(
                    f"the record of encoder {self.spec.name!r} gives tap {tap.name!r} the shape {tap.shape}; "
                    f"the installed {self.spec.library} builds {built}"
                )
