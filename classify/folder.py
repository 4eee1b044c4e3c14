"""Folders that appear whole or not at all, and take the place of an old one at a single instant.

A new folder is filled under an unpredictable name beside its place, held by a lock, and then changes names with what
lies there. What a killed process left is told by its lock, which died with it: an old folder that has lost its name
gets it back, all else goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from classify.errors import RunError
from classify.json_file import umask
from features_store.disk import disk_errors, sync
from features_store.errors import AffectoryError

__all__ = ["sweep_leftovers", "whole_folder"]

_NEW, _OLD = ".tmp", ".old"
_EXCHANGE, _HERE = 2, -100  # of renameat2


@contextmanager
def whole_folder(place: Path, *, what: str, check: Callable[[], None]) -> Iterator[Path]:
    """Give a temporary folder to write into; when the block ends without an error it is at *place*.

    Parameters
    ----------
    place : Path
        Its parents are made.
    what : str
        In words, for messages: ``"the run"``.
    check : callable
        Raises where the place is taken; asked before the work, and again before the names change.

    Yields
    ------
    Path
        The temporary folder, beside *place*.

    Raises
    ------
    RunError
        The place can't be written.
    DiskSpaceError
        What is written doesn't fit on the disk.
    """
    check()
    try:
        with disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            sweep_leftovers(place)
            temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=_NEW, dir=place.parent))
            with _held(temporary):
                try:
                    temporary.mkdir(exist_ok=True)  # before it was held, a sweeping process may have taken it
                    temporary.chmod(0o777 & ~umask())
                    yield temporary
                    _sync_all(temporary)
                    check()  # another process may have been there meanwhile
                    _replace(temporary, place, check)
                    sync(place.parent)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
    except AffectoryError:
        raise
    except OSError as error:
        message = f"can't write {what} {place}: {error.strerror or error}"
        raise RunError(message) from error


def sweep_leftovers(place: Path) -> None:
    """Take away what dead processes left beside a place, and give an old folder its name back if it has lost it."""
    if not place.parent.is_dir():
        return
    beside = [path for path in place.parent.iterdir() if path.name.startswith(f".{place.name}.")]
    for path in beside:
        if path.suffix not in (_NEW, _OLD) or path.is_symlink() or not path.is_dir():
            continue
        with _held(path, wait=False) as dead:
            if dead and path.suffix == _OLD and not os.path.lexists(place):
                path.rename(place)
            elif dead:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _held(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a folder; yield whether it is held. The system drops it when the process dies."""
    if sys.platform == "win32":
        yield wait
        return
    import fcntl

    with contextlib.ExitStack() as stack:
        try:
            fd = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except OSError:  # another process holds it, or the file system has no locks
            held = False
        yield held


def _replace(new: Path, place: Path, check: Callable[[], None]) -> None:
    """Put *new* at *place*; what lay there is under the other name afterwards, or gone."""
    try:
        new.rename(place)  # over nothing, or an empty folder: never over a run
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return
    check()
    if _exchange(new, place):
        return
    old = new.with_suffix(_OLD)
    place.rename(old)
    try:
        new.rename(place)
    except OSError:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change their names at one instant; False where the system can't."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


def _sync_all(folder: Path) -> None:
    """Hand every file and every folder to the disk before the folder gets its name."""
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            sync(path)
