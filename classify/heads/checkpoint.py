"""Training that can be stopped and gone on with, to the bit: its whole state in a folder, as safetensors and JSON."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from classify.errors import RunError
from classify.heads.training import Progress, Session

__all__ = ["Checkpoint"]

FORMAT_VERSION = 1
_ARRAYS, _RECORD = "state.{}.safetensors", "state.json"


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
        self._started = self._saved = self._epoch_began = self.clock()
        self._longest = 0.0

    def attached(self, session: Session) -> Callable[[Progress], bool]:
        """Fill *session* with the saved state, if there is one to go on from; return the rule for its loop.

        Raises RunError.
        """
        if self.resume and (self.folder / _RECORD).is_file():
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
        from safetensors.torch import save_file

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
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(copies, self.folder / f".{record['arrays']}.tmp")
            _place(self.folder / f".{record['arrays']}.tmp", self.folder / str(record["arrays"]))
            (self.folder / f".{_RECORD}.tmp").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            _place(self.folder / f".{_RECORD}.tmp", self.folder / _RECORD)  # from here on the new arrays count
            for old in self.folder.glob(_ARRAYS.format("*")):
                if old.name != record["arrays"]:
                    old.unlink()
        except OSError as error:
            message = f"can't keep the state of training in {self.folder}: {error.strerror or error}"
            raise RunError(message) from error

    def _restore(self, session: Session) -> None:
        try:
            record, arrays = self._read()
        except RunError:
            raise
        except Exception as error:  # whatever a damaged file provokes in json or safetensors
            message = f"the state in {self.folder} is damaged ({type(error).__name__}: {error}); start without --resume"
            raise RunError(message) from error
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
        torch.set_rng_state(arrays["generator.torch"])
        if session.train.generator is not None:
            session.train.generator.set_state(arrays["generator.batches"])

    def _read(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        from safetensors.torch import load_file

        record = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        if record["format_version"] != FORMAT_VERSION:
            message = (
                f"the state in {self.folder} has format version {record['format_version']!r}; start without --resume"
            )
            raise RunError(message)
        kept, asked = record["identity"], dict(self.identity)
        other = sorted(name for name in kept.keys() | asked.keys() if kept.get(name) != asked.get(name))
        if other:
            message = (
                f"the state in {self.folder} is of another training: {', '.join(other)} differ; "
                "ask for the same run again, or start without --resume"
            )
            raise RunError(message)
        return record, load_file(self.folder / Path(record["arrays"]).name)


def _named(arrays: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _place(temporary: Path, place: Path) -> None:
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(place)
