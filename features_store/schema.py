"""The dump format in Python: names, types and limits (FORMAT.md), image ids, and the records that fill a dump."""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features_store.errors import FormatError
from features_store.label_kinds import LABEL_KINDS, LabelKind

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
MAX_ID_BYTES = 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,119}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and new line


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
    """Return `name` if it may name a task, a split or a block."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise FormatError(
            f"{kind} name {str(name)!r} is not allowed: use ASCII letters, digits and _ - . : "
            "(at most 120, a letter or digit first)"
        )
    return name


def checked_text(raw: str | bytes, what: str) -> str:
    """Decode text, and refuse what is not UTF-8 or would steer the terminal on which it is printed."""
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        text.encode()
    except UnicodeError as error:
        raise FormatError(f"{what} is not UTF-8") from error
    if _CONTROL.search(text):
        raise FormatError(f"{what} holds control characters")
    return text


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
        if self.kind not in LABEL_KINDS:
            raise FormatError(f"task {self.name!r} has kind {self.kind!r}; valid: {', '.join(KINDS)}")
        # Plain text, in one Unicode form: numpy's own strings look odd in messages.
        names = tuple(unicodedata.normalize("NFC", str(name)) for name in self.classes)
        twice = [name for name, count in Counter(names).items() if count > 1]
        if not names or twice:
            found = f"{twice[0]!r} twice (in Unicode form NFC)" if twice else "none"
            raise FormatError(f"task {self.name!r} needs at least one class name, each once; got {found}")
        if not all(name.strip() for name in names):
            raise FormatError(
                f"task {self.name!r} has an empty class name; an empty cell means no label: give it a name"
            )
        for text in (*names, self.source):
            checked_text(text, f"task {self.name!r}")
        if len(names) > MAX_CLASSES:
            raise FormatError(
                f"task {self.name!r} has {len(names):,} classes; at most {MAX_CLASSES:,} are possible: join rare ones, "
                "or leave the task out"
            )
        n_bytes = len(json.dumps(names, ensure_ascii=False).encode())
        if n_bytes > MAX_PASSPORT_BYTES:
            raise FormatError(
                f"the {len(names):,} class names of task {self.name!r} have {n_bytes:,} bytes; at most "
                f"{MAX_PASSPORT_BYTES:,} fit into a dump: shorten them"
            )
        object.__setattr__(self, "classes", names)
        if self.form.has_classes != (self.range is None):
            raise FormatError(f"task {self.name!r} is {self.kind}; a regression has a scale, the other kinds have none")
        if self.range is not None:
            low, high = map(float, self.range)
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise FormatError(
                    f"task {self.name!r} has the scale {low:g} to {high:g}; give its low end first, then its high end, "
                    "both finite, such as 1 to 9"
                )
            object.__setattr__(self, "range", (low, high))

    @property
    def form(self) -> LabelKind:
        """What depends on the kind."""
        return LABEL_KINDS[self.kind]


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
        raw, name, n_classes, form = np.asarray(self.values), self.task.name, len(self.task.classes), self.task.form
        with np.errstate(invalid="ignore", over="ignore"):
            values = np.ascontiguousarray(raw).astype(form.dtype, copy=False)
        if form.has_classes and raw.dtype != values.dtype and not np.array_equal(values, raw):
            raise FormatError(
                f"labels of task {name!r} must be whole numbers, the positions of their classes or 0 and 1"
            )
        object.__setattr__(self, "values", values)
        columns = form.shape(0, n_classes)[1:]
        if values.ndim == 0 or values.shape[1:] != columns:
            raise FormatError(f"labels of task {name!r} have shape {values.shape}; expected (n_images, *{columns})")
        problem = form.problem(values, n_classes)
        if problem:
            raise FormatError(f"labels of task {name!r} {problem}")

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which images carry a label: (n_images,) bool."""
        return np.asarray(self.task.form.known(self.values), dtype=np.bool_)


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
        top = {"parts": 2, "folds": 126}.get(self.kind)
        if top is None:
            raise FormatError(f"split {self.name!r} has kind {self.kind!r}; valid: parts, folds")
        if self.source not in SPLIT_SOURCES:
            raise FormatError(f"split {self.name!r} has source {self.source[:80]!r}; valid: published, made, or none")
        inside = values.ndim == 1 and bool(((raw == values) & (values >= -1) & (values <= top)).all())
        if not inside:
            raise FormatError(f"split {self.name!r} must be one row of whole numbers from -1 to {top} ({self.kind})")

    @property
    def has_parts(self) -> bool:
        """Whether the values are parts, and not folds."""
        return self.kind == "parts"

    def name_of(self, value: int) -> str:
        """Name a value: a part, a fold, or "unused"."""
        return "unused" if value < 0 else PART_NAMES[value] if self.has_parts else f"fold {value}"

    def counts(self) -> dict[str, int]:
        """Count the images of each part or fold by its name, empty ones left out."""
        values, counts = np.unique(self.values, return_counts=True)
        return dict(zip(map(self.name_of, values.tolist()), counts.tolist(), strict=True))

    def crossed(self, groups: NDArray[np.int64] | None) -> NDArray[np.bool_]:
        """Tell which images are in a group that lies in several parts: (n_images,) bool; unused images do not count."""
        found = np.zeros(len(self.values), dtype=np.bool_)
        if groups is None:
            return found
        rows = np.flatnonzero((np.asarray(groups) >= 0) & (self.values >= 0))
        names, numbers = np.unique(groups[rows], return_inverse=True)
        low, high = np.full(len(names), 127, dtype=np.int8), np.full(len(names), -1, dtype=np.int8)
        np.minimum.at(low, numbers, self.values[rows])
        np.maximum.at(high, numbers, self.values[rows])
        found[rows] = (low != high)[numbers]
        return found


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
    parent_digest : str
        Digest of the index that this one was cut from; "" = it is no cut.
    parent_rows : ndarray of shape (n_images,), int64, optional
        The row of each image in that index.

    Attributes
    ----------
    raw_ids : ndarray of shape (n_images,), fixed-length UTF-8
    digest : str
        SHA-256 over the ids, in hexadecimal: the identity of the index.
    """

    ids: NDArray[np.str_]
    labels: Mapping[str, Labels] = field(default_factory=dict)
    splits: Mapping[str, Split] = field(default_factory=dict)
    groups: NDArray[np.int64] | None = None
    content: NDArray[np.uint8] | None = None
    corpus: Mapping[str, Any] = field(default_factory=dict)
    parent_digest: str = ""
    parent_rows: NDArray[np.int64] | None = None
    raw_ids: NDArray[np.bytes_] = field(init=False, repr=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        raw, digest = encode_ids(self.ids)
        object.__setattr__(self, "ids", np.asarray(self.ids, dtype=np.str_))
        object.__setattr__(self, "raw_ids", raw)
        object.__setattr__(self, "digest", digest)
        columns: list[tuple[str, NDArray[Any] | None, tuple[int, ...]]] = [
            *((f"labels {name!r}", labels.values, labels.values.shape[1:]) for name, labels in self.labels.items()),
            *((f"split {name!r}", split.values, ()) for name, split in self.splits.items()),
            ("groups", self.groups, ()),
            ("content", self.content, (32,)),
            ("parent rows", self.parent_rows, ()),
        ]
        for what, values, tail in columns:
            if values is not None and values.shape != (len(raw), *tail):
                raise FormatError(f"{what} have shape {values.shape}; the index has {len(raw)} images")
        if self.groups is not None and self.groups.dtype.kind not in "iu":
            raise FormatError(
                f"groups have type {self.groups.dtype}; number them: whole numbers, -1 for an image alone"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> Index:
        """Return the index of some of its rows; it remembers the index of which this one is a cut, or this one."""
        return Index(
            self.ids[rows],
            {name: replace(labels, values=labels.values[rows]) for name, labels in self.labels.items()},
            {name: replace(split, values=split.values[rows]) for name, split in self.splits.items()},
            None if self.groups is None else self.groups[rows],
            None if self.content is None else self.content[rows],
            self.corpus,
            self.parent_digest or self.digest,
            rows if self.parent_rows is None else self.parent_rows[rows],
        )


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


# ---- ids, section 2 -------------------------------------------------------------------------------------------------


def encode_ids(ids: Sequence[str] | NDArray[np.str_]) -> tuple[NDArray[np.bytes_], str]:
    """Check ids; return them as fixed-length UTF-8, (n_images,), and their digest."""
    listed = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if not listed:
        raise FormatError("an index needs at least one image")
    try:
        encoded = [name.encode() for name in listed]
    except (UnicodeEncodeError, AttributeError) as error:
        raise FormatError(f"image ids must be text that UTF-8 can hold: {error}") from error
    digest = check_ids(encoded)
    return np.array(encoded, dtype=f"S{max(map(len, encoded))}"), digest


# What an id may hold without a closer look, and what in the text of all ids (one NUL before, between and after them)
# asks for one. An index may have half a million ids, so the common case is decided for all at once.
_PLAIN = bytes(c for c in range(0x20, 0x7F) if c not in b"\\:") + b"\0"
_SUSPECT = (b"\0\0", b"\0/", b"//", b"/\0", b"\0./", b"/./", b"/.\0", b"\0.\0", b"\0../", b"/../", b"/..\0", b"\0..\0")


def repeated_name(names: Iterable[str]) -> str | None:
    """Return the first name that stands among others for the second time; of a million in one pass."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def check_ids(ids: Sequence[bytes]) -> str:
    """Refuse ids that FORMAT.md section 2 does not allow; return their digest."""
    joined = b"\0".join([b"", *ids, b""])
    plain = joined.count(b"\0") == len(ids) + 1 and not joined.translate(None, _PLAIN)
    if not plain or any(text in joined for text in _SUSPECT):
        for row, raw in enumerate(ids):
            _check_id(row, raw)
    longest = max(ids, key=len)
    if len(longest) > MAX_ID_BYTES:
        raise FormatError(f"image id {longest[:60]!r}... has {len(longest)} bytes; at most {MAX_ID_BYTES} are allowed")
    if len(set(ids)) != len(ids):
        first: dict[bytes, int] = {}
        row, raw = next((row, raw) for row, raw in enumerate(ids) if first.setdefault(raw, row) != row)
        raise FormatError(
            f"image id {raw.decode()!r} stands in row {first[raw]} and again in row {row}; ids must be unique"
        )
    return hashlib.sha256(memoryview(joined)[1:]).hexdigest()


def _check_id(row: int, raw: bytes) -> None:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"image id in row {row} is not UTF-8: {raw[:60]!r}") from error
    rule = ""
    if not text:
        rule = "is empty"
    elif unicodedata.normalize("NFC", text) != text:
        rule = "is not in Unicode normalisation form NFC"
    elif any(unicodedata.category(c) in ("Cc", "Cs") for c in text) or "\\" in text:
        rule = "holds a control character or a backslash"
    elif text.startswith("/") or re.match(r"[A-Za-z]:", text):
        rule = "is not relative"
    elif any(part in ("", ".", "..") for part in text.split("/")):
        rule = "has an empty, '.' or '..' component"
    if rule:
        raise FormatError(f"image id {text[:60]!r} in row {row} {rule}")
