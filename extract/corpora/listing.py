"""A table or list that names images, and the tree in which they lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extract.errors import CorpusError
from extract.trees import Folder, Tree, open_tree, place_of

_ARCHIVES = (".tar", ".zip")


@dataclass(frozen=True)
class Listing:
    """The bytes of a table or list, and where the images are that it names.

    Parameters
    ----------
    name : str
        For messages.
    data : bytes
    root : Tree
    """

    name: str
    data: bytes
    root: Tree

    def relative(self, cell: str) -> str:
        """Return the path of an image below the root, POSIX separators.

        Raises
        ------
        CorpusError
            If it names nothing there.
        """
        path = cell.strip().replace("\\", "/")
        if os.path.isabs(path) and isinstance(self.root, Folder):
            try:
                path = Path(path).relative_to(self.root.place.resolve()).as_posix()
            except ValueError as error:
                msg = (
                    f"{self.name}: image {cell!r} lies outside {self.root.place}; name its folder with "
                    "--option root=FOLDER"
                )
                raise CorpusError(msg) from error
        path = os.path.normpath(path).replace(os.sep, "/")
        if path in (".", "") or path.startswith(("../", "/")) or path == "..":
            msg = f"{self.name}: {cell!r} names no image below {self.root.place}"
            raise CorpusError(msg)
        return path


def open_listing(data: Any, file: str, root: str) -> Listing:
    """Read a table or list.

    Parameters
    ----------
    data : Path or str
        The file itself, or the folder, archive or URL that holds it.
    file : str
        Its path in there.
    root : str
        Folder or archive of the images, relative to the folder of the file.

    Raises
    ------
    CorpusError
        If one of them is not there.
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
        return Listing(str(place / file), whole.read(file), open_tree(below))
    inside = os.path.normpath(f"{folder}/{root}".lstrip("/")).replace(os.sep, "/")
    return Listing(str(place / file), whole.read(file), whole.below("" if inside == "." else inside))


def _no_file(path: Any) -> None:
    msg = f"there is no table {path}; give the file with --data, or name it with --option file=NAME"
    raise CorpusError(msg)
