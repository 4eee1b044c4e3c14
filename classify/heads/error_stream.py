"""The error stream below Python, on which LightGBM prints a line of its own beside the error that it raises."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["without_fatal_lines"]

_ERRORS = 2  # the file descriptor of the error stream
_lock = threading.Lock()
_holders, _held = 0, None  # how many threads hold the stream, and where it went meanwhile: (copy, file)


@contextmanager
def without_fatal_lines() -> Iterator[None]:
    """Keep ``[LightGBM]`` lines off the error stream; whatever else arrives there meanwhile is passed on at the end.

    Threads that overlap share one hold, so that none puts the other's file back in the stream's place.
    """
    global _holders, _held  # noqa: PLW0603 - there is one error stream a process
    with _lock:
        if not _holders:
            _held = _hold()
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders and _held is not None:
                _release(*_held)


def _hold() -> tuple[int, Any] | None:
    try:
        copy = os.dup(_ERRORS)
    except OSError:  # the process has no error stream
        return None
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `_release`
    os.dup2(file.fileno(), _ERRORS)
    return copy, file


def _release(copy: int, file: Any) -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
    os.dup2(copy, _ERRORS)
    os.close(copy)
    file.seek(0)
    lines = file.readlines()
    file.close()
    fatal = any(line.startswith(b"[LightGBM]") for line in lines)  # each is followed by an empty one
    kept = b"".join(line for line in lines if not (fatal and line.startswith((b"[LightGBM]", b"\n"))))
    if kept:
        os.write(_ERRORS, kept)
