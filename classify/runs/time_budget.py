"""Training that may be interrupted: its time budget, and the folder that keeps its state until it is resumed."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classify.errors import ConfigError, RunError
from features_store.console import seconds_of

if TYPE_CHECKING:
    from classify.heads.training import Checkpoint


def interruption(folder: Path, budget: str | None, *, resume: bool, force: bool) -> Interruption | None:
    """Return the guard of a run with a time *budget* like ``9h``, or one that resumes; None where it is neither."""
    if budget is None and not resume:
        return None
    seconds = parse_duration(budget) if budget else math.inf
    return Interruption(folder, seconds=seconds, resume=resume, force=force)


def parse_duration(text: str) -> float:
    """Read a time like ``9h``, ``90m``, ``45s`` or ``1.5h`` as seconds."""
    seconds = seconds_of(text)
    if math.isnan(seconds):
        raise RunError(f"{text!r} is not a time; write a number with s, m, h or d, like 9h or 90m")
    return seconds


class UnfinishedError(RunError):
    """The time budget is used up; the state of training is kept, and the same run can be resumed."""


class Interruption:
    """The state of one run's training, beside its folder: ``FOLDER.checkpoint/``.

    A state that lies there is resumed with *resume*, thrown away with *force*, else refused (RunError). Training may go
    on for *seconds* from now, and saves its state *every* so many; *clock* gives seconds that never go back.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float = math.inf,
        resume: bool = False,
        force: bool = False,
        every: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder.with_name(f"{folder.name}.checkpoint")
        self.resume, self.every, self.clock = resume, every, clock
        self.identity: dict[str, str] = {}
        self._end = clock() + seconds
        if self.folder.is_symlink():
            raise RunError(
                f"{self.folder} is a symbolic link; remove it, for the state of training lies beside its run"
            )
        if self.folder.exists() and not resume:
            if not force:
                raise RunError(
                    f"{self.folder} holds unfinished training; resume it with --resume, or throw it away with --force"
                )
            shutil.rmtree(self.folder)

    def identify(self, **facts: object) -> None:
        """Record what is trained on what; a state of anything else is refused."""
        self.identity.update({name: _digest(value) for name, value in facts.items()})

    def checkpoint(self, stage: str, head: Any) -> Checkpoint:
        """Return the checkpoint of one fit of the run."""
        from classify.heads.training import Checkpoint

        if not head.resumable:
            raise ConfigError(
                f"{type(head).__name__} is not trained by epochs, so it cannot be stopped and resumed; "
                "leave out --time-budget and --resume"
            )
        return Checkpoint(
            self.folder / stage,
            {**self.identity, "head": _digest(repr(head))},
            seconds=self._end - self.clock(),
            every=self.every,
            resume=self.resume,
            clock=self.clock,
        )

    def unfinished(self) -> UnfinishedError:
        """Return the error that names the folder of the state and the way to resume."""
        return UnfinishedError(
            f"the time budget is used up before training was done; its state is kept in {self.folder}: "
            "run the same command with --resume to go on"
        )

    def done(self) -> None:
        """Remove the state: the run is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _digest(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
