"""The seal of a block, the digests of its rows, and those of what is beside them (FORMAT.md sections 4 and 6)."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store.schema import FAILURES, Labels, Split, Status

SEAL_BYTES = 40
DIGEST_BYTES = 8
_PIECE = 16 * 2**20  # bytes hashed at a time


def compute(
    vectors: NDArray[Any], status: NDArray[np.uint8], *, progress: Callable[[int], object] | None = None
) -> bytes:
    """Compute the seal of a block from its vectors, (n_images, n_views, n_features), and its status."""
    sealing = Sealing()
    step = max(1, _PIECE // max(1, vectors[0].nbytes))
    for start in range(0, len(status), step):
        sealing.update(vectors[start : start + step], status[start : start + step])
        if progress is not None:
            progress(len(status[start : start + step]))
    return sealing.seal()


class Sealing:
    """The seal of a block of which the rows come one piece after the other, in order."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._status: list[bytes] = []
        self._n_images = 0

    def update(self, vectors: NDArray[Any], status: NDArray[np.uint8]) -> None:
        """Take the next rows: (n, n_views, n_features) and (n, n_views)."""
        piece = np.ascontiguousarray(vectors, dtype=vectors.dtype.newbyteorder("<"))
        unwritten = status != Status.WRITTEN
        if unwritten.any():
            piece = piece.copy()
            piece[unwritten] = 0
        self._sha.update(piece.view(np.uint8).reshape(-1).data)
        self._status.append(status.tobytes())
        self._n_images += len(status)

    def seal(self) -> bytes:
        """Return the forty bytes, after the last piece."""
        sha = self._sha.copy()
        sha.update(b"".join(self._status))
        return struct.pack("<Q", self._n_images) + sha.digest()


def rows_of(seal: bytes) -> int:
    """Return the number of rows that a stored seal was made over."""
    return int(struct.unpack("<Q", seal[:8])[0])


def digest_rows(vectors: NDArray[Any], status: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Compute the digests, (n, 8), of some vectors, (n, n_features), from them and their status, (n,)."""
    values = np.ascontiguousarray(vectors, dtype=vectors.dtype.newbyteorder("<"))
    text, width = values.reshape(-1).view(np.uint8).data, values.itemsize * values.shape[1]
    of_failure = {int(s): hashlib.sha256(bytes([s])).digest()[:DIGEST_BYTES] for s in FAILURES}
    of_failure[int(Status.PENDING)] = bytes(DIGEST_BYTES)
    started = hashlib.sha256(bytes([Status.WRITTEN]))
    found = []
    for row, state in enumerate(status.tolist()):
        if state == Status.WRITTEN:
            sha = started.copy()
            sha.update(text[row * width : (row + 1) * width])
            found.append(sha.digest()[:DIGEST_BYTES])
        else:
            found.append(of_failure[state])
    return np.frombuffer(b"".join(found), dtype=np.uint8).reshape(len(found), DIGEST_BYTES)


def is_open(seal: bytes) -> bool:
    """Tell whether the stored seal says that the block may still change."""
    return not any(seal)


# ---- digests of what is beside the vectors, section 4 ---------------------------------------------------------------


def meaning_digest(labels: Mapping[str, Labels], splits: Mapping[str, Split], groups: NDArray[np.int64] | None) -> str:
    """Return the SHA-256 over labels, splits and groups, in hexadecimal; "" if there are none."""
    if not labels and not splits and groups is None:
        return ""
    sha = hashlib.sha256()

    def add(header: Mapping[str, Any], values: NDArray[Any], dtype: str) -> None:
        sha.update(_canonical(header) + b"\0")
        sha.update(np.ascontiguousarray(values, dtype=dtype).tobytes())

    for name, column in sorted(labels.items()):
        task = column.task
        header = {"task": name, "kind": task.kind, "classes": list(task.classes), "range": task.range}
        add({**header, "source": task.source or "unknown"}, column.values, task.form.dtype)
    for name, split in sorted(splits.items()):
        add({"split": name, "kind": split.kind, "source": split.source}, split.values, "|i1")
    if groups is not None:
        add({"groups": len(groups)}, groups, "<i8")
    return sha.hexdigest()


def images_digest(corpus: Mapping[str, Any], content: NDArray[np.uint8] | None) -> str:
    """Return the SHA-256 over corpus and digests of the image files, in hexadecimal; "" if there are none."""
    if not corpus and content is None:
        return ""
    rows = b"" if content is None else np.ascontiguousarray(content, dtype=np.uint8).tobytes()
    return hashlib.sha256(_canonical(corpus) + b"\0" + rows).hexdigest()


def _canonical(record: Mapping[str, Any]) -> bytes:
    """Return canonical text as passports have it, without their limit: the names of classes may take 64 KiB alone."""
    return json.dumps(dict(record), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
