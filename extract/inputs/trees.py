"""A tree of files, whichever it is: a folder, or a tar or zip read in place; on a disk or behind a URL."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from extract.errors import CorpusError, RefusedImageError
from extract.inputs.archives import MAX_MEMBER, Members, SharedFile, Stored, read_member, read_start
from extract.inputs.files import Files, ImageFiles
from extract.inputs.formats import HIDDEN, JPEG_START, Census
from extract.inputs.names import canonical
from extract.inputs.remote import RemoteFile, RemoteFiles, RemotePath, is_url, listing_of, read_small
from extract.inputs.walk import Disk

DEPTH = 4  # folders below the top in which a list or table is looked for


class Tree(Protocol):
    """Files by their canonical names (`extract.inputs.names`): relative, POSIX separators, NFC."""

    place: Any  # Path or RemotePath

    def has(self, path: str) -> bool:
        """Tell whether there is a file of that path."""
        ...

    def find(self, pattern: str) -> list[str]:
        """List the files whose own name fits a pattern (``*`` and ``?``, case ignored), the least deep first."""
        ...

    def images(self) -> list[str]:
        """List the image files, sorted."""
        ...

    def census(self) -> Census:
        """Find the image files, and count what was left out, by reason."""
        ...

    def size(self, path: str) -> int:
        """Return the bytes of a file; -1 = there is none."""
        ...

    def read(self, path: str) -> bytes:
        """Return the bytes of a file.

        Raises CorpusError.
        """
        ...

    def below(self, folder: str) -> Tree:
        """Return the tree of a folder inside; "" = this one."""
        ...

    def source(self, paths: NDArray[Any]) -> ImageFiles:
        """Return where the bytes of images are; a path that does not exist is found out when it is read."""
        ...


def open_tree(data: Path | RemotePath | str) -> Tree:
    """Open a folder, or a tar or zip, on a disk or behind a URL.

    Raises CorpusError.
    """
    place = place_of(data)
    if isinstance(place, RemotePath) and place.is_dir():
        return RemoteFolder(RemoteFile(place), listing_of(place))
    if place.is_dir():
        return Folder(place)
    if not place.is_file():
        msg = f"--data {data}: there is no such folder or archive"
        raise CorpusError(msg)
    from extract.inputs.members import members_of

    file = RemoteFile(place) if isinstance(place, RemotePath) else SharedFile(place)
    return Archive(file, members_of(place, file))


def place_of(data: Path | RemotePath | str) -> Any:
    """Return what a user gave as a path or a URL as a path of either kind."""
    if isinstance(data, RemotePath):
        return data
    return RemotePath.of(str(data)) if is_url(str(data)) else Path(data)


class Folder:
    """A folder on disk.

    Parameters
    ----------
    disk : Disk, optional
        What it lies in. None = itself.
    prefix : str
        Its path in there, with a slash at its end.
    """

    def __init__(self, place: Path, disk: Disk | None = None, prefix: str = "") -> None:
        self.place = place
        self._disk, self._prefix = disk or Disk(place), prefix

    def _file(self, path: str) -> Path | None:
        if os.path.isabs(path) or ".." in path.split("/"):  # as an option may name a table
            there = self.place / path
            return there if there.is_file() else None
        raw = self._disk.file(canonical(self._prefix + path))
        return None if raw is None else self._disk.root / raw

    def has(self, path: str) -> bool:
        """See `Tree.has`."""
        return self._file(path) is not None

    def find(self, pattern: str) -> list[str]:
        """See `Tree.find`."""
        if "*" not in pattern and self.has(pattern):
            return [pattern]
        found: list[str] = []
        level = [""]
        for _ in range(DEPTH + 1):
            below: list[str] = []
            for folder in level:
                listing = self._disk.listing(f"{self._prefix}{folder}".rstrip("/"))
                below += [f"{folder}{name}/" for name in sorted(listing.folders) if not name.startswith(".")]
                names = (name for name in listing.files if not name.startswith("."))
                found += [f"{folder}{name}" for name in names if fnmatch.fnmatch(name.lower(), pattern.lower())]
            level = below
            if found:
                break
        return sorted(found)

    def images(self) -> list[str]:
        """See `Tree.images`."""
        return self.census().images

    def census(self) -> Census:
        """See `Tree.census`; what was left out is that of the whole folder."""
        whole = self._disk.census()
        return _below(whole, self._prefix) if self._prefix else whole

    def size(self, path: str) -> int:
        """See `Tree.size`."""
        file = self._file(path)
        try:
            return -1 if file is None else file.stat().st_size
        except OSError:
            return -1

    def read(self, path: str) -> bytes:
        """See `Tree.read`."""
        file = self._file(path) or self.place / path
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
        if not folder:
            return self
        prefix = f"{canonical(self._prefix + folder).rstrip('/')}/"
        raw = self._disk.folder(prefix[:-1])
        return Folder(self._disk.root / (prefix if raw is None else raw), self._disk, prefix)

    def source(self, paths: NDArray[Any]) -> ImageFiles:
        """See `Tree.source`."""
        listed = paths.tolist()
        raw = [self._disk.file(canonical(self._prefix + path)) or self._prefix + path for path in listed]
        return Files(self._disk.root, paths if raw == listed else np.array(raw))


def _below(whole: Census, prefix: str) -> Census:
    inside = [name[len(prefix) :] for name in whole.images if name.startswith(prefix)]
    folders = {f"{name}/"[len(prefix) : -1] for name in whole.folders if f"{name}/".startswith(prefix)}
    return Census(inside, whole.left_out, whole.n_escaped, folders)


class Archive:
    """A tar or zip, or a folder inside it.

    Parameters
    ----------
    prefix : str
        The folder, with a slash at its end; "" = the whole archive.
    """

    def __init__(self, file: SharedFile, members: Members, prefix: str = "") -> None:
        self.place: Any = file.path / prefix.rstrip("/") if prefix else file.path
        self._file, self._members, self._prefix = file, members, prefix
        self._counted: list[Census] = []  # of the whole; shared with the folders inside, and made when it is needed

    def has(self, path: str) -> bool:
        """See `Tree.has`."""
        return self._row(path) >= 0

    def _row(self, path: str) -> int:
        return self._members.position.get(canonical(self._prefix + path), -1)

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

    def images(self) -> list[str]:
        """See `Tree.images`."""
        return self.census().images

    def census(self) -> Census:
        """See `Tree.census`; what was left out is that of the whole archive."""
        if not self._counted:
            whole = Census(left_out=dict(self._members.left_out), n_escaped=self._members.n_escaped)
            for name, row in self._members.position.items():
                if name.startswith(".") or "/." in name:
                    whole.leave_out(HIDDEN)
                else:
                    whole.take(name, lambda row=row: self._start(row))  # type: ignore[misc]
            whole.images.sort()
            self._counted.append(whole)
        return _below(self._counted[0], self._prefix) if self._prefix else self._counted[0]

    def _start(self, row: int) -> bytes:
        return read_start(self._file, self._members.place(row), len(JPEG_START))

    def size(self, path: str) -> int:
        """See `Tree.size`."""
        row = self._row(path)
        return int(self._members.sizes[row]) if row >= 0 else -1

    def read(self, path: str) -> bytes:
        """See `Tree.read`."""
        row = self._row(path)
        if row < 0:
            msg = f"{self.place} holds no {path}"
            raise CorpusError(msg)
        try:
            return read_member(self._file, self._members.place(row))
        except (RefusedImageError, OSError) as error:
            msg = f"{self.place / path} cannot be read: {error}"
            raise CorpusError(msg) from error

    def below(self, folder: str) -> Tree:
        """See `Tree.below`."""
        if not folder:
            return self
        inside = type(self)(self._file, self._members, f"{canonical(self._prefix + folder).rstrip('/')}/")
        inside._counted = self._counted
        return inside

    def source(self, paths: NDArray[Any]) -> ImageFiles:
        """See `Tree.source`."""
        rows = np.fromiter((self._row(path) for path in paths.tolist()), np.int64, len(paths))
        return Stored(self._file, self._members, rows, paths)


class RemoteFolder(Archive):
    """A folder behind a URL; its list is like the table of an archive, its files are read as they are."""

    @property
    def _top(self) -> Any:  # a RemotePath
        return self._file.path

    def _start(self, row: int) -> bytes:  # one request a file is too dear: names decide
        return b""

    def _raw(self, path: str) -> str:
        """Return the path of a file below the whole folder, as the server spells it."""
        row = self._row(path)
        return self._prefix + path if row < 0 or self._members.names is None else self._members.names[row]

    def read(self, path: str) -> bytes:
        """See `Tree.read`."""
        return read_small(self._top / self._raw(path))

    def source(self, paths: NDArray[Any]) -> ImageFiles:
        """See `Tree.source`."""
        raw = [self._raw(path) for path in paths.tolist()]
        rows = [self._row(path) for path in paths.tolist()]
        moments, sizes = self._members.modified, self._members.sizes
        known = {name: (float(moments[row]), int(sizes[row])) for name, row in zip(raw, rows, strict=True) if row >= 0}
        return RemoteFiles(self._top, np.array(raw), known)
