"""The one tree of exceptions; the other packages hang their own branches under its root.

Every message says what failed, quotes the offending value, lists what is valid, and says what to do.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the operating system reports where a disk, a quota or the largest size of a file is reached."""
MACHINE_FAULTS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that mean nothing about the file: the same read may succeed later."""


class AffectoryError(Exception):
    """Something that the user can mend; the command line prints it as one sentence and exits with `exit_code`."""

    exit_code = 2  # the user's mistake; 1 is a fault of the machine or the data


class StoreError(AffectoryError):
    """Something is wrong with a dump or with how it is used."""


class FormatError(StoreError, ValueError):
    """The file is not a dump, or it breaks a rule of FORMAT.md."""


class UnsafeFileError(FormatError):
    """The file could read or fill more than its own bytes, and was refused before any of its data."""


class MismatchError(StoreError, ValueError):
    """Two things that must agree do not: indexes, passports, shapes."""


class UnknownNameError(StoreError, LookupError):
    """There is no block, task, split or image of that name."""


class FailedRowsError(StoreError, ValueError):
    """Rows without a vector were requested."""


class LockedError(StoreError, RuntimeError):
    """Another process holds the block for writing."""


class ExistsError(StoreError, FileExistsError):
    """The output exists already, and nothing is overwritten without --force."""


class DiskSpaceError(StoreError, OSError):
    """The output does not fit on the disk."""

    exit_code = 1


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> str:
    """Word the message for a name that is not in a table."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    listed = ", ".join(names) if names else "none"
    return f"unknown {kind} {str(name)!r}{hint}; valid: {listed}"  # numpy's own strings look odd


def first_line(error: BaseException, limit: int = 200) -> str:
    """Return the message of an exception of another library, cut to one line; its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:limit]


def check_seed(seed: int) -> int:
    """Return `seed` if random generators take it."""
    if not 0 <= seed < 2**32:
        raise MismatchError(f"a seed is a whole number from 0 to {2**32 - 1}; got {seed}")
    return seed
