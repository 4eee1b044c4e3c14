"""Other programs see ordinary datasets: h5dump, h5ls, plain h5py, PyTables."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import h5py
import honest
import numpy as np
import pytest

import features_store as fs
from features_store.import_ import rewrite

BLOCK = f"/blocks/{honest.BLOCK}"


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> Path:
    """One honest dump."""
    path = tmp_path_factory.mktemp("dump") / "dump.h5"
    honest.write(path)
    return path


def tool(name: str, *arguments: str) -> str:
    """Run a program of the HDF5 tools; without them the test is skipped."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed (package hdf5-tools)")
    done = subprocess.run([name, *arguments], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def test_h5dump_reads_the_header(dump) -> None:
    """Types, shapes and layout as FORMAT.md says, through an older libhdf5."""
    said = tool("h5dump", "-p", "-H", str(dump))
    vectors = said[said.index('DATASET "vectors"') :]
    assert re.search(r"DATATYPE\s+(H5T_IEEE_F16LE|16-bit little-endian floating-point)", vectors)
    assert f"( {honest.N}, {honest.VIEWS}, {honest.D} )" in vectors
    assert "CONTIGUOUS" in vectors[: vectors.index("FILTERS")]
    for name in ("id", "content", "group", "polarity", "tags", "valence", "default", "five", "status", "seal"):
        assert f'DATASET "{name}"' in said


def test_h5dump_reads_values(dump) -> None:
    """The status as numbers, the ids as text."""
    said = tool("h5dump", "-d", f"{BLOCK}/status", str(dump))
    numbers = [int(n) for line in re.findall(r"\(\d+,\d+\): ([^\n]*)", said) for n in re.findall(r"\d+", line)]
    with h5py.File(dump) as file:
        assert numbers == file[f"{BLOCK}/status"][:].reshape(-1).tolist()
    assert "STRSIZE" in tool("h5dump", "-H", "-d", "/images/id", str(dump))


def test_h5ls_lists_everything(dump) -> None:
    """One line an object, with its shape."""
    lines = [line.split(maxsplit=1) for line in tool("h5ls", "-r", str(dump)).splitlines()]
    said = {name: what for name, what in lines}
    assert said[f"{BLOCK}/vectors"] == f"Dataset {{{honest.N}, {honest.VIEWS}, {honest.D}}}"
    assert said["/images/id"] == f"Dataset {{{honest.N}}}"


def test_plain_h5py(dump) -> None:
    """The session of FORMAT.md section 8."""
    with h5py.File(dump, "r") as file:
        ids = file["images/id"].asstr()[:]
        block = file[BLOCK]
        written = block["status"][:, 0] == 1
        vectors = block["vectors"][:, 0, :].astype("f4")
    assert ids.tolist() == honest.index().ids.tolist()
    np.testing.assert_array_equal(vectors[written], honest.vectors()[written, 0].astype("f4"))


def test_ids_are_one_row_of_fixed_length_text(dump) -> None:
    """What rhdf5 and MATLAB want: a simple one-dimensional dataset of null-padded UTF-8, no references."""
    with h5py.File(dump) as file:
        kind = file["images/id"].id.get_type()
        assert file["images/id"].shape == (honest.N,)
        assert not kind.is_variable_str()
        assert kind.get_cset() == h5py.h5t.CSET_UTF8
        assert kind.get_strpad() in (h5py.h5t.STR_NULLPAD, h5py.h5t.STR_NULLTERM)
        names = []
        file.visititems(lambda name, item: names.append((name, item.dtype.kind)) if hasattr(item, "dtype") else None)
        assert {kind for _, kind in names} <= set("Siuf")


def test_pytables(dump) -> None:
    """PyTables reads vectors, status, labels and ids."""
    tables = pytest.importorskip("tables", reason="PyTables is not installed (extra dev)")
    with tables.open_file(str(dump)) as file:
        block = file.root.blocks._f_get_child(honest.BLOCK)
        status = block.status[:]
        read = block.vectors[:]
        ids = [raw.decode() for raw in file.root.images.id[:]]
        np.testing.assert_array_equal(file.root.labels.polarity[:], honest.index().labels["polarity"].values)
        assert file.root.images.group.dtype == np.int64
    assert ids == honest.index().ids.tolist()
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read[status == 1], honest.vectors()[status == 1])


def test_a_block_that_h5repack_compressed(dump, tmp_path) -> None:
    """A dump that went through HDF5's own tool, chunked and compressed, becomes the same store again."""
    packed = tmp_path / "packed.h5"
    tool("h5repack", "-f", "SHUF", "-f", "GZIP=9", "-l", "CHUNK=5x2x6", str(dump), str(packed))
    rewrite(packed, tmp_path / "plain.h5")
    store = fs.open_store(tmp_path / "plain.h5")
    good = store.blocks[honest.BLOCK].status == fs.Status.WRITTEN
    np.testing.assert_array_equal(store.blocks[honest.BLOCK].vectors[good], honest.vectors()[good])
