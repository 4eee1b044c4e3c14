"""Training by mini-batches: one loop, its state, and the checkpoint that resumes it to the bit."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classify.data.rows import Rows, ViewedRows, batches, shuffled_by_blocks
from classify.errors import HeadError, RunError
from classify.json_file import items, number, optional, parse_json, read_regular, record, table, text, whole, wrong
from features_store.atomic import atomic_write
from features_store.errors import AffectoryError, first_line

if TYPE_CHECKING:
    from classify.data.standardizer import Standardizer

__all__ = [
    "KEPT",
    "OPTIMIZERS",
    "Batches",
    "Checkpoint",
    "Plan",
    "Progress",
    "Session",
    "fit_loop",
    "refuse_divergence",
]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Hits = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # outputs and targets to the number of right answers
Pair = tuple[torch.Tensor, torch.Tensor]
OPTIMIZERS = ("adam", "nadam", "sgd")
KEPT = ("best", "last")
FORMAT_VERSION = 1
_ARRAYS, _RECORD = "state.{}.safetensors", "state.json"
_MAX_BYTES = 16 * 2**30  # weights, the best weights and two moments of each


def _arrays_name(value: Any, where: str) -> str:
    name: str = text(value, where)
    return name if re.fullmatch(_ARRAYS.format("[0-9]{1,9}"), name) else wrong(where, name, _ARRAYS.format("NUMBER"))


_STATE = record(
    {
        "identity": table(text),
        "arrays": _arrays_name,
        "optimizer": record({"moments": items(text), "scalars": table(table(number()))}),
        "history": items(table(number())),
        "step": whole(),
        "best_loss": optional(number()),
        "best_epoch": whole(),
    }
)


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
    keep : {"best", "last"}
        The weights after training: of the epoch with the lowest validation loss, or of the last epoch.
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
    keep: str = "best"

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
        One record an epoch: ``epoch`` (from 1), ``learning_rate``, ``loss``, of one label an image ``accuracy`` (in
        training with dropout, over the epoch), and both as ``validation_...``, given validation rows; means over rows.
    step : int
        Batches seen.
    best_loss, best_epoch, best_weights
        The lowest validation loss, when, and the weights that had it (None where the last are kept).
    """

    optimizer: torch.optim.Optimizer
    history: list[dict[str, float]] = field(default_factory=list)
    step: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    best_weights: dict[str, torch.Tensor] | None = None

    def note(self, record: dict[str, float], module: torch.nn.Module, *, keep: str = "best") -> None:
        """Add an epoch's record; keep the weights if the validation loss is the lowest so far, and *keep* says so."""
        self.history.append(record)
        loss = record.get("validation_loss", math.inf)
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, len(self.history)
            if keep == "best":
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
    hits: Hits | None = None

    def run(self, stop: Callable[[Progress], bool] = lambda progress: False) -> None:
        """Train the module in place, see `fit_loop`."""
        batches = (self.train, self.held_out)
        fit_loop(self.module, self.loss, *batches, plan=self.plan, progress=self.progress, stop=stop, hits=self.hits)


def fit_loop(
    module: torch.nn.Module,
    loss: Loss,
    train: Iterable[Pair],
    validation: Iterable[Pair] | None = None,
    *,
    plan: Plan,
    progress: Progress,
    stop: Callable[[Progress], bool] = lambda progress: False,
    hits: Hits | None = None,
) -> list[dict[str, float]]:
    """Train *module* in place until the plan is done, the validation loss stalls, or *stop* says so; count *hits*.

    Raises HeadError.
    """
    while len(progress.history) < plan.epochs and not progress.stalled(plan.patience):
        epoch = len(progress.history)
        record = {"epoch": epoch + 1, "learning_rate": plan.rate(epoch=epoch, step=progress.step)}
        module.train()
        record |= _means(train, lambda x, y: _train_step(module, loss, (x, y), plan, progress), hits)
        if validation is not None:
            module.eval()
            means = _means(validation, lambda x, y: _score_step(module, loss, (x, y)), hits)
            record |= {f"validation_{name}": value for name, value in means.items()}
        refuse_divergence(record)
        progress.note(record, module, keep=plan.keep)
        if stop(progress):
            break
    if progress.best_weights is not None:
        module.load_state_dict(progress.best_weights)
    module.eval()
    return progress.history


def _means(
    pairs: Iterable[Pair], step: Callable[[torch.Tensor, torch.Tensor], Pair], hits: Hits | None
) -> dict[str, float]:
    """The one loop over batches: run *step* on each, and average the loss and the hits of its outputs over the rows."""
    total, right, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64), 0
    for x, y in pairs:
        loss, outputs = step(x, y)
        total += loss.double() * len(x)
        count += len(x)
        if hits is not None:
            right += hits(outputs, y)
    means = {"loss": float(total) / max(count, 1)}
    return means if hits is None else {**means, "accuracy": float(right) / max(count, 1)}


def _train_step(module: torch.nn.Module, loss: Loss, pair: Pair, plan: Plan, progress: Progress) -> Pair:
    for group in progress.optimizer.param_groups:
        group["lr"] = plan.rate(epoch=len(progress.history), step=progress.step)
    outputs = module(pair[0])
    value = loss(outputs, pair[1])
    progress.optimizer.zero_grad(set_to_none=True)
    value.backward()
    progress.optimizer.step()
    progress.step += 1
    return value.detach(), outputs.detach()


@torch.no_grad()
def _score_step(module: torch.nn.Module, loss: Loss, pair: Pair) -> Pair:
    outputs = module(pair[0])
    return loss(outputs, pair[1]), outputs


def refuse_divergence(record: dict[str, float]) -> None:
    """Raise a `HeadError` if a loss of an epoch's record is not finite."""
    wrong = [name for name in ("loss", "validation_loss") if not math.isfinite(record.get(name, 0.0))]
    if wrong:
        raise HeadError(
            f"training diverged in epoch {record['epoch']}: the {wrong[0].replace('_', ' ')} is {record[wrong[0]]}; "
            f"try a learning_rate below {record['learning_rate']:g}, and standardize the features"
        )


@dataclass
class Checkpoint:
    """Where one training is kept.

    Parameters
    ----------
    folder : Path
        Holds ``state.json`` and the arrays that it names; made on the first save.
    identity : mapping of str to str
        What is trained on what. A state of another identity is refused, not gone on with.
    seconds : float
        Time budget from the making of this object. Training stops after an epoch when another one like the longest so
        far would not fit.
    every : float
        Seconds between saves. The state is always saved when training stops.
    resume : bool
        Whether to go on from what lies in the folder.
    clock : callable
        Seconds, never backwards.

    Attributes
    ----------
    unfinished : bool
        Whether training was stopped by the budget before it was done.

    Notes
    -----
    The state is the weights, the optimiser's moments, the best weights so far, the history, and the states of the two
    generators that training draws from: torch's own, for dropout, and the one for the order of rows and for views.
    """

    folder: Path
    identity: Mapping[str, str]
    seconds: float = math.inf
    every: float = 60.0
    resume: bool = False
    clock: Callable[[], float] = time.monotonic
    unfinished: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.folder.is_symlink():
            raise RunError(f"{self.folder} is a symbolic link; the state of training lies in a folder of its own")
        self._started = self._saved = self._epoch_began = self.clock()
        self._longest = 0.0

    def attached(self, session: Session) -> Callable[[Progress], bool]:
        """Fill *session* with the saved state, if there is one to go on from; return the rule for its loop.

        Raises RunError.
        """
        if self.resume and os.path.lexists(self.folder / _RECORD):
            self._restore(session)
        self._epoch_began = self.clock()
        return lambda progress: self._after_epoch(session, progress)

    def _after_epoch(self, session: Session, progress: Progress) -> bool:
        now = self.clock()
        self._longest = max(self._longest, now - self._epoch_began)
        self._epoch_began = now
        done = len(progress.history) >= session.plan.epochs or progress.stalled(session.plan.patience)
        out_of_time = now - self._started + self._longest > self.seconds
        if done or out_of_time or now - self._saved >= self.every:
            self._save(session)
            self._saved = self._epoch_began = self.clock()
        self.unfinished = out_of_time and not done
        return self.unfinished

    def _save(self, session: Session) -> None:
        from safetensors.torch import save

        progress, module = session.progress, session.module
        state = progress.optimizer.state_dict()
        arrays = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
        arrays |= {f"best.{name}": tensor for name, tensor in (progress.best_weights or {}).items()}
        scalars: dict[str, dict[str, Any]] = {}
        for index, moments in state["state"].items():
            for name, value in moments.items():
                if isinstance(value, torch.Tensor):
                    arrays[f"optimizer.{index}.{name}"] = value
                elif value is not None:
                    scalars.setdefault(str(index), {})[name] = value
        arrays["generator.torch"] = torch.get_rng_state()
        if session.train.generator is not None:
            arrays["generator.batches"] = session.train.generator.get_state()
        record = {
            "format_version": FORMAT_VERSION,
            "identity": dict(self.identity),
            "arrays": _ARRAYS.format(len(progress.history)),
            "optimizer": {"moments": sorted(map(str, state["state"])), "scalars": scalars},
            "history": progress.history,
            "step": progress.step,
            "best_loss": progress.best_loss if math.isfinite(progress.best_loss) else None,
            "best_epoch": progress.best_epoch,
        }
        # Copies: safetensors refuses tensors that share memory, as a restored state and its module may.
        copies = {name: tensor.detach().clone().contiguous() for name, tensor in arrays.items()}
        files = {str(record["arrays"]): save(copies), _RECORD: f"{json.dumps(record, indent=1)}\n".encode()}
        try:
            for name, data in files.items():  # from the record on, which comes last, the new arrays count
                with atomic_write(self.folder / name, force=True) as temporary:
                    temporary.write_bytes(data)
            for old in self.folder.glob(_ARRAYS.format("*")):
                if old.name not in files:
                    old.unlink()
        except AffectoryError:
            raise
        except OSError as error:
            raise RunError(f"can't keep the state of training in {self.folder}: {error.strerror or error}") from error

    def _restore(self, session: Session) -> None:
        record, arrays = self._read()
        try:
            self._fill(session, record, arrays)
        except Exception as error:  # whatever arrays that do not fit provoke in torch
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> RunError:
        return RunError(
            f"the state in {self.folder} is damaged ({type(error).__name__}: {first_line(error)}); "
            "start without --resume"
        )

    def _fill(self, session: Session, record: Mapping[str, Any], arrays: Mapping[str, torch.Tensor]) -> None:
        progress = session.progress
        session.module.load_state_dict(_named(arrays, "module."))
        fresh = progress.optimizer.state_dict()
        moments = {int(index): _named(arrays, f"optimizer.{index}.") for index in record["optimizer"]["moments"]}
        for index, values in record["optimizer"]["scalars"].items():
            moments[int(index)].update(values)
        progress.optimizer.load_state_dict({**fresh, "state": moments})
        progress.history[:] = record["history"]
        progress.step, progress.best_epoch = record["step"], record["best_epoch"]
        progress.best_loss = math.inf if record["best_loss"] is None else record["best_loss"]
        progress.best_weights = _named(arrays, "best.") or None
        _check_shapes(session)
        torch.set_rng_state(arrays["generator.torch"])
        if session.train.generator is not None:
            session.train.generator.set_state(arrays["generator.batches"])

    def _read(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        from safetensors.torch import load

        try:
            found = parse_json(read_regular(self.folder / _RECORD), _RECORD)
            version = found.get("format_version") if isinstance(found, dict) else None
            if version in (None, FORMAT_VERSION):
                record = _STATE(found, "the state")
                arrays = load(read_regular(self.folder / record["arrays"], _MAX_BYTES))
        except Exception as error:  # whatever a damaged file provokes in safetensors
            raise self._damaged(error) from error
        if version != FORMAT_VERSION:
            raise RunError(f"the state in {self.folder} has format version {version!r}; start without --resume")
        kept, asked = record["identity"], dict(self.identity)
        other = sorted(name for name in kept.keys() | asked.keys() if kept.get(name) != asked.get(name))
        if other:
            raise RunError(
                f"the state in {self.folder} is of another training: {', '.join(other)} differ; "
                "ask for the same run again, or start without --resume"
            )
        return record, arrays


def _named(arrays: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _check_shapes(session: Session) -> None:
    """Refuse moments and kept weights that are not of the shapes of the network."""
    for parameter, moments in session.progress.optimizer.state.items():
        if any(isinstance(one, torch.Tensor) and one.ndim and one.shape != parameter.shape for one in moments.values()):
            raise ValueError("a moment of the optimiser has another shape than its weight")
    best = session.progress.best_weights
    if best is not None and _shapes(best) != _shapes(session.module.state_dict()):
        raise ValueError("the best weights are not those of the network")


def _shapes(arrays: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in arrays.items()}
