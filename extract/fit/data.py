"""Decoded images with their targets, for a network that is trained here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from extract.corpora import Dataset
from extract.engines.local import ordered
from extract.errors import CorpusError, RefusedImageError
from extract.inputs.images import make_decoder
from extract.inputs.transforms import Transform
from features_store import Split, Task
from features_store.errors import unknown_name

__all__ = ["Examples", "labels_and_parts", "read_examples"]


class Pixels(Protocol):
    """The images of one part: an array, or what decodes them whenever they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: NDArray[Any], /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Examples:
    """Decoded images of the training and validation parts with their targets, by part.

    Parameters
    ----------
    pixels : mapping of str to array-like
        (n, 3, edge, edge) uint8.
    targets : mapping of str to ndarray
        single: (n,) int64; multi and regression: (n, K) float32.
    n_refused : int
        Images that could not be decoded.
    """

    task: Task
    pixels: Mapping[str, Pixels]
    targets: Mapping[str, NDArray[Any]]
    n_refused: int = 0


def labels_and_parts(dataset: Dataset, *, task: str, split: str) -> tuple[Any, Split]:
    """Look up what is learned, and on which parts.

    Raises CorpusError.
    """
    index = dataset.index
    for kind, name, table in (("task", task, index.labels), ("split", split, index.splits)):
        if name not in table:
            raise CorpusError(unknown_name(f"{kind} of the corpus", name, table))
    if index.splits[split].kind != "parts":
        raise CorpusError(
            f"split {split!r} holds folds; a network is trained on a split with train and validation parts"
        )
    return index.labels[task], index.splits[split]


def read_examples(
    dataset: Dataset,
    transform: Transform,
    *,
    task: str,
    split: str,
    limit: int | None = None,
    memory: int | None = None,
) -> Examples:
    """Decode the labelled images of the training and validation parts; the test part is never read.

    With a *limit* at most so many images of each part are taken, from all over it.

    Where the transform crops, the images are kept as they are before. More bytes of pixels than *memory* (None = half
    of this machine's) are not kept: then images are decoded once here, to see which can be, and again in each epoch.

    Raises CorpusError.
    """
    labels, parts = labels_and_parts(dataset, task=task, split=split)
    if isinstance(transform.resize, int):
        transform = replace(transform, crop=(transform.resize, transform.resize))
    decode = make_decoder()

    def one(row: int) -> NDArray[np.uint8] | None:
        try:
            return transform.apply(decode(dataset.files.read(row)))
        except RefusedImageError:
            return None

    rows_of = {
        part: np.flatnonzero((parts.values == code) & labels.known) for code, part in enumerate(("train", "validation"))
    }
    if limit is not None:
        rows_of = {
            part: rows[np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)]
            for part, rows in rows_of.items()
        }
    n_bytes = sum(map(len, rows_of.values())) * int(np.prod(transform.input_shape))
    kept = n_bytes <= (_half_of_memory() if memory is None else memory)
    pixels: dict[str, Pixels] = {}
    targets: dict[str, NDArray[Any]] = {}
    n_refused = 0
    for part, rows in rows_of.items():
        found = np.zeros((len(rows) if kept else 0, *transform.input_shape), dtype=np.uint8)
        good = np.zeros(len(rows), dtype=bool)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for at, image in enumerate(ordered(pool, one, rows.tolist(), ahead=256)):
                good[at] = image is not None
                if kept and image is not None:
                    found[at] = image
        n_refused += int((~good).sum())
        if good.any():
            dtype = np.int64 if labels.task.kind == "single" else np.float32
            targets[part] = labels.values[rows[good]].astype(dtype)
            pixels[part] = (found if good.all() else found[good]) if kept else _Decoded(rows[good], one)
    if "train" not in pixels:
        raise CorpusError(f"split {split!r} has no training image with a label of task {task!r} that could be decoded")
    return Examples(labels.task, pixels, targets, n_refused)


class _Decoded:
    """Images that are decoded when they are asked for."""

    def __init__(self, rows: NDArray[np.int64], one: Callable[[int], NDArray[np.uint8] | None]) -> None:
        self._rows, self._one = rows, one
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: NDArray[Any], /) -> NDArray[np.uint8]:
        images = [image for image in self._pool.map(self._one, self._rows[rows].tolist()) if image is not None]
        if len(images) < len(rows):
            raise CorpusError(
                f"{len(rows) - len(images)} images that could be decoded at the start cannot be any more; bring them "
                "back, and go on with --resume"
            )
        return np.stack(images)


def _half_of_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 4 << 30
