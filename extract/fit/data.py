"""Decoded images with their targets, for a network that is trained here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora import Dataset
from extract.encoders.fitted import Architecture
from extract.engines.local import ordered
from extract.errors import CorpusError, RefusedImageError
from extract.inputs.images import make_decoder
from features_store import Task
from features_store.errors import unknown_name

__all__ = ["Examples", "read_examples"]


@dataclass(frozen=True)
class Examples:
    """Decoded images of the training and validation parts with their targets, by part.

    Parameters
    ----------
    pixels : mapping of str to ndarray
        (n, 3, size, size) uint8: all in memory.
    targets : mapping of str to ndarray
        single: (n,) int64; multi and regression: (n, K) float32.
    n_refused : int
        Images that could not be decoded.
    """

    task: Task
    pixels: Mapping[str, NDArray[np.uint8]]
    targets: Mapping[str, NDArray[Any]]
    n_refused: int = 0


def read_examples(dataset: Dataset, architecture: Architecture, *, task: str, split: str) -> Examples:
    """Decode the labelled images of the training and validation parts; the test part is never read.

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
    labels, parts = index.labels[task], index.splits[split].values
    decode, transform = make_decoder(), architecture.transform()
    pixels: dict[str, NDArray[np.uint8]] = {}
    targets: dict[str, NDArray[Any]] = {}
    n_refused = 0
    for code, part in enumerate(("train", "validation")):
        rows = np.flatnonzero((parts == code) & labels.known)
        found = np.zeros((len(rows), *transform.input_shape), dtype=np.uint8)

        def decode_one(at: int, rows: Any = rows, found: Any = found) -> bool:
            try:
                found[at] = transform.apply(decode(dataset.files.read(int(rows[at]))))
            except RefusedImageError:
                return False
            return True

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            good = np.array(list(ordered(pool, decode_one, range(len(rows)), ahead=256)), dtype=bool)
        n_refused += int((~good).sum())
        if good.any():
            dtype = np.int64 if labels.task.kind == "single" else np.float32
            pixels[part], targets[part] = found[good], labels.values[rows[good]].astype(dtype)
    if "train" not in pixels:
        raise CorpusError(f"split {split!r} has no training image with a label of task {task!r} that could be decoded")
    return Examples(labels.task, pixels, targets, n_refused)
