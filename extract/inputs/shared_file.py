"""One file on a disk or behind a URL, read at any offset by any number of threads."""

from __future__ import annotations

import os
import threading
import weakref
from functools import partial
from typing import Any

from extract.inputs.files import RemotePath, read_persistently

__all__ = ["RemoteFile", "SharedFile"]


class SharedFile:
    """One file, read at any offset by any number of threads; opened when it is first read, in each process anew."""

    def __init__(self, path: Any) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._fd: int | None = None

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer at the end of the file."""
        fd = self._fd if self._fd is not None else self._open()
        data = self._read_once(fd, size, offset)
        while 0 < len(data) < size:  # the system may give less at once
            part = self._read_once(fd, size - len(data), offset + len(data))
            if not part:
                break
            data += part
        return data

    def _read_at(self, fd: int, size: int, offset: int) -> bytes:
        with self._lock:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.read(fd, size)

    _read_once = staticmethod(os.pread) if hasattr(os, "pread") else _read_at  # Windows has no pread

    def _open(self) -> int:
        with self._lock:
            if self._fd is None:
                fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
                weakref.finalize(self, os.close, fd)
                self._fd = fd
        return self._fd

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]


class RemoteFile(SharedFile):
    """One remote file, read by ranges of bytes, by any number of threads."""

    def __init__(self, path: RemotePath) -> None:
        super().__init__(path)
        self._n_bytes = -1

    def read(self, offset: int, size: int) -> bytes:
        path = self.path
        if self._n_bytes < 0:
            self._n_bytes = path.stat().st_size
        end = min(offset + size, self._n_bytes)
        read = partial(path.fs.cat_file, path.path, start=offset, end=end)
        data: bytes = read_persistently(path, read, of_the_file=False) if end > offset else b""
        return data
