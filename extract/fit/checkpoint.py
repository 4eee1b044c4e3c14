"""Training that may be stopped: its state beside the folder of the network, as safetensors and JSON."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from extract.errors import EncoderError, UnfinishedError
from features_store import StoreError
from features_store.atomic import atomic_folder, read_regular
from features_store.console import seconds_of
from features_store.errors import first_line

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "budget_seconds", "check_state"]

_ARRAYS, _RECORD = "state.safetensors", "state.json"
_MOST_BYTES, _MOST_ARRAYS = 64 << 20, 16 << 30  # of record and tensors


class Resumable(Protocol):
    """What is trained: its curves, and the state of which it goes on."""

    history: list[dict[str, float]]

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return tensors by name, and a record for JSON."""

    def restore(self, arrays: Mapping[str, torch.Tensor], record: Mapping[str, Any], /) -> None:
        """Take over a state."""


def budget_seconds(text: str | None) -> float:
    """Read a time like ``9h``, ``90m`` or ``1.5h`` as seconds; None is without end.

    Raises EncoderError.
    """
    seconds = math.inf if text is None else seconds_of(text)
    if math.isnan(seconds):
        raise EncoderError(f"--time-budget {text} is no time; write a number with s, m, h or d, like 9h or 90m")
    return seconds


def check_state(folder: Path, *, resume: bool) -> None:
    """Refuse unfinished training beside the place of a network, unless it is resumed.

    Raises EncoderError.
    """
    state = folder.with_name(f"{folder.name}.checkpoint")
    if state.exists() and not resume:
        raise EncoderError(f"{state} holds unfinished training: go on with --resume, or remove it")


class Checkpoint:
    """The state of one training, in ``FOLDER.checkpoint/``; made once a minute, and where the time budget ends.

    Parameters
    ----------
    folder : Path
        Of the network that is trained.
    identity : mapping
        What is trained on what, as JSON has it; a state of anything else is refused.
    resume : bool
        Go on from the state that lies there. False = one that lies there is refused.
    seconds, every : float
        From now, that training may take; between two states.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        *,
        resume: bool = False,
        seconds: float = math.inf,
        every: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder.with_name(f"{folder.name}.checkpoint")
        self.identity, self.resume, self.every, self.clock = json.loads(json.dumps(identity)), resume, every, clock
        self._began = self._saved = clock()
        self._end, self._longest = self._began + seconds, 0.0
        check_state(folder, resume=resume)

    def begin(self, training: Resumable) -> None:
        """Bring training to the state that lies there, if there is one.

        Raises EncoderError.
        """
        if self.resume and self.folder.exists():
            try:
                self._restore(training)
            except EncoderError:
                raise
            except Exception as error:  # a file can be wrong in as many ways as there are files
                raise EncoderError(f"{self.folder} is damaged ({first_line(error)}); remove it") from error
        self._began = self.clock()

    def after_epoch(self, training: Resumable, *, done: bool) -> None:
        """Keep the state if it is time for it; stop where another epoch like the longest would not fit.

        Raises UnfinishedError.
        """
        now = self.clock()
        self._longest, self._began = max(self._longest, now - self._began), now
        out_of_time = not done and now + self._longest > self._end
        if out_of_time or (not done and now - self._saved >= self.every):
            self._save(training)
            self._saved = self._began = self.clock()
        if out_of_time:
            raise UnfinishedError(
                f"the time budget is used up after {len(training.history)} epochs; the state is kept in {self.folder}: "
                "give the same command with --resume"
            )

    def done(self) -> None:
        """Remove the state: the network is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _save(self, training: Resumable) -> None:
        from safetensors.torch import save_file

        arrays, record = training.state()
        copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in arrays.items()}
        try:
            with atomic_folder(self.folder, force=True) as temporary:
                save_file(copies, temporary / _ARRAYS)
                text = json.dumps({"identity": self.identity, **record}, allow_nan=False)
                (temporary / _RECORD).write_text(text, encoding="utf-8")
        except StoreError:  # a full disk, or a link in the place of the folder
            raise
        except OSError as error:
            words = error.strerror or first_line(error)
            raise EncoderError(f"cannot keep the state of training in {self.folder}: {words}") from error

    def _restore(self, training: Resumable) -> None:
        from safetensors.torch import load

        try:
            record = json.loads(read_regular(self.folder / _RECORD, _MOST_BYTES))
            arrays = load(read_regular(self.folder / _ARRAYS, _MOST_ARRAYS))
        except StoreError as error:
            raise EncoderError(str(error)) from error
        names = self.identity.keys() | record["identity"].keys()
        other = sorted(name for name in names if self.identity.get(name) != record["identity"].get(name))
        if other:
            raise EncoderError(
                f"{self.folder} is of another training ({', '.join(other)} differ); give the command that began it, or "
                "remove it"
            )
        training.restore(arrays, record)
