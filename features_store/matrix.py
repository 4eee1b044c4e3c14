"""A matrix in a file of another format: what every format has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store.errors import FormatError

MAX_RATIO = 1000  # bytes of an array over bytes of its file; honest compression stays far below


@dataclass(frozen=True)
class Matrix:
    """Vectors in a file of another format.

    Attributes
    ----------
    shape : tuple of int
        ``(n_rows, *shape of one vector)``.
    take : callable
        ``take(start, stop)`` returns those rows, (stop - start, ...).
    ids : list of str or None
        If the file holds them.
    names : tuple of str or None
        What each value means, if the file says so.
    passport : mapping or None
        If the file carries one.
    status : ndarray of shape (n_rows,), uint8, or None
        If the file says which rows failed.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    take: Callable[[int, int], NDArray[Any]]
    ids: list[str] | None = None
    names: tuple[str, ...] | None = None
    passport: dict[str, Any] | None = None
    status: NDArray[np.uint8] | None = field(default=None, repr=False)


def only_one(names: Sequence[str], path: Path) -> str:
    """Return the name of the only array of a file, or ask for one."""
    if len(names) != 1:
        raise FormatError(
            f"{path} holds {len(names)} arrays ({', '.join(names)}); name one with --key, and the ids with --ids-key"
        )
    return names[0]
