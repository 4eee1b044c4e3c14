"""Folders and archives behind URLs (``s3://``, ``gs://``, ``https://`` ...), through fsspec; nothing is copied here.

A folder is listed once. Of an archive the headers or the directory are read, and then each member by its own range of
bytes: a zip needs few requests for its table, a tar one for each member or two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import CorpusError, RefusedImageError
from extract.inputs.archives import MAX_MEMBER, Members, SharedFile
from extract.inputs.files import MAX_BYTES, insist
from extract.inputs.names import member_name, twins
from features_store import Status

_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")  # what file systems call it


def is_url(text: str) -> bool:
    """Tell whether a text is a URL rather than a path."""
    return "://" in text


class RemotePath:
    """A place behind a URL: as much of `pathlib.Path` as trees need.

    Parameters
    ----------
    path : str
        As the file system writes it, without protocol.
    """

    def __init__(self, fs: Any, path: str) -> None:
        self.fs, self.path = fs, path.rstrip("/")

    @classmethod
    def of(cls, url: str) -> RemotePath:
        """Open the file system of a URL.

        Raises CorpusError.
        """
        try:
            from fsspec.core import url_to_fs

            return cls(*url_to_fs(url))
        except ImportError as error:
            install = f"pip install 'affectory[remote]' {_part(url)}".rstrip()
            msg = f"--data {url} cannot be opened ({error}); install what it needs with: {install}"
            raise CorpusError(msg) from error
        except ValueError as error:
            msg = f"--data {url} cannot be opened: {error}"
            raise CorpusError(msg) from error

    def __str__(self) -> str:
        return str(self.fs.unstrip_protocol(self.path))

    def __truediv__(self, below: str) -> RemotePath:
        return RemotePath(self.fs, f"{self.path}/{below}" if below not in ("", ".") else self.path)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def parent(self) -> RemotePath:
        """The folder."""
        return RemotePath(self.fs, self.path.rpartition("/")[0])

    def is_dir(self) -> bool:
        """Tell whether it is a folder."""
        return bool(self.fs.isdir(self.path))

    def is_file(self) -> bool:
        """Tell whether it is a file."""
        return bool(self.fs.isfile(self.path))

    def stat(self) -> SimpleNamespace:
        """Return its size, as `st_size`."""
        return SimpleNamespace(st_size=int(self.fs.size(self.path)))

    def open(self, _mode: str = "rb") -> IO[bytes]:
        """Open it to be read."""
        opened: IO[bytes] = self.fs.open(self.path, "rb")
        return opened


class RemoteFile(SharedFile):
    """One remote file, read by ranges of bytes, by any number of threads."""

    def __init__(self, path: RemotePath) -> None:
        self.path: Any = path
        self._n_bytes = -1

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer at the end of the file."""
        end = min(offset + size, self._size())
        if end <= offset:
            return b""
        fs, path = self.path.fs, self.path.path
        data: bytes = insist(self.path, lambda: fs.cat_file(path, start=offset, end=end), of_the_file=False)
        return data

    def _size(self) -> int:
        if self._n_bytes < 0:
            self._n_bytes = self.path.stat().st_size
        return self._n_bytes

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


class RemoteFiles:
    """Image files below a URL; a `ImageFiles`.

    Parameters
    ----------
    names : ndarray of shape (n_images,), str
        Relative to `root`.
    known : mapping
        By name, when a file was changed (seconds since 1970) and its size in bytes, as the server lists them.
    """

    def __init__(self, root: RemotePath, names: NDArray[Any], known: Mapping[str, tuple[float, int]]) -> None:
        self._root, self._names = root, names
        self._modified = np.array([known.get(name, (math.nan, 0))[0] for name in names.tolist()])
        self._sizes = np.array([known.get(name, (math.nan, 0))[1] for name in names.tolist()], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def read(self, row: int) -> bytes:
        """Return the bytes of the file in `row`; see `ImageFiles.read`."""
        path = self._root / str(self._names[row])
        if self._sizes[row] > MAX_BYTES:
            raise RefusedImageError(Status.TOO_LARGE, f"{self._sizes[row]} bytes; at most {MAX_BYTES} are read")
        data: bytes = insist(path, lambda: path.fs.cat_file(path.path))
        return data

    def modified(self, row: int) -> float:
        """Return when the file in `row` was last changed; see `ImageFiles.modified`."""
        return float(self._modified[row])


def listing_of(root: RemotePath) -> Members:
    """List all files below a folder, as members without offsets.

    Raises UnreadableError.
    """
    found = insist(root, lambda: root.fs.find(root.path, detail=True), of_the_file=False)
    entries = {path[len(root.path) :].lstrip("/"): entry for path, entry in sorted(found.items())}
    position: dict[str, int] = {}
    kept: dict[str, Any] = {}
    for raw, entry in entries.items():
        name = member_name(raw)
        if name is None:
            continue
        if position.setdefault(name, len(kept)) != len(kept):
            raise twins(root, name)
        kept[raw] = entry
    sizes = np.array([int(entry.get("size") or 0) for entry in kept.values()], dtype=np.int64)
    moments = np.array([_moment(entry) for entry in kept.values()], dtype=np.float64)
    left_out = {"a name that leads out of the folder": len(entries) - len(kept)} if len(kept) < len(entries) else {}
    zeros = np.zeros_like(sizes)
    return Members(position, zeros, sizes, sizes, moments, left_out=left_out, names=tuple(kept))


def read_small(path: RemotePath) -> bytes:
    """Return the bytes of a list or table.

    Raises CorpusError.
    """
    try:
        if path.stat().st_size > MAX_MEMBER:
            msg = f"{path} has {path.stat().st_size} bytes; at most {MAX_MEMBER} are read"
            raise CorpusError(msg)
        data: bytes = insist(path, lambda: path.fs.cat_file(path.path))
        return data
    except (RefusedImageError, FileNotFoundError, PermissionError) as error:
        msg = f"{path} cannot be read: {error}"
        raise CorpusError(msg) from error


def _moment(entry: Mapping[str, Any]) -> float:
    for name in _TIMES:
        value: Any = entry.get(name)
        if hasattr(value, "timestamp"):
            return float(value.timestamp())
        if isinstance(value, (int, float)):
            return float(value)
    return math.nan


def _part(url: str) -> str:
    parts = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
    return parts.get(url.partition("://")[0], "")
