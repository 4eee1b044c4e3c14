"""Refusing files that could harm their reader, before any dataset is read.

A shared HDF5 file can make its reader open other files (external and soft links, external storage, virtual datasets),
load foreign code (filter plug-ins) or fill the memory (shapes far larger than the file). None of this occurs in an
honest dump.
Every link is looked at before it is followed, so each component of every path is covered, not only the leaf.

What these checks stand on is libhdf5's own reading of the metadata. `make fuzz` damages it in child processes, and has
found no crash of libhdf5 2.0; if it ever does, the remedy is to open a stranger's file in a process of its own first,
which costs a quarter of a second and is therefore not done for every file.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import h5py

from features_store.atomic import open_regular
from features_store.disk import MACHINE_FAULTS
from features_store.errors import FormatError, StoreError, UnsafeFileError, first_line

_MAX_OBJECTS = 10_000
_MAX_ATTRIBUTES = 10_000
_MAX_DEPTH = 16
_MAX_RATIO = 1000  # logical bytes over bytes of the file; honest deflate stays far below
_MAX_ATTRIBUTE_BYTES = 64 * 1024
_MAX_MESSAGE = 600  # characters; a file can quote itself at any length
_MAX_CHUNK_BYTES = 32 * 2**20
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
        if isinstance(error, OSError) and error.errno in MACHINE_FAULTS:
            raise
        raise FormatError(
            f"{path} cannot be read as HDF5: it is damaged, cut short, or another kind of file ({first_line(error)})"
        ) from error


def check_file(file: h5py.File, path: Path) -> None:
    """Walk all links, datasets and attributes of an open file.

    Raises UnsafeFileError.
    """
    walk = _Walk(path)
    walk.object(file["/"].id, "/", 0)


def check_storage(dataset: h5py.Dataset, path: Path) -> None:
    """Look at where the bytes of one dataset of a file that is no dump lie, whatever their type.

    Raises UnsafeFileError.
    """
    _Walk(path).storage(dataset.id, dataset.name)


class _Walk:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.file_bytes = path.stat().st_size
        self.seen: set[object] = set()
        self.n_attributes = 0

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
            kind = group.links.get_info(name).type
            if kind != h5py.h5l.TYPE_HARD:
                words = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "an external link"}
                raise self.refuse(where, f"is {words.get(kind, 'a user-defined link')}, and a dump holds none")
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
            self.chunks(plist, itemsize, where)

    def chunks(self, plist: h5py.h5p.PropDCID, itemsize: int, where: str) -> None:
        codes = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
        for code in codes:
            if code not in _FILTERS:
                raise self.refuse(where, f"needs the filter {code}; only deflate, shuffle and fletcher32 are read")
        if len(set(codes)) != len(codes):
            raise self.refuse(where, "applies one filter twice, as decompression bombs do")
        n_bytes = math.prod(plist.get_chunk()) * itemsize
        if n_bytes > _MAX_CHUNK_BYTES:
            raise self.refuse(where, f"has chunks of {n_bytes} bytes; at most {_MAX_CHUNK_BYTES} are read")

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


_MAX_JSON_DEPTH = 32
_MAX_DIGITS = 20  # of a whole number: 64 bits and a sign
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and new line


def json_object(text: str, what: str) -> dict[str, Any]:
    """Parse a JSON object from a file that is not trusted."""
    value = _json(text, what)
    if not isinstance(value, dict):
        raise FormatError(f"{what} is not a JSON object")
    return value


def json_strings(text: str, what: str) -> tuple[str, ...]:
    """Parse a JSON list of strings."""
    value = _json(text, what)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise FormatError(f"{what} is not a JSON list of strings")
    return tuple(value)


def json_range(text: str, what: str) -> tuple[float, float]:
    """Parse a JSON list of two numbers."""
    value = _json(text, what)
    if not isinstance(value, list) or len(value) != 2 or not all(type(one) in (int, float) for one in value):
        raise FormatError(f"{what} is not a JSON list of two numbers")
    return float(value[0]), float(value[1])


def _json(text: str, what: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise FormatError(f"{what} holds {constant[:40]}, which is no number of JSON or too large a one")

    def integer(digits: str) -> int:
        return int(digits) if len(digits) <= _MAX_DIGITS else refuse(digits)

    def real(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(digits)

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise FormatError(f"{what} holds the name {twice[:40]!r} twice")
        return dict(pairs)

    try:
        value = json.loads(text, parse_constant=refuse, parse_int=integer, parse_float=real, object_pairs_hook=members)
    except RecursionError as error:
        raise FormatError(f"{what} is nested too deeply; at most {_MAX_JSON_DEPTH} levels are read") from error
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(f"{what} is not JSON that can be read: {str(error)[:80]}") from error
    check_json(value, what)
    return value


def check_json(value: Any, what: str) -> None:
    """Refuse what later code, or a terminal, would stumble over."""
    layer = [value]
    for _ in range(_MAX_JSON_DEPTH):
        inner: list[Any] = []
        for one in layer:
            if isinstance(one, dict):
                inner += [*one, *one.values()]
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, str):
                checked_text(one, what)
        layer = inner
    if layer:
        raise FormatError(f"{what} is nested too deeply; at most {_MAX_JSON_DEPTH} levels are read")


def text_of(item: h5py.HLObject, name: str) -> str:
    """Return a text attribute of an object of a file that is not trusted."""
    where = f"{item.name} attribute {name!r}"
    if name not in item.attrs:
        raise FormatError(f"{item.name} has no attribute {name!r}")
    value = item.attrs[name]
    if not isinstance(value, (str, bytes)):
        raise FormatError(f"{where} is not text")
    return checked_text(value, where)


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
