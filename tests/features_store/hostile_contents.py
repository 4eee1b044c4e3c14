"""Hostile files: labels, splits, blocks and attributes."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import honest
import numpy as np
from hostile import BLOCK, bytes_of, change, passport, replace

UTF8 = h5py.string_dtype("utf-8")
# ---- labels, splits, blocks


@change("labels above the last class", r"'polarity' run from -?\d to 77")
def _(file: h5py.File) -> None:
    file["labels/polarity"][0] = 77


@change("negative labels", r"'polarity' run from -9")
def _(file: h5py.File) -> None:
    file["labels/polarity"][0] = -9


@change("half a row of labels", r"255 in the whole row")
def _(file: h5py.File) -> None:
    file["labels/tags"][3, 0] = 1


@change("infinite labels", r"infinite")
def _(file: h5py.File) -> None:
    file["labels/valence"][0] = np.inf


@change("labels of other images", r"labels/polarity is <i2 of shape \(3,\)")
def _(file: h5py.File) -> None:
    replace(file, "labels/polarity", np.zeros(3, "<i2"))


@change("unknown kind of labels", r"has kind 'magic'")
def _(file: h5py.File) -> None:
    file["labels/polarity"].attrs["kind"] = "magic"


@change("labels without classes", r"has no attribute 'classes'")
def _(file: h5py.File) -> None:
    del file["labels/polarity"].attrs["classes"]


@change("classes that are numbers", r"is not a JSON list of strings")
def _(file: h5py.File) -> None:
    file["labels/polarity"].attrs["classes"] = "[1, 2, 3]"


@change("a class twice", r"each once")
def _(file: h5py.File) -> None:
    file["labels/polarity"].attrs["classes"] = '["a", "a", "b"]'


@change("a class that clears the screen", r"control characters")
def _(file: h5py.File) -> None:
    file["labels/polarity"].attrs["classes"] = json.dumps(["\x1b[2J", "b", "c"])


@change("a class of half a surrogate pair", r"is not UTF-8")
def _(file: h5py.File) -> None:
    file["labels/polarity"].attrs["classes"] = '["\\ud800", "b", "c"]'


@change("a range too large for a float", r"too large")
def _(file: h5py.File) -> None:
    file["labels/valence"].attrs["range"] = f"[0, {'9' * 400}]"


@change("a range upside down", r"low end")
def _(file: h5py.File) -> None:
    file["labels/valence"].attrs["range"] = "[9, 1]"


@change("a part that is none", r"split 'default' must be")
def _(file: h5py.File) -> None:
    file["splits/default"][0] = 100


@change("unknown kind of split", r"split 'default' has kind 'parts;'")
def _(file: h5py.File) -> None:
    file["splits/default"].attrs["kind"] = "parts;"


@change("a name that no file could have", r"name '\.\.' is not allowed|\.\.")
def _(file: h5py.File) -> None:
    file["splits"].create_dataset(b"..\x1b", data=np.zeros(honest.N, "i1"))


@change("status without vectors", r"there is no dataset /blocks/toy.pool/vectors")
def _(file: h5py.File) -> None:
    del file[f"{BLOCK}/vectors"]


@change("vectors without status", r"there is no dataset /blocks/toy.pool/status")
def _(file: h5py.File) -> None:
    del file[f"{BLOCK}/status"]


@change("a status that does not exist", r"status holds 200; valid: 0 to 6")
def _(file: h5py.File) -> None:
    file[f"{BLOCK}/status"][5, 1] = 200


@change("vectors of other images", r"vectors has shape \(3, 2, 6\)")
def _(file: h5py.File) -> None:
    replace(file, f"{BLOCK}/vectors", np.zeros((3, 2, 6), "<f2"))


@change("item shape that does not fit", r"attribute shape \[1000\]")
def _(file: h5py.File) -> None:
    file[f"{BLOCK}/vectors"].attrs["shape"] = [1000]


@change("item shape of text", r"attribute shape")
def _(file: h5py.File) -> None:
    file[f"{BLOCK}/vectors"].attrs["shape"] = "6"


@change("names that are not UTF-8", r"/names is not UTF-8")
def _(file: h5py.File) -> None:
    replace(file, f"{BLOCK}/names", np.array([b"\xff"] * honest.D))


@change("a block that is a dataset, ignored as unknown", None)
def _(file: h5py.File) -> None:
    file["blocks"].create_dataset("thing", data=np.zeros(3))


@change("labels is a dataset", r"/labels is not a group")
def _(file: h5py.File) -> None:
    del file["labels"]
    file["labels"] = np.zeros(3)


# ---- attributes

change("passport: nested 30,000 deep", r"nested too deeply")(passport("[" * 30_000))
change("passport: nested 900 deep", r"nested too deeply")(passport('{"a":' * 900 + "1" + "}" * 900))
change("passport: a number of 60,000 digits", r"too large")(passport('{"a":' + "9" * 60_000 + "}"))
change("passport: a number beyond floats", r"too large")(passport('{"a": 1e999}'))
change("passport: NaN", r"holds NaN")(passport('{"a": NaN}'))
change("passport: a name twice", r"holds the name 'a' twice")(passport('{"a": 1, "a": 2}'))
change("passport: a list", r"is not a JSON object")(passport("[1]"))
change("passport: no JSON", r"is not JSON")(passport("import os; os.system('true')"))
change("passport: not UTF-8", r"is not UTF-8")(passport(b'{"a": "\xff"}'))
change("passport: escape sequences", r"control characters")(
    passport('{"weights": {"source": "\\u001b]0;owned\\u0007"}}')
)
change("passport: missing weights", None)(passport('{"weights": 3}'))


@change("passport: a number", r"attribute 'passport' is not text")
def _(file: h5py.File) -> None:
    file[BLOCK].attrs["passport"] = 3.5


@change("passport: empty", r"attribute 'passport' is not text")
def _(file: h5py.File) -> None:
    file[BLOCK].attrs["passport"] = h5py.Empty("S4")


@change("passport: many texts", r"attribute 'passport' is not")
def _(file: h5py.File) -> None:
    file[BLOCK].attrs.create("passport", ["{}"] * 9, dtype=UTF8)


@change("format is a number", r"attribute 'format' is not text")
def _(file: h5py.File) -> None:
    file.attrs["format"] = 1


@change("unknown major version", r"format_version is 2\.0, and this software reads 1\.x")
def _(file: h5py.File) -> None:
    file.attrs["format_version"] = "2.0"


@change("version without sense", r"format_version is '1.x'")
def _(file: h5py.File) -> None:
    file.attrs["format_version"] = "1.x"


@bytes_of("oversized attribute", r"attribute 'big' has \d+ bytes")
def _(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs.create("big", np.zeros(2**20, "u1"))


@change("corpus with a bomb", r"corpus is nested too deeply")
def _(file: h5py.File) -> None:
    file.attrs["corpus"] = '{"a":' * 100 + "1" + "}" * 100
