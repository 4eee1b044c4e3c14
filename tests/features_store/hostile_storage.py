"""Hostile files: links and storage."""

from __future__ import annotations

import zlib
from pathlib import Path

import h5py
import honest
import numpy as np
from hostile import BLOCK, bytes_of, change, chunked, low_level, replace

# ---- links ----------------------------------------------------------------------------------------------------------


@change("external link to a file", r"/labels/polarity is an external link")
def _(file: h5py.File) -> None:
    del file["labels/polarity"]
    file["labels/polarity"] = h5py.ExternalLink("/etc/passwd", "/x")


@change("external link in the middle of a path", r"/blocks is an external link")
def _(file: h5py.File) -> None:
    del file["blocks"]
    file["blocks"] = h5py.ExternalLink("other.h5", "/blocks")


@change("external link to a device", r"/extra is an external link")
def _(file: h5py.File) -> None:
    file["extra"] = h5py.ExternalLink("/dev/zero", "/")


@change("soft link", r"/splits/same is a soft link")
def _(file: h5py.File) -> None:
    file["splits/same"] = h5py.SoftLink("/splits/default")


@change("soft links in a loop", r"is a soft link")
def _(file: h5py.File) -> None:
    file["labels/a"] = h5py.SoftLink("/labels/b")
    file["labels/b"] = h5py.SoftLink("/labels/a")


@change("dangling soft link", r"/labels/gone is a soft link")
def _(file: h5py.File) -> None:
    file["labels/gone"] = h5py.SoftLink("/nowhere")


@change("hard link to the root", r"/labels/again is a second name")
def _(file: h5py.File) -> None:
    file["labels/again"] = file["/"]


@change("two names of one dataset", r"is a second name")
def _(file: h5py.File) -> None:
    file["splits/twin"] = file["splits/default"]


@change("status and vectors are one dataset", r"is a second name")
def _(file: h5py.File) -> None:
    del file[f"{BLOCK}/status"]
    file[f"{BLOCK}/status"] = file[f"{BLOCK}/vectors"]


@change("groups nested without end", r"nested more than 16")
def _(file: h5py.File) -> None:
    file.create_group("x/" * 400)


@change("twelve thousand groups", r"one object too many")
def _(file: h5py.File) -> None:
    for number in range(12_000):
        h5py.h5g.create(file.id, f"g{number}".encode())


# ---- storage --------------------------------------------------------------------------------------------------------


@change("external storage", r"keeps its data in another file")
def _(file: h5py.File) -> None:
    replace(file, "labels/polarity", shape=(honest.N,), dtype="<i2", external=[("/etc/passwd", 0, 2 * honest.N)])


@change("virtual dataset", r"virtual dataset")
def _(file: h5py.File) -> None:
    attributes = dict(file["labels/polarity"].attrs)
    del file["labels/polarity"]
    layout = h5py.VirtualLayout((honest.N,), "<i2")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (honest.N,))
    file.create_virtual_dataset("labels/polarity", layout).attrs.update(attributes)


@change("unknown filter", r"needs the filter 333")
def _(file: h5py.File) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((honest.N,))
    plist.set_filter(333, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    low_level(file, "labels/polarity", (honest.N,), h5py.h5t.STD_I16LE, plist)


@change("lzf", r"needs the filter 32000")
def _(file: h5py.File) -> None:
    chunked(file, "labels/polarity", compression="lzf")


@change("scale-offset", r"needs the filter 6")
def _(file: h5py.File) -> None:
    chunked(file, "labels/polarity", scaleoffset=0)


@change("deflated twice", r"one filter twice")
def _(file: h5py.File) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((honest.N,))
    plist.set_deflate(9)
    plist.set_deflate(9)
    low_level(file, "labels/polarity", (honest.N,), h5py.h5t.STD_I16LE, plist)


@change("huge shape", r"claims \d+ bytes in a file of")
def _(file: h5py.File) -> None:
    replace(file, f"{BLOCK}/vectors", shape=(honest.N, 2, 2**40), dtype="<f2", chunks=(1, 1, 1024))


@change("huge shape that overflows 64 bits", r"claims \d+ bytes in a file of")
def _(file: h5py.File) -> None:
    file.create_dataset("extra", shape=(2**31, 2**30, 4), dtype="<f4", chunks=(1, 1, 4))


@change("millions of images in a few bytes", r"claims 9000000 images|claims 9000000 bytes")
def _(file: h5py.File) -> None:
    replace(file, "images/id", shape=(9_000_000,), dtype="S1", chunks=(1_000_000,), compression="gzip")


@change("ids that unfold to 30 MB", r"/images/id would fill \d+ bytes of memory from a small file")
def _(file: h5py.File) -> None:
    replace(file, "images/id", np.zeros(30_000, "S1000"), chunks=(10_000,), compression="gzip")


@change("a small chunk that inflates to 600 kB", r"does not hold the 48 bytes")
def _(file: h5py.File) -> None:
    labels = chunked(file, "labels/polarity", chunks=(honest.N,), compression="gzip")
    labels.id.write_direct_chunk((0,), zlib.compress(bytes(600_000), 9))


@change("a large chunk that inflates to 300 MB", r"does not hold the \d+ bytes")
def _(file: h5py.File) -> None:
    options = {"chunks": (100_000, 32), "compression": "gzip", "maxshape": (None, 32)}
    content = replace(file, "images/content", file["images/content"][:], **options)
    content.id.write_direct_chunk((0, 0), zlib.compress(bytes(3 * 10**8), 9))


@change("a chunk that inflates to too little", r"does not hold the 48 bytes")
def _(file: h5py.File) -> None:
    labels = chunked(file, "labels/polarity", chunks=(honest.N,), compression="gzip")
    labels.id.write_direct_chunk((0,), zlib.compress(bytes(10)))


@change(
    "a chunk that is shorter than its shape, so that other bytes of the file stand in it", r"task 'polarity' run from"
)
def _(file: h5py.File) -> None:
    labels = chunked(file, "labels/polarity", chunks=(honest.N,))
    labels.id.write_direct_chunk((0,), b"\x7f" * 10)


@change("a chunk that is no deflate stream", r"deflated chunk is damaged")
def _(file: h5py.File) -> None:
    labels = chunked(file, "labels/polarity", chunks=(honest.N,), compression="gzip")
    labels.id.write_direct_chunk((0,), b"no deflate stream at all, but as long as one")


@change("chunks of 64 MiB", r"chunks of \d+ bytes")
def _(file: h5py.File) -> None:
    file.create_dataset("extra", shape=(3,), maxshape=(None,), dtype="u1", chunks=(64 * 2**20,))


@bytes_of("vectors and status overlap", r"parts that overlap")
def _(path: Path) -> None:
    honest.write(path)
    with h5py.File(path) as file:
        vectors, status = (file[f"{BLOCK}/{part}"].id.get_offset() for part in ("vectors", "status"))
    _patch(path, status.to_bytes(8, "little"), (vectors + 8).to_bytes(8, "little"))


@bytes_of("vectors behind the end of the file", r"behind the end|cannot be read as HDF5")
def _(path: Path) -> None:
    honest.write(path)
    with h5py.File(path) as file:
        vectors = file[f"{BLOCK}/vectors"].id.get_offset()
    _patch(path, vectors.to_bytes(8, "little"), (2**40).to_bytes(8, "little"))


def _patch(path: Path, old: bytes, new: bytes) -> None:
    """Replace the one place where an address stands."""
    raw = path.read_bytes()
    assert raw.count(old) == 1
    path.write_bytes(raw.replace(old, new))
