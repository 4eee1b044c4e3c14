"""One block of a dump: its description, and its vectors read straight from the file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store import chunked as chunks
from features_store import passport, seal
from features_store.atomic import open_regular
from features_store.errors import FormatError
from features_store.hdf5 import opened
from features_store.schema import BlockSpec, Status

_PIECE_BYTES = 4 * 2**20  # gathered at a time, so that the half-precision copy stays in the cache


@dataclass(frozen=True)
class Block:
    """The vectors of one tap of one encoder, over one index.

    It carries the path and never an open handle, so it can be pickled, forked and sent to other processes.

    Attributes
    ----------
    path : Path
        The dump that holds it.
    shape : (int, int, int)
        ``(n_images, n_views, n_features)``.
    item_shape : tuple of int
        Shape of one vector, ``(2048,)`` or ``(2048, 8, 8)``.
    dtype : numpy.dtype
        float16 or float32, little-endian.
    passport : mapping
        Everything that made it.
    names : tuple of str or None
        What each value of a vector means.
    offsets : mapping or None
        Byte offsets of ``vectors``, ``status``, ``seal`` and ``digests`` in the file; None if HDF5 must decode them.
    has_digests : bool
        Whether each row has its own digest, as blocks of this software do.
    """

    name: str
    path: Path
    shape: tuple[int, int, int]
    item_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    passport: Mapping[str, Any]
    names: tuple[str, ...] | None
    offsets: Mapping[str, int] | None
    has_digests: bool = False
    _maps: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    @property
    def n_features(self) -> int:
        """Number of values in one vector."""
        return self.shape[2]

    @property
    def digest(self) -> str:
        """Identity of how it was made: the digest of the passport's key."""
        return passport.digest(self.passport)

    @property
    def spec(self) -> BlockSpec:
        """The record from which an equal, empty block can be created."""
        return BlockSpec(self.name, self.item_shape, self.passport, self.dtype.name, self.shape[1], self.names)

    @property
    def vectors(self) -> NDArray[Any]:
        """All vectors, (n_images, n_views, n_features): a read-only view over the file.

        A block that HDF5 must decode (chunked or compressed by another program) is read into memory as a whole.
        """
        return self._part("vectors")

    @property
    def status(self) -> NDArray[np.uint8]:
        """State of each vector now, (n_images, n_views) uint8, see `Status`."""
        return self._part("status")

    @property
    def stored_seal(self) -> bytes:
        """The forty bytes of the seal, as they are in the file now."""
        return self._part("seal").tobytes()

    @property
    def digests(self) -> NDArray[np.uint8] | None:
        """Digest of each vector, (n_images, n_views, 8) uint8; None if the file keeps none."""
        return self._part("digests") if self.has_digests else None

    @property
    def sealed(self) -> bool:
        """Whether the block was closed for good."""
        return not seal.is_open(self.stored_seal)

    def counts(self) -> dict[Status, int]:
        """Return how many vectors are in each state, states that occur only."""
        values, counts = np.unique(self.status, return_counts=True)
        if values[-1] > max(Status):
            raise FormatError(
                f"{self.path}: /blocks/{self.name}/status holds {values[-1]}; valid: 0 to {max(Status):d}"
            )
        return {Status(int(v)): int(n) for v, n in zip(values, counts, strict=True)}

    def gather(self, rows: NDArray[np.int64], out: NDArray[Any], *, view: int = 0) -> None:
        """Copy vectors into a buffer, converting them to its type.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Positions in the index, in any order.
        out : ndarray of shape (n, n_features)
            Filled in place; may be a part of a wider buffer.
        view : int
            Which view of the images.
        """
        if not 0 <= view < self.shape[1]:
            raise FormatError(f"block {self.name!r} has views 0 to {self.shape[1] - 1}; got {view}")
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.shape[0]):
            raise FormatError(
                f"block {self.name!r} has rows 0 to {self.shape[0] - 1}; got {rows.min()} to {rows.max()}"
            )
        if self.offsets is None:
            self._gather_decoded(rows, out, view)
            return
        vectors = self.vectors[:, view, :]
        step = max(1, _PIECE_BYTES // (self.n_features * self.dtype.itemsize))
        for start in range(0, len(rows), step):
            piece = rows[start : start + step]
            first, last = int(piece[0]), int(piece[-1])
            if last - first + 1 == len(piece) and (np.diff(piece) == 1).all():
                out[start : start + step] = vectors[first : last + 1]
            elif out.dtype == vectors.dtype:
                # Without a conversion there is no need of a copy in between, and no row is out of range.
                np.take(vectors, piece, axis=0, out=out[start : start + step], mode="clip")
            else:
                out[start : start + step] = vectors[piece]

    def _gather_decoded(self, rows: NDArray[np.int64], out: NDArray[Any], view: int) -> None:
        order = np.argsort(rows, kind="stable")
        step = max(1, 8 * _PIECE_BYTES // (self.n_features * self.dtype.itemsize))
        with opened(self.path) as file:
            dataset = file[f"blocks/{self.name}/vectors"]
            for start in range(0, len(rows), step):
                piece = order[start : start + step]
                wanted, places = np.unique(rows[piece], return_inverse=True)
                out[piece] = chunks.read_rows(dataset, wanted, view=view)[places, 0]

    def _part(self, part: str) -> NDArray[Any]:
        if part not in self._maps:
            shape = {
                "vectors": self.shape,
                "status": self.shape[:2],
                "digests": (*self.shape[:2], seal.DIGEST_BYTES),
                "seal": (seal.SEAL_BYTES,),
            }[part]
            dtype = self.dtype if part == "vectors" else np.dtype(np.uint8)
            if self.offsets is None:
                with opened(self.path) as file:
                    return chunks.read(file[f"blocks/{self.name}/{part}"])
            with open_regular(self.path) as file:
                if os.fstat(file.fileno()).st_size < self.offsets[part] + dtype.itemsize * int(np.prod(shape)):
                    raise FormatError(f"{self.path} was cut short while it was open")
                # np.asarray: plain indexing, without the bookkeeping of the memmap subclass on every slice.
                self._maps[part] = np.asarray(np.memmap(file, dtype, "r", offset=self.offsets[part], shape=shape))
        return self._maps[part]
