"""The files below a folder on a disk, by canonical names; each folder is listed once and read once."""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from extract.inputs.formats import HIDDEN, JPEG_START, Census
from extract.inputs.names import canonical, is_escaped, twins

_SEEN = "a link to a folder that is read already, or to one above"
_SHUT = "a folder that may not be read"
_OPEN = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass
class _Listing:
    """The entries of one folder: canonical name to the name on the disk."""

    files: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    links: set[str] = field(default_factory=set)  # of the folders
    shut: bool = False


class Disk:
    """A folder and all below it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[str, _Listing] = {}
        self._folders: dict[str, str | None] = {"": ""}
        self._census: Census | None = None

    def listing(self, folder: str) -> _Listing:
        """Return the entries of a folder; none if it is not there.

        Raises CorpusError.
        """
        if folder not in self._listings:
            raw = self.folder(folder)
            self._listings[folder] = _Listing() if raw is None else _listed(self.root, raw)
        return self._listings[folder]

    def folder(self, path: str) -> str | None:
        """Return the path of a folder as the disk spells it, or None."""
        if path not in self._folders:
            parent, _, name = path.rpartition("/")
            above, raw = self.folder(parent), self.listing(parent).folders.get(name)
            self._folders[path] = None if above is None or raw is None else _joined(above, raw)
        return self._folders[path]

    def file(self, path: str) -> str | None:
        """Return the path of a file as the disk spells it, or None."""
        parent, _, name = path.rpartition("/")
        raw = self.listing(parent).files.get(name)
        return None if raw is None else _joined(self._folders[parent] or "", raw)

    def census(self) -> Census:
        """Find all pictures. A folder that several paths lead to is read once, links come last."""
        if self._census is None:
            census = Census()
            seen = {_identity(one) for one in (self.root.resolve(), *self.root.resolve().parents)}
            folders, links = deque([""]), deque[str]()
            while folders or links:
                folder = folders.popleft() if folders else links.popleft()
                if folder:
                    identity = _identity(self.root / (self.folder(folder) or ""))
                    if identity in seen:
                        census.leave_out(_SEEN)
                        continue
                    seen.add(identity)
                self._count(folder, census)
                listing = self.listing(folder)
                for name in sorted(listing.folders):
                    if name.startswith("."):
                        census.leave_out(HIDDEN)
                    else:
                        (links if name in listing.links else folders).append(_joined(folder, name))
            census.images.sort()
            self._census = census
        return self._census

    def _count(self, folder: str, census: Census) -> None:
        listing, above = self.listing(folder), self.folder(folder) or ""
        if listing.shut:
            census.leave_out(_SHUT)
        for name, raw in listing.files.items():
            place = self.root / above / raw
            if census.take(_joined(folder, name), lambda place=place: _start(place)):  # type: ignore[misc]
                census.n_escaped += is_escaped(raw)


def _listed(root: Path, raw: str) -> _Listing:
    found = _Listing()
    try:
        with os.scandir(root / raw) as entries:
            for entry in entries:
                is_folder = _is_folder(entry)
                name, names = canonical(entry.name), found.folders if is_folder else found.files
                if name in names:
                    raise twins(root / canonical(raw), name)
                names[name] = name if name == entry.name else entry.name
                if is_folder and (entry.is_symlink() or getattr(entry, "is_junction", bool)()):
                    found.links.add(name)
    except OSError:
        found.shut = True
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _identity(folder: Path) -> tuple[int, int] | str:
    try:
        known = folder.stat()
    except OSError:
        return str(folder)
    return (known.st_dev, known.st_ino) if known.st_ino else os.path.realpath(folder)


def _start(path: Path) -> bytes:
    """Return the first bytes of a regular file; none of anything else, and nothing is waited for."""
    try:
        fd = os.open(path, _OPEN)
    except OSError:
        return b""
    try:
        return os.read(fd, len(JPEG_START)) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)
