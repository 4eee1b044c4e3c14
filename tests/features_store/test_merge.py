"""Merging and relabelling: what comes together, and what is refused."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

import features_store as fs
from features_store.merge import merge
from features_store.subset import relabel, subset


def test_independent_stores_are_put_in_the_order_of_ids(tmp_path, make_store) -> None:
    """Without a common origin the ids decide the order, and no group of one becomes a group of the other."""
    late, early = make_store(tmp_path / "late", 6, prefix="z"), make_store(tmp_path / "early", 4, prefix="a", seed=1)
    done = merge([tmp_path / "late", tmp_path / "early"], tmp_path / "both.h5")
    both = fs.open_store(tmp_path / "both.h5")
    assert done["mode"] == "rows"
    assert both.ids.tolist() == [*early.ids, *late.ids]
    expected = np.concatenate([early.matrix(["one.pool"]), late.matrix(["one.pool"])])
    np.testing.assert_array_equal(both.matrix(["one.pool"]), expected)
    assert len(np.unique(both.groups)) == len(np.unique(early.groups)) + len(np.unique(late.groups))
    assert both.blocks["one.pool"].sealed


def test_different_indexes_never_stand_side_by_side_silently(tmp_path, make_store) -> None:
    """Another block over other images is refused, and --join is named; nothing is left behind."""
    make_store(tmp_path / "a", blocks=("one.pool",))
    make_store(tmp_path / "b", blocks=("two.pool",), prefix="other")
    with pytest.raises(fs.MismatchError, match=r"lacks the block 'two.pool'.*--join"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out" / "c.h5")
    assert not (tmp_path / "out").exists()


def test_overlapping_images_are_refused_without_join(tmp_path, make_store) -> None:
    """The message counts them and names the first."""
    make_store(tmp_path / "a", 6)
    make_store(tmp_path / "b", 8)
    with pytest.raises(fs.MismatchError, match=r"6 images are in more than one.*'set/000.jpg'.*--join"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c.h5")


def test_join_says_how_many_images_each_store_loses(tmp_path, make_store, run_command) -> None:
    """Blocks over different indexes are aligned by id, and the lost rows are counted on the screen."""
    a = make_store(tmp_path / "a", 9, blocks=("one.pool",))
    b = make_store(tmp_path / "b", 12, blocks=("two.pool",))
    subset(a, tmp_path / "a.h5", rows=[1, 4, 8])
    subset(b, tmp_path / "index-free.h5", rows=range(3, 12))
    for path in ("a.h5", "index-free.h5"):  # labels drawn for other numbers of images would contradict each other
        with h5py.File(tmp_path / path, "a") as file:
            del file["labels"], file["splits"]
    code, out, err = run_command(
        "merge", tmp_path / "a.h5", tmp_path / "index-free.h5", "--join", "-o", tmp_path / "j.h5"
    )
    assert (code, err) == (0, "")
    assert f"1 images of {tmp_path / 'a.h5'} are not in it" in out
    assert f"7 images of {tmp_path / 'index-free.h5'} are not in it" in out
    joined = fs.open_store(tmp_path / "j.h5")
    assert joined.ids.tolist() == a.ids[[4, 8]].tolist()
    np.testing.assert_array_equal(
        joined.matrix(["one.pool", "two.pool"]),
        np.hstack([a.matrix(["one.pool"], [4, 8]), b.matrix(["two.pool"], [4, 8])]),
    )


def test_join_of_strangers_is_refused(tmp_path, make_store) -> None:
    """No common image: an example of each spelling is shown."""
    make_store(tmp_path / "a")
    make_store(tmp_path / "b", prefix="other")
    with pytest.raises(fs.MismatchError, match=r"no image in common.*'\w+/000.jpg' and '\w+/000.jpg'"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c.h5", join=True)


def test_rows_made_in_another_way_are_refused_by_field(tmp_path, make_store) -> None:
    """Each field of the passports that differs is named with both values."""
    store = make_store(tmp_path / "a", blocks=("one.pool",))
    other = {"encoder": "one.pool", "weights": {"source": "toy", "sha256": "cd"}, "tap": "pool"}
    make_store(tmp_path / "b", blocks=("one.pool",), prefix="other", passport=other)
    with pytest.raises(fs.MismatchError, match=r"tap: not recorded / 'pool'; weights.sha256: 'ab' / 'cd'"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c.h5")
    assert store.blocks["one.pool"].sealed


def test_two_vectors_for_one_image_are_refused(tmp_path, make_store) -> None:
    """Two blocks of one making that disagree about a row contradict each other."""
    make_store(tmp_path / "a", blocks=("one.pool",))
    make_store(tmp_path / "b", blocks=("one.pool",), seed=0)
    with h5py.File(tmp_path / "b" / "one.pool.h5", "a") as file:
        file["blocks/one.pool/vectors"][5, 0, 2] += 1
    with pytest.raises(fs.MismatchError, match=r"different vectors for 'set/005.jpg'"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c.h5")


def test_a_vector_wins_over_a_failure(tmp_path, make_store) -> None:
    """A row that failed in one and was written in the other is written, whichever comes first."""
    good = make_store(tmp_path / "good", blocks=("one.pool",), failed=(1,))
    spec, index = good.blocks["one.pool"].spec, good.index
    with fs.BlockWriter(tmp_path / "other.h5", index, spec) as writer:
        writer.write([1], np.ones((1, 4)))
        writer.fail([2], fs.Status.MISSING)
    for order in ((tmp_path / "good", tmp_path / "other.h5"), (tmp_path / "other.h5", tmp_path / "good")):
        merge(order, tmp_path / "c.h5", force=True)
        merged = fs.open_store(tmp_path / "c.h5")
        assert merged.blocks["one.pool"].counts() == {fs.Status.WRITTEN: 12}
        np.testing.assert_array_equal(merged.matrix(["one.pool"], [1, 2]), [[1] * 4, good.matrix(["one.pool"], [2])[0]])


def test_damage_is_never_sealed_into_a_copy(tmp_path, make_store) -> None:
    """A flipped bit in a source ends the merge."""
    block = make_store(tmp_path / "a", blocks=("one.pool",)).blocks["one.pool"]
    with (tmp_path / "a" / "one.pool.h5").open("r+b") as file:
        file.seek(block.offsets["vectors"] + 7 * 8)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(fs.FormatError, match=r"'one.pool' is damaged in row 7"):
        merge([tmp_path / "a"], tmp_path / "c.h5")
    assert not (tmp_path / "c.h5").exists()


def test_labels_that_contradict_each_other_are_refused(tmp_path, make_store) -> None:
    """One label that differs is enough."""
    store = make_store(tmp_path / "a", blocks=())
    values = store.labels["mood"].values.copy()
    values[3] = 1 - values[3]
    fs.write_index(tmp_path / "b.h5", fs.Index(store.ids, {"mood": fs.Labels(store.labels["mood"].task, values)}))
    with pytest.raises(fs.MismatchError, match=r"task 'mood'.*1 images, the first is 'set/003.jpg'"):
        merge([tmp_path / "a", tmp_path / "b.h5"], tmp_path / "c.h5")


def test_circumstances_that_differ_are_all_kept(tmp_path, make_store) -> None:
    """Another library version or another index makes no other block; both versions stay in the passport."""
    for name, version in (("a", "1"), ("b", "2")):
        passport = {"encoder": "one", "versions": {"toy": version}, "index_digest": name}
        make_store(tmp_path / name, 4, blocks=("one.pool",), prefix=name, passport=passport)
    merge([tmp_path / "b", tmp_path / "a"], tmp_path / "c.h5")
    merged = fs.open_store(tmp_path / "c.h5").blocks["one.pool"].passport
    assert merged == {"encoder": "one", "versions": {"any of": [{"toy": "1"}, {"toy": "2"}]}}


def test_the_command_never_replaces_a_file_unasked(tmp_path, make_store, run_command) -> None:
    """Exit code 2 and one sentence; with --force the new file takes the place of the old one."""
    make_store(tmp_path / "a")
    (tmp_path / "c.h5").write_text("mine")
    code, _, err = run_command("merge", tmp_path / "a", "-o", tmp_path / "c.h5")
    assert code == 2
    assert "--force" in err
    assert len(err.splitlines()) == 1
    assert (tmp_path / "c.h5").read_text() == "mine"
    code, out, _ = run_command("merge", tmp_path / "a", "-o", tmp_path / "c.h5", "--force", "--json")
    assert code == 0
    assert json.loads(out)["n_images"] == 12
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_relabel_brings_labels_and_splits_onto_other_ids(tmp_path, make_store) -> None:
    """Images unknown to the labels are unlabelled and unused; labels of other images are counted as lost."""
    vectors, labels = make_store(tmp_path / "v", 10), make_store(tmp_path / "l", 14, blocks=(), seed=3)
    subset(labels, tmp_path / "cut.h5", rows=[13, 2, 9])
    done = relabel(vectors, fs.open_store(tmp_path / "cut.h5"), tmp_path / "new.h5")
    assert (done["n_images"], done["without"], done["lost"]) == (10, 8, 1)
    new = fs.open_store(tmp_path / "new.h5")
    assert new.index_digest == vectors.index_digest
    for name, column in labels.labels.items():
        assert np.flatnonzero(new.labels[name].known).tolist() == [2, 9]
        np.testing.assert_array_equal(new.labels[name].values[[2, 9]], column.values[[2, 9]])
    assert np.flatnonzero(new.splits["default"].values >= 0).tolist() == [2, 9]


def test_relabel_without_a_common_id_is_refused(tmp_path, make_store) -> None:
    """The two spellings are shown."""
    one, other = make_store(tmp_path / "a", blocks=()), make_store(tmp_path / "b", blocks=(), prefix="x")
    with pytest.raises(fs.MismatchError, match=r"'set/000.jpg' and 'x/000.jpg'"):
        relabel(one, other, tmp_path / "c.h5")
