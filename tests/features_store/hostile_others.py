"""Files that look odd but may be read, and files that are no dumps."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import honest
import numpy as np
from hostile import BLOCK, CUTS, bytes_of, change, chunked, replace

# ---- read correctly


@change("unknown minor version, unknown objects and attributes", None)
def _(file: h5py.File) -> None:
    file.attrs["format_version"] = "1.9"
    file.attrs["mood"] = "good"
    file["images/phash"] = np.arange(honest.N)
    file.create_group("future/things")["table"] = np.zeros((2, 2))
    file[f"{BLOCK}/centroid"] = np.zeros(honest.D)


@change("text attributes of variable length", None)
def _(file: h5py.File) -> None:
    for item in (file, file[BLOCK], file["labels/polarity"], file["labels/valence"], file["splits/five"]):
        for name, value in list(item.attrs.items()):
            item.attrs[name] = value.decode() if isinstance(value, bytes) else value


@change("chunked, shuffled, deflated, with checksums", None)
def _(file: h5py.File) -> None:
    options = {"compression": "gzip", "shuffle": True, "fletcher32": True}
    chunked(file, "images/id", chunks=(5,), **options)
    chunked(file, "labels/tags", chunks=(7, 2), **options)
    chunked(file, "images/content", chunks=(5, 4), **options)
    chunked(file, "splits/five", chunks=(9,), **options)


@change("the vectors compressed", r"is not stored as one piece .*features-store import .* -o NEW.h5")
def _(file: h5py.File) -> None:
    chunked(file, f"{BLOCK}/vectors", chunks=(11, 2, 6), compression="gzip")


@change("chunked without filters", None)
def _(file: h5py.File) -> None:
    chunked(file, "images/group", chunks=(11,))
    chunked(file, "splits/default", chunks=(7,))


@change("the status chunked", r"/status is not stored as one piece")
def _(file: h5py.File) -> None:
    chunked(file, f"{BLOCK}/status", chunks=(9, 2))


@change("more chunks than a file of this size can hold", r"claims [\d,]+ chunks in a file of")
def _(file: h5py.File) -> None:
    replace(file, "images/content", shape=(honest.N, 32), maxshape=(None, 32), chunks=(1, 1), dtype="u1")
    file["images/content"].resize(20_000, axis=0)


@bytes_of("a user block before the HDF5 part", None)
def _(path: Path) -> None:
    plain = path.with_suffix(".plain")
    honest.write(plain)
    with h5py.File(plain) as source, h5py.File(path, "w", userblock_size=1024) as file:
        for name in source:
            source.copy(name, file)
        file.attrs.update(source.attrs)
    plain.unlink()


@change("the seal of another file", None)
def _(file: h5py.File) -> None:
    file[f"{BLOCK}/seal"][:] = np.arange(40, dtype="u1")


# ---- files that are no dumps


def _cut(number: int) -> None:
    @bytes_of(f"cut at {number} of {CUTS}", r"damaged, cut short|behind the end")
    def _(path: Path) -> None:
        honest.write(path)
        raw = path.read_bytes()
        path.write_bytes(raw[: len(raw) * number // CUTS])


for _number in range(CUTS):
    _cut(_number)


@bytes_of("empty file", r"cannot be read as HDF5")
def _(path: Path) -> None:
    path.touch()


@bytes_of("text file", r"cannot be read as HDF5")
def _(path: Path) -> None:
    path.write_text("id,label\na.jpg,1\n")


@bytes_of("only the signature", r"cannot be read as HDF5")
def _(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))


@bytes_of("HDF5, but no dump", r"no feature dump")
def _(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)


@bytes_of("folder with the name of a file", r"holds no dump")
def _(path: Path) -> None:
    path.mkdir()


@bytes_of("named pipe", r"not a regular file")
def _(path: Path) -> None:
    os.mkfifo(path)


@bytes_of("link to a device", r"not a regular file")
def _(path: Path) -> None:
    path.symlink_to("/dev/zero")


@bytes_of("link to nothing", r"is not there")
def _(path: Path) -> None:
    path.symlink_to("nowhere.h5")


@bytes_of("link to itself", r"is not there")
def _(path: Path) -> None:
    path.symlink_to(path.name)
