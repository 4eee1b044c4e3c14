"""Files that a stranger could send: each with what it is, and what must become of it.

``python tests/features_store/hostile.py FOLDER`` makes them all; the tests open each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import honest
import numpy as np

BLOCK = f"blocks/{honest.BLOCK}"
CUTS = 30  # truncations, evenly spread over an honest file


@dataclass(frozen=True)
class Hostile:
    """One file: how it is made, and the sentence with which it is refused; None = it is read correctly."""

    name: str
    refusal: str | None
    make: Callable[[Path], None]


CASES: list[Hostile] = []


def change(name: str, refusal: str | None) -> Callable[[Callable[[h5py.File], None]], None]:
    """Register a change of an honest dump through h5py."""

    def register(edit: Callable[[h5py.File], None]) -> None:
        def make(path: Path) -> None:
            honest.write(path)
            with h5py.File(path, "r+") as file:
                edit(file)

        CASES.append(Hostile(name, refusal, make))

    return register


def bytes_of(name: str, refusal: str | None) -> Callable[[Callable[[Path], None]], None]:
    """Register a file that is made by hand."""

    def register(make: Callable[[Path], None]) -> None:
        CASES.append(Hostile(name, refusal, make))

    return register


def replace(file: h5py.File, name: str, data: object = None, **options: object) -> h5py.Dataset:
    """Put another dataset in the place of one, with the attributes it had."""
    attributes = dict(file[name].attrs)
    del file[name]
    made = file.create_dataset(name, data=data, **options)
    made.attrs.update(attributes)
    return made


def low_level(file: h5py.File, name: str, shape: tuple[int, ...], kind: object, plist: object = None) -> None:
    """Put a dataset of any HDF5 type in the place of one, without writing to it."""
    attributes = dict(file[name].attrs)
    del file[name]
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), plist)
    file[name].attrs.update(attributes)


def passport(text: str | bytes) -> Callable[[h5py.File], None]:
    """Return a change that puts a text in the place of the passport."""

    def edit(file: h5py.File) -> None:
        del file[BLOCK].attrs["passport"]
        raw = text if isinstance(text, bytes) else text.encode()
        file[BLOCK].attrs["passport"] = np.bytes_(raw)

    return edit


def ids(*first: bytes) -> Callable[[h5py.File], None]:
    """Return a change that replaces the first ids."""

    def edit(file: h5py.File) -> None:
        raw = file["images/id"][:].astype("S64")
        raw[: len(first)] = first
        replace(file, "images/id", raw)

    return edit


def chunked(file: h5py.File, name: str, **options: object) -> h5py.Dataset:
    """Store a dataset as other programs would."""
    return replace(file, name, file[name][()], **options)


def make_folder(folder: Path) -> dict[str, Hostile]:
    """Make all files into an empty folder; return each case by its file's name."""
    # Each registers its cases; in this order they are numbered.
    import hostile_storage, hostile_types, hostile_contents, hostile_others  # noqa: E401, F401, I001

    folder.mkdir(parents=True)
    made = {}
    for number, one in enumerate(CASES):
        name = f"{number:03d}.h5"
        one.make(folder / name)
        made[name] = one
    return made


if __name__ == "__main__":
    import hostile  # the module in which the cases are registered, which this one is not

    for file_name, case in hostile.make_folder(Path(sys.argv[1])).items():
        print(f"{file_name}  {case.name}: {case.refusal or 'read correctly'}")
