"""Images that failed: how many are too many, and the words of why each did, kept beside the block.

``BLOCK.failures.csv`` holds id, status and reason. A block means the same without it, so a file that is lost,
damaged or of another block is no error: only what it says of rows that failed in that way is shown.
"""

from __future__ import annotations

import csv
import io
import math
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from features_store.atomic import atomic_write
from features_store.errors import MismatchError

MAX_REASON = 200  # characters
_MAX_BYTES = 256 << 20
_COLUMNS = ("id", "status", "reason")


@dataclass(frozen=True)
class FailureLimit:
    """How many failed images are accepted.

    Parameters
    ----------
    text : str
        A share ("5%", "0.05"), or a whole number of images ("40").
    """

    text: str = "5%"

    def __post_init__(self) -> None:
        self.allowed(0)

    def allowed(self, n_images: int) -> int:
        """Return how many of `n_images` may fail.

        Raises MismatchError.
        """
        text = self.text.strip()
        try:
            number = float(text.removesuffix("%"))
            if not text.isascii() or not math.isfinite(number) or number < 0:
                raise ValueError
            if text.endswith("%") or "." in text:
                share = number / 100 if text.endswith("%") else number
                if share > 1:
                    raise ValueError
                return math.floor(share * n_images + 1e-9)
            return int(text)
        except ValueError:
            raise MismatchError(
                f"--max-failed {self.text!r} is no limit; give a share such as 5% or 0.05, or a number of images"
            ) from None

    def exceeded(self, n_failed: int, n_images: int) -> bool:
        """Tell whether more images failed than are accepted."""
        return n_failed > self.allowed(n_images)


def plain_words(reason: str) -> str:
    """Return a reason on one line, without control characters: it may quote bytes of a stranger's file."""
    return "".join(char if char.isprintable() else " " for char in reason).strip()[:MAX_REASON]


def failures_file(dump: Path) -> Path:
    """Return where the reasons of a block file are."""
    return dump.with_name(f"{dump.name.removesuffix('.h5')}.failures.csv")


def read_failures(dump: Path) -> dict[tuple[str, str], str]:
    """Return reasons by id and status, in words; nothing where there is no file that could be read."""
    try:
        fd = os.open(failures_file(dump), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return {}
    with open(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _MAX_BYTES:
            return {}
        text = file.read(_MAX_BYTES).decode("utf-8", "replace")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        return {}
    if not rows or tuple(rows[0]) != _COLUMNS:
        return {}
    return {(row[0], row[1]): plain_words(row[2]) for row in rows[1:] if len(row) == len(_COLUMNS)}


def write_failures(dump: Path, failures: Iterable[tuple[str, str, str]]) -> None:
    """Write id, status and reason of each failure; without any, the file goes."""
    rows = [(name, status, plain_words(reason)) for name, status, reason in failures]
    path = failures_file(dump)
    if not rows:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path, force=True) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([_COLUMNS, *rows])
