"""What labels, splits and groups mean: digested, compared, and kept through every command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import features_store as fs
from features_store.splits import make_split, parts_of_folds
from features_store.subset import subset
from features_store.verify import verify

V1_0 = Path(__file__).parents[1] / "data" / "archives" / "v1.0"


# ---- digests of labels, splits and groups ---------------------------------------------------------------------------


def _edit(path: Path, change: str) -> None:
    """Change one thing of an index with plain h5py."""
    with h5py.File(path, "r+") as file:
        if change == "label":
            file["labels/mood"][0] = 1 - file["labels/mood"][0]
        elif change == "class names":
            file["labels/mood"].attrs["classes"] = '["good", "bad"]'
        elif change == "range":
            file["labels/va"].attrs["range"] = "[0, 9]"
        elif change == "rating":
            file["labels/va"][3, 0] = 5.25
        elif change == "split":
            file["splits/default"][5] = -1
        elif change == "kind of split":
            file["splits/default"].attrs["kind"] = "folds"
        elif change == "source of split":
            file["splits/default"].attrs["source"] = "published"
        elif change == "a task less":
            del file["labels/tags"]


CHANGES = ("label", "class names", "range", "rating", "split", "kind of split", "source of split", "a task less")


@pytest.mark.parametrize("change", CHANGES)
def test_verify_finds_a_changed_meaning(tmp_path, make_store, run_command, change) -> None:
    """Whatever labels, splits and groups say: a change behind the back of the commands is found."""
    make_store(tmp_path / "s", blocks=())
    code, said, _ = run_command("verify", tmp_path / "s")
    assert code == 0
    assert "checked: labels, splits and groups of index.h5 against their digest" in said
    _edit(tmp_path / "s" / "index.h5", change)
    code, _, wrong = run_command("verify", tmp_path / "s")
    assert code == 1
    assert "labels, splits or groups do not agree with their digest" in wrong


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("corpus", "corpus or picture digests do not agree"),
        ("content", "corpus or picture digests do not agree"),
        ("meaning_digest", "the digest of its labels, splits and groups is gone"),
        ("corpus of a block", "was made from the corpus 'other'"),
        ("names of a block", "the names of the values of block 'named' were changed"),
        ("class names in a block's dump", "task 'mood' is in"),
    ],
)
def test_verify_finds_what_was_changed_beside_the_vectors(tmp_path, run_command, change, words) -> None:
    """What the index says of its images, its digest, and each copy that a block's file has."""
    folder, rng = tmp_path / "s", np.random.default_rng(0)
    labels = {"mood": fs.Labels(fs.Task("mood", "single", ("bad", "good")), np.array([0, 1]))}
    content = rng.integers(0, 256, (2, 32), dtype=np.uint8)
    index = fs.Index(np.array(["a", "b"]), labels, {}, None, content, {"name": "toy"})
    folder.mkdir()
    fs.write_index(folder / "index.h5", index)
    with fs.BlockWriter(folder / "named.h5", index, fs.BlockSpec("named", (2,), {}, names=("up", "on"))) as writer:
        writer.write([0, 1], np.ones((2, 2)))
        writer.seal()
    code, said, _ = run_command("verify", folder, "--write-list")
    assert (code, "corpus and picture digests of index.h5 against their digest" in said) == (0, True)
    with h5py.File(folder / ("named.h5" if "block" in change else "index.h5"), "r+") as file:
        if change == "corpus":
            file.attrs["corpus"] = '{"name":"tux"}'
        elif change == "content":
            file["images/content"][1] = 0
        elif change == "meaning_digest":
            del file.attrs["meaning_digest"]
        elif change == "corpus of a block":
            file.attrs["corpus"] = '{"name":"other"}'
        elif change == "names of a block":
            file["blocks/named/names"][0] = b"in"
        else:
            file["labels/mood"] = np.array([0, 1], dtype="<i2")
            file["labels/mood"].attrs.update({"kind": "single", "classes": '["good", "bad"]'})
    code, _, wrong = run_command("verify", folder)
    assert (code, words in wrong) == (1, True), wrong


def test_changed_groups_are_found(tmp_path, make_store) -> None:
    """In the index of a store whose blocks keep no groups."""
    make_store(tmp_path / "s", blocks=())
    with h5py.File(tmp_path / "s" / "index.h5", "r+") as file:
        file["images/group"][0] = 77
    assert "do not agree with their digest" in verify(fs.open_store(tmp_path / "s")).problems()[0]


def test_commands_that_change_the_meaning_renew_the_digest(tmp_path, make_store, run_command) -> None:
    """After `relabel`, `splits`, `subset` and `merge` a store is good again, and says so of each dump."""
    make_store(tmp_path / "s", 24, blocks=())
    make_store(tmp_path / "new", 24, seed=5, blocks=())
    _edit(tmp_path / "new" / "index.h5", "label")
    index = tmp_path / "s" / "index.h5"
    assert run_command("relabel", tmp_path / "s", tmp_path / "new", "-o", index, "--force")[0] == 0
    assert run_command("splits", tmp_path / "s", "-n", "cv", "--folds", 3, "-o", tmp_path / "s" / "cv.h5")[0] == 0
    code, said, _ = run_command("verify", tmp_path / "s", "--json")
    assert code == 0
    for name in ("index.h5", "cv.h5"):
        assert f"labels, splits and groups of {name} against their digest" in json.loads(said)["checked"]
    assert run_command("subset", tmp_path / "s", "--sample", 10, "-o", tmp_path / "cut.h5")[0] == 0
    assert run_command("merge", tmp_path / "cut.h5", tmp_path / "s", "--join", "-o", tmp_path / "both.h5")[0] == 0
    assert run_command("verify", tmp_path / "both.h5")[0] == 0


def test_a_store_of_1_0_keeps_no_digest_and_is_good(tmp_path, run_command) -> None:
    """It is verified as far as it can be, and the rest is named; it is merged, and the result has a digest."""
    code, said, _ = run_command("verify", V1_0)
    assert code == 0
    assert "not checked: labels, splits and groups of index.h5: it keeps no digest" in said
    assert run_command("merge", V1_0, "-o", tmp_path / "all.h5")[0] == 0
    code, said, _ = run_command("verify", tmp_path / "all.h5")
    assert code == 0
    assert "checked: labels, splits and groups of all.h5 against their digest" in said
    with h5py.File(tmp_path / "all.h5") as new, h5py.File(V1_0 / "toy.pool.h5") as old:
        assert (new.attrs["format_version"], old.attrs["format_version"]) == (b"1.1", b"1.0")


def test_a_block_by_itself_is_of_version_1_0(tmp_path, make_store) -> None:
    """A dump that holds nothing new says so, and older releases read it."""
    make_store(tmp_path / "s")
    with h5py.File(tmp_path / "s" / "one.pool.h5") as block, h5py.File(tmp_path / "s" / "index.h5") as index:
        assert block.attrs["format_version"] == b"1.0"
        assert index.attrs["format_version"] == b"1.1"


# ---- the list of blocks ---------------------------------------------------------------------------------------------


def test_the_list_of_blocks(tmp_path, make_store, run_command) -> None:
    """A block that is gone, or exchanged for another, is found; a new one is only named."""
    store = make_store(tmp_path / "s")
    folder = tmp_path / "s"
    assert "not checked: whether blocks are missing" in run_command("verify", folder)[1]
    assert run_command("verify", folder, "--write-list")[0] == 0
    code, said, _ = run_command("verify", folder)
    assert code == 0
    assert "checked: that the 2 block(s)" in said
    shutil.copytree(folder, tmp_path / "more")
    with fs.BlockWriter(tmp_path / "more" / "new.h5", store.index, fs.BlockSpec("new", (2,), {})) as writer:
        writer.write(range(12), np.ones((12, 2)))
    code, said, _ = run_command("verify", tmp_path / "more")
    assert code == 0
    assert "new came after store.json" in said
    make_store(tmp_path / "other", seed=3)
    shutil.copy(tmp_path / "other" / "two.pool.h5", folder / "two.pool.h5")
    assert "block 'two.pool' is another one" in run_command("verify", folder)[2]
    (folder / "two.pool.h5").unlink()
    code, _, wrong = run_command("verify", folder)
    assert code == 1
    assert "block 'two.pool' is in store.json, and its file is gone" in wrong
    assert run_command("verify", folder, "--write-list")[0] == 1  # nothing is written down while something is wrong
    assert "two.pool" in (folder / "store.json").read_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "affectory-store", "blocks": [1]}', "\xff", "{" * 9999])
def test_a_list_that_is_none(tmp_path, make_store, run_command, text) -> None:
    """It is refused in one sentence."""
    make_store(tmp_path / "s", blocks=())
    (tmp_path / "s" / "store.json").write_bytes(text.encode("latin-1"))
    code, _, wrong = run_command("verify", tmp_path / "s")
    assert code == 1
    assert "store.json" in wrong
    assert wrong.count("\n") == 1


# ---- groups ---------------------------------------------------------------------------------------------------------


def test_a_split_that_divides_groups(tmp_path, run_command) -> None:
    """One that was published is named by `verify`, with exit code 0; one that was made here is never written."""
    index = fs.Index(
        np.array([f"{i}.jpg" for i in range(6)]),
        splits={"default": fs.Split("default", np.array([0, 0, 1, 1, 2, -1]), source="published")},
        groups=np.array([7, 7, 7, -1, -1, 7]),
    )
    fs.write_index(tmp_path / "a.h5", index)
    code, said, _ = run_command("verify", tmp_path / "a.h5")
    assert code == 0
    assert "note: split 'default' divides 1 groups of 3 images; it was published so" in said
    assert fs.open_store(tmp_path / "a.h5").splits["default"].source == "published"
    made = {"default": replace(index.splits["default"], source="made")}
    with pytest.raises(fs.FormatError, match="divides the groups of 3 images"):
        fs.write_index(tmp_path / "b.h5", replace(index, splits=made))
    assert not (tmp_path / "b.h5").exists()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 2)), min_size=1, max_size=12))
def test_crossed_groups(rows) -> None:
    """A group crosses a split if two of its images that are used are in two parts."""
    groups, parts = (np.array(column) for column in zip(*rows, strict=True))
    expected = [g >= 0 and p >= 0 and len({q for h, q in rows if h == g and q >= 0}) > 1 for g, p in rows]
    assert fs.Split("s", parts).crossed(groups).tolist() == expected


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_made_splits_keep_groups_whole_and_fill_every_part(data) -> None:
    """Whatever the groups: whole, in every part something, or a sentence."""
    n = data.draw(st.integers(4, 40))
    groups = np.array(data.draw(st.lists(st.integers(-1, 5), min_size=n, max_size=n)))
    folds = data.draw(st.sampled_from([None, 2, 5]))
    try:
        split = make_split("s", n, groups=groups, folds=folds, seed=1)
    except fs.MismatchError:
        return
    assert split.source == "made"
    assert not split.crossed(groups).any()
    assert (np.bincount(split.values, minlength=folds or 3) > 0).all()


def test_few_groups_are_refused(tmp_path, run_command) -> None:
    """Forty images of four groups cannot fill three parts by the shares that were asked for."""
    index = fs.Index(np.array([f"{i}.jpg" for i in range(40)]), groups=np.arange(40) // 10)
    fs.write_index(tmp_path / "index.h5", index)
    code, _, wrong = run_command("splits", tmp_path / "index.h5", "-n", "s", "-o", tmp_path / "s.h5")
    assert code == 2
    assert "4 groups of 40 images were dealt out as" in wrong
    assert not (tmp_path / "s.h5").exists()


def test_folds_come_with_parts(tmp_path, make_store, run_command) -> None:
    """Each fold is once the test part of a split with train, validation and test, as classifiers take it."""
    make_store(tmp_path / "s", 24, blocks=())
    assert run_command("splits", tmp_path / "s", "-n", "cv", "--folds", 4, "-o", tmp_path / "s" / "cv.h5")[0] == 0
    store = fs.open_store(tmp_path / "s")
    folds = store.split("cv").values
    for fold in range(4):
        parts = store.split(f"cv.{fold}")
        assert (parts.kind, parts.source) == ("parts", "made")
        np.testing.assert_array_equal(parts.values == 2, folds == fold)
        np.testing.assert_array_equal(parts.values == 1, folds == (fold + 1) % 4)
    (one, other) = parts_of_folds(fs.Split("two", np.array([0, 1, -1, 1]), "folds"))
    assert [one.values.tolist(), other.values.tolist()] == [[2, 0, -1, 0], [0, 2, -1, 2]]


@pytest.mark.parametrize("what", ["group", "content"])
def test_two_dumps_that_contradict_each_other(tmp_path, run_command, what) -> None:
    """About groups or picture bytes, as about labels: refused, whichever comes first by its name."""
    ids = np.array(["a.jpg", "b.jpg", "c.jpg"])
    content = np.arange(96, dtype=np.uint8).reshape(3, 32)
    content[2] = 0
    for name, other in (("one.h5", False), ("two.h5", True)):
        groups = np.array([1, 1, 2 - other]) if what == "group" else None
        changed = content + np.uint8(other) * (content > 0) if what == "content" else None
        (tmp_path / "s").mkdir(exist_ok=True)
        fs.write_index(tmp_path / "s" / name, fs.Index(ids, groups=groups, content=changed))
    code, _, wrong = run_command("info", tmp_path / "s")
    assert code == 2
    assert "one.h5 and " in wrong
    assert "contradict each other about the" in wrong


# ---- cuts and class names -------------------------------------------------------------------------------------------


def test_relabel_keeps_the_place_of_a_cut(tmp_path, make_store, run_command) -> None:
    """A shard with new labels still knows which rows of the whole it has."""
    store = make_store(tmp_path / "s", blocks=("one.pool",))
    subset(store, tmp_path / "cut.h5", rows=[2, 5, 7], blocks=[])
    assert run_command("relabel", tmp_path / "cut.h5", tmp_path / "s", "-o", tmp_path / "new.h5")[0] == 0
    for name in ("cut.h5", "new.h5"):
        cut = fs.open_store(tmp_path / name)
        assert (cut.parent_digest, cut.parent_rows.tolist()) == (store.index_digest, [2, 5, 7])


def test_class_names_in_two_forms() -> None:
    """Names are compared, and kept, in form NFC; two that are one then are refused."""
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert fs.Task("t", "single", ("tea", decomposed)) == fs.Task("t", "single", ("tea", composed))
    with pytest.raises(fs.FormatError, match="in Unicode form NFC"):
        fs.Task("t", "single", (composed, "tea", decomposed))


def test_an_empty_class_name_and_groups_that_are_no_numbers() -> None:
    """An empty cell means no label, so no class is called so; groups are numbers."""
    with pytest.raises(fs.FormatError, match="empty class name"):
        fs.Task("mood", "single", ("", "b"))
    with pytest.raises(fs.FormatError, match="whole numbers"):
        fs.Index(np.array(["a", "b"]), groups=np.array(["g", "h"]))


def test_more_classes_than_codes(tmp_path) -> None:
    """The largest number of classes goes through a dump; one more, or names that fill it, end in a sentence."""
    names = tuple(np.base_repr(i, 36) for i in range(8000))
    labels = fs.Labels(fs.Task("t", "single", names), np.array([0, 7999]))
    fs.write_index(tmp_path / "i.h5", fs.Index(np.array(["a", "b"]), {"t": labels}))
    assert fs.open_store(tmp_path / "i.h5").labels["t"].values.tolist() == [0, 7999]
    with pytest.raises(fs.FormatError, match="32,768 classes; at most 32,767"):
        fs.Task("t", "single", tuple(map(str, range(32_768))))
    with pytest.raises(fs.FormatError, match=r"class names .* at most"):
        fs.Task("t", "single", tuple(f"a long name {i}" for i in range(9000)))


@pytest.mark.parametrize(
    ("kind", "values"),
    [("single", [65_537, 0]), ("single", [0.5, 0]), ("multi", [[256, 0], [1, 0]]), ("multi", [[0.5, 0], [1, 0]])],
)
def test_codes_are_not_narrowed(kind, values) -> None:
    """A code that does not fit its type is refused, not wrapped into another class."""
    with pytest.raises(fs.FormatError, match="whole numbers"):
        fs.Labels(fs.Task("t", kind, ("x", "y")), np.array(values))


def test_groups_of_stores_that_are_merged(tmp_path, run_command) -> None:
    """Other numbers of equal groups mean nothing; groups that one lacks are united, with a note; others are refused."""
    ids = np.array(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    for name, groups in {
        "one": [1, 1, 2, 2],
        "same": [8, 8, 0, 0],
        "more": [1, 1, -1, -1],
        "other": [1, 2, 2, 2],
    }.items():
        fs.write_index(tmp_path / f"{name}.h5", fs.Index(ids, groups=np.array(groups)))
    for other, code, words in [
        ("same", 0, ""),
        ("more", 0, "2 images have more companions"),
        ("other", 2, "group of 4"),
    ]:
        found, said, wrong = run_command(
            "merge", tmp_path / "one.h5", tmp_path / f"{other}.h5", "-o", tmp_path / other / "m.h5"
        )
        assert found == code
        assert words in said + wrong
        assert words or "companions" not in said
