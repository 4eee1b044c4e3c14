"""An exclusive lock on a file that is being written, which names its holder."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path

from features_store.errors import LockedError

if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        # One byte far behind the text: Windows forbids others to read what is locked.
        os.lseek(fd, 2**20, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FileLock:
    """Hold the exclusive lock on `path` from construction to `release`.

    The operating system drops the lock when its process dies, however it dies, so that no stale lock is left.

    Parameters
    ----------
    path : Path
        The file to be written. The lock itself is the file ``.NAME.lock`` beside it.

    Raises
    ------
    LockedError
        If another process holds it; the message says which.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f".{path.name}.lock")
        self._fd = self._acquire(path)
        holder = {"pid": os.getpid(), "host": platform.node(), "since": _now()}
        try:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            os.write(self._fd, json.dumps(holder).encode())
        except OSError:  # a full disk
            self.release()
            raise

    def _acquire(self, path: Path) -> int:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(fd)
            except OSError as error:
                holder = os.pread(fd, 4096, 0) if hasattr(os, "pread") else b""
                os.close(fd)
                raise LockedError(self._message(path, holder, error)) from error
            # The last holder removes the file: a lock on a removed file is no lock.
            if self.path.exists() and os.path.samestat(os.fstat(fd), os.stat(self.path)):
                return fd
            os.close(fd)

    def _message(self, path: Path, holder: bytes, error: OSError) -> str:
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return f"{path} cannot be locked ({error.strerror}); write to a file system that supports locks"
        try:
            who = json.loads(holder)
            named = f"process {who['pid']} on {who['host']} since {who['since']}"
        except (ValueError, KeyError, TypeError):
            named = "another process"
        return f"{path} is being written by {named}; wait for it to end, or stop it"

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._fd >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
