"""The image files of a corpus, found by the names that its tables use: with or without suffix, wherever they lie."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from extract.sources import Source
from extract.trees import Tree


class Pictures:
    """Look image files up by name.

    Parameters
    ----------
    tree : Tree
    folders : sequence of str
        Names of the folders in which the images are looked for, the likeliest first; all others come after them.
    """

    def __init__(self, tree: Tree, folders: Sequence[str]) -> None:
        self._tree, self._folders = tree, [folder.lower() for folder in folders if folder]
        self._by_path: dict[str, str] = {}
        for path in sorted(tree.images(), key=self._rank, reverse=True):  # the likeliest comes last and stays
            lower = path.lower()
            for whole in (lower, os.path.splitext(lower)[0]):
                # "a/b/c.jpg" can be asked for as itself, as "b/c.jpg" and as "c.jpg"; deeper is never needed.
                pieces = whole.split("/")
                for depth in (1, 2, 3):
                    self._by_path["/".join(pieces[-depth:])] = path
                self._by_path[whole] = path

    def _rank(self, path: str) -> tuple[int, int, str]:
        folders = path.lower().split("/")[:-1]
        ranks = [at for at, folder in enumerate(self._folders) if folder in folders]
        return min(ranks, default=len(self._folders)), len(folders), path

    def find(self, name: str) -> str | None:
        """Return the path of an image, or None; case, and a suffix that is left out, do not matter."""
        wanted = name.strip().lower().replace("\\", "/").removeprefix("./")
        return self._by_path.get(wanted)

    def paths(self, names: Sequence[str], *, suffix: str = "") -> list[str]:
        """Return the path of each image; one that is not there keeps its name, with `suffix` behind it."""
        return [self.find(name) or name + suffix for name in names]

    def source(self, names: Sequence[str], *, suffix: str = "") -> Source:
        """Return where the bytes of the images are."""
        return self._tree.source(np.array(self.paths(names, suffix=suffix)))
