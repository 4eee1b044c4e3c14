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
    """One layer of an encoder that is kept as a block."""

    name: str  # "pool", "posteriors", "embedding", "tokens", "concepts"; for any other layer MODULE.POOLING
    shape: tuple[int, ...] = ()  # of one vector; () = known only when the encoder is built
    module: str = ""  # whose output is kept; "" for the taps that the library itself knows
    pooling: str = ""  # how that output becomes a vector: one of `extract.encoders.readout.POOLINGS`


@dataclass(frozen=True)
class EncoderSpec:
    """The record of a frozen network: where it comes from, and the taps that are kept."""

    name: str  # as on the command line
    description: str
    library: str  # as passports call it: "timm", "open_clip", or "affectory" for what needs none
    architecture: str  # name of the model in its library
    taps: tuple[Tap, ...]  # in the order of the blocks
    builder: str = ""  # row of `extract.encoders.LIBRARIES`; "" = that of the library's name
    needs_hub: bool = True  # published weights are fetched from a model hub on first use
    needs_weights: bool = True  # False for what computes without a network
    geometry: Mapping[str, Any] = field(default_factory=dict)  # of the input, where it differs: timm's fields
    stem: str = ""  # what the names of its blocks start with; "" = its own name
    folder: Path | None = None  # of the checkpoint, for a network that `extract fit` trained

    def block(self, tap: str) -> str:
        """Return the name of a tap's block; every character of it may stand in a file name."""
        return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', self.stem or self.name)}.{tap}"

    def n_features(self) -> int:
        """Return how many values all taps have together; 0 if that is known only when the encoder is built."""
        return sum(int(np.prod(tap.shape)) for tap in self.taps) if all(tap.shape for tap in self.taps) else 0


@dataclass(frozen=True)
class Encoder:
    """An encoder with its weights, ready to run; mappings are by tap, and leave out taps without an entry."""

    spec: EncoderSpec
    # One image, (height, width, 3) uint8, to what the forward pass takes; runs in several threads at once.
    prepare: Callable[[NDArray[np.uint8]], NDArray[Any]]
    input_shape: tuple[int, ...]  # of what `prepare` returns
    shapes: Mapping[str, tuple[int, ...]]  # of one vector
    weights: Mapping[str, Any]  # for the passport: source and sha256; empty for an encoder without weights
    transform: Mapping[str, Any]  # for the passport: everything that `prepare` does
    input_dtype: str = "uint8"
    module: torch.nn.Module | None = None  # in evaluation mode, on the CPU; None = `prepare` gives the vector itself
    normalise: Callable[[torch.Tensor], torch.Tensor] | None = None  # uint8 batch to float32 batch, on the device
    # outputs(module, batch) gives a tensor per tap, each (n, ...)
    outputs: Callable[[torch.nn.Module, torch.Tensor], Mapping[str, torch.Tensor]] | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # what each value means
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what recomputing a block needs besides
    notes: tuple[str, ...] = ()  # what a user must know of the weights

    def __post_init__(self) -> None:
        for tap in self.spec.taps:
            built = self.shapes.get(tap.name)
            if built is None or (tap.shape and built != tap.shape):
                raise EncoderError(
                    f"the record of encoder {self.spec.name!r} gives tap {tap.name!r} the shape {tap.shape}; "
                    f"the installed {self.spec.library} builds {built}"
                )
