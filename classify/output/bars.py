"""Progress bars of the command line, on the error stream, for work of more than two seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["fit_bar"]


@contextmanager
def fit_bar(unit: str) -> Iterator[Callable[[int, int], object]]:
    """Give a function that takes how many of how many are done, and draws that after two seconds."""
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", delay=2, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance
