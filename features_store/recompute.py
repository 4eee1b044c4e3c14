"""Extracting some rows again, to see how far they drift from what a store holds.

This package knows no network. A distribution that does registers one function under the entry point group
``affectory.recompute``, by any name::

    [project.entry-points."affectory.recompute"]
    extract = "extract.again:recompute"

    def recompute(
        passport: Mapping[str, Any],     # of one block, as stored
        ids: Sequence[str],              # n ids of the index
        corpus: Mapping[str, Any],       # of the store: name and options of the reader that made the index
        data: Path | Mapping[str, Path] | None,  # the images, or those of each member of a union; None = known
    ) -> Sequence[NDArray[np.floating] | str]

It returns n items in the order of `ids`: an array of shape ``(n_views, n_features)``, view 0 first, of any float type;
or, for an image that has no vector, one string that says why. It makes the vectors as the passport says, on any
device, and raises an `AffectoryError` if it cannot make that block at all (other weights, no images).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store.errors import MismatchError, StoreError
from features_store.schema import Status
from features_store.store import Store

GROUP = "affectory.recompute"
MIN_COSINE = 0.999
"""Below it, a vector is another one: decoders, devices and library versions stay above it."""

Place = Path | Mapping[str, Path]
Recompute = Callable[
    [Mapping[str, Any], Sequence[str], Mapping[str, Any], "Place | None"], Sequence["NDArray[np.floating] | str"]
]


@dataclass(frozen=True)
class Drift:
    """How far one row of a block is from its recomputation.

    Attributes
    ----------
    drift : float or None
        1 - cosine between stored and recomputed vector, the worst of the views; None if there is none.
    failure : str
        Why it could not be recomputed; empty if it could.
    """

    path: str
    block: str
    row: int
    image_id: str
    drift: float | None
    failure: str = ""

    @property
    def good(self) -> bool:
        """Whether the vectors are the same but for rounding."""
        return self.drift is not None and self.drift <= 1 - MIN_COSINE

    def __str__(self) -> str:
        word = self.failure if self.drift is None else f"cosine drift {self.drift:.2e}"
        return f"{self.block} row {self.row} ({self.image_id}): {word}"


def recompute(
    store: Store,
    n: int,
    *,
    data: Place | None = None,
    rng: np.random.Generator | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[Drift, ...]:
    """Extract random rows of each block again, and compare.

    Raises StoreError, MismatchError.
    """
    function = _registered()
    rng = rng or np.random.default_rng()
    found: list[Drift] = []
    for name, block in store.blocks.items():
        written = np.flatnonzero((block.status == Status.WRITTEN).all(axis=1))
        rows = np.sort(rng.choice(written, min(n, len(written)), replace=False))
        ids = [store.raw_ids[row].decode() for row in rows]
        again = function(block.passport, ids, store.corpus, data) if ids else []
        if len(again) != len(ids):
            raise MismatchError(f"{len(ids)} rows of block {name!r} were to be recomputed, and {len(again)} came back")
        stored = np.empty((len(rows), *block.shape[1:]))
        for view in range(block.shape[1]):
            block.gather(rows, stored[:, view], view=view)
        for row, image_id, old, new in zip(rows.tolist(), ids, stored, again, strict=True):
            drift = None if isinstance(new, str) else _drift(old, np.asarray(new, dtype=np.float64), name)
            failure = new if isinstance(new, str) else ""
            found.append(Drift(str(block.path), name, row, image_id, drift, failure))
        if progress is not None:
            progress(1)
    return tuple(found)


def _drift(old: NDArray[np.float64], new: NDArray[np.float64], name: str) -> float:
    if new.shape != old.shape or not np.isfinite(new).all():
        raise MismatchError(
            f"block {name!r} was recomputed as {new.shape}, or with values that are not finite; expected {old.shape}"
        )
    norms = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
    both_zero = ~old.any(axis=1) & ~new.any(axis=1)
    cosine = np.where(both_zero, 1.0, (old * new).sum(axis=1) / np.where(norms > 0, norms, 1.0))
    return float(np.clip(1 - cosine, 0, 2).max())


def _registered() -> Recompute:
    msg = "rows can only be recomputed with the networks that made them: pip install 'affectory[extract]'"
    for point in entry_points(group=GROUP):
        try:
            function: Recompute = point.load()
        except ImportError as error:
            raise StoreError(msg) from error
        return function
    raise StoreError(msg)
