"""The image files of a corpus, found by the names that its tables use: with or without suffix, wherever they lie.

One lookup for every corpus. The path as it stands comes first, from the top or in a folder where the corpus keeps its
images; then the only file of that name, then the only one whose name differs in case alone; the suffix may be left out.
What two files fit is refused with both paths, and no file is given to two images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from extract.errors import CorpusError
from extract.inputs.files import ImageFiles, canonical
from extract.inputs.trees import Tree


class Pictures:
    """Look image files up by name.

    Parameters
    ----------
    folders : sequence of str
        Names of the folders in which the corpus keeps its images; where several files fit, one in there is meant.
    """

    def __init__(self, tree: Tree, folders: Sequence[str] = ()) -> None:
        self._tree, self._folders = tree, [folder for folder in folders if folder]
        self._tables: list[dict[str, list[str]]] | None = None

    def paths(self, names: Sequence[str], *, suffix: str = "") -> list[str]:
        """Return the path of each image; one that is not there keeps its name, with `suffix` behind it.

        Raises CorpusError.
        """
        wanted = [canonical(name.strip().replace("\\", "/")) for name in names]
        found = [self._find(name) for name in wanted]
        owners: dict[str, int] = {}
        for row, (path, rank) in enumerate(found):
            if not path:
                continue
            other = owners.setdefault(path, row)
            if other == row:
                continue
            if rank == found[other][1]:
                msg = (
                    f"the images {names[other]!r} and {names[row]!r} both stand for the file {path} in "
                    f"{self._tree.place}; write the paths as the files are called"
                )
                raise CorpusError(msg)
            # The name that fits better has the file; of the other one there is none.
            owners[path] = min(other, row, key=lambda one: found[one][1])
        return [path if path and owners[path] == row else wanted[row] + suffix for row, (path, _) in enumerate(found)]

    def source(self, names: Sequence[str], *, suffix: str = "") -> ImageFiles:
        """Return where the bytes of the images are."""
        return self._tree.source(np.array(self.paths(names, suffix=suffix)))

    def _find(self, name: str) -> tuple[str, int]:
        """Return the path of an image, "" if there is none, and how well it fits: 0 best."""
        for path in (name, *(f"{folder}/{name}" for folder in self._folders)):
            if self._tree.has(path):
                return path, 0
        if self._tables is None:
            self._tables = _tables(self._tree.images())
        for rank, (table, key) in enumerate(zip(self._tables, _keys(name), strict=True), start=1):
            fits = table.get(key, [])
            fits = [path for path in fits if self._is_kept(path, name)] or fits if len(fits) > 1 else fits
            if len(fits) > 1:
                listed = " and ".join(fits[:3]) + (" and more" if len(fits) > 3 else "")
                msg = (
                    f"{self._tree.place}: image {name!r} may be {listed}; write its path in the table or list, or "
                    "move the others away"
                )
                raise CorpusError(msg)
            if fits:
                return fits[0], rank
        return "", 0

    def _is_kept(self, path: str, name: str) -> bool:
        above = path.split("/")[: -(name.count("/") + 1)]
        return bool(above) and above[-1] in self._folders


def _keys(name: str) -> tuple[str, str, str, str]:
    """Return the keys of a name, the strictest first: whole, without suffix, and both again without case."""
    folded = name.casefold()
    return name, name, folded, folded


def _tables(paths: Sequence[str]) -> list[dict[str, list[str]]]:
    tables: list[dict[str, list[str]]] = [{}, {}, {}, {}]
    for path in paths:
        stem = os.path.splitext(path)[0]
        for table, whole in zip(tables, (path, stem, path.casefold(), stem.casefold()), strict=True):
            for key in _endings(whole):
                table.setdefault(key, []).append(path)
    return tables


def _endings(whole: str) -> Iterator[str]:
    """Yield what "a/b/c.jpg" can be asked for as: itself, "b/c.jpg" and "c.jpg"."""
    yield whole
    at = whole.find("/")
    while at >= 0:
        yield whole[at + 1 :]
        at = whole.find("/", at + 1)
