"""Gram matrices on disk, beside the store: found again only while everything that they depend on is the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from features_store.atomic import atomic_write

__all__ = ["GramCache", "cache_folder"]

FOLDER = ".grams"
_MAX_BYTES = 4 * 2**30


def cache_folder(store: Path) -> Path:
    """Return where the matrices of a store are kept: in a folder store, or beside a dump in one file."""
    return store / FOLDER if store.is_dir() else store.with_name(f".{store.name}{FOLDER}")


class GramCache:
    """A folder of matrices, one safetensors file each, under the digest of the key that made it.

    The whole key is kept in the file and compared, a file is written whole or not at all, and one that can't be read
    counts as absent. The oldest files go when the folder grows beyond its limit; a folder that can't be written is
    used as it is.

    Parameters
    ----------
    folder : Path
        Made when the first matrix is kept.
    max_bytes : int
    """

    def __init__(self, folder: Path, *, max_bytes: int = _MAX_BYTES) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    def get(self, key: Mapping[str, Any]) -> np.ndarray | None:
        """Return the matrix that was kept under an equal key, None if there is none."""
        from safetensors import SafetensorError, safe_open

        path, text = self._place(key)
        try:
            with safe_open(path, framework="numpy") as file:
                if (file.metadata() or {}).get("key") != text:
                    return None
                found: np.ndarray = file.get_tensor("gram")
        except (OSError, SafetensorError):
            return None
        _touch(path)
        return found

    def put(self, key: Mapping[str, Any], gram: np.ndarray) -> None:
        """Keep a matrix, if there is room for it."""
        from safetensors.numpy import save_file

        if gram.nbytes > self.max_bytes:
            return
        path, text = self._place(key)
        try:
            self._make_room(gram.nbytes)
            with atomic_write(path, force=True) as temporary:
                save_file({"gram": np.ascontiguousarray(gram)}, temporary, metadata={"key": text})
        except OSError:  # a read-only place or a full disk: the numbers are the same without a cache
            return

    def _place(self, key: Mapping[str, Any]) -> tuple[Path, str]:
        text = json.dumps(dict(key), sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors", text

    def _make_room(self, wanted: int) -> None:
        files = sorted(self.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        held = sum(path.stat().st_size for path in files)
        while files and held + wanted > self.max_bytes:
            oldest = files.pop(0)
            held -= oldest.stat().st_size
            oldest.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        return
