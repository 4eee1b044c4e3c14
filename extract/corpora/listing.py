"""A table or list that names images, and the tree in which they lie."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extract.errors import CorpusError
from extract.inputs.files import canonical, is_url, place_of
from extract.inputs.trees import Tree, open_tree

_ARCHIVES = (".tar", ".zip")


@dataclass(frozen=True)
class Listing:
    """The bytes of a table or list, and where the images are that it names.

    Parameters
    ----------
    name : str
        For messages.
    file, images : str
        Table and folder of the images as they were found, to be recorded.
    """

    name: str
    data: bytes
    root: Tree
    file: str
    images: str

    def recorded(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options with which the table can be read again; what lies elsewhere is recorded by name alone."""
        known = {**options, "file": _inside(self.file), "root": _inside(self.images)}
        return {key: value for key, value in known.items() if (key, value) != ("root", ".")}

    def refuse_twice(self, names: Sequence[str], lines: Sequence[int]) -> None:
        """Refuse a table that names an image twice.

        Raises CorpusError.
        """
        first: dict[str, int] = {}
        for name, line in zip(names, lines, strict=True):
            if first.setdefault(name, line) != line:
                msg = f"{self.name} names {name!r} twice, on line {first[name]} and line {line}; keep one line of each"
                raise CorpusError(msg)

    def relative(self, cell: str, line: int) -> str:
        """Return the canonical path of an image below the root.

        Raises CorpusError.
        """
        path = cell.strip().replace("\\", "/")
        if os.path.isabs(path) and self.root.on_disk:
            try:
                path = Path(path).relative_to(self.root.place.resolve()).as_posix()
            except ValueError as error:
                msg = (
                    f"{self.name}, line {line}: image {cell!r} lies outside {self.root.place}; name its folder with "
                    "--option root=FOLDER"
                )
                raise CorpusError(msg) from error
        path = os.path.normpath(path).replace(os.sep, "/")
        if path in (".", "") or path.startswith(("../", "/")) or path == "..":
            msg = f"{self.name}, line {line}: {cell!r} names no image below {self.root.place}"
            raise CorpusError(msg)
        return canonical(path)


def _inside(path: str) -> str:
    """Return a path as it may be recorded: no absolute one, and none that leads elsewhere on this machine."""
    plain = path.replace("\\", "/").rstrip("/") or "."
    if is_url(plain) or os.path.isabs(path) or ".." in plain.split("/"):
        return plain.rpartition("/")[2]
    return plain


def open_listing(data: Any, file: str, root: str) -> Listing:
    """Read a table or list.

    Raises CorpusError.
    """
    place = place_of(data)
    if place.is_file() and not place.name.lower().endswith(_ARCHIVES):
        place, file = place.parent, place.name
    if not place.is_dir() and not place.is_file():
        _no_file(place / file)
    whole = open_tree(place)
    if not whole.has(file):
        _no_file(place / file)
    folder = file.rpartition("/")[0]
    if place.is_dir():  # the images may lie beside it, anywhere that a path can name
        below = place / folder / root if folder else place / root
        if not below.is_dir() and not below.is_file():
            msg = f"there is no folder {below} of images; name it with --option root=FOLDER"
            raise CorpusError(msg)
        return Listing(str(place / file), whole.read(file), open_tree(below), file, root)
    inside = os.path.normpath(f"{folder}/{root}".lstrip("/")).replace(os.sep, "/")
    return Listing(str(place / file), whole.read(file), whole.below("" if inside == "." else inside), file, root)


def _no_file(path: Any) -> None:
    msg = f"there is no table {path}; give the file with --data, or name it with --option file=NAME"
    raise CorpusError(msg)
