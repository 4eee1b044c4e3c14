"""Refusing files that could harm their reader, before any dataset is read.

A shared HDF5 file can make its reader open other files (external and soft links, external storage, virtual datasets),
load foreign code (filter plug-ins) or fill the memory (shapes far larger than the file). None of this occurs in an
honest dump.
Every link is looked at before it is followed, so each component of every path is covered, not only the leaf.
"""

from __future__ import annotations

import math
from pathlib import Path

import h5py

from features_store.errors import UnsafeFileError

_MAX_OBJECTS = 10_000
_MAX_DEPTH = 16
_MAX_RATIO = 1000  # logical bytes over bytes of the file; honest deflate stays far below
_MAX_ATTRIBUTE_BYTES = 64 * 1024
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_PLAIN = {h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING}


def check_file(file: h5py.File, path: Path) -> None:
    """Walk all links, datasets and attributes of an open file.

    Parameters
    ----------
    file : h5py.File
        Opened for reading; nothing of it is read but metadata.
    path : Path
        Its name, for messages.

    Raises
    ------
    UnsafeFileError
        With one sentence: what was found, where, and why it is refused.
    """
    walk = _Walk(path)
    walk.attributes(file.id, "/")
    walk.group(file.id, "", 0)


class _Walk:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.file_bytes = path.stat().st_size
        self.seen: set[object] = set()

    def refuse(self, where: str, what: str) -> UnsafeFileError:
        return UnsafeFileError(f"{self.path} was refused: {where} {what}")

    def group(self, group: h5py.h5g.GroupID, prefix: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise self.refuse(prefix, f"is nested more than {_MAX_DEPTH} groups deep")
        for name in group:
            where = f"{prefix}/{name.decode(errors='replace')}"
            kind = group.links.get_info(name).type
            if kind != h5py.h5l.TYPE_HARD:
                words = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "an external link"}
                raise self.refuse(where, f"is {words.get(kind, 'a user-defined link')}, and a dump holds none")
            self.object(h5py.h5o.open(group, name), where, depth)

    def object(self, item: h5py.h5g.GroupID | h5py.h5d.DatasetID, where: str, depth: int) -> None:
        identity = h5py.h5o.get_info(item).addr
        if identity in self.seen:
            raise self.refuse(where, "is a second name of another object, and a dump holds each once")
        self.seen.add(identity)
        if len(self.seen) > _MAX_OBJECTS:
            msg = "it"
            raise self.refuse(msg, f"holds more than {_MAX_OBJECTS} objects")
        self.attributes(item, where)
        if isinstance(item, h5py.h5g.GroupID):
            self.group(item, where, depth + 1)
        elif isinstance(item, h5py.h5d.DatasetID):
            self.dataset(item, where)
        else:
            raise self.refuse(where, "is a named type, and a dump holds none")

    def dataset(self, dataset: h5py.h5d.DatasetID, where: str) -> None:
        plist = dataset.get_create_plist()
        if plist.get_layout() == h5py.h5d.VIRTUAL:
            raise self.refuse(where, "is a virtual dataset, which reads other files")
        if plist.get_external_count():
            raise self.refuse(where, "keeps its data in another file (external storage)")
        for number in range(plist.get_nfilters()):
            code = plist.get_filter(number)[0]
            if code not in _FILTERS:
                raise self.refuse(where, f"needs the filter {code}; only deflate, shuffle and fletcher32 are read")
        self.type(dataset.get_type(), where)
        logical = math.prod(dataset.shape) * dataset.get_type().get_size()
        if logical > _MAX_RATIO * self.file_bytes:
            raise self.refuse(where, f"claims {logical} bytes in a file of {self.file_bytes}")
        if plist.get_layout() == h5py.h5d.CHUNKED:
            chunk = math.prod(plist.get_chunk()) * dataset.get_type().get_size()
            if chunk > 64 * 2**20:
                raise self.refuse(where, f"has chunks of {chunk} bytes; at most 64 MiB are read")

    def attributes(self, item: h5py.h5g.GroupID | h5py.h5d.DatasetID, where: str) -> None:
        for number in range(h5py.h5a.get_num_attrs(item)):
            attribute = h5py.h5a.open(item, index=number)
            name = f"{where} attribute {attribute.name.decode(errors='replace')!r}"
            kind = attribute.get_type()
            if not _is_text(kind):
                self.type(kind, name)
            if attribute.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
                raise self.refuse(name, f"has {attribute.get_storage_size()} bytes; at most {_MAX_ATTRIBUTE_BYTES}")

    def type(self, kind: h5py.h5t.TypeID, where: str) -> None:
        variable = isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
        if kind.get_class() not in _PLAIN or variable:
            raise self.refuse(where, "is not of plain numbers or fixed-length text")


def _is_text(kind: h5py.h5t.TypeID) -> bool:
    """Tell whether an attribute's type is text; other writers use variable-length text there."""
    return isinstance(kind, h5py.h5t.TypeStringID)
