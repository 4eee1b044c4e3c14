"""How a small network is trained from scratch: every size and rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from extract.encoders.scratch import Architecture
from extract.errors import EncoderError
from features_store.errors import unknown_name

__all__ = ["Recipe", "recipe_for"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: stochastic gradient descent with Nesterov momentum.

    Parameters
    ----------
    decay : float
        Per step: the rate of step t is ``learning_rate / (1 + decay * t)``.
    halve_every : int or None
        Halve the rate after each so many epochs.
    clip : float or None
        Gradients longer than that are cut to it, so that they don't explode.
    augment : bool
        Distort the training images anew in each epoch: rotation by up to 80 degrees, shift and zoom by up to a fifth,
        shear by up to 0.2 radians, flips.
    """

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    momentum: float = 0.9
    decay: float = 0.0
    weight_decay: float = 0.0
    halve_every: int | None = None
    clip: float | None = None
    augment: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        counts = [self.epochs, self.batch_size, *([self.halve_every] if self.halve_every is not None else [])]
        rates = [self.momentum, self.decay, self.weight_decay, self.seed]
        if (
            min(counts) < 1
            or min(rates) < 0
            or not self.learning_rate > 0
            or (self.clip is not None and self.clip <= 0)
        ):
            msg = f"{asdict(self)}: counts are at least 1, rates at least 0, learning_rate and clip above 0"
            raise EncoderError(msg)

    def rate(self, *, epoch: int, step: int) -> float:
        """Return the learning rate of a step; both count from 0."""
        halvings = epoch // self.halve_every if self.halve_every else 0
        return self.learning_rate * 0.5**halvings / (1 + self.decay * step)


def recipe_for(architecture: Architecture, given: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """Part what was asked for into the recipe and the options of the network.

    Raises EncoderError.
    """
    fields = {name: value for name, value in given.items() if name in Recipe.__dataclass_fields__}
    options = {name: value for name, value in given.items() if name not in fields}
    for name in options:
        if name not in architecture.options:
            valid = [*Recipe.__dataclass_fields__, *architecture.options]
            raise EncoderError(unknown_name(f"option of fitting {architecture.name}", name, valid))
    try:
        return replace(Recipe(**architecture.recipe), **fields), options
    except TypeError as error:
        msg = f"an option of fitting {architecture.name} has no such value: {error}"
        raise EncoderError(msg) from error
