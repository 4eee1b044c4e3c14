"""Where the bytes of each image are: one object per corpus, cheap for half a million rows.

What goes wrong has one of two causes, and they are kept apart. A property of the one file (it is not there, is a
folder, may not be read, is too large) refuses that image. Every other error (a lost mount, a network, a failing disk,
too many open files) says nothing about the image: reading is tried again, and then the run stops.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from extract.errors import RefusedImageError, UnreadableError
from features_store import AffectoryError, Status, UnsafeFileError, open_regular

MAX_BYTES = 64 << 20  # of a picture; what is larger is no picture, and must not fill the memory
ATTEMPTS, PAUSE = 3, 0.5  # of a read that failed for a reason that is not the file's; seconds

_OF_THE_FILE = frozenset(
    (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.EACCES,
        errno.EPERM,
        errno.ENAMETOOLONG,
        errno.ENXIO,  # a socket, or a device without a driver
        errno.ENODEV,
    )
)
_OF_HTTP = frozenset((403, 404, 410))  # forbidden, not found, gone
_ADVICE = {
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs: the machine has too many open files",
    errno.ENOMEM: "free some memory",
    errno.EIO: "check the disk or the mount",
}


def read_file(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Return the bytes of a regular file, links followed; nothing else is waited for or read.

    Raises RefusedImageError, OSError.
    """
    try:
        with open_regular(path, links=True) as file:
            size = os.fstat(file.fileno()).st_size
            data = b"" if size > limit else file.read(size + 1)
            while size < len(data) <= limit and (more := file.read(2**20)):  # it has grown meanwhile
                data += more
    except UnsafeFileError as error:
        raise RefusedImageError(Status.MISSING, str(error).removeprefix(f"{path} ").partition(";")[0]) from error
    except ValueError as error:
        raise RefusedImageError(Status.MISSING, "no file can have such a name") from error
    if max(size, len(data)) > limit:
        raise RefusedImageError(Status.TOO_LARGE, f"{max(size, len(data))} bytes; at most {limit} are read")
    return data


def insist(place: object, read: Callable[[], Any], *, of_the_file: bool = True) -> Any:
    """Read; refuse the image for what is a property of its file, and try again whatever else goes wrong.

    Raises RefusedImageError, UnreadableError.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return read()
        except (AffectoryError, MemoryError):
            raise
        except Exception as error:  # each remote file system has exceptions of its own
            if of_the_file and _of_the_file(error):
                raise RefusedImageError(Status.MISSING, _words(error)) from error
            if attempt == ATTEMPTS:
                raise UnreadableError(_unreadable(place, error)) from error
            time.sleep(PAUSE * attempt)
    raise AssertionError


def _of_the_file(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _OF_THE_FILE
    known = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
    return isinstance(error, known) or getattr(error, "status", None) in _OF_HTTP


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "No such file" if isinstance(error, FileNotFoundError) else type(error).__name__


def _unreadable(place: object, error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    words = (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"
    advice = _ADVICE.get(number or 0, "see that the disk, mount or network is there")
    return (
        f"{place} cannot be read: {words} ({ATTEMPTS} attempts); {advice} and give the same command again: what was "
        "written stays. With --skip-unreadable, `extract run` counts what still fails as missing"
    )


class ImageFiles(Protocol):
    """Rows of an index to bytes. One object for the whole corpus; reading is safe from several threads."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, row: int) -> bytes:
        """Return the bytes of the image file in `row`.

        Raises RefusedImageError, UnreadableError.
        """
        ...

    def modified(self, row: int) -> float:
        """Return when the image in `row` was last changed: seconds since 1970, NaN = not known."""
        ...


class Files:
    """Image files under one folder.

    Parameters
    ----------
    root : Path
        The folder.
    names : ndarray of shape (n_images,), str
        Paths relative to `root` as the file system spells them, POSIX separators. Usually the very array of
        the ids; another one where a name had to be normalised to become an id.
    """

    def __init__(self, root: Path, names: NDArray[Any]) -> None:
        self.root = root
        self.names = np.asarray(names)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> bytes:
        """Return the bytes of the file in `row`; see `ImageFiles.read`."""
        path = self.root / str(self.names[row])
        data: bytes = insist(path, lambda: read_file(path))
        return data

    def modified(self, row: int) -> float:
        """Return when the file in `row` was last changed; see `ImageFiles.modified`."""
        try:
            return (self.root / str(self.names[row])).stat().st_mtime
        except (OSError, ValueError):
            return math.nan


class Skipping:
    """A source in which a file that cannot be read, for whatever reason, counts as missing."""

    def __init__(self, source: ImageFiles) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def read(self, row: int) -> bytes:
        """See `ImageFiles.read`."""
        try:
            return self._source.read(row)
        except UnreadableError as error:
            words = _words(error.__cause__) if isinstance(error.__cause__, Exception) else "it cannot be read"
            raise RefusedImageError(Status.MISSING, f"unreadable: {words}") from error

    def modified(self, row: int) -> float:
        """See `ImageFiles.modified`."""
        return self._source.modified(row)


class Joined:
    """The sources of several corpora, one after the other."""

    def __init__(self, sources: Sequence[ImageFiles]) -> None:
        self._sources = list(sources)
        self._ends = np.cumsum([len(source) for source in sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, row: int) -> bytes:
        """See `ImageFiles.read`."""
        source, inside = self._at(row)
        return source.read(inside)

    def modified(self, row: int) -> float:
        """See `ImageFiles.modified`."""
        source, inside = self._at(row)
        return source.modified(inside)

    def _at(self, row: int) -> tuple[ImageFiles, int]:
        at = int(np.searchsorted(self._ends, row, side="right"))
        return self._sources[at], row - (int(self._ends[at - 1]) if at else 0)
