"""Reading dumps, checked against FORMAT.md: one, a folder of them, or several, joined over one index."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from features_store import chunked
from features_store.atomic import typed_path
from features_store.disk import as_url
from features_store.errors import FormatError, MismatchError, UnsafeFileError
from features_store.hdf5 import check_file, opened, text_of
from features_store.label_kinds import LABEL_KINDS
from features_store.passport import json_object, json_range, json_strings
from features_store.schema import (
    FORMAT,
    FORMAT_VERSION,
    Labels,
    Split,
    Task,
    check_ids,
    check_name,
    checked_text,
)
from features_store.seal import DIGEST_BYTES, SEAL_BYTES
from features_store.store import Block, Store

# What may be read at opening, vectors apart. Data that are not compressed never come near it.
_FREE_BYTES = 16 * 2**20
_MAX_RATIO = 16  # bytes in memory over bytes of the file
_FREE_IMAGES = 100_000  # more than that, and each must take a byte of the file


def open_store(paths: str | Path | Sequence[str | Path]) -> Store:
    """Open a dump, a folder of dumps, or several of them, over one index.

    Everything but vectors and status is read and checked now; no file stays open.

    Parameters
    ----------
    paths : path-like, or sequence of path-like
        A path may be a link to a dump or a folder; dumps inside of a folder may not.

    Returns
    -------
    Store

    Raises
    ------
    FormatError
        If a file is no dump, or breaks FORMAT.md.
    UnsafeFileError
        If a file could make its reader do more than read it.
    MismatchError
        If the dumps have different indexes, or one block, task or split stands in two of them.
    """
    dumps: list[Store] = []
    for file in find_dumps(paths):
        dumps.append(read_dump(file, like=dumps[0] if dumps else None))
    first = dumps[0]
    if len(dumps) == 1:
        return first
    for other in dumps[1:]:
        if other.index_digest != first.index_digest:
            raise MismatchError(
                f"{first.paths[0]} has {first.n_images} images and {other.paths[0]} has {other.n_images}, of different "
                "indexes; `features-store merge --join` aligns them by id"
            )
    parent = next((dump for dump in dumps if dump.parent_rows is not None), first)
    return Store(
        paths=tuple(path for dump in dumps for path in dump.paths),
        raw_ids=first.raw_ids,
        index_digest=first.index_digest,
        corpus=next((dump.corpus for dump in dumps if dump.corpus), {}),
        groups=_common_groups(dumps),
        content=overlaid_content([(d.paths[0], d.content) for d in dumps if d.content is not None], first.raw_ids),
        labels=_join("task", [dump.labels for dump in dumps], dumps),
        splits=_join("split", [dump.splits for dump in dumps], dumps),
        blocks=_join("block", [dump.blocks for dump in dumps], dumps),
        parent_digest=parent.parent_digest,
        parent_rows=parent.parent_rows,
    )


def find_dumps(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the dump files that the user means by some paths; a folder stands for all in it."""
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    found: list[Path] = []
    for path in map(Path, given):
        if not os.path.exists(path):  # also of a name that is too long
            if url := as_url(path):
                raise FormatError(f"{url} is a URL, and only local paths are read; fetch it first")
            raise FormatError(f"{path} is not there; give the path of a dump, or of a folder of dumps")
        files = dumps_of(path) if path.is_dir() else [typed_path(path)]
        if not files:
            raise FormatError(
                f"{path} holds no dump (*.h5); make one with `extract run`, or give the path of another folder"
            )
        found += files
    return found


def dumps_of(folder: Path) -> list[Path]:
    """Return the dumps of a folder store; a name that begins with a dot is a temporary file or a lock."""
    names = os.listdir(folder)  # a folder that may not be read is an error, and not empty
    return sorted(folder / name for name in names if name.endswith(".h5") and not name.startswith("."))


# ---- several dumps --------------------------------------------------------------------------------------------------


def _common_groups(dumps: Sequence[Store]) -> NDArray[np.int64] | None:
    having = [dump for dump in dumps if dump.groups is not None]
    for other in having[1:]:
        differs = np.flatnonzero(np.asarray(having[0].groups != other.groups))
        if len(differs):
            _contradiction("the group", having[0].paths[0], other.paths[0], other.raw_ids[differs])
    return having[0].groups if having else None


def overlaid_content(
    columns: Sequence[tuple[Path, NDArray[np.uint8]]], raw_ids: NDArray[np.bytes_]
) -> NDArray[np.uint8] | None:
    """Lay the SHA-256 of image files, (n_images, 32), of several dumps over each other; a row of zeros is none."""
    if not columns:
        return None
    first, known = columns[0]
    for path, column in columns[1:]:
        both = known.any(axis=1) & column.any(axis=1)
        differs = np.flatnonzero(both & (known != column).any(axis=1))
        if len(differs):
            _contradiction("the bytes of the picture (SHA-256)", first, path, raw_ids[differs])
        known = np.where(known.any(axis=1, keepdims=True), known, column)
    return known


def _contradiction(what: str, one: Path, other: Path, raw_ids: NDArray[np.bytes_]) -> NoReturn:
    raise MismatchError(
        f"{one} and {other} contradict each other about {what} of {len(raw_ids)} images, the first is "
        f"{raw_ids[0].decode()!r}; keep one of them"
    )


def _join(kind: str, tables: Sequence[Mapping[str, Any]], dumps: Sequence[Store]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    origin: dict[str, Path] = {}
    for table, dump in zip(tables, dumps, strict=True):
        for name, item in table.items():
            there = joined.get(name)
            if there is not None and (isinstance(item, Block) or not _equal(there, item)):
                raise MismatchError(f"{kind} {name!r} is in {origin[name]} and in {dump.paths[0]}; keep one of them")
            if isinstance(there, Split) and there.source:
                continue  # of two equal splits, the one that names its source
            joined[name], origin[name] = item, dump.paths[0]
    return joined


def _equal(one: Labels | Split, other: Labels | Split) -> bool:
    if isinstance(one, Labels) and isinstance(other, Labels) and one.task != other.task:
        return False
    if isinstance(one, Split) and isinstance(other, Split):
        stated = {one.source, other.source} - {""}  # dumps of 1.0 do not record who made a split
        if one.kind != other.kind or len(stated) > 1:
            return False
    return np.array_equal(one.values, other.values, equal_nan=np.issubdtype(one.values.dtype, np.floating))


# ---- one dump -------------------------------------------------------------------------------------------------------


def read_dump(path: Path, *, like: Store | None = None) -> Store:
    """Read and check one dump; ids that equal those of `like`, which were checked, are not checked again."""
    with opened(path) as file:
        check_file(file, path)
        return _Reading(file, path).dump(like)


class _Reading:
    """The open file of one dump, and how many bytes may still be read of it."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.file = file
        self.path = path
        self.file_bytes = path.stat().st_size
        self.budget = _FREE_BYTES + _MAX_RATIO * self.file_bytes
        self.n_images = 0

    def dump(self, like: Store | None) -> Store:
        self.version()
        raw_ids, digest = self.ids(like)
        self.n_images = n = len(raw_ids)
        parent_digest, parent_rows = self.parent()
        return Store(
            paths=(self.path,),
            raw_ids=raw_ids,
            index_digest=digest,
            corpus=json_object(self.text(self.file, "corpus") or "{}", "corpus"),
            groups=self.column("images/group", "<i8", (n,)) if "images/group" in self.file else None,
            content=self.column("images/content", "|u1", (n, 32)) if "images/content" in self.file else None,
            labels={name: self.labels(name) for name in self.names("labels", h5py.Dataset)},
            splits={name: self.split(name) for name in self.names("splits", h5py.Dataset)},
            blocks={name: self.block(name) for name in self.names("blocks", h5py.Group)},
            parent_digest=parent_digest,
            parent_rows=parent_rows,
            meaning_digest=self.text(self.file, "meaning_digest"),
            images_digest=self.text(self.file, "images_digest"),
            format_version=text_of(self.file, "format_version"),
        )

    def version(self) -> None:
        if self.text(self.file, "format") != FORMAT:
            raise FormatError(
                f"{self.path} is an HDF5 file, but no feature dump: its attribute 'format' is not {FORMAT!r}"
            )
        version = text_of(self.file, "format_version")
        major, _, minor = version.partition(".")
        if not (major.isdecimal() and minor.isdecimal() and len(version) <= 20 and version.isascii()):
            raise FormatError(f"format_version is {version[:80]!r}; expected two numbers, such as {FORMAT_VERSION!r}")
        if major != FORMAT_VERSION.partition(".")[0]:
            raise FormatError(
                f"format_version is {version}, and this software reads 1.x; install a newer release of it"
            )

    def ids(self, like: Store | None) -> tuple[NDArray[np.bytes_], str]:
        dataset = self.dataset("images/id")
        if dataset.dtype.char != "S" or dataset.ndim != 1 or not dataset.shape[0]:
            raise FormatError(
                f"/images/id is {dataset.dtype} of shape {dataset.shape}; expected one row of fixed-length text"
            )
        if dataset.shape[0] > max(_FREE_IMAGES, self.file_bytes):
            raise UnsafeFileError(
                f"{self.path} was refused: /images/id claims {dataset.shape[0]} images in {self.file_bytes} bytes"
            )
        raw_ids = self.values(dataset)
        if like is not None and raw_ids.dtype == like.raw_ids.dtype and np.array_equal(raw_ids, like.raw_ids):
            raw_ids, digest = like.raw_ids, like.index_digest  # one copy of the ids for all dumps of a store
        else:
            digest = check_ids(raw_ids.tolist())
        claimed = text_of(self.file, "index_digest")
        if claimed != digest:
            raise FormatError(
                f"index_digest is {claimed[:80]!r}, but the ids have {digest!r}: the ids or the digest were changed"
            )
        return raw_ids, digest

    def parent(self) -> tuple[str, NDArray[np.int64] | None]:
        """Read the index that the dump was cut from, and the row of each image there (FORMAT.md section 8)."""
        where = "images/row"
        if where not in self.file:
            return "", None
        rows = self.column(where, "<i8", (self.n_images,))
        digest = text_of(self.file[where], "origin")
        if re.fullmatch(r"[0-9a-f]{64}", digest) is None:
            raise FormatError(f"/{where} has attribute origin {digest[:80]!r}; expected 64 hexadecimal digits")
        if rows.min() < 0 or len(np.unique(rows)) != self.n_images:
            raise FormatError(f"/{where} must name each row of the origin at most once, from 0")
        return digest, rows

    def labels(self, name: str) -> Labels:
        dataset = self.dataset(f"labels/{name}")
        kind: Any = text_of(dataset, "kind")
        form = LABEL_KINDS.get(kind)
        if form is None:
            raise FormatError(f"/labels/{name} has kind {kind!r}; valid: {', '.join(LABEL_KINDS)}")
        classes = json_strings(text_of(dataset, "classes"), f"/labels/{name} classes")
        scale = None if form.has_classes else json_range(text_of(dataset, "range"), f"/labels/{name} range")
        task = Task(name, kind, classes, scale, self.text(dataset, "source"))
        return Labels(task, self.column(f"labels/{name}", form.dtype, form.shape(self.n_images, len(classes))))

    def split(self, name: str) -> Split:
        dataset = self.dataset(f"splits/{name}")
        kind: Any = text_of(dataset, "kind")
        values = self.column(f"splits/{name}", "|i1", (self.n_images,))
        return Split(name, values, kind, self.text(dataset, "source"))

    def block(self, name: str) -> Block:
        where = f"blocks/{name}"
        vectors = self.dataset(f"{where}/vectors")
        if vectors.ndim != 3 or vectors.shape[0] != self.n_images or min(vectors.shape) < 1:
            raise FormatError(
                f"/{where}/vectors has shape {vectors.shape}; expected ({self.n_images}, n_views, n_features)"
            )
        shapes = {"status": vectors.shape[:2], "seal": (SEAL_BYTES,)}
        if f"{where}/digests" in self.file:
            shapes["digests"] = (*vectors.shape[:2], DIGEST_BYTES)
        parts = {"vectors": self.typed(f"{where}/vectors", ("<f2", "<f4"), vectors.shape)}
        parts |= {part: self.typed(f"{where}/{part}", ("|u1",), shape) for part, shape in shapes.items()}
        return Block(
            name=name,
            path=self.path,
            shape=vectors.shape,
            item_shape=self.item_shape(vectors),
            dtype=np.dtype(vectors.dtype.str),
            passport=json_object(text_of(self.file[where], "passport"), f"/{where} passport"),
            names=self.feature_names(where, vectors.shape[2]),
            offsets=self.offsets(parts),
        )

    def offsets(self, parts: Mapping[str, h5py.Dataset]) -> dict[str, int]:
        """Return where the parts lie in the file, each as one piece."""
        found: dict[str, int] = {}
        for part, dataset in parts.items():
            offset = dataset.id.get_offset()
            if offset is None:
                raise FormatError(
                    f"{dataset.name} is not stored as one piece (another program chunked or compressed it); rewrite "
                    f"the dump with `features-store import {self.path} -o NEW.h5`"
                )
            if offset + dataset.nbytes > self.file_bytes:
                raise FormatError(f"{dataset.name} ends behind the end of the file, which was cut short")
            found[part] = offset
        ranges = sorted((offset, offset + parts[part].nbytes) for part, offset in found.items())
        if any(end > start for (_, end), (start, _) in itertools.pairwise(ranges)):
            raise FormatError(f"{parts['vectors'].parent.name} has parts that overlap in the file")
        return found

    def item_shape(self, vectors: h5py.Dataset) -> tuple[int, ...]:
        stored = np.atleast_1d(np.asarray(vectors.attrs.get("shape", [])))
        good = np.issubdtype(stored.dtype, np.integer) and stored.ndim == 1 and 1 <= stored.size <= 4
        shape = tuple(int(n) for n in stored) if good else ()
        if not shape or min(shape) < 1 or math.prod(shape) != vectors.shape[2]:
            raise FormatError(
                f"{vectors.name} has attribute shape {stored.tolist()!r}; its product must be {vectors.shape[2]}"
            )
        return shape

    def feature_names(self, where: str, n_features: int) -> tuple[str, ...] | None:
        if f"{where}/names" not in self.file:
            return None
        dataset = self.dataset(f"{where}/names")
        if dataset.dtype.char != "S" or dataset.shape != (n_features,):
            raise FormatError(
                f"/{where}/names is {dataset.dtype} of shape {dataset.shape}; expected text of shape ({n_features},)"
            )
        return tuple(checked_text(raw, f"/{where}/names") for raw in self.values(dataset).tolist())

    def names(self, group: str, kind: type) -> list[str]:
        """Name the members of a top-level group; a member of another kind is unknown, and ignored."""
        if group not in self.file:
            return []
        found = self.file[group]
        if not isinstance(found, h5py.Group):
            raise FormatError(f"/{group} is not a group")
        return [check_name(group, name) for name, item in found.items() if isinstance(item, kind)]

    def text(self, item: h5py.HLObject, name: str) -> str:
        """Return a text attribute, "" where there is none."""
        return text_of(item, name) if name in item.attrs else ""

    def dataset(self, path: str) -> h5py.Dataset:
        item = self.file.get(path)
        if not isinstance(item, h5py.Dataset):
            raise FormatError(f"there is no dataset /{path}")
        return item

    def typed(self, path: str, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> h5py.Dataset:
        """Return a dataset if its bytes are just what numpy means by one of the types."""
        dataset = self.dataset(path)
        # Not h5py's dtype: that is only the nearest one, and the bytes are read without a conversion.
        exact = any(dataset.id.get_type().equal(h5py.h5t.py_create(np.dtype(dtype))) for dtype in dtypes)
        if not exact or dataset.shape != shape:
            words = f"{dataset.dtype.str} of shape {dataset.shape}"
            if dataset.shape == shape and dataset.dtype.str in dtypes:
                words = f"an unusual {words}"
            raise FormatError(f"/{path} is {words}; expected {' or '.join(dtypes)} of shape {shape}")
        return dataset

    def column(self, path: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        return self.values(self.typed(path, (dtype,), shape))

    def values(self, dataset: h5py.Dataset) -> NDArray[Any]:
        """Read a dataset, and take its size off what may still be read: compressed data can claim any size."""
        self.budget -= dataset.nbytes
        if self.budget < 0:
            raise UnsafeFileError(
                f"{self.path} was refused: {dataset.name} would fill {dataset.nbytes} bytes of memory from a small file"
            )
        return chunked.read(dataset)
