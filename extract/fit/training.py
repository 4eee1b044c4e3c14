"""Train a small network from scratch on the images of a corpus; what comes out is an encoder like any other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.encoders.scratch import Architecture, check_new, save_checkpoint
from extract.encoders.weights import seeded
from extract.errors import EncoderError
from extract.fit.data import Examples
from extract.fit.recipe import Recipe

if TYPE_CHECKING:
    import torch

__all__ = ["Plan", "fit"]


@dataclass(frozen=True)
class Plan:
    """What is trained, and how.

    Parameters
    ----------
    options : mapping
        Of the architecture.
    name : str
        Of the encoder that comes out; its blocks are called after it.
    fitted_on : mapping
        Corpus, task, split, index digest: for its passport.
    """

    architecture: Architecture
    recipe: Recipe
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    fitted_on: Mapping[str, Any] = field(default_factory=dict)


def fit(
    found: Examples,
    plan: Plan,
    out: Path,
    *,
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Train a network and write its checkpoint.

    One label an image: cross-entropy; several: binary cross-entropy; values: mean squared error, the last bias starting
    at the training mean. Where there are validation images, the weights kept are those of the epoch with the lowest
    validation loss.

    Raises EncoderError, WeightsError.
    """
    check_new(out)
    task = found.task
    with seeded(plan.recipe.seed):
        module = plan.architecture.build(len(task.classes), plan.options)
        if task.kind == "regression":
            import torch

            mean = torch.from_numpy(found.targets["train"].mean(axis=0))
            module.dense.bias.data.copy_(mean)  # type: ignore[union-attr, operator]
        training = _Training(module.to(device), found, plan.architecture, plan.recipe, device)
        history = training.run(progress=progress)
    trained_on = {**plan.fitted_on, "n_train": len(found.pixels["train"]), "epochs": training.best_epoch}
    record = {
        "name": plan.name,
        "architecture": plan.architecture.name,
        "options": dict(plan.options),
        "kind": task.kind,
        "n_outputs": len(task.classes),
        "outputs": list(task.classes),
        "range": list(task.range) if task.range else None,
        "fitted_on": trained_on,
        "recipe": asdict(plan.recipe),
        "history": history,
    }
    return save_checkpoint(out, record, module)


@dataclass
class _Training:
    """One training under way."""

    module: torch.nn.Module
    found: Examples
    architecture: Architecture
    recipe: Recipe
    device: str
    step: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def run(self, *, progress: bool) -> list[dict[str, float]]:
        """Train to the end; the module keeps the best weights."""
        import torch
        from tqdm import tqdm

        recipe, history = self.recipe, []
        self.optimizer = torch.optim.SGD(
            self.module.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )
        generator = torch.Generator().manual_seed(recipe.seed)
        for epoch in tqdm(range(recipe.epochs), desc="epochs", unit="epoch", delay=2, disable=not progress):
            order = torch.randperm(len(self.found.pixels["train"]), generator=generator).numpy()
            rate = recipe.rate(epoch=epoch, step=self.step)
            record = {"epoch": epoch + 1, "learning_rate": rate, "loss": self._pass("train", order, epoch)}
            if "validation" in self.found.pixels:
                held_out = np.arange(len(self.found.pixels["validation"]))
                record["validation_loss"] = self._pass("validation", held_out, None)
            history.append(record)
            self._judge(record)
        self.module.load_state_dict(self.best_weights)
        self.module.eval()
        return history

    def _judge(self, record: Mapping[str, float]) -> None:
        losses = [record[name] for name in ("loss", "validation_loss") if name in record]
        if not all(math.isfinite(loss) for loss in losses):
            msg = (
                f"training diverged in epoch {record['epoch']}: its loss is no number; try a learning rate below "
                f"{record['learning_rate']:g}, or cut the gradients with --set clip=1"
            )
            raise EncoderError(msg)
        if "validation_loss" not in record or record["validation_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = losses[-1], int(record["epoch"])
            self.best_weights = {name: one.detach().clone() for name, one in self.module.state_dict().items()}

    def _pass(self, part: str, order: NDArray[Any], epoch: int | None) -> float:
        """Go over a part in batches, training if an epoch is given; return the mean loss over its images."""
        import torch

        self.module.train(epoch is not None)
        total = torch.zeros((), dtype=torch.float64)
        normalise = self.architecture.transform().normalise
        distort = self._distortion() if epoch is not None and self.recipe.augment else None
        with torch.set_grad_enabled(epoch is not None):
            for at in _batches(order, self.recipe.batch_size):
                images = normalise(torch.from_numpy(self.found.pixels[part][at]).to(self.device))
                targets = torch.from_numpy(self.found.targets[part][at]).to(self.device)
                loss = self._loss()(self.module(distort(images) if distort else images), targets)
                if epoch is not None:
                    self._update(loss, epoch)
                total += loss.detach().double().cpu() * len(at)
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

    def _distortion(self) -> Callable[[torch.Tensor], torch.Tensor]:
        from extract.fit.distortion import Distortion

        return Distortion()

    def _loss(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        from torch.nn import functional

        kinds: dict[str, Callable[..., torch.Tensor]] = {
            "single": functional.cross_entropy,
            "multi": functional.binary_cross_entropy_with_logits,
            "regression": functional.mse_loss,
        }
        return kinds[self.found.task.kind]


def _batches(order: NDArray[Any], size: int) -> list[NDArray[Any]]:
    """Cut an order into batches; a last one of a single image joins the one before: it has no variance to norm by."""
    cuts = list(range(size, len(order), size))
    if cuts and len(order) - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts)
