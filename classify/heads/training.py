"""Training by mini-batches: one loop, two step functions, and the state that a checkpoint would hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classify.data.rows import Rows, ViewedRows, batches, shuffled_by_blocks
from classify.errors import HeadError

if TYPE_CHECKING:
    from classify.data.standardizer import Standardizer

__all__ = ["OPTIMIZERS", "Batches", "Plan", "Progress", "Session", "fit_loop", "refuse_divergence"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Pair = tuple[torch.Tensor, torch.Tensor]
OPTIMIZERS = ("adam", "nadam", "sgd")


@dataclass(frozen=True)
class Plan:
    """How to train: every size and rate of the loop, in the ranges that `classify.heads.network` declares.

    Parameters
    ----------
    epochs : int
        At most so many passes over the training rows.
    batch_size : int
        Rows in a step.
    optimizer : {"adam", "nadam", "sgd"}
        sgd has Nesterov momentum.
    learning_rate : float
        At the start.
    momentum : float
        Of sgd. 0: plain steps.
    decay : float
        Per step: the rate of step t is ``learning_rate / (1 + decay * t)``.
    weight_decay : float
        L2 penalty, added to the gradient.
    halve_every : int or None
        Halve the rate after each so many epochs. None: never.
    patience : int or None
        Stop after so many epochs without a lower validation loss. None: never.
    """

    epochs: int
    batch_size: int
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    decay: float = 0.0
    weight_decay: float = 0.0
    halve_every: int | None = None
    patience: int | None = None

    def rate(self, *, epoch: int, step: int) -> float:
        """Return the learning rate of a step; *epoch* and *step* count from 0."""
        halvings = epoch // self.halve_every if self.halve_every else 0
        return self.learning_rate * 0.5**halvings / (1 + self.decay * step)

    def build_optimizer(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser of *module*'s parameters; one fused kernel a step where torch has it."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        common: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, fused=True, **common)
        if self.optimizer == "nadam":
            return torch.optim.NAdam(parameters, **common)
        nesterov = self.momentum > 0
        return torch.optim.SGD(parameters, momentum=self.momentum, nesterov=nesterov, fused=True, **common)


class Batches:
    """Standardized batches of rows with their targets, gathered into one reused float32 buffer.

    Parameters
    ----------
    rows : Rows
        Where the features come from.
    targets : torch.Tensor of shape (n_rows,) or (n_rows, n_outputs)
        Aligned with the rows.
    size : int
        Rows in a batch; the last may be smaller.
    standardizer : Standardizer or None
        Measured on the training rows. None: the rows are standardized already.
    generator : torch.Generator or None
        Draws a new order for each pass. None: the rows in order.
    by_blocks : bool
        Draw that order by blocks of neighbours, for a file that is larger than memory.
    """

    def __init__(
        self,
        rows: Rows,
        targets: torch.Tensor,
        *,
        size: int,
        standardizer: Standardizer | None,
        generator: torch.Generator | None = None,
        by_blocks: bool = False,
    ) -> None:
        self.rows, self.targets, self.size = rows, targets, size
        self.generator, self.by_blocks = generator, by_blocks
        if standardizer is not None:
            self.mean = torch.from_numpy(standardizer.mean)
            self.factor = torch.from_numpy(np.float32(1) / standardizer.scale)
        self.standardized = standardizer is None

    def __iter__(self) -> Iterator[Pair]:
        """Yield ``(x, y)`` once for each batch; *x* is overwritten by the next. Rows with views draw them anew."""
        if self.generator is not None and isinstance(self.rows, ViewedRows):
            self.rows.redraw(self.generator)
        for positions, gathered in batches(self.rows, self._order(), self.size):
            x = torch.from_numpy(gathered)
            if not self.standardized:
                x.sub_(self.mean).mul_(self.factor)
            yield x, self.targets[torch.from_numpy(positions)]

    def _order(self) -> np.ndarray | None:
        if self.generator is None:
            return None
        if self.by_blocks:
            return shuffled_by_blocks(self.rows.shape[0], self.generator)
        return torch.randperm(self.rows.shape[0], generator=self.generator).numpy()


@dataclass
class Progress:
    """Where training stands: with the module's weights, all that going on from here takes.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        With its moments.
    history : list of dict
        One record an epoch: ``epoch`` (from 1), ``learning_rate``, ``loss`` and, given validation rows,
        ``validation_loss``; losses are means over rows.
    step : int
        Batches seen.
    best_loss, best_epoch, best_weights
        The lowest validation loss, when, and the weights that had it.
    """

    optimizer: torch.optim.Optimizer
    history: list[dict[str, float]] = field(default_factory=list)
    step: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    best_weights: dict[str, torch.Tensor] | None = None

    def note(self, record: dict[str, float], module: torch.nn.Module) -> None:
        """Add an epoch's record; keep the weights if the validation loss is the lowest so far."""
        self.history.append(record)
        loss = record.get("validation_loss", math.inf)
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, len(self.history)
            self.best_weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def stalled(self, patience: int | None) -> bool:
        """Tell whether *patience* epochs have passed since the best one."""
        return bool(patience and self.best_epoch and len(self.history) - self.best_epoch >= patience)


@dataclass
class Session:
    """One training, laid out and not yet run: a module with its initial weights, and what it is trained on."""

    module: torch.nn.Module
    loss: Loss
    train: Batches
    held_out: Batches | None
    plan: Plan
    progress: Progress

    def run(self, stop: Callable[[Progress], bool] = lambda progress: False) -> None:
        """Train the module in place, see `fit_loop`."""
        batches = (self.train, self.held_out)
        fit_loop(self.module, self.loss, *batches, plan=self.plan, progress=self.progress, stop=stop)


def fit_loop(
    module: torch.nn.Module,
    loss: Loss,
    train: Iterable[Pair],
    validation: Iterable[Pair] | None = None,
    *,
    plan: Plan,
    progress: Progress,
    stop: Callable[[Progress], bool] = lambda progress: False,
) -> list[dict[str, float]]:
    """Train *module* in place until the plan is done, the validation loss stalls, or *stop* says so.

    Raises HeadError.
    """
    while len(progress.history) < plan.epochs and not progress.stalled(plan.patience):
        epoch = len(progress.history)
        record = {"epoch": epoch + 1, "learning_rate": plan.rate(epoch=epoch, step=progress.step)}
        module.train()
        record["loss"] = _mean_loss(train, lambda x, y: _train_step(module, loss, (x, y), plan, progress))
        if validation is not None:
            module.eval()
            record["validation_loss"] = _mean_loss(validation, lambda x, y: _score_step(module, loss, (x, y)))
        refuse_divergence(record)
        progress.note(record, module)
        if stop(progress):
            break
    if progress.best_weights is not None:
        module.load_state_dict(progress.best_weights)
    module.eval()
    return progress.history


def _mean_loss(pairs: Iterable[Pair], step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
    """The one loop over batches: run *step* on each, and average what it returns over the rows."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for x, y in pairs:
        total += step(x, y).double() * len(x)
        count += len(x)
    return float(total) / max(count, 1)


def _train_step(module: torch.nn.Module, loss: Loss, pair: Pair, plan: Plan, progress: Progress) -> torch.Tensor:
    for group in progress.optimizer.param_groups:
        group["lr"] = plan.rate(epoch=len(progress.history), step=progress.step)
    value = loss(module(pair[0]), pair[1])
    progress.optimizer.zero_grad(set_to_none=True)
    value.backward()
    progress.optimizer.step()
    progress.step += 1
    return value.detach()


@torch.no_grad()
def _score_step(module: torch.nn.Module, loss: Loss, pair: Pair) -> torch.Tensor:
    return loss(module(pair[0]), pair[1])


def refuse_divergence(record: dict[str, float]) -> None:
    """Raise a `HeadError` if a loss of an epoch's record is not finite."""
    wrong = [name for name in ("loss", "validation_loss") if not math.isfinite(record.get(name, 0.0))]
    if wrong:
        message = (
            f"training diverged in epoch {record['epoch']}: the {wrong[0].replace('_', ' ')} is {record[wrong[0]]}; "
            f"try a learning_rate below {record['learning_rate']:g}, and standardize the features"
        )
        raise HeadError(message)
