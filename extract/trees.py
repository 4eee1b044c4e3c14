"""A tree of files, whichever it is: a folder, or a tar or zip read in place; on a disk or behind a URL."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from extract.archives import MAX_MEMBER, Members, Place, SharedFile, Stored, read_member
from extract.errors import CorpusError, RefusedImageError
from extract.images import find_images, is_image_name
from extract.remote import RemoteFile, RemoteFiles, RemotePath, is_url, listing_of, read_small
from extract.sources import Files, Source

DEPTH = 4  # folders below the top in which a list or table is looked for


class Tree(Protocol):
    """Files by their paths: relative, POSIX separators."""

    place: Any  # Path or RemotePath

    def has(self, path: str) -> bool:
        """Tell whether there is a file of that path."""
        ...

    def find(self, pattern: str) -> list[str]:
        """List the files whose own name fits a pattern (``*`` and ``?``, case ignored), the least deep first."""
        ...

    def images(self, under: str = "") -> list[str]:
        """List the image files under a folder, sorted; paths are relative to that folder."""
        ...

    def size(self, path: str) -> int:
        """Return the bytes of a file; -1 = there is none."""
        ...

    def read(self, path: str) -> bytes:
        """Return the bytes of a file.

        Raises
        ------
        CorpusError
            If there is none, or it cannot be read.
        """
        ...

    def below(self, folder: str) -> Tree:
        """Return the tree of a folder inside; "" = this one."""
        ...

    def source(self, paths: NDArray[Any]) -> Source:
        """Return where the bytes of images are; a path that does not exist is found out when it is read."""
        ...


def open_tree(data: Path | RemotePath | str) -> Tree:
    """Open a folder, or a tar or zip, on a disk or behind a URL.

    Raises
    ------
    CorpusError
        If there is nothing of that name, or a file that is no archive.
    """
    place = place_of(data)
    if isinstance(place, RemotePath) and place.is_dir():
        return RemoteFolder(RemoteFile(place), listing_of(place))
    if place.is_dir():
        return Folder(place)
    if not place.is_file():
        msg = f"--data {data}: there is no such folder or archive"
        raise CorpusError(msg)
    from extract.members import members_of

    file = RemoteFile(place) if isinstance(place, RemotePath) else SharedFile(place)
    return Archive(file, members_of(place, file))


def place_of(data: Path | RemotePath | str) -> Any:
    """Return what a user gave as a path or a URL as a path of either kind."""
    if isinstance(data, RemotePath):
        return data
    return RemotePath.of(str(data)) if is_url(str(data)) else Path(data)


class Folder:
    """A folder on disk."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def has(self, path: str) -> bool:
        """See `Tree.has`."""
        return (self.place / path).is_file()

    def find(self, pattern: str) -> list[str]:
        """See `Tree.find`."""
        if "*" not in pattern and self.has(pattern):
            return [pattern]
        found: list[str] = []
        level = [""]
        for _ in range(DEPTH + 1):
            below: list[str] = []
            for folder in level:
                for entry in _entries(self.place / folder):
                    path = f"{folder}{entry.name}"
                    if entry.is_dir():
                        below.append(f"{path}/")
                    elif fnmatch.fnmatch(entry.name.lower(), pattern.lower()):
                        found.append(path)
            level = below
            if found:
                break
        return sorted(found)

    def images(self, under: str = "") -> list[str]:
        """See `Tree.images`."""
        return find_images(self.place / under)

    def size(self, path: str) -> int:
        """See `Tree.size`."""
        try:
            return (self.place / path).stat().st_size
        except OSError:
            return -1

    def read(self, path: str) -> bytes:
        """See `Tree.read`."""
        file = self.place / path
        try:
            if file.stat().st_size > MAX_MEMBER:
                msg = f"{file} has {file.stat().st_size} bytes; at most {MAX_MEMBER} are read"
                raise CorpusError(msg)
            return file.read_bytes()
        except OSError as error:
            msg = f"{file} cannot be read: {error.strerror}"
            raise CorpusError(msg) from error

    def below(self, folder: str) -> Tree:
        """See `Tree.below`."""
        return Folder(self.place / folder) if folder else self

    def source(self, paths: NDArray[Any]) -> Source:
        """See `Tree.source`."""
        return Files(self.place, paths)


class Archive:
    """A tar or zip, or a folder inside it.

    Parameters
    ----------
    file : SharedFile
    members : Members
    prefix : str
        The folder, with a slash at its end; "" = the whole archive.
    """

    def __init__(self, file: SharedFile, members: Members, prefix: str = "") -> None:
        self.place: Any = file.path / prefix.rstrip("/") if prefix else file.path
        self._file, self._members, self._prefix = file, members, prefix

    def has(self, path: str) -> bool:
        """See `Tree.has`."""
        return self._prefix + path in self._members.position

    def find(self, pattern: str) -> list[str]:
        """See `Tree.find`."""
        if self.has(pattern):
            return [pattern]
        wanted, start = pattern.lower(), len(self._prefix)
        # Half a million names: the cheap questions first.
        ending = wanted.rsplit("*", 1)[-1].rsplit("?", 1)[-1]
        last, n_ending = (ending[-1:], ending[-1:].upper()), len(ending)
        near = [
            name[start:]
            for name in self._members.position
            if name.endswith(last) and name[len(name) - n_ending :].lower() == ending and name.startswith(self._prefix)
        ]
        fits = [name for name in near if fnmatch.fnmatch(name.rsplit("/", 1)[-1].lower(), wanted)]
        depth = min((name.count("/") for name in fits), default=0)
        return sorted(name for name in fits if name.count("/") == depth <= DEPTH)

    def images(self, under: str = "") -> list[str]:
        """See `Tree.images`."""
        prefix = self._prefix + (f"{under.rstrip('/')}/" if under else "")
        names = [name[len(prefix) :] for name in self._members.position if name.startswith(prefix)]
        return sorted(
            name
            for name in names
            if is_image_name(name.rsplit("/", 1)[-1]) and not any(part.startswith(".") for part in name.split("/"))
        )

    def size(self, path: str) -> int:
        """See `Tree.size`."""
        row = self._members.position.get(self._prefix + path, -1)
        return int(self._members.sizes[row]) if row >= 0 else -1

    def read(self, path: str) -> bytes:
        """See `Tree.read`."""
        row = self._members.position.get(self._prefix + path, -1)
        if row < 0:
            msg = f"{self.place} holds no {path}"
            raise CorpusError(msg)
        table = self._members
        method = None if table.methods is None else int(table.methods[row])
        checksum = None if table.checksums is None else int(table.checksums[row])
        place = Place(int(table.offsets[row]), int(table.packed[row]), int(table.sizes[row]), method, checksum)
        try:
            return read_member(self._file, place)
        except (RefusedImageError, OSError) as error:
            msg = f"{self.place / path} cannot be read: {error}"
            raise CorpusError(msg) from error

    def below(self, folder: str) -> Tree:
        """See `Tree.below`."""
        return type(self)(self._file, self._members, f"{self._prefix}{folder.rstrip('/')}/") if folder else self

    def source(self, paths: NDArray[Any]) -> Source:
        """See `Tree.source`."""
        position, prefix = self._members.position, self._prefix
        rows = np.fromiter((position.get(prefix + path, -1) for path in paths.tolist()), np.int64, len(paths))
        return Stored(self._file, self._members, rows, paths)


class RemoteFolder(Archive):
    """A folder behind a URL; its list is like the table of an archive, its files are read as they are."""

    def read(self, path: str) -> bytes:
        """See `Tree.read`."""
        return read_small(self.place / path)

    def source(self, paths: NDArray[Any]) -> Source:
        """See `Tree.source`."""
        table = self._members
        rows = {path: table.position[self._prefix + path] for path in paths.tolist() if self.has(path)}
        known = {path: (float(table.modified[row]), int(table.sizes[row])) for path, row in rows.items()}
        return RemoteFiles(self.place, paths, known)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((one for one in entries if not one.name.startswith(".")), key=lambda one: one.name)
    except OSError:
        return []
