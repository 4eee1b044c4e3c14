"""What an index, a task, a split and a block may be; each rule of FORMAT.md fires."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import features_store as fs
from features_store.schema import repeated_name


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "at least one image"),
        (["a.jpg", "b.jpg", "a.jpg"], "'a.jpg' stands in row 0 and again in row 2"),
        (["a.jpg", ""], "in row 1 is empty"),
        (["/a.jpg"], "is not relative"),
        (["C:/a.jpg"], "is not relative"),
        (["a/../b.jpg"], "'..' component"),
        (["../b.jpg"], "'..' component"),
        (["a//b.jpg"], "component"),
        (["./b.jpg"], "component"),
        (["a/"], "component"),
        (["a\\b.jpg"], "backslash"),
        (["a\nb.jpg"], "control character"),
        (["a\0b.jpg"], "control character"),
        (["e\u0301.jpg"], "normalisation form NFC"),
        (["x" * 1025], "1025 bytes"),
        (["\udcff.jpg"], "UTF-8"),
    ],
)
def test_bad_ids_are_named(ids, message) -> None:
    """The first bad id, its row and the rule it breaks."""
    with pytest.raises(fs.FormatError, match=message):
        fs.Index(np.array(ids, dtype=object))


@pytest.mark.parametrize("one", ["é/ä b.jpg", "a..b.jpg", "...", ".hidden", "a/.b", "日本.png", "ab:c", "12:30.jpg"])
def test_good_ids_pass(one) -> None:
    """Blanks, dots, colons and any script are fine."""
    assert fs.Index(np.array([one])).ids[0] == one


def test_the_digest_is_what_the_format_says() -> None:
    """SHA-256 over each id's bytes and a NUL, computed here by hand."""
    expected = hashlib.sha256("ä.jpg\0b.jpg\0".encode()).hexdigest()
    assert fs.Index(np.array(["ä.jpg", "b.jpg"])).digest == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fs.Task("a b", "single", ("x",)), "name 'a b' is not allowed"),
        (lambda: fs.Task("t", "binary", ("x",)), "valid: single, multi, regression"),
        (lambda: fs.Task("t", "single", ("x", "x")), "each once"),
        (lambda: fs.Task("t", "regression", ("v",)), "a regression has a scale"),
        (lambda: fs.Task("t", "single", ("v",), (0, 1)), "the other kinds have none"),
        (lambda: fs.Task("t", "regression", ("v",), (9, 1)), "has the scale 9 to 1; give its low end first"),
        (lambda: fs.Labels(fs.Task("t", "single", ("x", "y")), np.array([0, 2])), "run from 0 to 2; valid: -1 to 1"),
        (lambda: fs.Labels(fs.Task("t", "multi", ("x", "y")), np.array([[0, 255]])), "255 in the whole row"),
        (lambda: fs.Labels(fs.Task("t", "multi", ("x", "y")), np.array([[0, 2]])), "must be 0 or 1"),
        (lambda: fs.Labels(fs.Task("t", "multi", ("x",)), np.array([0, 1])), "shape"),
        (lambda: fs.Labels(fs.Task("t", "regression", ("v",), (0, 1)), np.array([[np.inf]])), "infinite"),
        (lambda: fs.Split("s", np.array([0, 3])), "from -1 to 2"),
        (lambda: fs.Split("s", np.array([0.5])), "whole numbers"),
        (lambda: fs.Split("s", np.array([0]), "thirds"), "valid: parts, folds"),
        (lambda: fs.Index(np.array(["a"]), splits={"s": fs.Split("s", np.array([0, 1]))}), "the index has 1 images"),
        (lambda: fs.BlockSpec("b", (0,), {}), "must be 1 or more"),
        (lambda: fs.BlockSpec("b", (2,), {}, dtype="int8"), "valid: float16, float32"),
        (lambda: fs.BlockSpec("b", (2,), {}, names=("x",)), "2 values and 1 names"),
    ],
)
def test_every_rule_fires(make, message) -> None:
    """Each message says what is wrong and what is valid."""
    with pytest.raises(fs.FormatError, match=message):
        make()


def test_a_name_that_is_repeated_among_many_is_found_in_one_pass():
    """Counting each name in the list of all would take an hour."""
    names = [str(i) for i in range(300_000)]
    assert repeated_name(names) is None
    assert repeated_name([*names, names[-1], names[0]]) == names[-1]
