"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from features_store.errors import DiskSpaceError, ExistsError, StoreError


@contextmanager
def whole_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary name in the folder of `path`; on success make it durable and move it to `path`.

    Parameters
    ----------
    path : Path
        Where the file shall appear. Missing folders are made.
    force : bool
        Replace a file that is there.

    Yields
    ------
    Path
        The temporary name, to be written by the caller. It is removed if the block raises.

    Raises
    ------
    ExistsError
        If `path` exists and `force` is false.
    DiskSpaceError
        If the file does not fit on the disk.
    """
    if path.exists() and not force:
        raise ExistsError(_exists(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with disk_errors(path):
            yield temporary
            sync(temporary)
            if force:
                os.replace(temporary, path)
            else:
                _move_new(temporary, path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's word for a full disk into a `DiskSpaceError` that names `path`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        # HDF5 reports a full disk in words, without an errno.
        if full or any(words in str(error) for words in ("No space left", "errno = 28", "File too large")):
            why = error.strerror or "no space left"
            msg = f"{path} does not fit on its disk ({why}); free some space, or choose another place"
            raise DiskSpaceError(msg) from error
        raise


def sync(path: Path) -> None:
    """Make the content of a file, or the entries of a folder, durable."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders; it has no need of it either
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
        msg = f"{path} needs {size} bytes and its disk has fewer free; free some space, or choose another place"
        raise DiskSpaceError(msg)


def _move_new(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # unlike a rename, this never replaces a file that came in between
    except FileExistsError as error:
        raise ExistsError(_exists(path)) from error
    except OSError:  # a file system without hard links
        os.rename(temporary, path)


def _exists(path: Path) -> str:
    return f"{path} exists; nothing is overwritten without --force (force=True)"
