"""The audit of a task: planted copies and mistakes come out by name, in a file that nothing overwrites."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from classify.config import RunConfig
from classify.errors import ConfigError
from classify.pages.leaderboard import leaderboards
from classify.pages.pairs import pairs
from classify.pages.tables import audit_text, pairs_text
from classify.runs.folder import find_runs, read_run
from classify.runs.train import run
from classify.studies.audit import audit
from features_store import Labels, MismatchError, Split, Task, UnknownNameError


@pytest.fixture(scope="module")
def dirty(make_store):
    """Return a store with two copies of training images in the test part, and three wrong labels."""
    random = np.random.default_rng(0)
    y = np.arange(150) % 3
    X = random.normal(size=(150, 12)) + 4 * np.eye(3, 12)[y]
    parts = np.repeat([0, 1, 2], [100, 20, 30])
    X[120:122] = X[:2] + 0.001
    y[[40, 41, 42]] = (y[[40, 41, 42]] + 1) % 3
    values = X[:, :1].copy()
    values[60] += 30
    tasks = [
        Labels(Task("kind", "single", ("a", "b", "c")), y),
        Labels(Task("has", "multi", ("a", "b")), np.eye(3, 2, dtype=np.uint8)[y]),
        Labels(Task("value", "regression", ("value",), (-50.0, 50.0)), values),
    ]
    return make_store({"a.pool": X.astype(np.float32)}, tasks, [Split("default", parts)])


def test_copies_and_mistakes_come_out(dirty):
    """The copies by their ids, and the wrong labels first in the list."""
    found = audit(str(dirty), "kind")
    across = found["duplicates"]["across"]["test in train"]
    assert across["ids"] == ["000120.png", "000121.png"]
    assert across["pairs"][0]["other"] == "000000.png"
    assert found["duplicates"]["across"]["validation in train"]["n_images"] == 0
    doubted = found["label_errors"]["images"]
    assert {one["id"] for one in doubted[:3]} == {"000040.png", "000041.png", "000042.png"}
    assert doubted[0]["given"] != doubted[0]["suggested"]
    assert found["label_errors"]["n_judged"] == 150
    json.dumps(found, allow_nan=False)


def test_labels_and_values_are_judged_in_their_words(dirty):
    """A label is called "not a"; a value is shown with what the others say."""
    words = {one["given"] for one in audit(str(dirty), "has")["label_errors"]["images"]}
    assert words & {"a", "not a", "b", "not b"}
    (first, *_) = audit(str(dirty), "value")["label_errors"]["images"]
    assert (first["id"], first["output"]) == ("000060.png", "value")
    assert first["given"] > first["suggested"] + 20


def test_large_corpora_are_sampled(dirty, monkeypatch):
    """Beyond the most that are judged, images are drawn, and it is said."""
    monkeypatch.setattr("classify.studies.audit.MAX_JUDGED", 100)
    told = []
    found = audit(str(dirty), "kind", notify=told.append)
    assert found["label_errors"]["n_judged"] == 100
    assert "100 of 150" in told[0]


def test_wrong_settings_are_refused(dirty):
    """A cosine beyond 1 and an unknown task are errors of ours."""
    with pytest.raises(ConfigError, match="threshold is 2"):
        audit(str(dirty), "kind", threshold=2)
    with pytest.raises(MismatchError, match="a seed is a whole number"):
        audit(str(dirty), "kind", seed=-1)
    with pytest.raises(UnknownNameError):
        audit(str(dirty), "knid")


def test_pairs_of_a_board(runs_folder, store, tmp_path):
    """Two heads are compared, baselines are not; of images in groups there is no McNemar; text and JSON say so."""
    runs = find_runs([runs_folder])
    assert all(pairs(board) == [] for board in leaderboards(runs))
    (first,) = (one for one in runs if (one.report["task"], one.report["head"]) == ("polarity", "linear"))
    weak = RunConfig(str(store), "polarity", "linear", ("alpha.pool",), settings={"C": 1e-9}, resamples=60)
    second = run(replace(weak, out=str(tmp_path / "weak")))
    (board,) = leaderboards([first, second])
    found = pairs(board, n_resamples=200)
    assert [(pair["first"], pair["second"]) for pair in found] == [("linear", "weak (linear)")]
    assert found[0]["better"] == "linear"
    assert found[0]["p_holm"] == found[0]["difference"]["p"] < 1e-6
    assert found[0]["mcnemar"] is None
    json.dumps(found[0], allow_nan=False)
    assert "< 0.001" in pairs_text(board, found)


def test_many_runs_can_still_be_told_apart(dirty, tmp_path):
    """Nine heads make 36 pairs: a plain difference is shown, whatever the number of resamples."""
    config = RunConfig(str(dirty), "kind", "linear", resamples=60)
    good = run(replace(config, limit=100, out=str(tmp_path / "good0")))
    made = [good, *(read_run(shutil.copytree(good.folder, tmp_path / f"good{i}")) for i in range(1, 8))]
    made.append(run(replace(config, settings={"C": 1e-9}, out=str(tmp_path / "bad"))))
    (board,) = leaderboards(made)
    found = pairs(board, n_resamples=100)
    assert len(found) == 36
    assert found[0]["mcnemar"] is not None
    against = [pair for pair in found if pair["second"] == "bad (linear)"]
    assert [pair["better"] for pair in against] == [pair["first"] for pair in against]


def test_a_judge_that_knows_nothing_doubts_no_label(make_store):
    """On noise no label is doubted; where labels are right, about as many are listed as are to be expected."""
    random = np.random.default_rng(0)
    y = random.integers(3, size=300)
    split = Split("default", np.repeat([0, 2], [200, 100]))
    noise = make_store(
        {"a.pool": random.normal(size=(300, 5))}, [Labels(Task("t", "single", tuple("abc")), y)], [split]
    )
    found = audit(str(noise), "t")
    assert (found["label_errors"]["n_doubted"], found["label_errors"]["judge_knows"]) == (0, False)
    assert "no label is doubted" in audit_text(found)
    X = random.normal(size=(300, 3)) + 1.6 * np.eye(3)[y]
    right = make_store({"a.pool": X}, [Labels(Task("t", "single", tuple("abc")), y)], [split])
    found = audit(str(right), "t")
    doubted, expected = found["label_errors"]["n_images"], found["label_errors"]["n_expected"]
    assert doubted > 10
    assert expected == pytest.approx(doubted, rel=0.5)
    assert f"where none is wrong, about {expected} would be listed" in audit_text(found)
    tags = Labels(Task("t", "multi", ("seen", "noise")), np.column_stack([y == 0, random.integers(2, size=300)]))
    found = audit(str(make_store({"a.pool": X}, [tags], [split])), "t")["label_errors"]
    assert {one["given"].removeprefix("not ") for one in found["images"]} == {"seen"}
    assert found["n_expected"] < 100


def test_narrow_blocks_make_no_duplicates(make_store):
    """Independent vectors of five columns lie near each other; none is called a copy, and the threshold is said."""
    random = np.random.default_rng(0)
    labels = [Labels(Task("t", "single", ("a", "b")), random.integers(2, size=700))]
    X = random.normal(size=(700, 5)).astype(np.float32)
    X[690] = X[0]
    narrow = make_store({"a.pool": X}, labels, [Split("default", np.repeat([0, 2], [500, 200]))])
    found = audit(str(narrow), "t")
    across = found["duplicates"]["across"]["test in train"]
    assert across["ids"] == ["000690.png"]
    assert across["threshold"] > 0.99
    assert "the blocks have few columns" in audit_text(found)
