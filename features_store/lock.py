"""An exclusive lock on a file that is being written, which names its holder."""

from __future__ import annotations

import json
import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from features_store.atomic import open_regular
from features_store.disk import HELD, lock
from features_store.errors import LockedError


class FileLock:
    """Hold the exclusive lock on `path`, the file ``.NAME.lock`` beside it, from construction to `release`.

    The operating system drops the lock when its process dies, however it dies, so that no stale lock is left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f".{path.name}.lock")
        self._file = self._acquire(path)
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": platform.node(), "since": since}
        try:
            os.ftruncate(self._file.fileno(), 0)
            os.write(self._file.fileno(), json.dumps(holder).encode())
        except OSError:  # a full disk
            self.release()
            raise

    def _acquire(self, path: Path) -> BinaryIO:
        while True:
            file = open_regular(self.path, mode="a+b")
            try:
                lock(file.fileno())
            except OSError as error:
                file.seek(0)
                holder = file.read(4096)
                file.close()
                raise LockedError(self._message(path, holder, error)) from error
            # The last holder removes the file: a lock on a removed file is no lock.
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), os.lstat(self.path)):
                return file
            file.close()

    def _message(self, path: Path, holder: bytes, error: OSError) -> str:
        if error.errno not in HELD:
            return f"{path} cannot be locked ({error.strerror}); write to a file system that supports locks"
        try:
            who = json.loads(holder)
            named = f"process {who['pid']} on {who['host']} since {who['since']}"
        except (ValueError, KeyError, TypeError):
            named = "another process"
        return f"{path} is being written by {named}; wait for it to end, or stop it"

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            self._file.close()
