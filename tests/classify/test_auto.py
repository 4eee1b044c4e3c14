"""The head ``auto``: what it chooses, by which rows, and that it is a head like any other."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import SVR

from classify.data.rows import RowMatrix
from classify.errors import HeadError
from classify.heads import make_head
from classify.heads.persistence import load_head, save_head
from features_store import BlockSpec, BlockWriter, Index, open_store, write_index

N = 160


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Six blocks, of which one tells: its first feature is the value."""
    folder = tmp_path_factory.mktemp("six")
    random = np.random.default_rng(3)
    index = Index(np.array([f"{i:03}.jpg" for i in range(N)]))
    write_index(folder / "index.h5", index)
    for k in range(6):
        x = random.normal(size=(N, 12)).astype("f4")
        with BlockWriter(folder / f"b{k}.h5", index, BlockSpec(f"b{k}", (12,), {"encoder": "x"}, "float32")) as writer:
            writer.write(np.arange(N), x)
    return open_store(folder)


def planted(store, *, noise: float = 0.3) -> np.ndarray:
    x = store.matrix(["b2"], np.arange(N))
    return x[:, 0] + x[:, 1] + noise * np.random.default_rng(4).normal(size=N)


def test_one_block_of_signal_among_five_of_noise(store):
    """The head does as well as one that is told which block to look at."""
    y, train, test = planted(store), np.arange(120), np.arange(120, N)
    found = {}
    for name, blocks in (("all", list(store.blocks)), ("told", ["b2"])):
        head = make_head("auto", "regression", budget=80)
        head.fit(RowMatrix(store, blocks, train), y[train])
        found[name] = np.corrcoef(head.predict(RowMatrix(store, blocks, test)), y[test])[0, 1]
    assert found["told"] > 0.9
    assert found["all"] > 0.98 * found["told"]


def test_one_candidate_is_the_machine_of_the_library(store):
    """A single member equals scikit-learn's SVR on signed roots, standardised, gamma one half over the features."""
    y, train, test = planted(store), np.arange(100), np.arange(100, N)
    head = make_head("auto", "regression", budget=1, members=1)
    head.fit(RowMatrix(store, ["b2"], train), y[train])
    x = store.matrix(["b2"], np.arange(N)).astype("f8")
    z = np.sign(x) * np.sqrt(np.abs(x))
    z = (z - z[train].mean(0)) / z[train].std(0)
    scaled = (y[train] - y[train].mean()) / y[train].std()
    machine = SVR(C=3.0, gamma=0.5 / 12, epsilon=0.1).fit(z[train], scaled)
    expected = machine.predict(z[test]) * y[train].std() + y[train].mean()
    np.testing.assert_allclose(head.predict(RowMatrix(store, ["b2"], test)), expected, atol=1e-3)


def test_images_of_a_group_stay_in_one_fold(store):
    """Labels by group that no feature tells: without groups neighbours of the same picture give them away."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 8)
    x = random.normal(size=(20, 16))[groups] + 0.01 * random.normal(size=(N, 16))
    y = random.normal(size=20)[groups]
    losses = {}
    for name, given in (("split", None), ("whole", groups)):
        head = make_head("auto", "regression", budget=40).fit(x, y, groups=given)
        losses[name] = head.search_["inner_loss"]
    assert losses["split"] < 0.1
    assert losses["whole"] > 0.7


@pytest.mark.parametrize("kind", ["single", "binary", "multi", "regression"])
def test_it_is_saved_and_repeated(store, tmp_path, kind):
    """Equal options give equal predictions, and a saved head answers the same."""
    value = planted(store)
    y = {
        "single": np.digitize(value, [-0.5, 0.5]),
        "binary": (value > 0).astype(int),
        "multi": np.stack([value > 0, value > 1], 1) * 1,
    }.get(kind, value)
    task = "single" if kind == "binary" else kind
    x = RowMatrix(store, list(store.blocks))
    one, other = (make_head("auto", task, budget=30).fit(x, y) for _ in range(2))
    ask = (lambda head: head.predict(x)) if kind == "regression" else (lambda head: head.predict_proba(x))
    np.testing.assert_array_equal(ask(one), ask(other))
    save_head(one, tmp_path / "head")
    np.testing.assert_allclose(ask(load_head(tmp_path / "head")), ask(one), atol=1e-12)
    assert one.search_["n_tried"] == 30
    assert one.search_["inner_loss"] <= one.search_["inner_loss_of_best"]
    assert one.search_["mean"] < 0.1


def test_noise_is_answered_by_the_shares():
    """Where nothing tells of the labels, probabilities stay near the shares of the classes."""
    random = np.random.default_rng(1)
    y = random.choice(3, p=[0.5, 0.3, 0.2], size=N)
    head = make_head("auto", "single", budget=40).fit(random.normal(size=(N, 30)), y)
    p = head.predict_proba(random.normal(size=(200, 30)))
    assert np.abs(p - np.bincount(y) / N).max() < 0.25


def test_the_best_of_many_on_noise_is_not_believed():
    """Predictions of values stay near the mean: rows that did not choose the average do not bear it out."""
    found = []
    for seed in range(4):
        random = np.random.default_rng(seed)
        head = make_head("auto", "regression", budget=40).fit(random.normal(size=(N, 30)), random.normal(size=N))
        found.append(head.predict(random.normal(size=(200, 30))).std())
        assert head.search_["mean"] > 0
    assert np.mean(found) < 0.15


def test_what_looks_at_no_image_is_a_head(tmp_path):
    """An average of the mean label alone is saved, and answers it for every image."""
    random = np.random.default_rng(4)
    y = random.normal(size=N)
    head = make_head("auto", "regression", budget=1).fit(random.normal(size=(N, 30)) * 0 + 1, y)
    save_head(head, tmp_path / "head")
    answers = load_head(tmp_path / "head").predict(random.normal(size=(5, 30)))
    assert head.search_["mean"] == 1
    np.testing.assert_allclose(answers, y.mean(), atol=1e-6)


def test_too_many_rows_are_refused_in_a_sentence():
    """The matrix of all pairs is bounded, and the sentence names what to take instead."""
    with pytest.raises(HeadError, match="max_rows is 50; raise it"):
        make_head("auto", "regression", max_rows=50).fit(np.zeros((51, 2)), np.arange(51.0))
