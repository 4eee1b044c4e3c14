"""The image files of a corpus: found by the names that its tables use, and grouped by equal bytes.

The exact path comes first, from the top or in a folder where the corpus keeps its images; then the only file of that
name; then the only one whose name differs in case alone; the suffix may be missing. A name that fits two files is
refused with both paths, and no file is given to two images.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from extract.errors import CorpusError
from extract.inputs.files import ImageFiles, canonical
from extract.inputs.trees import Tree


class Pictures:
    """Find image files by name; where several fit, one in `folders` (names of folders) is preferred."""

    def __init__(self, tree: Tree, folders: Sequence[str] = ()) -> None:
        self._tree, self._folders = tree, [folder for folder in folders if folder]
        self._tables: list[dict[str, list[str]]] | None = None

    def files(self, names: Sequence[str], *, suffix: str = "") -> ImageFiles:
        """Return the image files of these names; see `paths`."""
        return self._tree.source(np.array(self.paths(names, suffix=suffix)))

    def paths(self, names: Sequence[str], *, suffix: str = "") -> list[str]:
        """Return the path of each image; one that is missing keeps its name, with `suffix` added."""
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
                raise CorpusError(
                    f"the images {names[other]!r} and {names[row]!r} both stand for the file {path} in "
                    f"{self._tree.place}; write the paths as the files are called"
                )
            # The name that fits better gets the file; the file of the other one is missing.
            owners[path] = min(other, row, key=lambda one: found[one][1])
        return [path if path and owners[path] == row else wanted[row] + suffix for row, (path, _) in enumerate(found)]

    def _find(self, name: str) -> tuple[str, int]:
        """Return the path of an image ("" = missing) and how well it fits, 0 being best."""
        for path in (name, *(f"{folder}/{name}" for folder in self._folders)):
            if self._tree.has(path):
                return path, 0
        if self._tables is None:
            self._tables = _tables(self._tree.images())
        # From strict to lenient: whole name, without suffix, and both again without case.
        keys = (name, name, name.casefold(), name.casefold())
        for rank, (table, key) in enumerate(zip(self._tables, keys, strict=True), start=1):
            fits = table.get(key, [])
            fits = [path for path in fits if self._is_kept(path, name)] or fits if len(fits) > 1 else fits
            if len(fits) > 1:
                listed = " and ".join(fits[:3]) + (" and more" if len(fits) > 3 else "")
                raise CorpusError(
                    f"{self._tree.place}: image {name!r} may be {listed}; write its path in the table or list, or "
                    "move the others away"
                )
            if fits:
                return fits[0], rank
        return "", 0

    def _is_kept(self, path: str, name: str) -> bool:
        above = path.split("/")[: -(name.count("/") + 1)]
        return bool(above) and above[-1] in self._folders


def _tables(paths: Sequence[str]) -> list[dict[str, list[str]]]:
    tables: list[dict[str, list[str]]] = [{}, {}, {}, {}]
    for path in paths:
        stem = os.path.splitext(path)[0]
        for table, whole in zip(tables, (path, stem, path.casefold(), stem.casefold()), strict=True):
            for key in _endings(whole):
                table.setdefault(key, []).append(path)
    return tables


def _endings(path: str) -> Iterator[str]:
    """Yield the names that "a/b/c.jpg" answers to: itself, "b/c.jpg" and "c.jpg"."""
    yield path
    at = path.find("/")
    while at >= 0:
        yield path[at + 1 :]
        at = path.find("/", at + 1)


def find_equal_files(tree: Tree, paths: Sequence[str]) -> list[list[int]]:
    """Group the rows of files with equal bytes; a file whose size is unique is not read."""
    from tqdm import tqdm

    by_size: dict[int, list[int]] = {}
    for row, path in enumerate(paths):
        by_size.setdefault(tree.size(path), []).append(row)
    candidates = [row for size, rows in by_size.items() if size >= 0 and len(rows) > 1 for row in rows]
    by_digest: dict[bytes, list[int]] = {}
    for row in tqdm(sorted(candidates), desc="equal images", unit=" images", leave=False, delay=2, disable=None):
        by_digest.setdefault(hashlib.sha256(tree.read(paths[row])).digest(), []).append(row)
    return [rows for rows in by_digest.values() if len(rows) > 1]


def equal_file_groups(tree: Tree, paths: Sequence[str]) -> NDArray[np.int64]:
    """Number the groups of equal files; -1 = unique."""
    groups = np.full(len(paths), -1, dtype=np.int64)
    for number, rows in enumerate(find_equal_files(tree, paths)):
        groups[rows] = number
    return groups
