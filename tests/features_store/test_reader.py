"""Opening stores and gathering rows."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import features_store as fs
from features_store.import_ import rewrite

N = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder store: index with labels and splits, blocks `a` (float16) and `b` (float32, map), `b` with failures."""
    folder = tmp_path_factory.mktemp("store")
    index = fs.Index(
        np.array([f"{i % 3}/bild-ä{i}.jpg" for i in range(N)]),
        labels={
            "polarity": fs.Labels(fs.Task("polarity", "single", ("neg", "pos")), np.arange(N) % 3 - 1),
            "evokes": fs.Labels(fs.Task("evokes", "multi", ("joy", "fear")), np.stack([np.arange(N) % 2] * 2, 1)),
            "va": fs.Labels(fs.Task("va", "regression", ("v", "a"), (1, 9)), np.linspace(1, 9, 2 * N).reshape(N, 2)),
        },
        splits={
            "default": fs.Split("default", np.arange(N) % 4 - 1),
            "five": fs.Split("five", np.arange(N) % 5, "folds"),
        },
        groups=np.arange(N) // 2,
        corpus={"name": "toy", "options": {"k": 1}},
    )
    fs.write_index(folder / "index.h5", index)
    for name, shape, dtype in (("a", (5,), "float16"), ("b", (2, 3, 2), "float32")):
        spec = fs.BlockSpec(name, shape, {"encoder": name}, dtype)
        with fs.BlockWriter(folder / f"{name}.h5", index, spec) as writer:
            writer.write(np.arange(N), content(name))
            if name == "b":
                writer.fail([4, 9], fs.Status.UNDECODABLE)
            writer.seal()
    return folder


def content(name: str) -> np.ndarray:
    """What block `name` holds, exactly representable."""
    width = {"a": 5, "b": 12}[name]
    return np.random.default_rng(ord(name)).integers(-99, 99, (N, width)).astype(np.float32)


def test_everything_comes_back(folder) -> None:
    """Ids, labels, splits, groups and the corpus record are read as they were written."""
    store = fs.open_store(folder)
    assert store.ids[1] == "1/bild-ä1.jpg"
    assert store.labels["va"].task == fs.Task("va", "regression", ("v", "a"), (1.0, 9.0), "unknown")
    np.testing.assert_array_equal(store.labels["polarity"].values, np.arange(N) % 3 - 1)
    np.testing.assert_array_equal(store.labels["polarity"].known, np.arange(N) % 3 > 0)
    np.testing.assert_array_equal(store.splits["five"].values, np.arange(N) % 5)
    assert (store.splits["five"].kind, store.splits["default"].kind) == ("folds", "parts")
    np.testing.assert_array_equal(store.groups, np.arange(N) // 2)
    assert store.corpus == {"name": "toy", "options": {"k": 1}}
    assert store.blocks["b"].item_shape == (2, 3, 2)
    assert store.index.digest == store.index_digest


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, N - 1), max_size=80), dtype=st.sampled_from(["float32", "float64", "float16"]))
def test_gather_equals_numpy_indexing(folder, rows, dtype) -> None:
    """Any rows in any order, repeated or not, equal numpy's indexing of the whole."""
    store = fs.open_store(folder)
    whole = np.hstack([content("b"), content("a")])
    found = store.matrix(["b", "a"], rows, dtype=dtype, on_failed="nan")
    expected = whole[np.array(rows, dtype=int)].astype(dtype)
    expected[np.isin(rows, [4, 9])] = np.nan
    np.testing.assert_array_equal(found, expected)
    dropped = store.matrix(["b", "a"], rows, on_failed="drop")
    np.testing.assert_array_equal(dropped, whole[[row for row in rows if row not in (4, 9)]])


def test_failed_rows_are_an_error_unless_decided(folder) -> None:
    """No vector is guessed: the caller says what shall happen."""
    store = fs.open_store(folder)
    with pytest.raises(fs.FailedRowsError, match=r"2 of 60 rows have no vector in a, b \(1/bild-ä4.jpg, 0/bild-ä9.jpg"):
        store.matrix(["a", "b"])
    assert np.flatnonzero(~store.usable(["a", "b"])).tolist() == [4, 9]
    assert store.usable(["a"]).all()


def test_batches_use_one_buffer(folder) -> None:
    """Batches cover the rows in order and share their memory."""
    store = fs.open_store(folder)
    order = np.random.default_rng(0).permutation(N)
    seen, addresses = [], set()
    for rows, batch in store.batches(["a"], order, 16):
        np.testing.assert_array_equal(batch, content("a")[rows])
        addresses.add(batch.__array_interface__["data"][0])
        seen.extend(rows)
    assert seen == order.tolist()
    assert len(addresses) == 1


def test_the_buffer_must_fit(folder) -> None:
    """A buffer of another shape is refused with both shapes."""
    store = fs.open_store(folder)
    with pytest.raises(fs.MismatchError, match=r"\(3, 5\); 4 rows of 5 values"):
        store.matrix(["a"], [0, 1, 2, 3], out=np.empty((3, 5)))


@pytest.mark.parametrize("rows", [[60], [-1], [0.5], [[1]]])
def test_rows_must_exist(folder, rows) -> None:
    """Rows are whole numbers inside the index."""
    with pytest.raises(fs.MismatchError, match="rows"):
        fs.open_store(folder).matrix(["a"], rows)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda store: store.matrix(["c"]), "unknown block 'c'; valid: a, b"),
        (lambda store: store.task_labels("polarty"), "unknown task 'polarty' \\(did you mean 'polarity'\\?\\)"),
        (lambda store: store.split("deflaut"), "unknown split 'deflaut' \\(did you mean 'default'\\?\\)"),
    ],
)
def test_unknown_names_list_the_valid_ones(folder, ask, message) -> None:
    """A misspelt name is answered with the names that exist."""
    with pytest.raises(fs.UnknownNameError, match=message):
        ask(fs.open_store(folder))


def test_a_store_crosses_to_a_spawned_process(folder, tmp_path) -> None:
    """It carries paths and no handles, so a pickled store works in a process that shares nothing."""
    store = fs.open_store(folder)
    store.matrix(["a"])  # the parent has the file mapped already
    (tmp_path / "store.pickle").write_bytes(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 20_000, "the vectors must not travel"
    code = "import pickle, sys; print(float(pickle.load(open(sys.argv[1], 'rb')).matrix(['a']).sum()))"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "store.pickle"], capture_output=True, text=True, check=True, timeout=60
    )
    assert float(done.stdout) == content("a").sum()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_store_survives_a_fork(folder) -> None:
    """A forked child reads the rows that its parent sees."""
    store = fs.open_store(folder)
    store.matrix(["a"])
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, repr(float(store.matrix(["a"]).sum())).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert float(os.read(read, 100)) == content("a").sum()


@pytest.mark.parametrize(
    "settings_", [{"chunks": (7, 1, 5)}, {"compression": "gzip", "shuffle": True, "fletcher32": True}]
)
def test_chunked_files_of_others_are_read(tmp_path, settings_) -> None:
    """A dump that another program wrote with chunks and filters gives the same rows, once it is rewritten."""
    path = tmp_path / "other.h5"
    ids = [f"{i}.png" for i in range(N)]
    fs.write_index(path, fs.Index(np.array(ids)))
    with h5py.File(path, "r+") as file:
        group = file.create_group("blocks/a")
        group.attrs["passport"] = '{"encoder":"other"}'
        vectors = group.create_dataset("vectors", data=content("a").reshape(N, 1, 5).astype("<f2"), **settings_)
        vectors.attrs["shape"] = [5]
        group["status"] = np.ones((N, 1), np.uint8)
        group["seal"] = np.zeros(40, np.uint8)
    with pytest.raises(fs.FormatError, match=r"`features-store import .*other.h5 -o NEW.h5`"):
        fs.open_store(path)
    store = rewrite(path, tmp_path / "plain.h5")
    rows = np.random.default_rng(0).integers(0, N, 30)
    np.testing.assert_array_equal(store.matrix(["a"], rows), content("a")[rows])
    assert store.blocks["a"].vectors.shape == (N, 1, 5)


def test_read_only_media(folder, tmp_path) -> None:
    """Reading makes no file and needs no permission to write."""
    import shutil

    copy = tmp_path / "read-only"
    shutil.copytree(folder, copy)
    for path in [*copy.iterdir(), copy]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(path.name for path in copy.iterdir())
    assert fs.open_store(copy).matrix(["a"]).shape == (N, 5)
    assert sorted(path.name for path in copy.iterdir()) == before
    copy.chmod(0o755)


def test_dumps_of_different_indexes_do_not_mix(folder, tmp_path) -> None:
    """Blocks over other images never concatenate silently."""
    fs.write_index(tmp_path / "index.h5", fs.Index(np.array(["x.jpg"])))
    with pytest.raises(fs.MismatchError, match="of different indexes"):
        fs.open_store([folder, tmp_path])


def test_one_block_in_two_dumps_is_refused(folder, tmp_path) -> None:
    """Which of two blocks of one name is meant is not guessed."""
    (tmp_path / "copy.h5").write_bytes((folder / "a.h5").read_bytes())
    with pytest.raises(fs.MismatchError, match=r"block 'a' is in .* and in"):
        fs.open_store([folder, tmp_path / "copy.h5"])


def test_empty_folder_and_missing_file(tmp_path) -> None:
    """Both are told apart, with what to do."""
    with pytest.raises(fs.FormatError, match="holds no dump"):
        fs.open_store(tmp_path)
    with pytest.raises(fs.FormatError, match="is not there"):
        fs.open_store(tmp_path / "none.h5")
