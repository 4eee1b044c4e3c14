"""A tree of files, whichever it is: a folder, or a tar or zip read in place; on a disk or behind a URL."""

from __future__ import annotations

import fnmatch
import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import CorpusError, RefusedImageError
from extract.inputs.archives import MAX_TABLE, MemberTable, read_member, read_start, read_table
from extract.inputs.disk import Census, Disk
from extract.inputs.files import (
    MAX_BYTES,
    Files,
    ImageFiles,
    RemotePath,
    canonical,
    place_of,
    read_file,
    read_persistently,
)
from extract.inputs.images import HIDDEN, JPEG_START
from extract.inputs.shared_file import RemoteFile, SharedFile
from features_store import Status

DEPTH = 4  # folders below the top in which a list or table is looked for
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")  # what file systems call it


class Tree:
    """Files by their canonical names (see `extract.inputs.files`), in a folder of a folder, archive or URL."""

    on_disk = False  # as a folder

    def __init__(self, place: Any, prefix: str = "") -> None:
        self.place = place  # Path or RemotePath
        self.prefix = prefix  # the folder inside, with a slash at its end; "" = the whole

    def has(self, path: str) -> bool:
        """Tell whether there is a file of that path."""
        raise NotImplementedError

    def find(self, pattern: str) -> list[str]:
        """List the files whose own name fits a pattern (``*`` and ``?``, case ignored), the least deep first."""
        raise NotImplementedError

    def census(self) -> Census:
        """Find the image files, and count what was left out, by reason."""
        raise NotImplementedError

    def images(self) -> list[str]:
        """List the image files, sorted."""
        return self.census().images

    def size(self, path: str) -> int:
        """Return the bytes of a file; -1 = there is none."""
        raise NotImplementedError

    def read(self, path: str) -> bytes:
        """Return the bytes of a list or table."""
        raise NotImplementedError

    def below(self, folder: str) -> Tree:
        """Return the tree of a folder inside; "" = this one."""
        raise NotImplementedError

    def source(self, paths: NDArray[Any]) -> ImageFiles:
        """Return the files of images; a path that does not exist is refused when it is read."""
        raise NotImplementedError

    def _inside(self, folder: str) -> str:
        return f"{canonical(self.prefix + folder).rstrip('/')}/"


def open_tree(data: Path | RemotePath | str) -> Tree:
    """Open a folder, or a tar or zip, on a disk or behind a URL."""
    place = place_of(data)
    if isinstance(place, RemotePath) and place.is_dir():
        table = _list_remote(place)
        return Archive(place, table, RemoteMembers(place, table))
    if place.is_dir():
        return Folder(place)
    if not place.is_file():
        raise CorpusError(f"--data {data}: there is no such folder or archive")
    file = RemoteFile(place) if isinstance(place, RemotePath) else SharedFile(place)
    table = read_table(place, file)
    return Archive(place, table, Members(file, table))


class Folder(Tree):
    """A folder on a disk."""

    on_disk = True

    def __init__(self, place: Path, disk: Disk | None = None, prefix: str = "") -> None:
        super().__init__(place, prefix)
        self._disk = disk or Disk(place)

    def _file(self, path: str) -> Path | None:
        if os.path.isabs(path) or ".." in path.split("/"):  # as an option may name a table
            there: Path = self.place / path
            return there if there.is_file() else None
        raw = self._disk.file(canonical(self.prefix + path))
        return None if raw is None else self._disk.root / raw

    def has(self, path: str) -> bool:
        return self._file(path) is not None

    def find(self, pattern: str) -> list[str]:
        if "*" not in pattern and self.has(pattern):
            return [pattern]
        found: list[str] = []
        level = [""]
        for _ in range(DEPTH + 1):
            below: list[str] = []
            for folder in level:
                listing = self._disk.listing(f"{self.prefix}{folder}".rstrip("/"))
                below += [f"{folder}{name}/" for name in sorted(listing.folders) if not name.startswith(".")]
                names = (name for name in listing.files if not name.startswith("."))
                found += [f"{folder}{name}" for name in names if fnmatch.fnmatch(name.lower(), pattern.lower())]
            level = below
            if found:
                break
        return sorted(found)

    def census(self) -> Census:
        return self._disk.census().below(self.prefix)

    def size(self, path: str) -> int:
        file = self._file(path)
        try:
            return -1 if file is None else file.stat().st_size
        except OSError:
            return -1

    def read(self, path: str) -> bytes:
        file = self._file(path) or self.place / path
        try:
            return read_file(file, MAX_TABLE)
        except (RefusedImageError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CorpusError(f"{file} cannot be read: {reason}") from error

    def below(self, folder: str) -> Tree:
        if not folder:
            return self
        prefix = self._inside(folder)
        raw = self._disk.folder(prefix[:-1])
        return Folder(self._disk.root / (prefix if raw is None else raw), self._disk, prefix)

    def source(self, paths: NDArray[Any]) -> ImageFiles:
        listed = paths.tolist()
        raw = [self._disk.file(canonical(self.prefix + path)) or self.prefix + path for path in listed]
        return Files(self._disk.root, paths if raw == listed else np.array(raw))


class Archive(Tree):
    """A tar or zip, or a folder behind a URL, whose list is like the table of an archive."""

    def __init__(self, place: Any, table: MemberTable, members: Members, prefix: str = "") -> None:
        super().__init__(place / prefix.rstrip("/") if prefix else place, prefix)
        self._top, self._table, self._members = place, table, members
        self._counted: list[Census] = []  # of the whole; shared with the folders inside, and made when it is needed

    def _row(self, path: str) -> int:
        return self._table.position.get(canonical(self.prefix + path), -1)

    def has(self, path: str) -> bool:
        return self._row(path) >= 0

    def find(self, pattern: str) -> list[str]:
        if self.has(pattern):
            return [pattern]
        wanted, start = pattern.lower(), len(self.prefix)
        ending = wanted.rsplit("*", 1)[-1].rsplit("?", 1)[-1]  # half a million names: the cheap question first
        near = [
            name[start:]
            for name in self._table.position
            if name[len(name) - len(ending) :].lower() == ending and name.startswith(self.prefix)
        ]
        fits = [name for name in near if fnmatch.fnmatch(name.rsplit("/", 1)[-1].lower(), wanted)]
        depth = min((name.count("/") for name in fits), default=0)
        return sorted(name for name in fits if name.count("/") == depth <= DEPTH)

    def census(self) -> Census:
        if not self._counted:
            whole = Census(self._table.left_out, self._table.n_escaped)
            for name, row in self._table.position.items():
                if name.startswith(".") or "/." in name:
                    whole.left_out[HIDDEN] += 1
                else:
                    whole.take(name, partial(self._members.start, row))
            whole.images.sort()
            self._counted.append(whole)
        return self._counted[0].below(self.prefix)

    def size(self, path: str) -> int:
        row = self._row(path)
        return int(self._table.members[row]["size"]) if row >= 0 else -1

    def read(self, path: str) -> bytes:
        row = self._row(path)
        if row < 0:
            raise CorpusError(f"{self.place} holds no {path}")
        try:
            return self._members.read(row, MAX_TABLE)
        except (RefusedImageError, OSError) as error:
            raise CorpusError(f"{self.place / path} cannot be read: {error}") from error

    def below(self, folder: str) -> Tree:
        if not folder:
            return self
        inside = Archive(self._top, self._table, self._members, self._inside(folder))
        inside._counted = self._counted
        return inside

    def source(self, paths: NDArray[Any]) -> ImageFiles:
        rows = np.fromiter((self._row(path) for path in paths.tolist()), np.int64, len(paths))
        return ArchivedFiles(self._members, paths, rows, self._table.left_out)


class Members:
    """The members of an archive, by their rows in its table."""

    def __init__(self, file: SharedFile, table: MemberTable) -> None:
        self.name, self.rows, self._file = file.path.name, table.members, file

    def start(self, row: int) -> bytes:
        """Return the first bytes of a member; none if it cannot be read."""
        return read_start(self._file, self.rows[row], len(JPEG_START))

    def read(self, row: int, limit: int) -> bytes:
        """Return the bytes of a member."""
        # An error of the system is one of the whole archive, and no property of this member.
        data: bytes = read_persistently(
            self._file.path, lambda: read_member(self._file, self.rows[row], limit), of_the_file=False
        )
        return data


class RemoteMembers(Members):
    """The files of a folder behind a URL; each is read whole."""

    def __init__(self, root: RemotePath, table: MemberTable) -> None:
        self.name, self.rows, self._root, self._names = str(root), table.members, root, np.array(table.names)

    def start(self, row: int) -> bytes:
        del row  # one request a file is too dear: names decide
        return b""

    def read(self, row: int, limit: int) -> bytes:
        path, size = self._root / str(self._names[row]), int(self.rows[row]["size"])
        if size > limit:
            raise RefusedImageError(Status.TOO_LARGE, f"{size} bytes; at most {limit} are read")
        data: bytes = read_persistently(path, lambda: path.fs.cat_file(path.path))
        return data


class ArchivedFiles:
    """Images among the members of an archive; `rows` are those of its table, -1 = it has no such image."""

    def __init__(
        self, members: Members, paths: NDArray[Any], rows: NDArray[np.int64], left_out: Mapping[str, int]
    ) -> None:
        self._members, self._paths, self._rows = members, paths, rows
        self.left_out = left_out  # members that can be no image, by reason

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, row: int) -> bytes:
        if self._rows[row] < 0:
            raise RefusedImageError(Status.MISSING, f"{self._members.name} holds no {self._paths[row]}")
        return self._members.read(int(self._rows[row]), MAX_BYTES)

    def modified(self, row: int) -> float:
        member = int(self._rows[row])
        return float(self._members.rows[member]["modified"]) if member >= 0 else math.nan


def _list_remote(root: RemotePath) -> MemberTable:
    """List all files below a folder behind a URL."""
    found = read_persistently(root, lambda: root.fs.find(root.path, detail=True), of_the_file=False)
    table = MemberTable(root)
    entries: list[Mapping[str, Any]] = []
    for path, entry in sorted(found.items()):
        raw = path[len(root.path) :].lstrip("/")
        if table.enter(raw, len(entries), leads_out="a name that leads out of the folder"):
            entries.append(entry)
            table.names.append(raw)
    sizes = [int(entry.get("size") or 0) for entry in entries]
    return table.fill(size=sizes, packed=sizes, modified=[_moment(entry) for entry in entries])


def _moment(entry: Mapping[str, Any]) -> float:
    for name in _TIMES:
        value: Any = entry.get(name)
        if hasattr(value, "timestamp"):
            return float(value.timestamp())
        if isinstance(value, (int, float)):
            return float(value)
    return math.nan
