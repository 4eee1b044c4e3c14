"""How a network is trained: epochs, rates by layer, augmentation, weights of classes, and when training ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from extract.encoders.networks import INPUT_OPTIONS, Architecture
from extract.errors import EncoderError
from extract.inputs.views import POLICIES
from features_store.errors import unknown_name

if TYPE_CHECKING:
    import torch

__all__ = ["Recipe", "layers", "recipe_for"]

OPTIMIZERS, KEPT, NONE = ("sgd", "adam", "adamw"), ("best", "last"), "none"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    optimizer : {"sgd", "adam", "adamw"}
        sgd has Nesterov momentum.
    decay : float
        Per step: the rate of step t is ``learning_rate / (1 + decay * t)``.
    halve_every : int or None
        Halve the rate after each so many epochs.
    rates : list of float
        Factors of the rate: of the last layer, of the one before it, ...; the last number holds for all others. A layer
        is a matrix or a filter bank with what follows it. Layers of rate 0 are frozen, batch statistics too.
    trainable : int or None
        How many of the last layers are trained, the others frozen. None = all.
    clip : float or None
        Longest gradient; longer ones are scaled to it, so that they do not explode.
    augment : str
        "none", or a policy of `extract.inputs.views`: the training images are distorted anew in each epoch.
    augment_validation : bool
        The validation images too, as a generator of Keras does that serves both parts.
    class_weight : {"balanced"} or mapping or None
        Weights of classes; "balanced" gives each class (of several labels each side of each) the same in all.
    cost : {"polarity"} or matrix or None
        What it costs to say a class (column) of an image of another (row), beside the cross-entropy.
    patience : int or None
        Stop after so many epochs without a lower validation loss.
    keep : {"best", "last"}
        The weights of the epoch with the lowest validation loss, or of the last one.
    """

    epochs: int = 100
    batch_size: int = 64
    optimizer: str = "sgd"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    decay: float = 0.0
    weight_decay: float = 0.0
    halve_every: int | None = None
    rates: tuple[float, ...] = (1.0,)
    trainable: int | None = None
    clip: float | None = None
    augment: str = NONE
    augment_validation: bool = False
    class_weight: str | Mapping[str, float] | None = None
    cost: str | list[list[float]] | None = None
    patience: int | None = None
    keep: str = "best"
    seed: int = 0

    def __post_init__(self) -> None:
        counts = [self.epochs, self.batch_size]
        counts += [one for one in (self.halve_every, self.trainable, self.patience) if one is not None]
        rates = [self.momentum, self.decay, self.weight_decay, *self.rates]
        above = [self.learning_rate, *([self.clip] if self.clip is not None else [])]
        whole = [*counts, self.seed]
        if (
            not all(type(one) is int for one in whole)
            or not all(math.isfinite(one) for one in [*rates, *above])
            or min(counts) < 1
            or min([*rates, self.seed]) < 0
            or not min(above) > 0
            or not any(self.rates)
        ):
            raise EncoderError(
                f"{asdict(self)}: counts are whole and at least 1, rates at least 0, learning_rate and clip above 0"
            )
        for what, value, valid in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("policy of augmentation", self.augment, (NONE, *POLICIES)),
            ("epoch to keep", self.keep, KEPT),
        ):
            if value not in valid:
                raise EncoderError(unknown_name(what, str(value), valid))

    def rate(self, *, epoch: int, step: int) -> float:
        """Return the learning rate of a step; both count from 0."""
        halvings = epoch // self.halve_every if self.halve_every else 0
        return self.learning_rate * 0.5**halvings / (1 + self.decay * step)

    def factor(self, layer: int) -> float:
        """Return the factor of a layer's rate, the last layer being 0."""
        frozen = self.trainable is not None and layer >= self.trainable
        return 0.0 if frozen else self.rates[min(layer, len(self.rates) - 1)]

    def build_optimizer(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        """Freeze what has no rate, and return the optimiser of the others, a group for each factor."""
        import torch

        groups: dict[float, list[torch.nn.Parameter]] = {}
        for at, layer in enumerate(layers(module)):
            factor = self.factor(at)
            for parameter in layer:
                parameter.requires_grad_(factor > 0)
            if factor:
                groups.setdefault(factor, [])[:0] = layer
        if not groups:
            raise EncoderError(f"rates {list(self.rates)} and trainable {self.trainable} leave no layer to train")
        given: list[dict[str, Any]] = [{"params": found, "factor": factor} for factor, found in groups.items()]
        common: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            return torch.optim.SGD(given, momentum=self.momentum, nesterov=self.momentum > 0, **common)
        return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.optimizer](given, **common)


def layers(module: torch.nn.Module) -> list[list[torch.nn.Parameter]]:
    """Return a network's parameters by layer, the last layer first.

    A layer begins with a weight of two or more dimensions; biases and normalisations after it belong to it.
    """
    found: list[list[torch.nn.Parameter]] = []
    for name, parameter in module.named_parameters():
        if not found or (parameter.ndim > 1 and name.rpartition(".")[2] == "weight"):
            found.append([])
        found[-1].append(parameter)
    return found[::-1]


def recipe_for(
    architecture: Architecture, settings: Mapping[str, Any]
) -> tuple[Recipe, dict[str, Any], dict[str, Any]]:
    """Split settings into the recipe, completed by the architecture's own, the options of the network, and its input.

    Raises EncoderError.
    """
    fields = {name: value for name, value in settings.items() if name in Recipe.__dataclass_fields__}
    given = {name: value for name, value in settings.items() if name in INPUT_OPTIONS}
    options = {name: value for name, value in settings.items() if name not in (*fields, *given)}
    for name in options:
        if name not in (*architecture.options, "init"):
            valid = [*Recipe.__dataclass_fields__, *INPUT_OPTIONS, *architecture.options, "init"]
            raise EncoderError(unknown_name(f"option of fitting {architecture.name}", name, valid))
    if isinstance(fields.get("rates"), list):
        fields["rates"] = tuple(fields["rates"])
    architecture.transform(given)
    try:
        return replace(Recipe(**architecture.recipe), **fields), options, given
    except TypeError as error:
        raise EncoderError(f"an option of fitting {architecture.name} has no such value: {error}") from error
