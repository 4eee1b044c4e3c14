"""Matrices of other origin coming in, and stores going out."""

from __future__ import annotations

import csv
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import features_store as fs
from features_store.diff import diff
from features_store.export import export
from features_store.import_ import import_matrix
from features_store.matrices import open_matrix
from features_store.merge import merge

N, D = 8, 3


@pytest.fixture
def store(tmp_path, make_store) -> fs.Store:
    """A store of eight images without blocks."""
    return make_store(tmp_path / "s", N, blocks=())


@pytest.fixture
def vectors() -> np.ndarray:
    """Five vectors; the ids below put them into other rows, and one outside."""
    return np.random.default_rng(0).normal(size=(5, D)).astype(np.float32)


IDS = ["set/006.jpg", "set/001.jpg", "nowhere.jpg", "set/007.jpg", "set/000.jpg"]
PLACES = [6, 1, 7, 0]  # of the four that are known
MATLAB = np.dtype("u2")


def matrix_file(matrix, key=None, ids_key=None, ids=None) -> dict:
    """Return the options of `import_matrix` that name a matrix and its ids."""
    return {"matrix": matrix, "key": key, "ids_key": ids_key, "ids": ids}


def save_npy(path, vectors) -> dict:
    np.save(path / "m.npy", vectors)
    return matrix_file(path / "m.npy", ids=IDS)


def save_fortran(path, vectors) -> dict:
    np.save(path / "m.npy", np.asfortranarray(vectors))
    return matrix_file(path / "m.npy", ids=IDS)


def save_npz(path, vectors) -> dict:
    np.savez_compressed(path / "m.npz", rgb=vectors, audio=vectors + 1, ids=np.array(IDS))
    return matrix_file(path / "m.npz", "rgb")


def save_csv(path, vectors) -> dict:
    lines = [
        "image,a,b,c",
        *(f"{one},{','.join(map(repr, row.tolist()))}" for one, row in zip(IDS, vectors, strict=True)),
    ]
    (path / "m.csv").write_text("\n".join(lines))
    return matrix_file(path / "m.csv")


def save_bare_csv(path, vectors) -> dict:
    lines = [f"{one},{','.join(map(repr, row.tolist()))}" for one, row in zip(IDS, vectors, strict=True)]
    (path / "m.csv").write_text("\n".join(lines))
    return matrix_file(path / "m.csv")


def save_mat(path, vectors) -> dict:
    with h5py.File(
        path / "m.mat", "w", userblock_size=512
    ) as file:  # as MATLAB lays out single(n x d) and a cell array
        file["features"] = vectors.T
        cells = np.empty((1, len(IDS)), dtype=h5py.ref_dtype)
        for n, one in enumerate(IDS):
            file[f"#refs#/{n}"] = np.frombuffer(one.encode("utf-16-le"), MATLAB)[:, None]
            cells[0, n] = file[f"#refs#/{n}"].ref
        file.create_dataset("names", data=cells, dtype=h5py.ref_dtype)
    return matrix_file(path / "m.mat", "features", "names")


def save_char_mat(path, vectors) -> dict:
    with h5py.File(path / "m.mat", "w") as file:
        file["features"] = vectors.T
        file["names"] = np.array([[ord(c) for c in one.ljust(20)] for one in IDS], dtype=MATLAB).T
    return matrix_file(path / "m.mat", ids_key="names")


def save_hdf5(path, vectors) -> dict:
    with h5py.File(path / "m.hdf5", "w") as file:
        file.create_dataset("deep/features", data=vectors, compression="gzip", chunks=(2, D))
        file["deep/ids"] = IDS
    return matrix_file(path / "m.hdf5", "deep/features", "/deep/ids")


@pytest.mark.parametrize(
    "save", [save_npy, save_fortran, save_npz, save_csv, save_bare_csv, save_mat, save_char_mat, save_hdf5]
)
def test_rows_of_every_format_find_their_images(tmp_path, store, vectors, save) -> None:
    """Each vector lands in the row of its id; images without one are missing, and rows without an image are counted."""
    done = import_matrix(store, path=tmp_path / "s" / "new.h5", **save(tmp_path, vectors), name="new")
    assert (done["n_rows"], done["unknown"], done["counts"]) == (5, 1, {"written": 4, "missing": 4})
    block = fs.open_store(tmp_path / "s").blocks["new"]
    assert block.dtype == np.float32
    assert block.sealed
    assert np.flatnonzero(block.status[:, 0] == 1).tolist() == sorted(PLACES)
    np.testing.assert_array_equal(block.vectors[PLACES, 0], vectors[[0, 1, 3, 4]])
    assert block.names == (("a", "b", "c") if save is save_csv else None)
    assert [path.name for path in (tmp_path / "s").iterdir() if path.name.startswith(".")] == []


def test_the_passport_names_the_file_and_its_bytes(tmp_path, store, vectors) -> None:
    """What the user knows is kept; what the file is, is added."""
    import hashlib

    source = save_npy(tmp_path, vectors)
    import_matrix(
        store, path=tmp_path / "b.h5", **source, name="yt8m", passport={"encoder": "youtube-8m"}, dtype="float16"
    )
    block = fs.open_store(tmp_path / "b.h5").blocks["yt8m"]
    sha256 = hashlib.sha256((tmp_path / "m.npy").read_bytes()).hexdigest()
    assert block.passport["encoder"] == "youtube-8m"
    assert block.passport["imported"] == {"file": "m.npy", "sha256": sha256, "key": None}
    assert block.dtype == np.float16


def test_rows_that_are_not_finite_become_failures(tmp_path, store, vectors) -> None:
    """NaN, and what half precision cannot hold."""
    vectors[0, 0], vectors[1, 0] = np.nan, 1e6
    done = import_matrix(store, path=tmp_path / "b.h5", **save_npy(tmp_path, vectors), name="b", dtype="float16")
    assert done["counts"] == {"written": 2, "missing": 4, "non finite": 2}


def test_what_was_imported_is_told_and_nothing_usable_is_refused(tmp_path, store, vectors, run_command) -> None:
    """Rows that are not finite become failed rows with a sentence; a matrix of them ends in exit code 2."""
    (tmp_path / "ids").write_text("\n".join(IDS))
    command = [
        "import",
        tmp_path / "s",
        tmp_path / "m.npy",
        "--ids",
        tmp_path / "ids",
        "-n",
        "b",
        "-o",
        tmp_path / "b.h5",
    ]
    vectors[1] = np.nan
    np.save(tmp_path / "m.npy", vectors)
    code, said, _ = run_command(*command)
    assert code == 0
    assert "block b of 3 float32 values: 3 of 8 images got a vector from the 5 rows of" in said
    assert "1 images have a value that is not finite, or too large for the type: marked non finite" in said
    assert "1 rows have an id that is not in the store" in said
    np.save(tmp_path / "m.npy", vectors * np.nan)
    code, said, wrong = run_command(*command, "--force")
    assert (code, said, wrong.count("\n")) == (2, "", 1)
    assert "holds no usable vector" in wrong
    assert "nothing was imported" in wrong


def test_a_pipe_is_never_waited_for(tmp_path, store, vectors, run_command) -> None:
    """Wherever a path is typed, a named pipe is refused in one sentence."""
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.npy")
    np.save(tmp_path / "m.npy", vectors)
    pipe, out = tmp_path / "pipe", tmp_path / "out.h5"
    for command in (
        ["subset", tmp_path / "s", "--ids", pipe, "-o", out],
        ["info", pipe],
        ["merge", tmp_path / "s", pipe, "-o", out],
        ["relabel", tmp_path / "s", pipe, "-o", out],
        ["diff", tmp_path / "s", pipe],
        ["import", pipe, "-o", out],
        ["import", tmp_path / "s", tmp_path / "pipe.npy", "-n", "b", "-o", out],
        ["import", tmp_path / "s", tmp_path / "m.npy", "-n", "b", "--ids", pipe, "-o", out],
        ["import", tmp_path / "s", tmp_path / "m.npy", "-n", "b", "--passport", pipe, "-o", out],
    ):
        code, _, wrong = run_command(*command)
        assert (code, wrong.count("\n")) == (2, 1), (command, wrong)
        assert "is not a regular file but a named pipe" in wrong
    assert run_command("verify", pipe)[0] == 1


def test_what_numpy_would_unpickle_is_refused(tmp_path, store) -> None:
    """An array of objects is never loaded."""
    np.save(tmp_path / "m.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(fs.UnsafeFileError, match="nothing is unpickled"):
        import_matrix(store, path=tmp_path / "b.h5", **matrix_file(tmp_path / "m.npy", ids=IDS), name="b")
    np.savez(tmp_path / "m.npz", x=np.array([{}, {}], dtype=object))
    with pytest.raises(fs.UnsafeFileError, match=r"m\.npz: 'x' is no array"):
        import_matrix(store, tmp_path / "m.npz", tmp_path / "b.h5", name="b", ids=IDS)


def test_a_second_block_of_one_name_never_comes_into_a_store(tmp_path, store, vectors) -> None:
    """Beside the first it would make the store unreadable; in another place it is another store."""
    name, there = "b", tmp_path / "s" / "b.h5"
    np.save(tmp_path / "m.npy", vectors)
    import_matrix(store, tmp_path / "m.npy", there, name=name, ids=IDS)
    store = fs.open_store(tmp_path / "s")
    for place, allowed in {there.parent / "new.h5": False, tmp_path / "new.h5": True, there: True}.items():
        if allowed:
            import_matrix(store, tmp_path / "m.npy", place, name=name, ids=IDS, force=True)
        else:
            with pytest.raises(fs.MismatchError, match="would make the store unreadable"):
                import_matrix(store, tmp_path / "m.npy", place, name=name, ids=IDS)
            assert not place.exists()


def test_an_id_may_hold_a_line_separator(tmp_path, run_command) -> None:
    """Lines end where text files end them, and nowhere else."""
    ids = ["a\u2028b.jpg", "c.jpg"]
    fs.write_index(tmp_path / "index.h5", fs.Index(np.array(ids)))
    np.save(tmp_path / "m.npy", np.eye(2, dtype=np.float32))
    (tmp_path / "ids.txt").write_bytes("\r\n".join(ids).encode())
    code, _, wrong = run_command(
        *("import", tmp_path / "index.h5", tmp_path / "m.npy", "--ids", tmp_path / "ids.txt"),
        *("-n", "b", "-o", tmp_path / "b.h5"),
    )
    assert code == 0, wrong


def test_hdf5_that_leads_elsewhere_is_refused(tmp_path, store, vectors) -> None:
    """Links out of the file, on any part of the path, and data kept in another file."""
    (tmp_path / "secret").write_bytes(vectors.tobytes())
    save_hdf5(tmp_path, vectors)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["leaf"] = h5py.ExternalLink("m.hdf5", "/deep/features")
        file["folder"] = h5py.ExternalLink("m.hdf5", "/deep")
        file["soft"] = h5py.SoftLink("/stored")
        file.create_dataset("stored", (5, D), "f4", external=[(str(tmp_path / "secret"), 0, 60)])
    for key in ("leaf", "folder/features", "soft", "stored"):
        with pytest.raises(fs.UnsafeFileError, match="refused"):
            import_matrix(store, path=tmp_path / "b.h5", **matrix_file(tmp_path / "m.h5", key, ids=IDS), name="b")
    assert not (tmp_path / "b.h5").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.npy", b"\x93NUMPY broken", "m.npy"),
        ("m.npz", b"PK no archive", "m.npz cannot be read"),
        ("m.csv", b"id,a,b\nset/001.jpg,1\n", "line 2 has 2 cells; expected 3"),
        ("m.csv", b"id,a,b\nset/001.jpg,1,2\nset/002.jpg,1,x\n", "line 3 holds something that is no number"),
        ("m.csv", b"id,a,b\nset/001.jpg,1,2\nset/002.jpg,1,1_000\n", "'1_000'"),
        (
            "m.csv",
            "id,a,b\nset/001.jpg,1,2\nset/002.jpg,1,\u0661\n".encode(),
            "line 3 holds something that is no number",
        ),
        ("m.csv", b"id,a\nset/001.jpg,1\nset/001.jpg,2\n", "must be unique"),
        ("m.csv", b"id,a\nother.jpg,1\n", "none of the 1 ids"),
        ("m.csv", b"", "no columns"),
        ("m.csv", b"id,a,a\nset/001.jpg,1,2\n", "several columns of the name 'a'"),
        ("m.csv", b'id,a\nset/000.jpg,1\n"set/001.jpg,1\nset/002.jpg,2\n', "line 3 on: unexpected end of data"),
        ("m.csv", b"id,a\n" + b"x" * 200_000 + b",1\n", "field larger than"),
        ("m.csv", b"\xff\xfe\x00", "cannot be read"),
        ("m.mat", b"MATLAB 5.0 MAT-file", "-v7.3"),
        ("m.h5", b"nothing", "cannot be read"),
        ("m.pkl", b"", "valid: .npy"),
    ],
)
def test_bad_files_end_in_one_sentence(tmp_path, store, run_command, name, content, words) -> None:
    """Exit code 2, what is wrong and where, and no file."""
    (tmp_path / name).write_bytes(content)
    code, _, err = run_command("import", tmp_path / "s", tmp_path / name, "-n", "b", "-o", tmp_path / "b.h5")
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "b.h5").exists()


def test_ids_must_fit_the_rows(tmp_path, store, vectors) -> None:
    """No ids, or another number of them."""
    np.save(tmp_path / "m.npy", vectors)
    with pytest.raises(fs.MismatchError, match="holds no ids"):
        import_matrix(store, path=tmp_path / "b.h5", **matrix_file(tmp_path / "m.npy"), name="b")
    with pytest.raises(fs.MismatchError, match="5 rows and there are 4 ids"):
        import_matrix(store, path=tmp_path / "b.h5", **matrix_file(tmp_path / "m.npy", ids=IDS[:4]), name="b")


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path, store) -> None:
    """A member a thousand times larger than its archive."""
    with zipfile.ZipFile(tmp_path / "m.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m.npy", bytes(30 * 2**20))
    with pytest.raises(fs.UnsafeFileError, match="unpacks to more"):
        import_matrix(store, path=tmp_path / "b.h5", **matrix_file(tmp_path / "m.npz", ids=IDS), name="b")


# ---- dumps that another program packed ------------------------------------------------------------------------------


def _repack(source, target) -> None:
    """Copy a dump as h5repack does, every dataset chunked and deflated."""
    with h5py.File(source) as old, h5py.File(target, "w", libver=("earliest", "v110")) as new:
        new.attrs.update(old.attrs)

        def copy(name, item) -> None:
            if isinstance(item, h5py.Group):
                new.require_group(name).attrs.update(item.attrs)
            else:
                made = new.create_dataset(name, data=item[()], dtype=item.dtype, chunks=True, compression="gzip")
                made.attrs.update(item.attrs)

        old.visititems(copy)


def test_a_repacked_dump_becomes_plain_again(tmp_path, make_store, run_command) -> None:
    """Everything that is in it stays, the seal too; a block can be gone on with; a damaged dump is refused."""
    store = make_store(tmp_path / "s", failed=(3,), blocks=("one.pool",))
    merge([tmp_path / "s"], tmp_path / "whole.h5")
    _repack(tmp_path / "whole.h5", tmp_path / "packed.h5")
    code, _, wrong = run_command("info", tmp_path / "packed.h5")
    assert code == 2
    assert f"rewrite the dump with `features-store import {tmp_path / 'packed.h5'} -o NEW.h5`" in wrong
    assert run_command("import", tmp_path / "packed.h5", "-o", tmp_path / "plain.h5")[0] == 0
    plain = fs.open_store(tmp_path / "plain.h5")
    assert diff(fs.open_store(tmp_path / "whole.h5"), plain) == {}
    assert plain.blocks["one.pool"].stored_seal == store.blocks["one.pool"].stored_seal
    with fs.BlockWriter(tmp_path / "plain.h5", plain.index, plain.blocks["one.pool"].spec) as writer:
        assert writer.reset([fs.Status.TRUNCATED]).tolist() == [3]
    with h5py.File(tmp_path / "packed.h5", "r+") as file:
        file["blocks/one.pool/vectors"][2] += 1
    code, _, wrong = run_command("import", tmp_path / "packed.h5", "-o", tmp_path / "again.h5")
    assert code == 2
    assert "changed after they were written" in wrong
    assert not (tmp_path / "again.h5").exists()


def test_a_matrix_needs_the_name_of_its_block(tmp_path, store, vectors, run_command) -> None:
    """It is asked for in one sentence."""
    np.save(tmp_path / "m.npy", vectors)
    code, _, wrong = run_command("import", tmp_path / "s", tmp_path / "m.npy", "-o", tmp_path / "b.h5")
    assert code == 2
    assert "--name" in wrong


# ---- HDF5 that a stranger laid out -----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_layout_gives_the_same_numbers(tmp_path_factory, data) -> None:
    """Chunks of any shape, filters in any order, any type and byte order, as h5py and as MATLAB write them."""
    shape = data.draw(st.lists(st.integers(1, 7), min_size=2, max_size=4))
    dtype = data.draw(st.sampled_from(["<f4", ">f4", "<f8", "<f2", "<i2", ">u2", "|u1"]))
    numbers = np.random.default_rng(0).integers(0, 99, shape).astype(dtype)
    chosen = {name: data.draw(st.booleans()) for name in ("shuffle", "fletcher32", "gzip")}
    options = {"compression": "gzip" if chosen.pop("gzip") else None, **chosen}
    if not any(options.values()) and data.draw(st.booleans()):
        options = {}  # contiguous
    else:
        options["chunks"] = tuple(data.draw(st.integers(1, n)) for n in shape)
    folder = tmp_path_factory.mktemp("layout")
    for name, stored in (("m.h5", numbers), ("m.mat", numbers.T)):
        turned = dict(options)
        if name == "m.mat" and "chunks" in turned:
            turned["chunks"] = turned["chunks"][::-1]
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("x", data=stored, **turned)
        with open_matrix(folder / name, scratch=folder) as matrix:
            assert matrix.shape == tuple(shape)
            for start in range(0, shape[0], 2):
                np.testing.assert_array_equal(matrix.take(start, start + 2), numbers[start : start + 2])


def _in_child(command: list, limit: int) -> tuple[int, str]:
    """Run a command with a limit on memory; return the exit code, and the errors."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({limit}, {limit}))\n"
    code += "from features_store.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    return done.returncode, done.stderr


def _short_chunk(file: h5py.File) -> None:
    file.create_dataset("x", (N, 1000), "f4", chunks=(N, 1000), compression="gzip")
    file["x"].id.write_direct_chunk((0, 0), zlib.compress(bytes(40)))


def _bomb(file: h5py.File) -> None:
    file.create_dataset("x", (N, 1000), "f4", chunks=(N, 1000), compression="gzip")
    file["x"].id.write_direct_chunk((0, 0), zlib.compress(bytes(2**28), 1))


def _large_chunks(file: h5py.File) -> None:
    file.create_dataset("x", (N, 2**21), "f4", chunks=(N, 2**21), compression="gzip")
    file.attrs["pad"] = np.zeros(60_000, np.uint8)
    file["x"].attrs["pad"] = np.zeros(60_000, np.uint8)


def _half_written(file: h5py.File) -> None:
    file.create_dataset("x", (N, 4), "f4", chunks=(2, 4))
    file["x"][:4] = 1


def _never_written(file: h5py.File) -> None:
    file.create_dataset("x", (N, 4), "f4")


def _damaged(file: h5py.File) -> None:
    file.create_dataset("x", (N, 4), "f4", chunks=(N, 4), fletcher32=True)
    file["x"][:] = 1
    _, raw = file["x"].id.read_direct_chunk((0, 0))
    file["x"].id.write_direct_chunk((0, 0), raw[:3] + bytes([raw[3] ^ 1]) + raw[4:])


def _odd_numbers(file: h5py.File) -> None:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(100)
    h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((N, 4)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_short_chunk, "does not hold the 32000 bytes"),
        (_bomb, "does not hold the 32000 bytes"),
        (_large_chunks, "has chunks of"),
        (_half_written, "never written"),
        (_never_written, "never written"),
        (_damaged, "checksum"),
        (_odd_numbers, "expected plain numbers"),
    ],
)
def test_chunks_that_hold_something_else_are_refused(tmp_path, store, run_command, make, words) -> None:
    """No foreign memory becomes vectors, and no small file fills the memory: one sentence and exit code 2."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        make(file)
    (tmp_path / "ids").write_text("\n".join(f"set/{i:03d}.jpg" for i in range(N)))
    out = tmp_path / "b.h5"
    command = ["import", tmp_path / "s", tmp_path / "m.h5", "--ids", tmp_path / "ids", "-n", "b", "-o", out]
    limited = make in (_bomb, _large_chunks)
    code, said = _in_child(command, 300 * 2**20) if limited else run_command(*command)[::2]
    assert code == 2, said
    assert words in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ids", "m.h5", "s"]


def test_ids_of_every_kind(tmp_path, store, vectors) -> None:
    """Text of fixed and of variable length, chunked or not; compressed cells, as MATLAB writes them."""
    for number, options in enumerate(({}, {"chunks": (2,)}, {"chunks": (2,), "compression": "gzip"})):
        for kind in ("S11", h5py.string_dtype()):
            path = tmp_path / f"{number}{len(str(kind))}.h5"
            with h5py.File(path, "w") as file:
                file["x"] = vectors
                file.create_dataset("ids", data=np.array(IDS, dtype=object).astype(kind), dtype=kind, **options)
            if kind != "S11" and "compression" in options:
                with pytest.raises(fs.FormatError, match="--ids"), open_matrix(path, ids_key="ids", scratch=tmp_path):
                    pytest.fail("libhdf5 would follow addresses of a stranger's making")
            else:
                with open_matrix(path, ids_key="ids", scratch=tmp_path) as matrix:
                    assert matrix.ids == IDS
    with h5py.File(tmp_path / "m.mat", "w") as file:
        file["x"] = vectors.T
        cells = np.empty((1, len(IDS)), dtype=h5py.ref_dtype)
        for n, one in enumerate(IDS):
            file[f"#refs#/{n}"] = np.frombuffer(one.encode("utf-16-le"), MATLAB)[:, None]
            cells[0, n] = file[f"#refs#/{n}"].ref
        file.create_dataset("names", data=cells, dtype=h5py.ref_dtype, chunks=(1, 2), compression="gzip")
    with open_matrix(tmp_path / "m.mat", ids_key="names", scratch=tmp_path) as matrix:
        assert matrix.ids == IDS


_IMPORT_KILLED = """
import os, signal, sys
from features_store.import_ import BlockWriter
BlockWriter.seal = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
from features_store.__main__ import main
main()
"""


def test_what_a_killed_import_unpacked_goes_with_the_next(tmp_path, store, vectors) -> None:
    """The next command that writes there removes the unpacked numbers and the half block."""
    np.savez(tmp_path / "m.npz", x=vectors, ids=np.array(IDS))
    command = ["import", tmp_path / "s", tmp_path / "m.npz", "-n", "b", "-o", tmp_path / "s" / "b.h5"]
    done = subprocess.run([sys.executable, "-c", _IMPORT_KILLED, *map(str, command)], check=False)
    assert done.returncode == -9
    left = [path.name for path in (tmp_path / "s").iterdir() if path.name != "index.h5"]
    assert len(left) == 1
    fs.write_index(tmp_path / "s" / "other.h5", store.index)
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["index.h5", "other.h5"]


# ---- export ---------------------------------------------------------------------------------------------------------


def test_npz_loads_without_pickle(tmp_path, make_store) -> None:
    """numpy reads every array; failed rows are NaN; equal stores give equal bytes."""
    store = make_store(tmp_path / "a", failed=(3,))
    done = export(store, tmp_path / "a.npz", blocks=["two.pool"])
    assert done["failed"] == 1
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        loaded = {name: arrays[name] for name in arrays.files}
    assert loaded["images/id"].tolist() == store.ids.tolist()
    good = np.arange(12) != 3
    np.testing.assert_array_equal(
        loaded["blocks/two.pool/vectors"][good], store.matrix(["two.pool"], good.nonzero()[0])
    )
    assert np.isnan(loaded["blocks/two.pool/vectors"][3]).all()
    assert loaded["blocks/two.pool/vectors"].dtype == np.float16
    assert json.loads(str(loaded["blocks/two.pool/passport"])) == store.blocks["two.pool"].passport
    np.testing.assert_array_equal(loaded["labels/va"], store.labels["va"].values)
    np.testing.assert_array_equal(loaded["splits/default"], store.splits["default"].values)
    assert "blocks/one.pool/vectors" not in loaded
    export(store, tmp_path / "b.npz", blocks=["two.pool"])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("ending", ["npz", "csv"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_exported_comes_back(tmp_path, ending, dtype) -> None:
    """Export then import: nothing differs with .npz; with .csv all vectors are the same, to the last bit."""
    rng = np.random.default_rng(5)
    index = fs.Index(np.array([f"ö {i},x.jpg" for i in range(40)]))
    spec = fs.BlockSpec("deep.map", (2, 1, 3), {"encoder": "toy"}, dtype, names=(*"uvwxy", "z:1"))
    with fs.BlockWriter(tmp_path / "a.h5", index, spec) as writer:
        writer.write(np.arange(2, 40), rng.normal(size=(38, 6)) * np.logspace(-7, 4, 38)[:, None])
        writer.fail([0], fs.Status.MISSING)
        writer.fail([1], fs.Status.TRUNCATED if ending == "npz" else fs.Status.MISSING)
        writer.seal()
    store = fs.open_store(tmp_path / "a.h5")
    export(store, tmp_path / f"x.{ending}")
    (tmp_path / "back").mkdir()
    path = tmp_path / "back" / "b.h5"
    import_matrix(store, path=path, **matrix_file(tmp_path / f"x.{ending}"), name="deep.map", dtype=dtype)
    back = fs.open_store(path)
    if ending == "npz":
        assert diff(store, back) == {}
    np.testing.assert_array_equal(back.blocks["deep.map"].status, store.blocks["deep.map"].status)
    np.testing.assert_array_equal(back.matrix(["deep.map"], range(2, 40)), store.matrix(["deep.map"], range(2, 40)))
    assert back.blocks["deep.map"].names == (*"uvwxy", "z:1")


@pytest.mark.parametrize(
    ("titles", "ids_key", "names"),
    [
        (",0,1", None, None),
        ("id,0,1", "id", None),
        ("id,a:x,b:x", None, ("a:x", "b:x")),
        (",2019,2020", None, ("2019", "2020")),
    ],
)
def test_titles_of_a_table_are_kept_as_they_are(tmp_path, store, titles, ids_key, names) -> None:
    """Of pandas, whose titles may be numbers; names of different columns stay different."""
    (tmp_path / "m.csv").write_text(f"{titles}\nset/001.jpg,5,6\nset/000.jpg,7,8\n")
    done = import_matrix(store, tmp_path / "m.csv", tmp_path / "b.h5", name="b", ids_key=ids_key)
    block = fs.open_store(tmp_path / "b.h5").blocks["b"]
    assert (done["n_rows"], done["unknown"], block.names) == (2, 0, names)
    assert block.vectors[:2, 0].tolist() == [[7, 8], [5, 6]]


def test_csv_speaks_in_words(tmp_path, make_store) -> None:
    """Class names, part names, and empty cells for what is not known."""
    store = make_store(tmp_path / "a", failed=(3,), blocks=("one.pool",))
    export(store, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == store.ids.tolist()
    assert [row["task:mood"] for row in rows] == ["bad", "good"] * 6
    assert [row["split:default"] for row in rows] == ["train", "validation", "test"] * 4
    assert [row["one.pool:2"] for row in rows][3] == ""
    assert float(rows[5]["one.pool:2"]) == store.blocks["one.pool"].vectors[5, 0, 2]


def test_parquet_where_pyarrow_is(tmp_path, make_store) -> None:
    """The table has a list column for the block."""
    parquet = pytest.importorskip("pyarrow.parquet")
    store = make_store(tmp_path / "a")
    export(store, tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table["id"].to_pylist() == store.ids.tolist()
    np.testing.assert_array_equal(np.array(table["one.pool"].to_pylist()), store.matrix(["one.pool"]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["-o", "a.xlsx"], "valid: .npz, .csv, .parquet"), (["-o", "a.npz", "--view", "2"], "views 0 to 0; got 2")],
)
def test_impossible_exports_end_in_one_sentence(tmp_path, make_store, run_command, arguments, words) -> None:
    """An unknown ending, a view that is not there."""
    make_store(tmp_path / "a")
    code, _, err = run_command("export", tmp_path / "a", *arguments)
    assert code == 2
    assert words in err


@pytest.mark.parametrize("ending", [".csv", ".npz"])
def test_a_matrix_of_holes_does_not_fill_the_memory(tmp_path, make_store, run_command, ending) -> None:
    """Two gigabytes that take no space on a disk: one line, or the directory that the end of a ZIP file claims."""
    make_store(tmp_path / "s")
    place = tmp_path / f"m{ending}"
    place.touch()
    os.truncate(place, 2**31)
    if ending == ".npz":
        with place.open("r+b") as file:
            file.seek(2**31 - 22)
            file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 2**31 - 100, 78, 0))
    tracemalloc.start()
    code, _, said = run_command("import", tmp_path / "s", place, "-n", "x", "-o", tmp_path / "m.h5")
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()
    assert code == 2
    assert "characters" in said or "directory claims" in said


@pytest.mark.parametrize("ending", ["npy", "csv"])
def test_whole_numbers_that_become_others_are_counted(tmp_path, store, run_command, ending) -> None:
    """A code beyond 2^24 has no float32 of its own; the numbers below have, and so has every second one above."""
    values = [[2**24, 1.5, 0], [2**24 + 1, 2**24 + 2, -(2**24) - 1], [-5, 0.1, 2**62], [3, 3, 3], [1, 1, 1e39]]
    (tmp_path / "ids.txt").write_text("\n".join(IDS))
    if ending == "npy":
        np.save(tmp_path / "m.npy", np.array(values))
    else:
        rows = (f"{one},{','.join(map(repr, row))}" for one, row in zip(IDS, values, strict=True))
        (tmp_path / "m.csv").write_text("\n".join(rows))
    ids = ["--ids", tmp_path / "ids.txt"] if ending == "npy" else []
    code, said, _ = run_command(
        "import", tmp_path / "s", tmp_path / f"m.{ending}", *ids, "-n", "m", "-o", tmp_path / "s" / "m.h5"
    )
    assert code == 0
    assert "2 whole numbers beyond 16,777,216 were rounded" in said
