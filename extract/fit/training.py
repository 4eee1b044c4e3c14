"""Train a small network from scratch on the images of a corpus; the result is an encoder like any other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.encoders.fitted import Architecture, check_new, save_checkpoint
from extract.encoders.weights import seeded
from extract.errors import EncoderError
from extract.fit.data import Examples
from features_store.errors import unknown_name

if TYPE_CHECKING:
    import torch

__all__ = ["Recipe", "distort", "fit", "recipe_for"]


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
        Longest gradient; longer ones are scaled to it, so that they do not explode.
    augment : bool
        Distort the training images anew in each epoch; see `distort`.
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
        above = [self.learning_rate, *([self.clip] if self.clip is not None else [])]
        if min(counts) < 1 or min(rates) < 0 or not min(above) > 0:
            raise EncoderError(
                f"{asdict(self)}: counts are at least 1, rates at least 0, learning_rate and clip above 0"
            )

    def rate(self, *, epoch: int, step: int) -> float:
        """Return the learning rate of a step; both count from 0."""
        halvings = epoch // self.halve_every if self.halve_every else 0
        return self.learning_rate * 0.5**halvings / (1 + self.decay * step)


def recipe_for(architecture: Architecture, settings: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """Split settings into the recipe, completed by the architecture's own, and the options of the network.

    Raises EncoderError.
    """
    fields = {name: value for name, value in settings.items() if name in Recipe.__dataclass_fields__}
    options = {name: value for name, value in settings.items() if name not in fields}
    for name in options:
        if name not in architecture.options:
            valid = [*Recipe.__dataclass_fields__, *architecture.options]
            raise EncoderError(unknown_name(f"option of fitting {architecture.name}", name, valid))
    try:
        return replace(Recipe(**architecture.recipe), **fields), options
    except TypeError as error:
        raise EncoderError(f"an option of fitting {architecture.name} has no such value: {error}") from error


def distort(
    images: torch.Tensor,
    *,
    rotation: float = 80.0,
    shift: float = 0.2,
    shear: float = 0.2,
    scale: float = 0.2,
    flips: bool = True,
) -> torch.Tensor:
    """Distort images (n, 3, height, width) at random by one resampling; outside, the nearest edge is repeated.

    Rotation in degrees, shift as a share of the edge, shear in radians (as in the views: the vertical edges
    turn, and keep their length), scale as a share of the edge of the sampled window, for each axis alone: each is
    drawn evenly between minus and plus the value. Flips along each axis, for half of the images. A scale above 1 shows
    more of the image, smaller: the inverse of the magnification that the views call zoom. Draws from torch's global
    generator, on the CPU.
    """
    import torch
    from torch.nn import functional

    n = len(images)
    draw = torch.rand(7, n) * 2 - 1
    angle = draw[0] * math.radians(rotation)
    scale_x, scale_y = 1 + scale * draw[1], 1 + scale * draw[2]
    if flips:
        scale_x, scale_y = (torch.where(torch.rand(n) < 0.5, -one, one) for one in (scale_x, scale_y))
    slanted = angle + shear * draw[3]
    theta = torch.empty(n, 2, 3)  # output places to input places, both in -1..1
    theta[:, 0, 0], theta[:, 0, 1] = scale_x * angle.cos(), -scale_y * slanted.sin()
    theta[:, 1, 0], theta[:, 1, 1] = scale_x * angle.sin(), scale_y * slanted.cos()
    theta[:, 0, 2], theta[:, 1, 2] = 2 * shift * draw[4], 2 * shift * draw[5]
    grid = functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def fit(
    examples: Examples,
    architecture: Architecture,
    out: Path,
    *,
    recipe: Recipe,
    options: Mapping[str, Any] | None = None,
    name: str = "",
    fitted_on: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Train a network and write its checkpoint.

    One label an image: cross-entropy; several: binary cross-entropy; values: mean squared error, the last bias starting
    at the training mean. Where there are validation images, the weights kept are those of the epoch with the lowest
    validation loss. *name* is what its blocks are called after; *fitted_on* (corpus, task, split, index digest) goes
    into its passport.

    Raises EncoderError, WeightsError.
    """
    import torch

    check_new(out)
    task = examples.task
    with seeded(recipe.seed):
        module: Any = architecture.build(len(task.classes), options or {})
        if task.kind == "regression":
            module.dense.bias.data.copy_(torch.from_numpy(examples.targets["train"].mean(axis=0)))
        training = _Training(module.to(device), examples, architecture, recipe, device)
        history = training.run(progress=progress)
    record = {
        "name": name or architecture.name,
        "architecture": architecture.name,
        "options": dict(options or {}),
        "kind": task.kind,
        "n_outputs": len(task.classes),
        "outputs": list(task.classes),
        "range": list(task.range) if task.range else None,
        "fitted_on": {
            **(fitted_on or {}),
            "n_train": len(examples.pixels["train"]),
            "epochs": training.best_epoch,
        },
        "recipe": asdict(recipe),
        "history": history,
    }
    return save_checkpoint(out, record, module)


class _Training:
    """The state of one training: the network, its optimizer, and the best weights so far."""

    def __init__(
        self, module: torch.nn.Module, examples: Examples, architecture: Architecture, recipe: Recipe, device: str
    ) -> None:
        import torch
        from torch.nn import functional

        self.module, self.examples, self.recipe, self.device = module, examples, recipe, device
        self.normalise = architecture.transform().normalise
        losses: dict[str, Any] = {
            "single": functional.cross_entropy,
            "multi": functional.binary_cross_entropy_with_logits,
            "regression": functional.mse_loss,
        }
        self.loss = losses[examples.task.kind]
        self.optimizer = torch.optim.SGD(
            module.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )
        self.step, self.best_loss, self.best_epoch = 0, math.inf, 0
        self.best_weights: dict[str, torch.Tensor] = {}

    def run(self, *, progress: bool) -> list[dict[str, float]]:
        """Train to the end; the module keeps the best weights."""
        import torch
        from tqdm import tqdm

        recipe, pixels, history = self.recipe, self.examples.pixels, []
        generator = torch.Generator().manual_seed(recipe.seed)
        for epoch in tqdm(range(recipe.epochs), desc="epochs", unit="epoch", delay=2, disable=not progress):
            order = torch.randperm(len(pixels["train"]), generator=generator).numpy()
            rate = recipe.rate(epoch=epoch, step=self.step)
            record = {"epoch": epoch + 1, "learning_rate": rate, "loss": self._pass("train", order, epoch)}
            if "validation" in pixels:
                record["validation_loss"] = self._pass("validation", np.arange(len(pixels["validation"])), None)
            history.append(record)
            self._keep_best(record)
        self.module.load_state_dict(self.best_weights)
        self.module.eval()
        return history

    def _keep_best(self, record: Mapping[str, float]) -> None:
        losses = [record[name] for name in ("loss", "validation_loss") if name in record]
        if not all(math.isfinite(loss) for loss in losses):
            raise EncoderError(
                f"training diverged in epoch {record['epoch']}: its loss is no number; try a learning rate below "
                f"{record['learning_rate']:g}, or cut the gradients with --set clip=1"
            )
        if "validation_loss" not in record or record["validation_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = losses[-1], int(record["epoch"])
            self.best_weights = {name: one.detach().clone() for name, one in self.module.state_dict().items()}

    def _pass(self, part: str, order: NDArray[Any], epoch: int | None) -> float:
        """Go over a part in batches, training if an epoch is given; return the mean loss over its images."""
        import torch

        self.module.train(epoch is not None)
        total = torch.zeros((), dtype=torch.float64)
        with torch.set_grad_enabled(epoch is not None):
            for rows in _batches(order, self.recipe.batch_size):
                images = self.normalise(torch.from_numpy(self.examples.pixels[part][rows]).to(self.device))
                targets = torch.from_numpy(self.examples.targets[part][rows]).to(self.device)
                if epoch is not None and self.recipe.augment:
                    images = distort(images)
                loss = self.loss(self.module(images), targets)
                if epoch is not None:
                    self._update(loss, epoch)
                total += loss.detach().double().cpu() * len(rows)
        return float(total) / len(order)

    def _update(self, loss: torch.Tensor, epoch: int) -> None:
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(epoch=epoch, step=self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.step += 1


def _batches(order: NDArray[Any], size: int) -> list[NDArray[Any]]:
    """Cut an order into batches; a last one of a single image joins the one before: batch norm needs a variance."""
    cuts = list(range(size, len(order), size))
    if cuts and len(order) - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts)
