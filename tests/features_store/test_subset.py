"""Cutting rows and blocks out of a store."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

import features_store as fs
from features_store.subset import rows_of_ids, rows_of_parts, sampled, subset


def test_rows_carry_everything_with_them(tmp_path, make_store) -> None:
    """Plain h5py finds the chosen rows of every column, and the passport, in the order of the index."""
    store = make_store(tmp_path / "s", failed=(4,))
    subset(store, tmp_path / "cut.h5", rows=[9, 4, 1], blocks=["two.pool"])
    with h5py.File(tmp_path / "cut.h5") as file:
        assert file["images/id"].asstr()[:].tolist() == ["set/001.jpg", "set/004.jpg", "set/009.jpg"]
        assert file["images/group"][:].tolist() == [0, 2, 4]
        assert file["images/row"][:].tolist() == [1, 4, 9]
        assert file["images/row"].attrs["origin"].decode() == store.index_digest
        assert file["labels/mood"][:].tolist() == [1, 0, 1]
        assert file["splits/default"][:].tolist() == [1, 1, 0]
        assert list(file["blocks"]) == ["two.pool"]
        assert file["blocks/two.pool/status"][:, 0].tolist() == [1, 4, 1]
        np.testing.assert_array_equal(
            file["blocks/two.pool/vectors"][::2, 0], store.blocks["two.pool"].vectors[[1, 9], 0]
        )
        assert json.loads(file["blocks/two.pool"].attrs["passport"]) == store.blocks["two.pool"].passport
        assert file["blocks/two.pool/seal"][:].any()


def test_parts_and_folds_are_chosen_by_name(tmp_path, make_store) -> None:
    """Parts by their names, folds by their numbers; an unknown one is answered with the valid ones."""
    split = make_store(tmp_path / "s", blocks=()).splits["default"]
    assert rows_of_parts(split, ["test", "train"]).tolist() == [0, 2, 3, 5, 6, 8, 9, 11]
    folds = fs.Split("cv", np.array([0, 1, -1, 1]), "folds")
    assert rows_of_parts(folds, ["1", "unused"]).tolist() == [1, 2, 3]
    with pytest.raises(fs.UnknownNameError, match=r"did you mean 'train'.*test, train, unused, validation"):
        rows_of_parts(split, ["trian"])


def test_unknown_ids_are_named(tmp_path, make_store) -> None:
    """A list with ids of another store is refused, never cut silently."""
    store = make_store(tmp_path / "s", blocks=())
    assert rows_of_ids(store, ["set/003.jpg", "set/001.jpg", "set/003.jpg"]).tolist() == [3, 1]
    with pytest.raises(fs.UnknownNameError, match=r"1 of 2 ids.*'set/999.jpg'"):
        rows_of_ids(store, ["set/003.jpg", "set/999.jpg"])


def test_samples_repeat_with_their_seed() -> None:
    """Numbers and fractions; the same seed, the same rows; no row twice."""
    rows = np.arange(100, 200)
    drawn = sampled(rows, 30, seed=7)
    assert drawn.tolist() == sampled(rows, 0.3, seed=7).tolist()
    assert drawn.tolist() != sampled(rows, 30, seed=8).tolist()
    assert len(set(drawn.tolist())) == 30
    assert set(drawn.tolist()) <= set(rows.tolist())


@pytest.mark.parametrize("size", [0, 101, 2.5, -1, 0.001])
def test_impossible_samples_are_refused(size) -> None:
    """Nothing, more than there is, and parts of an image."""
    with pytest.raises(fs.MismatchError, match="sample"):
        sampled(np.arange(100), size, seed=0)


def test_the_command_combines_its_choices(tmp_path, make_store, run_command) -> None:
    """Split, ids and sample narrow each other; --no-blocks keeps labels only."""
    make_store(tmp_path / "s")
    (tmp_path / "ids.txt").write_text("set/000.jpg\nset/003.jpg\n\nset/004.jpg\n")
    code, out, _ = run_command(
        "subset", tmp_path / "s", "--split", "default", "--part", "train", "--ids", tmp_path / "ids.txt",
        "--no-blocks", "-o", tmp_path / "c.h5", "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out)["n_images"] == 2
    assert fs.open_store(tmp_path / "c.h5").ids.tolist() == ["set/000.jpg", "set/003.jpg"]
    assert not fs.open_store(tmp_path / "c.h5").blocks


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--split", "default"], "--part"),
        (["--split", "defalt", "--part", "train"], "did you mean 'default'"),
        (["--ids", "nowhere.txt"], "nowhere.txt"),
        (["--sample", "nan"], "a sample of nan"),
        (["--sample", "inf"], "a sample of inf"),
        (["--sample", "3", "--seed", "-1"], "a seed is a whole number"),
        (["-b", "one.pol"], "did you mean 'one.pool'"),
        (["--split", "default", "--part", "unused"], "no rows at all"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path, make_store, run_command, arguments, words) -> None:
    """Exit code 2, one sentence that helps, and no file."""
    make_store(tmp_path / "s")
    code, _, err = run_command("subset", tmp_path / "s", "-o", tmp_path / "c.h5", *arguments)
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "c.h5").exists()


@pytest.mark.parametrize(
    "damage", [{"rows": [0, 0, 1]}, {"rows": [0, 1, -2]}, {"rows": [0, 1]}, {"origin": "x" * 64}], ids=str
)
def test_a_broken_origin_is_refused(tmp_path, make_store, damage) -> None:
    """Rows named twice, below zero, too few, or of an index that is none."""
    subset(make_store(tmp_path / "s"), tmp_path / "cut.h5", rows=[1, 2, 3])
    with h5py.File(tmp_path / "cut.h5", "a") as file:
        old = file["images/row"].attrs["origin"]
        if "rows" in damage:
            del file["images/row"]
            file["images/row"] = np.array(damage["rows"])
        file["images/row"].attrs["origin"] = damage.get("origin", old)
    with pytest.raises(fs.FormatError, match="/images/row"):
        subset(fs.open_store(tmp_path / "cut.h5"), tmp_path / "again.h5", rows=[0])
