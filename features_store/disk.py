"""What the operating system offers beside Python: durable files, space reserved, names exchanged, locks."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from features_store.errors import FULL_DISK, DiskSpaceError, ExistsError, StoreError

if sys.platform == "win32":
    import msvcrt

    def lock(fd: int) -> None:
        """Take the exclusive lock on an open file, or raise an `OSError` at once."""
        # One byte far behind the text: Windows forbids others to read what is locked.
        os.lseek(fd, 2**20, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def lock(fd: int) -> None:
        """Take the exclusive lock on an open file, or raise an `OSError` at once."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""What `lock` says where another process holds the lock."""

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What lies in a place that is no regular file, in words."""

_NO_REPLACE, _EXCHANGE = 1, 2  # of renameat2
_HERE = -100  # AT_FDCWD
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def as_url(path: Path) -> str:
    """Return the URL that a path was typed as, which has lost a slash as a path; "" for a path."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+:)/", str(path))
    return f"{scheme[0]}/{str(path)[scheme.end() :]}" if scheme and not Path(scheme[1]).is_dir() else ""


def refuse_special(path: Path) -> None:
    """Refuse a place that no file may take, not even with --force: a device, a pipe, a socket, also behind a link."""
    if url := as_url(path):
        raise StoreError(f"{url} is a URL, and only local places are written; give a path")
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # nothing is there
        return
    what = KINDS.get(stat.S_IFMT(mode), "no file")
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ExistsError(f"{path} is {what}, and is not replaced; choose another place")


def try_place(path: Path, what: str = "") -> None:
    """Refuse a place that cannot be written, by writing there; nothing is left of that."""
    refuse_special(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise StoreError(f"cannot write {what}{path}: it is a URL, and only local paths are written")
    place, missing = path.absolute(), list[str]()
    try:
        while not place.parent.is_dir():
            place = place.parent
            missing.insert(0, place.name)
        with suppress(FileNotFoundError):
            os.lstat(place.parent / path.name)  # a name that is too long is no name
        if os.path.lexists(place) and missing:
            raise NotADirectoryError(errno.ENOTDIR, f"{place} is no folder")
        # Folders that lack are tried within a temporary one: another process may just be making the same.
        with tempfile.TemporaryDirectory(prefix=f".{path.name}."[:200], suffix=".part", dir=place.parent) as temporary:
            Path(temporary, *missing).mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            with tempfile.TemporaryFile(dir=path):
                pass
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise StoreError(
            f"cannot write {what}{path}: {getattr(error, 'strerror', None) or error}; choose another place"
        ) from error


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's word for a full disk into a `DiskSpaceError` that names `path`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        # HDF5 reports a full disk in words, without an errno.
        if error.errno in FULL_DISK or any(
            words in str(error) for words in ("No space left", "errno = 28", "File too large")
        ):
            why = error.strerror or "no space left"
            raise DiskSpaceError(
                f"{path} does not fit on its disk ({why}); free some space, or choose another place"
            ) from error
        raise


def sync(path: Path) -> None:
    """Make the content of a file, or the entries of a folder, durable."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders; it has no need of it either
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(fd)


def sync_tree(folder: Path) -> None:
    """Make everything in a folder durable."""
    for parent, _, files in os.walk(folder):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))


def reserve(path: Path) -> None:
    """Take a file's space on the disk now, so that a full disk is an error before the first row."""
    size = path.stat().st_size
    if hasattr(os, "posix_fallocate"):
        fd = os.open(path, os.O_RDWR)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
        else:
            return
        finally:
            os.close(fd)
    if shutil.disk_usage(path.parent).free < size:
        raise DiskSpaceError(
            f"{path} needs {size} bytes and its disk has fewer free; free some space, or choose another place"
        )


def exchange(one: Path, other: Path) -> bool:
    """Let two files, or two folders, change their names at one instant; False where the system cannot do it."""
    return _renamed(one, other, _EXCHANGE)


def move_new(old: Path, new: Path) -> None:
    """Rename a file, or a folder, to a name that nothing has; unlike `os.rename`, never replace anything."""
    if old.is_dir():
        try:
            os.rename(old, new)
        except OSError as error:
            if os.path.lexists(new):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from error
            raise
    elif not _renamed(old, new, _NO_REPLACE):
        try:
            os.link(old, new)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if os.path.lexists(new):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from None
            os.rename(old, new)
        else:
            old.unlink()


def _renamed(one: Path, other: Path, flag: int) -> bool:
    function = _renameat2()
    if function is None:
        return False
    if function(_HERE, os.fsencode(one), _HERE, os.fsencode(other), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


@cache
def _renameat2() -> Any:
    """Return the function of the C library, or None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return function
