"""Training by mini-batches: one loop, its state, and the checkpoint that resumes it to the bit."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Hits = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # outputs and targets to the number of right predictions
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


class Batches:
    """Standardized batches of rows with their targets, gathered into one reused float32 buffer.

    The last batch may be smaller than *size*; without a *standardizer* the rows are standardized already. A *generator*
    draws a new order for each pass, *by_blocks* of neighbours for a file that is larger than memory.
    """

    def __init__(
        self,
        rows: Rows,
        targets: torch.Tensor,  # (n_rows,) or (n_rows, n_outputs)
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


class Training:
    """One training: a module, what it is trained on, and where it stands; `run` continues from there.

    Sizes and rates are the options of *head*, as `classify.heads.network.NetworkHead` declares them.
    """

    def __init__(
        self,
        head: Any,
        module: torch.nn.Module,
        loss: Loss,
        train: Batches,
        held_out: Batches | None = None,
        hits: Hits | None = None,
    ) -> None:
        self.head, self.module, self.loss, self.train, self.held_out = head, module, loss, train, held_out
        self.hits = hits
        self.optimizer = build_optimizer(head, module)
        # By epoch: ``epoch`` (from 1), ``learning_rate``, ``loss``, with *hits* ``accuracy`` (in training with dropout,
        # over the epoch), and given validation rows both as ``validation_...``.
        self.history: list[dict[str, float]] = []
        self.step = 0
        self.best_loss, self.best_epoch = math.inf, 0  # the lowest validation loss, and its epoch
        self.best_weights: dict[str, torch.Tensor] | None = None  # of that epoch; None where the last are kept

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        halvings = len(self.history) // self.head.halve_every if self.head.halve_every else 0
        rate: float = self.head.learning_rate * 0.5**halvings / (1 + self.head.decay * self.step)
        return rate

    @property
    def done(self) -> bool:
        """Whether all epochs are done, or *patience* epochs have passed since the best one."""
        n, patience = len(self.history), self.head.patience
        return n >= self.head.epochs or bool(patience and self.best_epoch and n - self.best_epoch >= patience)

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Train the module in place until it is done, or *stop*, called after each epoch, is true."""
        while not self.done:
            record = {"epoch": len(self.history) + 1, "learning_rate": self.rate}
            self.module.train()
            record |= _means(self.train, self.train_step, self.hits)
            if self.held_out is not None:
                self.module.eval()
                means = _means(self.held_out, self._score, self.hits)
                record |= {f"validation_{name}": value for name, value in means.items()}
            _refuse_divergence(record)
            self._add(record)
            if stop():
                break
        if self.best_weights is not None:
            self.module.load_state_dict(self.best_weights)
        self.module.eval()

    def train_step(self, x: torch.Tensor, y: torch.Tensor) -> Pair:
        """Take one step on a batch; return the loss before it, and the outputs."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        outputs = self.module(x)
        value = self.loss(outputs, y)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        self.optimizer.step()
        self.step += 1
        return value.detach(), outputs.detach()

    @torch.no_grad()
    def _score(self, x: torch.Tensor, y: torch.Tensor) -> Pair:
        outputs = self.module(x)
        return self.loss(outputs, y), outputs

    def _add(self, record: dict[str, float]) -> None:
        """Add an epoch's record; keep the weights if its validation loss is the lowest so far."""
        self.history.append(record)
        loss = record.get("validation_loss", math.inf)
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, len(self.history)
            if self.head.keep == "best":
                self.best_weights = {k: v.detach().clone() for k, v in self.module.state_dict().items()}


def build_optimizer(head: Any, module: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of *module*'s parameters; one fused kernel a step where torch has it."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    common: dict[str, Any] = {"lr": head.learning_rate, "weight_decay": head.weight_decay}
    if head.optimizer == "adam":
        return torch.optim.Adam(parameters, fused=True, **common)
    if head.optimizer == "nadam":
        return torch.optim.NAdam(parameters, **common)
    return torch.optim.SGD(parameters, momentum=head.momentum, nesterov=head.momentum > 0, fused=True, **common)


def _means(
    pairs: Iterable[Pair], step: Callable[[torch.Tensor, torch.Tensor], Pair], hits: Hits | None
) -> dict[str, float]:
    """Run *step* on each batch, and average the loss, and the hits of its outputs, over the rows."""
    total, right, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64), 0
    for x, y in pairs:
        loss, outputs = step(x, y)
        total += loss.double() * len(x)
        count += len(x)
        if hits is not None:
            right += hits(outputs, y)
    means = {"loss": float(total) / max(count, 1)}
    return means if hits is None else {**means, "accuracy": float(right) / max(count, 1)}


def _refuse_divergence(record: dict[str, float]) -> None:
    wrong = [name for name in ("loss", "validation_loss") if not math.isfinite(record.get(name, 0.0))]
    if wrong:
        raise HeadError(
            f"training diverged in epoch {record['epoch']}: the {wrong[0].replace('_', ' ')} is {record[wrong[0]]}; "
            f"try a learning_rate below {record['learning_rate']:g}, and standardize the features"
        )


class Checkpoint:
    """Where one training is kept: ``state.json`` in a folder, and the arrays that it names.

    The state is the weights, the optimiser's moments, the best weights so far, the history, and the states of the two
    generators that training draws from: torch's own, for dropout, and the one for the order of rows and for views.

    *identity* says what is trained on what; a state of another identity is refused. Training stops after an epoch when
    another one like the longest so far would not fit into *seconds* from now, and is `unfinished` then. Its state is
    saved *every* so many seconds and when it stops; *resume* continues from the state in the folder.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, str],
        *,
        seconds: float = math.inf,
        every: float = 60.0,
        resume: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if folder.is_symlink():
            raise RunError(f"{folder} is a symbolic link; the state of training lies in a folder of its own")
        self.folder, self.identity, self.seconds = folder, dict(identity), seconds
        self.every, self.resume, self.clock = every, resume, clock
        self.unfinished = False
        self._started = self._saved = self._epoch_began = clock()
        self._longest = 0.0

    def attached(self, training: Training) -> Callable[[], bool]:
        """Fill *training* with the saved state, if there is one to resume; return the stop rule for its loop."""
        if self.resume and os.path.lexists(self.folder / _RECORD):
            record, arrays = self._read()
            try:
                self._fill(training, record, arrays)
            except Exception as error:  # whatever arrays that do not fit provoke in torch
                raise self._damaged(error) from error
        self._epoch_began = self.clock()
        return lambda: self._after_epoch(training)

    def _after_epoch(self, training: Training) -> bool:
        now = self.clock()
        self._longest = max(self._longest, now - self._epoch_began)
        self._epoch_began = now
        out_of_time = now - self._started + self._longest > self.seconds
        if training.done or out_of_time or now - self._saved >= self.every:
            self._save(training)
            self._saved = self._epoch_began = self.clock()
        self.unfinished = out_of_time and not training.done
        return self.unfinished

    def _save(self, training: Training) -> None:
        from safetensors.torch import save

        state = training.optimizer.state_dict()
        arrays = {f"module.{name}": tensor for name, tensor in training.module.state_dict().items()}
        arrays |= {f"best.{name}": tensor for name, tensor in (training.best_weights or {}).items()}
        scalars: dict[str, dict[str, Any]] = {}
        for index, moments in state["state"].items():
            for name, value in moments.items():
                if isinstance(value, torch.Tensor):
                    arrays[f"optimizer.{index}.{name}"] = value
                elif value is not None:
                    scalars.setdefault(str(index), {})[name] = value
        arrays["generator.torch"] = torch.get_rng_state()
        if training.train.generator is not None:
            arrays["generator.batches"] = training.train.generator.get_state()
        record = {
            "format_version": FORMAT_VERSION,
            "identity": self.identity,
            "arrays": _ARRAYS.format(len(training.history)),
            "optimizer": {"moments": sorted(map(str, state["state"])), "scalars": scalars},
            "history": training.history,
            "step": training.step,
            "best_loss": training.best_loss if math.isfinite(training.best_loss) else None,
            "best_epoch": training.best_epoch,
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
            raise RunError(f"cannot keep the state of training in {self.folder}: {error.strerror or error}") from error

    def _damaged(self, error: Exception) -> RunError:
        return RunError(
            f"the state in {self.folder} is damaged ({type(error).__name__}: {first_line(error)}); "
            "start without --resume"
        )

    def _fill(self, training: Training, record: Mapping[str, Any], arrays: Mapping[str, torch.Tensor]) -> None:
        training.module.load_state_dict(_named(arrays, "module."))
        moments = {int(index): _named(arrays, f"optimizer.{index}.") for index in record["optimizer"]["moments"]}
        for index, values in record["optimizer"]["scalars"].items():
            moments[int(index)].update(values)
        training.optimizer.load_state_dict({**training.optimizer.state_dict(), "state": moments})
        training.history[:] = record["history"]
        training.step, training.best_epoch = record["step"], record["best_epoch"]
        training.best_loss = math.inf if record["best_loss"] is None else record["best_loss"]
        training.best_weights = _named(arrays, "best.") or None
        _check_shapes(training)
        torch.set_rng_state(arrays["generator.torch"])
        if training.train.generator is not None:
            training.train.generator.set_state(arrays["generator.batches"])

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
        kept = record["identity"]
        other = sorted(name for name in kept.keys() | self.identity.keys() if kept.get(name) != self.identity.get(name))
        if other:
            raise RunError(
                f"the state in {self.folder} is of another training: {', '.join(other)} differ; "
                "repeat the command of that run, or start without --resume"
            )
        return record, arrays


def _named(arrays: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _check_shapes(training: Training) -> None:
    """Refuse moments and kept weights that are not of the shapes of the network."""
    for parameter, moments in training.optimizer.state.items():
        if any(isinstance(one, torch.Tensor) and one.ndim and one.shape != parameter.shape for one in moments.values()):
            raise ValueError("a moment of the optimiser has another shape than its weight")
    best = training.best_weights
    if best is not None and _shapes(best) != _shapes(training.module.state_dict()):
        raise ValueError("the best weights are not those of the network")


def _shapes(arrays: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in arrays.items()}
