"""The audit of a task: planted copies and mistakes come out by name, in a file that nothing overwrites."""

import json

import numpy as np
import pytest

from classify.audit import AuditConfig, audit
from classify.errors import ConfigError
from classify.output.leaderboard import boards
from classify.output.pairs import pairs, pairs_as_json, pairs_as_text
from classify.runs import find_runs
from features_store import Labels, Split, Task, UnknownNameError


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
    found = audit(AuditConfig(str(dirty), "kind"))
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
    words = {one["given"] for one in audit(AuditConfig(str(dirty), "has"))["label_errors"]["images"]}
    assert words & {"a", "not a", "b", "not b"}
    (first, *_) = audit(AuditConfig(str(dirty), "value"))["label_errors"]["images"]
    assert (first["id"], first["output"]) == ("000060.png", "value")
    assert first["given"] > first["suggested"] + 20


def test_large_corpora_are_sampled(dirty, monkeypatch):
    """Beyond the most that are judged, images are drawn, and it is said."""
    monkeypatch.setattr("classify.audit.MAX_JUDGED", 100)
    told = []
    found = audit(AuditConfig(str(dirty), "kind"), notify=told.append)
    assert found["label_errors"]["n_judged"] == 100
    assert "100 of 150" in told[0]


def test_wrong_settings_are_refused(dirty):
    """A cosine beyond 1 and an unknown task are errors of ours."""
    with pytest.raises(ConfigError, match="threshold is 2"):
        AuditConfig(str(dirty), "kind", threshold=2)
    with pytest.raises(UnknownNameError):
        audit(AuditConfig(str(dirty), "knid"))


def test_pairs_of_a_board(runs_folder):
    """The linear head is better than the dummy on each board, after correction; text and JSON say so."""
    runs = find_runs([runs_folder])
    for board in boards(runs):
        found = pairs(board, runs, n_resamples=200)
        assert [(pair.first, pair.second) for pair in found] == [("linear", "dummy")]
        assert found[0].better == "linear"
        assert found[0].p_holm == found[0].difference.p
        told = pairs_as_json(found)[0]
        assert told["better"] == "linear"
        assert (told["mcnemar"] is None) == (board.kind == "regression")
        json.dumps(told, allow_nan=False)
        assert "linear – dummy" in pairs_as_text(board, found)
