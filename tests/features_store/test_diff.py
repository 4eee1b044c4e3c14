"""Comparing two stores."""

from __future__ import annotations

import json

import h5py
import numpy as np

import features_store as fs
from features_store.diff import diff
from features_store.subset import subset


def test_layout_makes_no_difference(tmp_path, make_store, run_command) -> None:
    """A folder of files and one file with everything are equal: exit code 0."""
    subset(make_store(tmp_path / "a"), tmp_path / "one.h5")
    assert run_command("diff", tmp_path / "a", tmp_path / "one.h5") == (0, "no difference\n", "")
    assert run_command("diff", tmp_path / "a", tmp_path / "one.h5", "--json") == (0, "{}\n", "")


def test_changed_rows_are_counted_and_measured(tmp_path, make_store, run_command) -> None:
    """How many rows, which, by how much, and how far they turned, against numpy."""
    one = make_store(tmp_path / "a", blocks=("one.pool",), failed=(9,))
    make_store(tmp_path / "b", blocks=("one.pool",), failed=(9,))
    before = one.blocks["one.pool"].vectors[3, 0].astype(float)
    with h5py.File(tmp_path / "b" / "one.pool.h5", "a") as file:
        file["blocks/one.pool/vectors"][3, 0, 1] += 5
        file["blocks/one.pool/vectors"][9, 0] = 7  # of a failed row: it has no meaning
        file["blocks/one.pool/status"][6, 0] = 2
    after = before + np.array([0, 5, 0, 0])
    found = diff(one, fs.open_store(tmp_path / "b"))["blocks"]["one.pool"]
    assert found["status"] == {"rows": 1, "examples": ["set/006.jpg"], "changes": {"written -> missing": 1}}
    cosine = found["vectors"].pop("lowest_cosine")
    assert abs(cosine - before @ after / np.linalg.norm(before) / np.linalg.norm(after)) < 1e-7
    assert found["vectors"] == {"rows": 1, "examples": ["set/003.jpg"], "largest_difference": 5.0}
    code, out, err = run_command("diff", tmp_path / "a", tmp_path / "b")
    assert (code, err) == (1, "")
    assert "block one.pool: vectors: rows 1; examples set/003.jpg" in out


def test_missing_things_are_named(tmp_path, make_store, run_command) -> None:
    """Ids, tasks, splits and blocks that only one of them has."""
    one = make_store(tmp_path / "a")
    index = one.index
    subset(one, tmp_path / "b.h5", rows=range(10), blocks=["two.pool"])
    with h5py.File(tmp_path / "b.h5", "a") as file:
        del file["labels/va"], file["splits/default"], file["images/group"]
    code, out, _ = run_command("diff", tmp_path / "a", tmp_path / "b.h5", "--json")
    found = json.loads(out)
    assert code == 1
    assert (found["ids"]["only_in_first"], found["ids"]["only_in_second"], found["ids"]["common"]) == (2, 0, 10)
    assert found["ids"]["examples"] == index.ids[10:].tolist()
    assert found["labels"] == {"va": {"missing_in": "second"}}
    assert found["splits"] == {"default": {"missing_in": "second"}}
    assert found["groups"] == {"missing_in": "second"}
    assert found["blocks"] == {"one.pool": {"missing_in": "second"}}


def test_definitions_and_passports_are_compared(tmp_path, make_store) -> None:
    """Another class name, another weight, another library version."""
    one = make_store(tmp_path / "a", blocks=("one.pool",))
    other = {"encoder": "one.pool", "weights": {"source": "toy", "sha256": "cd"}, "versions": {"toy": "2"}}
    make_store(tmp_path / "b", blocks=("one.pool",), passport=other)
    task = fs.Task("mood", "single", ("low", "good"), source="toy")
    labels = {**one.labels, "mood": fs.Labels(task, one.labels["mood"].values)}
    index = fs.Index(one.ids, labels, one.splits, one.groups, None, one.corpus)
    fs.write_index(tmp_path / "b" / "index.h5", index, force=True)
    found = diff(one, fs.open_store(tmp_path / "b"))
    assert found["labels"] == {"mood": {"definition": {"classes": [["bad", "good"], ["low", "good"]]}}}
    assert found["blocks"]["one.pool"] == {
        "passport": ["weights.sha256: 'ab' / 'cd'"],
        "circumstances": {"versions": [None, {"toy": "2"}]},
    }


def test_what_cannot_be_read_is_exit_code_two(tmp_path, make_store, run_command) -> None:
    """Trouble is told apart from a difference."""
    make_store(tmp_path / "a")
    code, _, err = run_command("diff", tmp_path / "a", tmp_path / "nowhere.h5")
    assert code == 2
    assert "nowhere.h5 is not there" in err
