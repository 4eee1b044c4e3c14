"""Train a network on the images of a corpus, from scratch or from weights; the result is an encoder like any other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.encoders.fitted import check_new, save_checkpoint
from extract.encoders.networks import Architecture, Initial, probe
from extract.encoders.weights import seeded, sha256_of_state
from extract.engines import Cpu, Device
from extract.engines.device import device_errors
from extract.errors import EncoderError
from extract.fit.checkpoint import Checkpoint
from extract.fit.data import Examples
from extract.fit.distortion import distort, windows
from extract.fit.losses import make_loss
from extract.fit.recipe import NONE, Recipe
from extract.inputs.transforms import Transform
from extract.inputs.views import POLICIES
from features_store import Task

if TYPE_CHECKING:
    import torch

__all__ = ["Training", "fit"]


def fit(  # noqa: PLR0913 - each is an option of the command line
    task: Task,
    read: Callable[[Transform], Examples],
    architecture: Architecture,
    out: Path,
    *,
    recipe: Recipe,
    options: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    initial: Initial = False,
    name: str = "",
    fitted_on: Mapping[str, Any] | None = None,
    device: Device | None = None,
    autocast: str | None = None,
    resume: bool = False,
    seconds: float = math.inf,
    progress: bool = False,
) -> dict[str, Any]:
    """Train a network and write its checkpoint; it is built and tried before *read* decodes the images.

    *options* are those of the network, *given* of its input (see `Architecture.transform`). Where there are validation
    images, the weights kept are those of the epoch with the lowest validation loss, unless the recipe keeps the last.
    The last bias for values starts at the training mean, except with Keras' initial weights. *name* is what its blocks
    are called after; *fitted_on* (corpus, task, split, digests) goes into its passport.

    Raises EncoderError, WeightsError, HubError; UnfinishedError where the seconds end.
    """
    import torch

    check_new(out)
    options, given, device = dict(options or {}), dict(given or {}), device or Cpu()
    transform = architecture.transform(given)
    with seeded(recipe.seed):
        module: Any = architecture.build(len(task.classes), options, size=transform.crop[0], initial=initial)
        probe(module, len(task.classes), transform.crop[0], architecture.name)
        examples = read(transform)
        bias = getattr(module.get_classifier(), "bias", None)
        if task.kind == "regression" and options.get("init") != "keras" and bias is not None:
            bias.data.copy_(torch.from_numpy(examples.targets["train"].mean(axis=0)))
        started = {} if initial is False else {"initial": sha256_of_state(module.state_dict())}
        whole = {**asdict(recipe), **({"options": options} if options else {}), **({"input": given} if given else {})}
        record: dict[str, Any] = {
            "name": name or architecture.name,
            "architecture": architecture.name,
            "options": options,
            "input": given,
            "kind": task.kind,
            "n_outputs": len(task.classes),
            "outputs": list(task.classes),
            "range": list(task.range) if task.range else None,
            "fitted_on": {**(fitted_on or {}), "n_train": len(examples.pixels["train"]), **started},
            "recipe": {**whole, **({"autocast": autocast} if autocast else {})},
        }
        checkpoint = Checkpoint(out, record, resume=resume, seconds=seconds)
        with device_errors(device.name()):
            training = Training(module.to(device.address), examples, transform, recipe, device, autocast)
            training.run(checkpoint, progress=progress)
    record["fitted_on"]["epochs"] = training.best_epoch
    record["history"] = training.history
    saved = save_checkpoint(out, record, module)
    checkpoint.done()
    return saved


class Training:
    """The state of one training: the network, its optimizer, the losses so far, and the best weights."""

    def __init__(
        self,
        module: torch.nn.Module,
        examples: Examples,
        transform: Transform,
        recipe: Recipe,
        device: Device,
        autocast: str | None,
    ) -> None:
        import torch

        self.module, self.examples, self.recipe, self.transform = module, examples, recipe, transform
        self.device, self.autocast = device, autocast
        self.loss = make_loss(examples.task, examples.targets["train"], recipe, device.address)
        self.optimizer = recipe.build_optimizer(module)
        # Batch normalisations that are frozen keep their statistics; the parameters tell
        self.frozen = [
            one
            for one in module.modules()
            if isinstance(one, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d))
            and not any(p.requires_grad for p in one.parameters())
            and any(True for _ in one.parameters())
        ]
        self.scaler = torch.amp.GradScaler(device.kind, enabled=autocast == "float16")
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.history: list[dict[str, float]] = []
        self.step, self.best_loss, self.best_epoch = 0, math.inf, 0
        self.best_weights: dict[str, torch.Tensor] = {}

    def run(self, checkpoint: Checkpoint, *, progress: bool) -> None:
        """Train to the end; the module has the weights that are kept.

        Raises EncoderError, UnfinishedError.
        """
        import torch
        from tqdm import tqdm

        recipe, pixels = self.recipe, self.examples.pixels
        checkpoint.begin(self)
        bar = tqdm(total=recipe.epochs, initial=len(self.history), desc="epochs", delay=2, disable=not progress)
        with bar:
            while not self.done:
                epoch = len(self.history)
                order = torch.randperm(len(pixels["train"]), generator=self.generator).numpy()
                record = {"epoch": epoch + 1, "learning_rate": recipe.rate(epoch=epoch, step=self.step)}
                record |= self._pass("train", order, epoch)
                if "validation" in pixels:
                    losses = self._pass("validation", np.arange(len(pixels["validation"])), None)
                    record |= {f"validation_{key}": value for key, value in losses.items()}
                self.history.append(record)
                self._keep_best(record)
                bar.update()
                checkpoint.after_epoch(self, done=self.done)
        self.module.load_state_dict(self.best_weights)
        self.module.eval()

    @property
    def done(self) -> bool:
        """Whether all epochs are over, or the validation loss has not fallen for too long."""
        n, patience = len(self.history), self.recipe.patience
        lowest = min(self.history, key=lambda one: one.get("validation_loss", -one["epoch"]), default={"epoch": 0})
        return n >= self.recipe.epochs or (patience is not None and n - lowest["epoch"] >= patience)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return all that going on takes: tensors by name, and a record for JSON."""
        import torch

        arrays = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        arrays |= {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            arrays |= {
                f"optimizer.{index}.{name}": torch.as_tensor(one) for name, one in values.items() if one is not None
            }
        arrays |= {"random.torch": torch.get_rng_state(), "random.order": self.generator.get_state()}
        if (own := self.device.random_state()) is not None:
            arrays["random.device"] = own
        record = {"history": self.history, "step": self.step, "best_epoch": self.best_epoch}
        return arrays, {**record, "scaler": self.scaler.state_dict()}

    def restore(self, arrays: Mapping[str, torch.Tensor], record: Mapping[str, Any]) -> None:
        """Take over a `state`."""
        import torch

        def below(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): one for name, one in arrays.items() if name.startswith(prefix)}

        self.module.load_state_dict(below("module."))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in below("optimizer.").items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.best_weights = {name: one.to(self.device.address) for name, one in below("best.").items()}
        for parameter, kept in self.optimizer.state.items():
            if any(one.ndim and one.shape != parameter.shape for one in kept.values()):
                raise ValueError("a moment of the optimizer has another shape than its weight")
        ours = {name: one.shape for name, one in self.module.state_dict().items()}
        if self.best_weights and {name: one.shape for name, one in self.best_weights.items()} != ours:
            raise ValueError("the best weights are not those of the network")
        self.history, self.step = [dict(one) for one in record["history"]], int(record["step"])
        self.best_epoch = int(record["best_epoch"])
        self.best_loss = min(
            (one["validation_loss"] for one in self.history if "validation_loss" in one), default=math.inf
        )
        self.scaler.load_state_dict(record["scaler"])
        torch.set_rng_state(arrays["random.torch"])
        self.generator.set_state(arrays["random.order"])
        if "random.device" in arrays and self.device.random_state() is not None:
            self.device.set_random_state(arrays["random.device"])

    def _keep_best(self, record: Mapping[str, float]) -> None:
        losses = [record[name] for name in ("loss", "validation_loss") if name in record]
        if not all(math.isfinite(loss) for loss in losses):
            raise EncoderError(
                f"training diverged in epoch {record['epoch']}: its loss is no number; try a learning rate below "
                f"{record['learning_rate']:g}, or cut the gradients with --set clip=1"
            )
        keep_last = self.recipe.keep == "last" or "validation_loss" not in record
        if keep_last or record["validation_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = losses[-1], int(record["epoch"])
            self.best_weights = {name: one.detach().clone() for name, one in self.module.state_dict().items()}

    def _pass(self, part: str, order: NDArray[Any], epoch: int | None) -> dict[str, float]:
        """Go over a part in batches, training if an epoch is given; return mean loss and, of classes, accuracy."""
        import torch

        self.module.train(epoch is not None)
        for norm in self.frozen:
            norm.eval()
        single = self.examples.task.kind == "single"
        total, n_right = torch.zeros((), dtype=torch.float64), 0
        with torch.set_grad_enabled(epoch is not None):
            for rows in _batches(order, self.recipe.batch_size):
                targets = torch.from_numpy(self.examples.targets[part][rows]).to(self.device.address)
                images = self._images(part, rows, training=epoch is not None)
                with self._mixed():
                    outputs = self.module(images)
                outputs = outputs.float()
                loss = self.loss(outputs, targets)
                if epoch is not None:
                    self._update(loss, epoch)
                total += loss.detach().double().cpu() * len(rows)
                n_right += int((outputs.argmax(dim=1) == targets).sum()) if single else 0
        found = {"loss": float(total) / len(order)}
        return {**found, "accuracy": n_right / len(order)} if single else found

    def _mixed(self) -> AbstractContextManager[Any]:
        import torch

        dtype = getattr(torch, self.autocast or "float32")
        return torch.autocast(self.device.kind, dtype, enabled=self.autocast is not None)

    def _images(self, part: str, rows: NDArray[Any], *, training: bool) -> torch.Tensor:
        """Return what the network is given of some images: (n, 3, size, size) float32."""
        import torch

        pixels = torch.from_numpy(self.examples.pixels[part][rows]).to(self.device.address)
        moved = training or self.recipe.augment_validation
        pixels = windows(pixels, self.transform.crop[0], at_random=moved)
        if self.recipe.augment != NONE and moved:
            pixels = distort(pixels, POLICIES[self.recipe.augment])
        return self.transform.normalise(pixels)

    def _update(self, loss: torch.Tensor, epoch: int) -> None:
        import torch

        rate = self.recipe.rate(epoch=epoch, step=self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.recipe.clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1


def _batches(order: NDArray[Any], size: int) -> list[NDArray[Any]]:
    """Cut an order into batches; a last one of a single image joins the one before: batch norm needs a variance."""
    cuts = list(range(size, len(order), size))
    if cuts and len(order) - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts)
