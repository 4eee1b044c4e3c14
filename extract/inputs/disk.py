"""The files below a folder on a disk by canonical names, and the census of pictures in any tree."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from extract.inputs.files import canonical, is_escaped, same_name
from extract.inputs.images import HIDDEN, JPEG_START, why_not
from features_store import open_regular

_N_REASONS = 8  # that a note lists


class Census:
    """The pictures of a tree, and what was left out."""

    def __init__(self, left_out: Mapping[str, int] | None = None, n_escaped: int = 0) -> None:
        self.images: list[str] = []  # canonical names, sorted
        self.left_out = Counter(left_out or {})  # files by reason
        self.n_escaped = n_escaped  # images whose file names are not UTF-8
        self.folders: set[str] = set()  # those with files that were left out, hidden ones apart

    def take(self, path: str, start: Callable[[], bytes]) -> bool:
        """Count one file, whose first bytes are read only if its name does not decide; tell whether it is a picture."""
        reason = why_not(path.rpartition("/")[2], start)
        if reason:
            self.left_out[reason] += 1
            if reason != HIDDEN:
                self.folders.add(path.rpartition("/")[0])
        else:
            self.images.append(path)
        return not reason

    def below(self, prefix: str) -> Census:
        """Return the part in a folder; what was left out remains that of the whole."""
        if not prefix:
            return self
        part = Census(self.left_out, self.n_escaped)
        part.images = [name[len(prefix) :] for name in self.images if name.startswith(prefix)]
        part.folders = {f"{name}/"[len(prefix) : -1] for name in self.folders if f"{name}/".startswith(prefix)}
        return part


def left_out_words(left_out: Mapping[str, int]) -> str:
    """Return the sentence of a note on files that were left out."""
    some = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{count} {reason}" for reason, count in some[:_N_REASONS])
    more = f", and {sum(count for _, count in some[_N_REASONS:])} for other reasons" if len(some) > _N_REASONS else ""
    return f"files left out: {sum(left_out.values())}: {listed}{more}"


class _Listing(NamedTuple):
    """The entries of one folder on a disk: canonical name to the name on the disk."""

    files: dict[str, str]
    folders: dict[str, str]
    links: set[str]  # of the folders
    shut: bool = False  # it may not be read


class Disk:
    """A folder and all below it; each folder is listed once, and only if something in it is looked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[str, _Listing] = {}
        self._folders: dict[str, str | None] = {"": ""}
        self._census: Census | None = None

    def listing(self, folder: str) -> _Listing:
        """Return the entries of a folder; none if it is not there."""
        if folder not in self._listings:
            raw = self.folder(folder)
            self._listings[folder] = _Listing({}, {}, set()) if raw is None else _list_folder(self.root, raw)
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
        if self._census is not None:
            return self._census
        census = Census()
        top = self.root.resolve()
        seen = {_identity(folder) for folder in (top, *top.parents)}
        folders, links = deque([""]), deque[str]()
        while folders or links:
            folder = folders.popleft() if folders else links.popleft()
            above = self.folder(folder) or ""
            if folder:
                identity = _identity(self.root / above)
                if identity in seen:
                    census.left_out["a link to a folder that is read already, or to one above"] += 1
                    continue
                seen.add(identity)
            listing = self.listing(folder)
            if listing.shut:
                census.left_out["a folder that may not be read"] += 1
            for name, raw in listing.files.items():
                place = self.root / above / raw
                if census.take(_joined(folder, name), lambda place=place: _start(place)):  # type: ignore[misc]
                    census.n_escaped += is_escaped(raw)
            for name in sorted(listing.folders):
                if name.startswith("."):
                    census.left_out[HIDDEN] += 1
                else:
                    (links if name in listing.links else folders).append(_joined(folder, name))
        census.images.sort()
        self._census = census
        return census


def find_images(root: Path) -> list[str]:
    """List the image files under a folder, as the disk spells their paths."""
    disk = Disk(root)
    return [disk.file(name) or name for name in disk.census().images]


def _list_folder(root: Path, raw: str) -> _Listing:
    found = _Listing({}, {}, set())
    try:
        with os.scandir(root / raw) as entries:
            for entry in entries:
                is_folder = _is_folder(entry)
                name, names = canonical(entry.name), found.folders if is_folder else found.files
                if name in names:
                    raise same_name(root / canonical(raw), name)
                names[name] = name if name == entry.name else entry.name
                if is_folder and (entry.is_symlink() or getattr(entry, "is_junction", bool)()):
                    found.links.add(name)
    except OSError:
        return found._replace(shut=True)
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
        with open_regular(path, links=True) as file:
            return file.read(len(JPEG_START))
    except (OSError, ValueError):
        return b""
