"""Hostile files: types that a dump does not have, and ids."""

from __future__ import annotations

import h5py
import honest
import numpy as np
from hostile import BLOCK, change, ids, low_level, replace

# ---- types

UTF8 = h5py.string_dtype("utf-8")


@change("ids of variable length", r"/images/id is not of plain numbers")
def _(file: h5py.File) -> None:
    replace(file, "images/id", file["images/id"].asstr()[:].astype(object), dtype=UTF8)


@change("vectors of variable length", r"is not of plain numbers")
def _(file: h5py.File) -> None:
    replace(file, f"{BLOCK}/vectors", shape=(honest.N,), dtype=h5py.vlen_dtype(np.float32))


@change("compound labels", r"is not of plain numbers")
def _(file: h5py.File) -> None:
    replace(file, "labels/polarity", np.zeros(honest.N, [("a", "<i2"), ("b", "<i2")]))


@change("enum labels", r"is not of plain numbers")
def _(file: h5py.File) -> None:
    replace(file, "labels/polarity", shape=(honest.N,), dtype=h5py.enum_dtype({"a": 0, "b": 1}, "<i2"))


@change("object references", r"is not of plain numbers")
def _(file: h5py.File) -> None:
    replace(file, "labels/polarity", shape=(honest.N,), dtype=h5py.ref_dtype)


@change("region references in an attribute", r"attribute 'region' is not of plain numbers")
def _(file: h5py.File) -> None:
    file.attrs.create("region", file["images/id"].regionref[:2], dtype=h5py.regionref_dtype)


@change("array type", r"is not of plain numbers")
def _(file: h5py.File) -> None:
    file.create_dataset("extra", shape=(3,), dtype=np.dtype(("<f4", (4,))))


@change("opaque type", r"is not of plain numbers")
def _(file: h5py.File) -> None:
    file.create_dataset("extra", data=np.zeros(3, "V8"))


@change("named type", r"/kind is a named type")
def _(file: h5py.File) -> None:
    file["kind"] = np.dtype("<f4")


@change("vectors of float64", r"vectors is <f8 .*; expected <f2 or <f4")
def _(file: h5py.File) -> None:
    replace(file, f"{BLOCK}/vectors", file[f"{BLOCK}/vectors"][:].astype("<f8"))


@change("big-endian vectors", r"vectors is >f2 .*; expected <f2 or <f4")
def _(file: h5py.File) -> None:
    replace(file, f"{BLOCK}/vectors", file[f"{BLOCK}/vectors"][:].astype(">f2"))


@change("big-endian labels", r"polarity is >i2")
def _(file: h5py.File) -> None:
    replace(file, "labels/polarity", file["labels/polarity"][:].astype(">i2"))


@change("vectors of brain floats", r"vectors is .*expected <f2 or <f4")
def _(file: h5py.File) -> None:
    kind = h5py.h5t.IEEE_F16LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_ebias(127)
    low_level(file, f"{BLOCK}/vectors", (honest.N, 2, honest.D), kind)


@change("status of int16", r"status is <i2")
def _(file: h5py.File) -> None:
    replace(file, f"{BLOCK}/status", file[f"{BLOCK}/status"][:].astype("<i2"))


@change("seal of the wrong length", r"seal is \|u1 of shape \(39,\)")
def _(file: h5py.File) -> None:
    replace(file, f"{BLOCK}/seal", np.zeros(39, "u1"))


@change("digests of the wrong shape", r"digests is \|u1 of shape \(3,\)")
def _(file: h5py.File) -> None:
    replace(file, f"{BLOCK}/digests", np.zeros(3, "u1"))


@change("labels without a shape", r"/labels/polarity has no shape")
def _(file: h5py.File) -> None:
    replace(file, "labels/polarity", h5py.Empty("<i2"))


# ---- ids

change("ids twice", r"stands in row 0 and again in row 1")(ids(b"a.jpg", b"a.jpg"))
change("ids that are not UTF-8", r"row 1 is not UTF-8")(ids(b"a.jpg", b"\xff\xfe.jpg"))
change("ids that leave the folder", r"'\.\.' component")(ids(b"a/../../etc/passwd"))
change("absolute ids", r"is not relative")(ids(b"/etc/passwd"))
change("ids on a drive", r"is not relative")(ids(b"C:/windows"))
change("ids with backslashes", r"backslash")(ids(b"..\\up"))
change("ids with escape sequences", r"control character")(ids(b"\x1b[2Jgone.jpg"))
change("empty id", r"is empty")(ids(b""))
change("ids with NUL inside", r"control character")(ids(b"a\0b"))
change("ids not normalised", r"normalisation form NFC")(ids("A\u0308.jpg".encode()))
change("ids and digest do not agree", r"index_digest is .* but the ids have")(ids(b"other.jpg"))


@change("numbers as ids", r"/images/id is int64")
def _(file: h5py.File) -> None:
    replace(file, "images/id", np.arange(honest.N))


@change("no ids", r"there is no dataset /images/id")
def _(file: h5py.File) -> None:
    del file["images/id"]


@change("no image", r"/images/id is .*expected one row")
def _(file: h5py.File) -> None:
    replace(file, "images/id", shape=(0,), dtype="S4")
