"""HDF5 files: refusing those that could harm their reader, before any dataset is read, and creating dumps.

A shared HDF5 file can make its reader open other files (external and soft links, external storage, virtual datasets),
load foreign code (filter plug-ins) or fill the memory (shapes far larger than the file). None of this occurs in an
honest dump.
Every link is looked at before it is followed, so each component of every path is covered, not only the leaf.

What these checks stand on is libhdf5's own reading of the metadata. `make fuzz` damages it in child processes, and has
found no crash of libhdf5 2.0; if it ever does, the remedy is to open a stranger's file in a process of its own first,
which costs a quarter of a second and is therefore not done for every file.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features_store import passport, seal
from features_store.atomic import atomic_write, open_regular
from features_store.errors import FULL_DISK, MACHINE_FAULTS, FormatError, StoreError, UnsafeFileError, first_line
from features_store.schema import ALIGNMENT, FORMAT, FORMAT_VERSION, BlockSpec, Index, checked_text

_MAX_OBJECTS = 10_000
_MAX_ATTRIBUTES = 10_000
_MAX_DEPTH = 16
_MAX_RATIO = 1000  # logical bytes over bytes of the file; honest deflate stays far below
_MAX_ATTRIBUTE_BYTES = 64 * 1024
_MAX_MESSAGE = 600  # characters; a file can quote itself at any length
_MAX_CHUNK_BYTES = 32 * 2**20
_FREE_CHUNKS = 10_000  # more than that in a file, and each must take some bytes of it
_BYTES_OF_A_CHUNK = 16
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_PLAIN = {h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING}
_DAMAGE = (OSError, RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, MemoryError, SystemError)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a regular file for reading; whatever h5py raises at damage becomes a `FormatError` that names the file."""
    try:
        with open_regular(path) as checked, h5py.File(path, "r", locking=False) as file:
            # HDF5 opens by name, so what it opened must be what was checked.
            if not os.path.samestat(os.fstat(checked.fileno()), os.fstat(file.id.get_vfd_handle())):
                raise UnsafeFileError(f"{path} was replaced while it was opened; try again when nothing writes it")
            yield file
    except StoreError as error:
        text = str(error)
        if str(path) in text and len(text) <= _MAX_MESSAGE:
            raise
        msg = text if str(path) in text else f"{path}: {text}"
        raise type(error)(msg if len(msg) <= _MAX_MESSAGE else f"{msg[:_MAX_MESSAGE]} …") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FormatError(f"{path} is not there; give the path of a dump, or of a folder of dumps") from error
    except PermissionError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror or 'permission denied'}") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno in (*FULL_DISK, *MACHINE_FAULTS):  # of what is written beside
            raise
        raise FormatError(
            f"{path} cannot be read as HDF5: it is damaged, cut short, or another kind of file ({first_line(error)})"
        ) from error


def check_file(file: h5py.File, path: Path) -> None:
    """Walk all links, datasets and attributes of an open file, and refuse what a dump does not hold."""
    _Walk(path).object(file["/"].id, "/", 0)


def check_storage(dataset: h5py.Dataset, path: Path) -> None:
    """Look at where the bytes of one dataset of a file that is no dump lie, whatever their type."""
    _Walk(path).storage(dataset.id, dataset.name)


class _Walk:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.file_bytes = path.stat().st_size
        self.seen: set[object] = set()
        self.n_attributes = 0
        self.n_chunks = 0

    def refuse(self, where: str, what: str) -> UnsafeFileError:
        return UnsafeFileError(f"{self.path} was refused: {where} {what}")

    def object(self, item: h5py.h5g.GroupID | h5py.h5d.DatasetID, where: str, depth: int) -> None:
        identity = h5py.h5o.get_info(item).addr
        if identity in self.seen:
            raise self.refuse(where, "is a second name of another object, and a dump holds each once")
        self.seen.add(identity)
        if len(self.seen) > _MAX_OBJECTS:
            raise self.refuse(where, f"is one object too many; at most {_MAX_OBJECTS:,} are read")
        self.attributes(item, where)
        if isinstance(item, h5py.h5g.GroupID):
            self.members(item, where, depth)
        elif isinstance(item, h5py.h5d.DatasetID):
            self.dataset(item, where)
        else:
            raise self.refuse(where, "is a named type, and a dump holds none")

    def members(self, group: h5py.h5g.GroupID, prefix: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise self.refuse(prefix, f"is nested more than {_MAX_DEPTH} groups deep")
        for name in group:
            where = f"{prefix.rstrip('/')}/{_plain(name)}"
            link = group.links.get_info(name).type
            if link != h5py.h5l.TYPE_HARD:
                words = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "an external link"}
                raise self.refuse(where, f"is {words.get(link, 'a user-defined link')}, and a dump holds none")
            self.object(h5py.h5o.open(group, name), where, depth + 1)

    def dataset(self, dataset: h5py.h5d.DatasetID, where: str) -> None:
        self.type(dataset.get_type(), where)
        self.storage(dataset, where)

    def storage(self, dataset: h5py.h5d.DatasetID, where: str) -> None:
        plist = dataset.get_create_plist()
        if plist.get_layout() == h5py.h5d.VIRTUAL:
            raise self.refuse(where, "is a virtual dataset, which reads other files")
        if plist.get_external_count():
            raise self.refuse(where, "keeps its data in another file (external storage)")
        if dataset.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            raise self.refuse(where, "has no shape")
        itemsize = dataset.get_type().get_size()
        logical = math.prod(dataset.shape) * itemsize
        if logical > _MAX_RATIO * self.file_bytes:
            raise self.refuse(where, f"claims {logical} bytes in a file of {self.file_bytes}")
        if plist.get_layout() == h5py.h5d.CHUNKED:
            self.chunks(dataset, plist, itemsize, where)

    def chunks(self, dataset: h5py.h5d.DatasetID, plist: h5py.h5p.PropDCID, itemsize: int, where: str) -> None:
        codes = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
        for code in codes:
            if code not in _FILTERS:
                raise self.refuse(where, f"needs the filter {code}; only deflate, shuffle and fletcher32 are read")
        if len(set(codes)) != len(codes):
            raise self.refuse(where, "applies one filter twice, as decompression bombs do")
        n_bytes = math.prod(plist.get_chunk()) * itemsize
        if n_bytes > _MAX_CHUNK_BYTES:
            raise self.refuse(where, f"has chunks of {n_bytes} bytes; at most {_MAX_CHUNK_BYTES} are read")
        # Each chunk is looked up and decoded by itself, so their number bounds the work that a small file can ask for.
        self.n_chunks += math.prod(-(-n // step) for n, step in zip(dataset.shape, plist.get_chunk(), strict=True))
        if self.n_chunks > max(_FREE_CHUNKS, self.file_bytes // _BYTES_OF_A_CHUNK):
            raise self.refuse(where, f"claims {self.n_chunks:,} chunks in a file of {self.file_bytes:,} bytes")

    def attributes(self, item: h5py.h5g.GroupID | h5py.h5d.DatasetID, where: str) -> None:
        for number in range(h5py.h5a.get_num_attrs(item)):
            attribute = h5py.h5a.open(item, index=number)
            name = f"{where} attribute {_plain(attribute.name)!r}"
            self.n_attributes += 1
            if self.n_attributes > _MAX_ATTRIBUTES:
                raise self.refuse(name, f"is one attribute too many; at most {_MAX_ATTRIBUTES:,} are read")
            kind, values = attribute.get_type(), attribute.get_space().get_simple_extent_npoints()
            if isinstance(kind, h5py.h5t.TypeStringID) and values <= 1:
                pass  # other writers use variable-length text here
            else:
                self.type(kind, name)
            n_bytes = values * kind.get_size()
            if n_bytes > _MAX_ATTRIBUTE_BYTES:
                raise self.refuse(name, f"has {n_bytes} bytes; at most {_MAX_ATTRIBUTE_BYTES} are read")

    def type(self, kind: h5py.h5t.TypeID, where: str) -> None:
        variable = isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
        if kind.get_class() not in _PLAIN or variable:
            raise self.refuse(where, "is not of plain numbers or fixed-length text")


def _plain(name: bytes) -> str:
    """Quote a name of a stranger's choice so that it cannot steer a terminal."""
    return name[:120].decode(errors="replace").encode("unicode_escape").decode()


def text_of(item: h5py.HLObject, name: str) -> str:
    """Return a text attribute of an object of a file that is not trusted."""
    where = f"{item.name} attribute {name!r}"
    if name not in item.attrs:
        raise FormatError(f"{item.name} has no attribute {name!r}")
    value = item.attrs[name]
    if not isinstance(value, (str, bytes)):
        raise FormatError(f"{where} is not text")
    return checked_text(value, where)


# ---- creating --------------------------------------------------------------------------------------------------------


def write_index(path: Path | str, index: Index, *, force: bool = False) -> None:
    """Write a dump that holds an index, its labels and its splits, but no block.

    Parameters
    ----------
    path : path-like
        The file to make, usually ``index.h5`` in a store's folder.
    force : bool
        Replace a file that is there.

    Raises
    ------
    ExistsError
        If the file exists and `force` is false.
    """
    with atomic_write(Path(path), force=force) as temporary, new_dump(temporary) as file:
        fill_index(file, index)


class _Recording(io.FileIO):
    """A file that HDF5 writes to, which keeps the first fault: HDF5 itself loses some, and crashes at others."""

    fault: OSError | None = None

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        n_bytes = len(left)
        try:
            while left:
                left = left[super().write(left) or 0 :]
        except OSError as error:
            self.fault = self.fault or error
        return n_bytes

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.fault = self.fault or error
        return size or 0


@contextmanager
def new_dump(path: Path, mode: str = "x") -> Iterator[h5py.File]:
    """Create an empty HDF5 file with the settings that FORMAT.md asks for; what cannot be written is an error."""
    with _Recording(path, f"{mode}+" if mode == "x" else mode) as raw:
        try:
            with h5py.File(
                raw,
                mode,
                libver=("earliest", "v110"),
                alignment_threshold=ALIGNMENT,
                alignment_interval=ALIGNMENT,
                locking=False,
            ) as file:
                yield file
        finally:
            if raw.fault is not None:
                raise OSError(raw.fault.errno, raw.fault.strerror, str(path)) from raw.fault


def fill_index(file: h5py.File, index: Index, *, labels: bool = True) -> None:
    """Write the root attributes and ``/images``; with `labels` also the parent rows, ``/labels`` and ``/splits``."""
    tasks, splits = (index.labels, index.splits) if labels else ({}, {})
    for split in splits.values():
        n_crossing = int(split.crossed(index.groups).sum())
        if n_crossing and split.source == "made":
            raise FormatError(
                f"split {split.name!r} divides the groups of {n_crossing:,} images, and splits that are made keep "
                "groups whole; make it again with `features-store splits`"
            )
    digests = {
        "meaning_digest": seal.meaning_digest(tasks, splits, index.groups) if labels else "",
        "images_digest": seal.images_digest(index.corpus, index.content) if labels else "",
    }
    _set_text(file, "format", FORMAT)
    _set_text(file, "format_version", FORMAT_VERSION if any(digests.values()) else "1.0")
    _set_text(file, "index_digest", index.digest)
    for name, digest in digests.items():
        if digest:
            _set_text(file, name, digest)
    if index.corpus:
        _set_text(file, "corpus", passport.canonical(index.corpus))
    _set_strings(file, "images/id", index.raw_ids)
    if index.groups is not None:
        file["images/group"] = np.asarray(index.groups, dtype="<i8")
    if index.content is not None:
        file["images/content"] = np.asarray(index.content, dtype="|u1")
    if labels and index.parent_rows is not None and index.parent_digest != index.digest:
        file["images/row"] = np.asarray(index.parent_rows, dtype="<i8")
        _set_text(file["images/row"], "origin", index.parent_digest)
    for name, column in tasks.items():
        task = column.task
        dataset = file.create_dataset(f"labels/{name}", data=column.values)
        _set_text(dataset, "kind", task.kind)
        _set_text(dataset, "classes", json.dumps(task.classes, ensure_ascii=False))
        _set_text(dataset, "source", task.source or "unknown")
        if task.range is not None:
            _set_text(dataset, "range", json.dumps(task.range))
    for name, split in splits.items():
        dataset = file.create_dataset(f"splits/{name}", data=split.values)
        _set_text(dataset, "kind", split.kind)
        if split.source:
            _set_text(dataset, "source", split.source)


def add_block(file: h5py.File, spec: BlockSpec, n_images: int) -> None:
    """Create the datasets of a block, allocated and unfilled."""
    group = file.create_group(f"blocks/{spec.name}")
    _set_text(group, "passport", passport.canonical(spec.passport))
    kind = np.dtype(spec.dtype).newbyteorder("<")
    vectors = allocate(group, "vectors", (n_images, spec.n_views, spec.n_features), h5py.h5t.py_create(kind))
    vectors.attrs.create("shape", np.array(spec.shape, dtype="<i8"))
    allocate(group, "status", (n_images, spec.n_views), h5py.h5t.STD_U8LE)
    allocate(group, "digests", (n_images, spec.n_views, seal.DIGEST_BYTES), h5py.h5t.STD_U8LE)
    allocate(group, "seal", (seal.SEAL_BYTES,), h5py.h5t.STD_U8LE)
    if spec.names is not None:
        _set_strings(group, "names", np.array([name.encode() for name in spec.names]))


def replace_passport(path: Path, block: str, record: Mapping[str, Any]) -> None:
    """Give a block another passport; only for a file that nobody else has seen yet."""
    with new_dump(path, "r+") as file:
        _set_text(file[f"blocks/{block}"], "passport", passport.canonical(record))


def allocate(group: h5py.Group, name: str, shape: tuple[int, ...], kind: h5py.h5t.TypeID) -> h5py.Dataset:
    """Create a contiguous dataset whose bytes are allocated now and not filled."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)  # the same command makes the same bytes
    h5py.h5d.create(group.id, name.encode(), kind, h5py.h5s.create_simple(shape), plist)
    return group[name]


def _set_text(target: h5py.HLObject, name: str, text: str) -> None:
    utf8 = h5py.string_dtype("utf-8", max(1, len(text.encode())))
    target.attrs.create(name, np.array(text.encode(), dtype=utf8), dtype=utf8)


def _set_strings(group: h5py.Group, name: str, raw: NDArray[np.bytes_]) -> None:
    utf8 = h5py.string_dtype("utf-8", max(1, raw.dtype.itemsize))
    group.create_dataset(name, data=raw.astype(utf8), dtype=utf8)
