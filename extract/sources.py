"""Where the bytes of each image are: one object per corpus, cheap for half a million rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from extract.errors import RefusedImageError
from features_store import Status


class Source(Protocol):
    """Rows of an index to bytes. One object for the whole corpus; reading is safe from several threads."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, row: int) -> bytes:
        """Return the bytes of the image file in `row`.

        Raises
        ------
        RefusedImageError
            With `Status.MISSING` if there is nothing that could be read.
        """
        ...

    def modified(self, row: int) -> float:
        """Return when the image in `row` was last changed: seconds since 1970, NaN = not known."""
        ...


class Files:
    """Image files under one folder.

    Parameters
    ----------
    root : Path
        The folder.
    names : ndarray of shape (n_images,), str
        Paths relative to `root` as the file system spells them, POSIX separators. Usually the very array of
        the ids; another one where a name had to be normalised to become an id.
    """

    def __init__(self, root: Path, names: NDArray[Any]) -> None:
        self.root = root
        self.names = np.asarray(names)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> bytes:
        """Return the bytes of the file in `row`; see `Source.read`."""
        path = self.root / str(self.names[row])
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise RefusedImageError(Status.MISSING, f"{path} is missing") from error
        except OSError as error:  # no permission, a folder of that name, an input/output error
            raise RefusedImageError(Status.MISSING, f"{path} cannot be read: {error.strerror}") from error

    def modified(self, row: int) -> float:
        """Return when the file in `row` was last changed; see `Source.modified`."""
        try:
            return (self.root / str(self.names[row])).stat().st_mtime
        except OSError:
            return math.nan


class Joined:
    """The sources of several corpora, one after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = list(sources)
        self._ends = np.cumsum([len(source) for source in sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, row: int) -> bytes:
        """See `Source.read`."""
        source, inside = self._at(row)
        return source.read(inside)

    def modified(self, row: int) -> float:
        """See `Source.modified`."""
        source, inside = self._at(row)
        return source.modified(inside)

    def _at(self, row: int) -> tuple[Source, int]:
        at = int(np.searchsorted(self._ends, row, side="right"))
        return self._sources[at], row - (int(self._ends[at - 1]) if at else 0)
