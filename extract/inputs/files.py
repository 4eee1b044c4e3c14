"""Where the bytes of each image are, on a disk or behind a URL, and what a file is called.

What goes wrong while reading has one of two causes, and they are kept apart. A property of the one file (it is not
there, is a folder, may not be read, is too large) refuses that image. Every other error (a lost mount, a network, a
failing disk, too many open files) is no property of the image: reading is tried again, and then the run stops.

Names have one form for folders, archives and tables, that of ids: relative, POSIX separators, Unicode normalisation
form NFC. Bytes of a file name that are not UTF-8 are written ``%XX``, so different names stay different; two names
that become one are refused, never merged.
"""

from __future__ import annotations

import errno
import math
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from extract.errors import CorpusError, RefusedImageError, UnreadableError
from features_store import AffectoryError, Status, UnsafeFileError, open_regular
from features_store.atomic import read_up_to

MAX_BYTES = 64 << 20  # of a picture; what is larger is no picture, and must not fill the memory
ATTEMPTS, PAUSE = 3, 0.5  # of a read that failed for a reason that is not the file's; seconds

_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # how Python holds single bytes of a file name (PEP 383)
_OF_THE_FILE = frozenset(
    (
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
        *(errno.ENXIO, errno.ENODEV),  # a socket, or a device without a driver
    )
)
_OF_HTTP = frozenset((403, 404, 410))  # forbidden, not found, gone
_ADVICE = {
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs: the machine has too many open files",
    errno.ENOMEM: "free some memory",
    errno.EIO: "check the disk or the mount",
}
_PARTS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}


# ---- names ----------------------------------------------------------------------------------------------------------


def canonical(raw: str) -> str:
    """Return a path in the form of ids: ``.`` and empty components taken out, NFC, undecodable bytes as ``%XX``."""
    name = raw
    if "//" in name or name.startswith("./") or "/./" in name:
        name = "/".join(part for part in name.split("/") if part not in ("", "."))
    if name.isascii():
        return name
    escaped = _NOT_UTF8.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", name)
    return unicodedata.normalize("NFC", escaped)


def is_escaped(raw: str) -> bool:
    """Tell whether `canonical` writes bytes of this name as ``%XX``."""
    return not raw.isascii() and _NOT_UTF8.search(raw) is not None


def same_name(place: object, name: str) -> CorpusError:
    """Return the error for two files that would have one id."""
    return CorpusError(
        f"{place} holds two files or folders of the name {name!r} (the same name twice, in two Unicode forms, or "
        "with './' or '//' in it); one would be taken for the other: rename or remove one of them"
    )


# ---- reading --------------------------------------------------------------------------------------------------------


def read_file(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Return the bytes of a regular file, links followed; nothing else is waited for or read."""
    try:
        with open_regular(path, links=True) as file:
            data, size = read_up_to(file, limit)
    except UnsafeFileError as error:
        raise RefusedImageError(Status.MISSING, str(error).removeprefix(f"{path} ").partition(";")[0]) from error
    except ValueError as error:
        raise RefusedImageError(Status.MISSING, "no file can have such a name") from error
    if size > limit:
        raise RefusedImageError(Status.TOO_LARGE, f"{size} bytes; at most {limit} are read")
    return data


def read_persistently(place: object, read: Callable[[], Any], *, of_the_file: bool = True) -> Any:
    """Read; refuse the image for what is a property of its file, and try again whatever else goes wrong."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return read()
        except (AffectoryError, MemoryError):
            raise
        except Exception as error:  # each remote file system has exceptions of its own
            if of_the_file and _is_of_the_file(error):
                raise RefusedImageError(Status.MISSING, _words(error)) from error
            if attempt < ATTEMPTS:
                time.sleep(PAUSE * attempt)
                continue
            number = error.errno if isinstance(error, OSError) else None
            words = (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"
            advice = _ADVICE.get(number or 0, "see that the disk, mount or network is there")
            raise UnreadableError(
                f"{place} cannot be read: {words} ({ATTEMPTS} attempts); {advice} and give the same command again: "
                "what was written stays. With --skip-unreadable, `extract run` counts what still fails as missing"
            ) from error
    raise AssertionError


def _is_of_the_file(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _OF_THE_FILE
    known = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
    return isinstance(error, known) or getattr(error, "status", None) in _OF_HTTP


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "No such file" if isinstance(error, FileNotFoundError) else type(error).__name__


class ImageFiles(Protocol):
    """Rows of an index to bytes: one object for the whole corpus, cheap for half a million rows, safe in threads."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, row: int) -> bytes:
        """Return the bytes of the image file in `row`."""
        ...

    def modified(self, row: int) -> float:
        """Return when the image in `row` was last changed: seconds since 1970, NaN = not known."""
        ...


class Files:
    """Image files under one folder, by their paths in it as the file system spells them, (n_images,).

    These are usually the very array of the ids; another one where a name had to be normalised to become an id.
    """

    def __init__(self, root: Path, names: NDArray[Any]) -> None:
        self.root = root
        self.names = np.asarray(names)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> bytes:
        path = self.root / str(self.names[row])
        data: bytes = read_persistently(path, lambda: read_file(path))
        return data

    def modified(self, row: int) -> float:
        try:
            return (self.root / str(self.names[row])).stat().st_mtime
        except (OSError, ValueError):
            return math.nan


class SkipUnreadable:
    """Image files in which one that cannot be read, for whatever reason, counts as missing."""

    def __init__(self, files: ImageFiles) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def read(self, row: int) -> bytes:
        try:
            return self._files.read(row)
        except UnreadableError as error:
            words = _words(error.__cause__) if isinstance(error.__cause__, Exception) else "it cannot be read"
            raise RefusedImageError(Status.MISSING, f"unreadable: {words}") from error

    def modified(self, row: int) -> float:
        return self._files.modified(row)


class Joined:
    """The image files of several corpora, one after the other."""

    def __init__(self, parts: Sequence[ImageFiles]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, row: int) -> bytes:
        part, inside = self._find(row)
        return part.read(inside)

    def modified(self, row: int) -> float:
        part, inside = self._find(row)
        return part.modified(inside)

    def _find(self, row: int) -> tuple[ImageFiles, int]:
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self._parts[number], row - (int(self._ends[number - 1]) if number else 0)


# ---- URLs -----------------------------------------------------------------------------------------------------------


def is_url(text: str) -> bool:
    """Tell whether a text is a URL rather than a path."""
    return "://" in text


def place_of(data: Path | RemotePath | str) -> Any:
    """Return what a user gave as a path or a URL as a path of either kind."""
    if isinstance(data, RemotePath):
        return data
    return RemotePath.of(str(data)) if is_url(str(data)) else Path(data)


class RemotePath:
    """A place behind a URL (``s3://``, ``https://`` ...), by fsspec: as much of `pathlib.Path` as is needed."""

    def __init__(self, fs: Any, path: str) -> None:
        self.fs, self.path = fs, path.rstrip("/")  # as the file system writes it, without protocol

    @classmethod
    def of(cls, url: str) -> RemotePath:
        """Open the file system of a URL."""
        try:
            from fsspec.core import url_to_fs

            return cls(*url_to_fs(url))
        except ImportError as error:
            install = f"pip install 'affectory[remote]' {_PARTS.get(url.partition('://')[0], '')}".rstrip()
            raise CorpusError(f"--data {url} cannot be opened ({error}); install what it needs: {install}") from error
        except ValueError as error:
            raise CorpusError(f"--data {url} cannot be opened: {error}") from error

    def __str__(self) -> str:
        return str(self.fs.unstrip_protocol(self.path))

    def __truediv__(self, below: str) -> RemotePath:
        return RemotePath(self.fs, f"{self.path}/{below}" if below not in ("", ".") else self.path)

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.fs, self.path.rpartition("/")[0])

    def is_dir(self) -> bool:
        return bool(self.fs.isdir(self.path))

    def is_file(self) -> bool:
        return bool(self.fs.isfile(self.path))

    def stat(self) -> SimpleNamespace:
        return SimpleNamespace(st_size=int(self.fs.size(self.path)))

    def open(self, _mode: str = "rb") -> IO[bytes]:
        opened: IO[bytes] = self.fs.open(self.path, "rb")
        return opened
