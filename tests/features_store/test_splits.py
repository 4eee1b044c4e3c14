"""Making splits: whole, stratified, grouped, repeatable."""

from __future__ import annotations

import json

import numpy as np
import pytest

import features_store as fs
from features_store.splits import make_split

N = 600
rng = np.random.default_rng(0)
SINGLE = fs.Labels(
    fs.Task("s", "single", ("a", "b", "c")), np.where(rng.random(N) < 0.1, -1, rng.choice(3, N, p=[0.7, 0.25, 0.05]))
)
TAGS = (rng.random((N, 4)) < [0.5, 0.3, 0.1, 0.04]).astype(np.uint8)
MULTI = fs.Labels(fs.Task("m", "multi", ("w", "x", "y", "z")), TAGS)
REAL = fs.Labels(fs.Task("r", "regression", ("v", "a"), (1, 9)), rng.uniform(1, 9, (N, 2)))
GROUPS = np.where(rng.random(N) < 0.5, -1, rng.integers(0, 90, N))
KINDS = pytest.mark.parametrize("labels", [None, SINGLE, MULTI, REAL], ids=["none", "single", "multi", "regression"])
GROUPED = pytest.mark.parametrize("groups", [None, GROUPS], ids=["alone", "grouped"])


def known(labels: fs.Labels | None) -> np.ndarray:
    """Which images are to be dealt out."""
    return np.ones(N, dtype=bool) if labels is None else labels.known


@KINDS
@GROUPED
def test_folds_are_even_and_keep_groups_whole(labels, groups) -> None:
    """Every labelled image is in one of five folds of about the same size; no group is parted."""
    split = make_split("cv", N, labels=labels, groups=groups, folds=5, seed=3)
    assert split.kind == "folds"
    np.testing.assert_array_equal(split.values >= 0, known(labels))
    sizes = np.bincount(split.values[split.values >= 0], minlength=5)
    assert np.abs(sizes - known(labels).sum() / 5).max() <= (2 if groups is None else 20)
    for group in np.unique(GROUPS[GROUPS >= 0]) if groups is not None else []:
        assert len(np.unique(split.values[(groups == group) & known(labels)])) <= 1


@KINDS
@GROUPED
def test_parts_have_the_shares_that_were_asked_for(labels, groups) -> None:
    """Train, validation and test; no group is parted."""
    split = make_split("d", N, labels=labels, groups=groups, fractions=(0.6, 0.1, 0.3), seed=1)
    shares = np.bincount(split.values[split.values >= 0], minlength=3) / known(labels).sum()
    assert np.abs(shares - [0.6, 0.1, 0.3]).max() <= (0.006 if groups is None else 0.04)
    for group in np.unique(GROUPS[GROUPS >= 0]) if groups is not None else []:
        assert len(np.unique(split.values[(groups == group) & known(labels)])) <= 1


@pytest.mark.parametrize("folds", [5, None])
def test_classes_are_spread_as_they_are(folds) -> None:
    """Each class has its share in each part, to one image where images stand alone; rare tags too."""
    shares = np.full(5, 0.2) if folds else np.array([0.7, 0.15, 0.15])
    split = make_split("x", N, labels=SINGLE, folds=folds)
    for label in range(3):
        counts = np.bincount(split.values[SINGLE.values == label], minlength=len(shares))
        assert np.abs(counts - shares * (SINGLE.values == label).sum()).max() <= 1.5
    split = make_split("x", N, labels=MULTI, folds=folds)
    for tag in TAGS.T == 1:
        counts = np.bincount(split.values[tag], minlength=len(shares))
        assert np.abs(counts - shares * tag.sum()).max() <= 3


@KINDS
@GROUPED
def test_the_seed_decides(labels, groups) -> None:
    """The same seed, the same split; another seed, another one."""
    for options in ({"folds": 4}, {"fractions": (0.5, 0.25, 0.25)}):
        made = [make_split("x", N, labels=labels, groups=groups, seed=seed, **options).values for seed in (5, 5, 6)]
        np.testing.assert_array_equal(made[0], made[1])
        assert (made[0] != made[2]).any()


def test_classes_with_one_image_do_not_stop_it() -> None:
    """Classes too rare to be in every part are spread together, and a part may be left empty."""
    labels = fs.Labels(fs.Task("s", "single", ("a", "b", "c")), np.array([0] * 18 + [1, 2]))
    assert set(make_split("x", 20, labels=labels, folds=3).values) == {0, 1, 2}
    split = make_split("x", 20, labels=labels, fractions=(0.8, 0, 0.2))
    assert np.bincount(split.values).tolist() == [16, 0, 4]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"folds": 1}, "2 to 127 folds; got 1"),
        ({"fractions": (0.5, 0.5, 0.5)}, "add up to 1"),
        ({"fractions": (1.2, -0.2, 0)}, "add up to 1"),
        ({"fractions": (float("nan"), 0.5, 0.5)}, "add up to 1"),
        ({"folds": 5, "seed": -1}, "a seed is a whole number from 0 to 4294967295; got -1"),
        ({"folds": 5, "groups": np.repeat([0, 1], N // 2)}, "2 groups of images cannot be dealt out into 5"),
    ],
)
def test_impossible_splits_are_refused(options, words) -> None:
    """Too few folds, shares that do not add up, fewer groups than parts."""
    with pytest.raises(fs.MismatchError, match=words):
        make_split("x", N, **options)


def test_the_command_writes_a_dump_that_lies_beside_the_others(tmp_path, make_store, run_command) -> None:
    """The store has the new split at once; its groups are kept whole; another task is an error that names them."""
    store = make_store(tmp_path / "s", 60, blocks=())
    code, out, _ = run_command(
        "splits", tmp_path / "s", "-n", "cv", "--task", "tags", "--folds", "4", "-o", tmp_path / "s" / "cv.h5", "--json"
    )
    assert code == 0
    split = fs.open_store(tmp_path / "s").splits["cv"]
    assert json.loads(out)["counts"] == {f"fold {n}": int((split.values == n).sum()) for n in range(4)}
    assert all(len(set(split.values[store.groups == group])) == 1 for group in range(30))
    code, _, err = run_command("splits", tmp_path / "s", "-n", "x", "--task", "mod", "-o", tmp_path / "x.h5")
    assert code == 2
    assert "did you mean 'mood'" in err
