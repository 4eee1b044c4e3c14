"""Names, types and shapes of the dump format (FORMAT.md), and the records that fill it: the one place for both."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from features_store.errors import FormatError
from features_store.hdf5 import checked_text
from features_store.ids import digest_of_ids, encode_ids

FORMAT = "affectory-features"
FORMAT_VERSION = "1.1"  # of dumps that hold something that 1.0 does not know
INDEX_FILE = "index.h5"
ALIGNMENT = 4096  # bytes; one memory page, so that a memmap of the vectors starts on one
MAX_PASSPORT_BYTES = 64 * 1024 - 512  # HDF5 keeps a compact attribute, header included, under 64 KiB
VECTOR_DTYPES = ("float16", "float32")
MAX_CLASSES = 32_767  # codes are int16
SPLIT_SOURCES = ("", "published", "made")
PART_NAMES = ("train", "validation", "test")

Kind = Literal["single", "multi", "regression"]
KINDS: tuple[Kind, ...] = ("single", "multi", "regression")
LABEL_DTYPES: dict[str, str] = {"single": "<i2", "multi": "|u1", "regression": "<f4"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,119}")


class Status(IntEnum):
    """State of one vector, as stored in ``/blocks/BLOCK/status``."""

    PENDING = 0
    WRITTEN = 1
    MISSING = 2
    UNDECODABLE = 3
    TRUNCATED = 4
    TOO_LARGE = 5
    NON_FINITE = 6

    @property
    def reason(self) -> str:
        """The state in words, as summaries print it."""
        return self.name.lower().replace("_", " ")


FAILURES = tuple(s for s in Status if s not in (Status.PENDING, Status.WRITTEN))


def check_name(kind: str, name: str) -> str:
    """Return `name` if it may name a task, a split or a block.

    Raises FormatError.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise FormatError(
            f"{kind} name {name!r} is not allowed: use ASCII letters, digits and _ - . : "
            "(at most 120, a letter or digit first)"
        )
    return name


@dataclass(frozen=True)
class Task:
    """What is predicted for an image.

    Parameters
    ----------
    name : str
        For example ``"polarity"``.
    kind : {"single", "multi", "regression"}
        One class per image, any number of classes, or real values.
    classes : tuple of str
        Class names, or for a regression the names of the K outputs (``("valence", "arousal")``).
    range : (float, float), optional
        Regression only: the ends of the scale. None for the other kinds.
    source : str
        One line: who labelled, and how.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    range: tuple[float, float] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        check_name("task", self.name)
        if self.kind not in KINDS:
            raise FormatError(f"task {self.name!r} has kind {self.kind!r}; valid: {', '.join(KINDS)}")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise FormatError(f"task {self.name!r} needs at least one class name, each once; got {self.classes!r}")
        for text in (*self.classes, self.source):
            checked_text(text, f"task {self.name!r}")
        self._check_classes()
        if (self.kind == "regression") != (self.range is not None):
            raise FormatError(
                f"task {self.name!r} is {self.kind}, with range {self.range}: a regression has one, others have none"
            )
        if self.range is not None and not (
            all(math.isfinite(end) for end in self.range) and self.range[0] < self.range[1]
        ):
            raise FormatError(
                f"task {self.name!r} has range {self.range}; the low end must be finite and below the high end"
            )

    def _check_classes(self) -> None:
        """Bring the class names into one Unicode form, and refuse more of them than a dump can hold."""
        if len(self.classes) > MAX_CLASSES:
            raise FormatError(
                f"task {self.name!r} has {len(self.classes):,} classes; at most {MAX_CLASSES:,} are possible: join "
                "rare ones, or leave the task out"
            )
        names = tuple(unicodedata.normalize("NFC", name) for name in self.classes)
        if len(set(names)) != len(names):
            twin = next(name for name in names if names.count(name) > 1)
            raise FormatError(
                f"task {self.name!r} has the class {twin!r} twice, in two Unicode forms; give it one spelling"
            )
        n_bytes = len(json.dumps(names, ensure_ascii=False).encode())
        if n_bytes > MAX_PASSPORT_BYTES:
            raise FormatError(
                f"the {len(names):,} class names of task {self.name!r} have {n_bytes:,} bytes; at most "
                f"{MAX_PASSPORT_BYTES:,} fit into a dump: shorten them"
            )
        object.__setattr__(self, "classes", names)


@dataclass(frozen=True)
class Labels:
    """Labels of one task for every image of an index.

    Parameters
    ----------
    task : Task
        What the values mean.
    values : ndarray
        single: (n_images,) int16, -1 = none; multi: (n_images, n_classes) uint8, 255 = none;
        regression: (n_images, n_outputs) float32, NaN = none.
    """

    task: Task
    values: NDArray[Any]

    def __post_init__(self) -> None:
        raw = np.asarray(self.values)
        with np.errstate(invalid="ignore", over="ignore"):
            values = np.ascontiguousarray(raw).astype(LABEL_DTYPES[self.task.kind], copy=False)
        if self.task.kind != "regression" and raw.dtype != values.dtype and not np.array_equal(values, raw):
            raise FormatError(
                f"labels of task {self.task.name!r} must be whole numbers, the positions of their classes or 0 and 1"
            )
        object.__setattr__(self, "values", values)
        n_classes, name = len(self.task.classes), self.task.name
        columns = () if self.task.kind == "single" else (n_classes,)
        if values.ndim == 0 or values.shape[1:] != columns:
            raise FormatError(f"labels of task {name!r} have shape {values.shape}; expected (n_images, *{columns})")
        if self.task.kind == "single" and values.size and not (values.min() >= -1 and values.max() < n_classes):
            raise FormatError(
                f"labels of task {name!r} run from {values.min()} to {values.max()}; valid: -1 to {n_classes - 1}"
            )
        if self.task.kind == "multi":
            none = values == 255
            if np.any(values[~none] > 1) or np.any(none.any(axis=1) != none.all(axis=1)):
                raise FormatError(f"labels of task {name!r} must be 0 or 1, or 255 in the whole row")
        if self.task.kind == "regression" and np.isinf(values).any():
            raise FormatError(f"labels of task {name!r} hold infinite values; use NaN where there is no label")

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which images carry a label: (n_images,) bool."""
        if self.task.kind == "single":
            known = self.values >= 0
        elif self.task.kind == "multi":
            known = self.values[:, 0] != 255
        else:
            known = ~np.isnan(self.values).any(axis=1)
        return np.asarray(known, dtype=np.bool_)


@dataclass(frozen=True)
class Split:
    """Which part, or which fold, each image belongs to.

    Parameters
    ----------
    name : str
        For example ``"default"``.
    values : ndarray of shape (n_images,), int8
        parts: 0 train, 1 validation, 2 test; folds: 0 ... k-1; -1 unused.
    kind : {"parts", "folds"}
        What the values mean.
    source : {"", "published", "made"}
        Whether others published it with the corpus, or it was made here, which keeps groups whole; "" = unknown.
    """

    name: str
    values: NDArray[np.int8]
    kind: Literal["parts", "folds"] = "parts"
    source: str = ""

    def __post_init__(self) -> None:
        check_name("split", self.name)
        raw = np.asarray(self.values)
        values = np.ascontiguousarray(raw, dtype=np.int8)
        object.__setattr__(self, "values", values)
        top = 2 if self.kind == "parts" else 126
        if self.kind not in ("parts", "folds"):
            raise FormatError(f"split {self.name!r} has kind {self.kind!r}; valid: parts, folds")
        if self.source not in SPLIT_SOURCES:
            raise FormatError(f"split {self.name!r} has source {self.source[:80]!r}; valid: published, made, or none")
        if (
            values.ndim != 1
            or np.any(raw != values)
            or (values.size and not (-1 <= values.min() <= values.max() <= top))
        ):
            raise FormatError(f"split {self.name!r} must be one row of whole numbers from -1 to {top} ({self.kind})")


@dataclass(frozen=True)
class Index:
    """The ordered list of images, with everything known about them before extraction.

    Parameters
    ----------
    ids : ndarray of shape (n_images,), str
        Unique relative names with POSIX separators, in normalisation form NFC.
    labels, splits : mapping of str
        By task and by split name; each covers all images.
    groups : ndarray of shape (n_images,), int64, optional
        Images of one group stay in one part of a split; -1 = alone. None = all alone.
    content : ndarray of shape (n_images, 32), uint8, optional
        SHA-256 of each file's bytes; zeros = not computed. None = not computed.
    corpus : mapping
        Name and options of the reader that made the index; no local paths.
    """

    ids: NDArray[np.str_]
    labels: Mapping[str, Labels] = field(default_factory=dict)
    splits: Mapping[str, Split] = field(default_factory=dict)
    groups: NDArray[np.int64] | None = None
    content: NDArray[np.uint8] | None = None
    corpus: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        raw = encode_ids(self.ids)
        object.__setattr__(self, "ids", np.asarray(self.ids, dtype=np.str_))
        object.__setattr__(self, "_digest", digest_of_ids(raw))
        n_images = len(raw)
        columns: list[tuple[str, NDArray[Any], tuple[int, ...]]] = [
            *((f"labels {name!r}", labels.values, labels.values.shape[1:]) for name, labels in self.labels.items()),
            *((f"split {name!r}", split.values, ()) for name, split in self.splits.items()),
        ]
        if self.groups is not None:
            columns.append(("groups", self.groups, ()))
        if self.content is not None:
            columns.append(("content", self.content, (32,)))
        for what, values, tail in columns:
            if values.shape != (n_images, *tail):
                raise FormatError(f"{what} have shape {values.shape}; the index has {n_images} images")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """SHA-256 over the ids, in hexadecimal: the identity of the index."""
        return cast("str", self._digest)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class BlockSpec:
    """What a block is, before any vector exists.

    Parameters
    ----------
    name : str
        Encoder and tap: ``"inception_v3.pool"``.
    shape : tuple of int
        Shape of one vector: ``(2048,)`` or ``(2048, 8, 8)``.
    passport : mapping
        Everything that makes the vectors (see FORMAT.md section 7).
    dtype : {"float16", "float32"}
        Type in which the vectors are stored.
    n_views : int
        Vectors per image; view 0 is the canonical one.
    names : tuple of str, optional
        What each of the values of a vector means. None = nothing in words.
    """

    name: str
    shape: tuple[int, ...]
    passport: Mapping[str, Any]
    dtype: str = "float16"
    n_views: int = 1
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_name("block", self.name)
        if not 1 <= len(self.shape) <= 4 or min(self.shape) < 1 or self.n_views < 1:
            raise FormatError(
                f"block {self.name!r} has shape {self.shape} and {self.n_views} views; all must be 1 or more"
            )
        if self.dtype not in VECTOR_DTYPES:
            raise FormatError(f"block {self.name!r} has dtype {self.dtype!r}; valid: {', '.join(VECTOR_DTYPES)}")
        if self.names is not None and len(self.names) != self.n_features:
            raise FormatError(f"block {self.name!r} has {self.n_features} values and {len(self.names)} names")
        for text in self.names or ():
            checked_text(text, f"a name of block {self.name!r}")

    @property
    def n_features(self) -> int:
        """Number of values in one vector."""
        return math.prod(self.shape)
