"""Baselines that see no picture: guessing as probability theory has it, and names that give a class away."""

import numpy as np
import pytest

from classify.config import RunConfig
from classify.data.tasks import Part, TaskRows
from classify.evaluation.baselines import chance, id_only_scores, majority_scores
from classify.evaluation.metrics import metrics
from classify.runs.folder import read_run
from classify.runs.layout import lay_out
from features_store import Task

SINGLE = Task("t", "single", ("joy", "fear"))
VALUES = Task("v", "regression", ("v",), (-9.0, 9.0))


def test_chance_is_the_product_of_shares():
    """Guessing by the training shares is right with the sum of products of the shares."""
    train, test = np.repeat([0, 1], [90, 10]), np.repeat([0, 1], [300, 100])
    found = chance(SINGLE, train, test)
    assert found["accuracy"].value == pytest.approx(0.9 * 0.75 + 0.1 * 0.25, abs=0.01)
    assert found["accuracy"].low < found["accuracy"].value < found["accuracy"].high
    assert np.isnan(found["log_loss"].value)


def test_chance_of_values_has_twice_the_variance():
    """Guessing a value from the same distribution errs by the root of two standard deviations, uncorrelated."""
    values = np.random.default_rng(0).normal(size=400)
    found = chance(VALUES, values, values)
    assert found["rmse"].value == pytest.approx(np.sqrt(2) * values.std(), rel=0.03)
    assert found["cc/v"].low < 0 < found["cc/v"].high


def parts_of(task, ids, y):
    """The last image of three is test, the others are training."""
    rows = {"train": np.flatnonzero(np.arange(len(ids)) % 3 < 2), "test": np.arange(2, len(ids), 3)}
    return TaskRows(task, {name: Part(name, at, y[at], np.array(ids)[at]) for name, at in rows.items()}, {})


def scores_of_names(ids, y, task=SINGLE):
    """Score the test images by names alone."""
    data = parts_of(task, ids, y)
    return metrics(task, data.parts["test"].y, id_only_scores(data)["test"])


def test_numbers_that_follow_the_class_are_found():
    """Where the number in the name tells the class, the baseline is nearly perfect."""
    random = np.random.default_rng(0)
    y = random.integers(2, size=300)
    ids = [f"t/{1000 * label + random.integers(900)}.jpg" for label in y]
    assert scores_of_names(ids, y)["accuracy"] > 0.97


def test_code_points_are_read_as_numbers():
    """Names like 1F600.png count as hexadecimal."""
    points = np.arange(0x1F400, 0x1F400 + 300)
    y = ((points // 16) % 2).astype(np.int64)
    order = np.random.default_rng(0).permutation(300)
    low = Task("v", "regression", ("v",), (0.0, 1.0))
    found = scores_of_names([f"{p:X}.png" for p in points[order]], (points[order] > points[150]).astype(float), low)
    assert found["rmse"] < 0.1
    assert len(np.unique(y)) == 2


def test_random_names_tell_nothing():
    """Without a tie between names and classes, the baseline is no better than guessing the commoner class."""
    random = np.random.default_rng(3)
    y = random.integers(2, size=300)
    ids = [f"{random.integers(10**9)}.jpg" for _ in y]
    assert scores_of_names(ids, y)["accuracy"] < 0.62


def test_a_class_in_its_own_folder_is_no_discovery():
    """Folders named after the classes are not looked at."""
    y = np.random.default_rng(0).integers(2, size=300)
    ids = [f"{SINGLE.classes[label]}/{i:04}.jpg" for i, label in enumerate(y)]
    assert scores_of_names(ids, y)["accuracy"] < 0.65


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_labels_and_single_outputs_keep_their_shapes(class_weight):
    """Multi-label scores have a column a label, also for a label that training lacks."""
    task = Task("m", "multi", ("a", "b", "c"))
    y = np.zeros((90, 3), np.uint8)
    y[::2, 0] = 1
    scores = id_only_scores(parts_of(task, [f"{i}.png" for i in range(90)], y), class_weight=class_weight)["test"]
    assert scores.shape == (30, 3)
    assert (scores[:, 1:] == 0).all()


def test_every_run_stands_beside_all_baselines(runs_folder):
    """A report has the majority on all parts, chance and id-only on those that were not trained on."""
    for task in ("polarity", "evokes", "valence", "affect"):
        found = read_run(runs_folder / task / "linear").report
        assert {name: set(parts) for name, parts in found["baselines"].items()} == {
            "majority": {"train", "validation", "test"},
            "chance": {"validation", "test"},
            "id-only": {"validation", "test"},
        }
        assert set(found["baselines"]["id-only"]["test"]) == set(found["metrics"]["test"])


def test_baselines_are_fitted_as_the_head_is(store):
    """After a refit the test part's baselines have seen the validation images, too; class weights reach the tree."""
    data = lay_out(RunConfig(str(store), "polarity", "linear", ("alpha.pool",))).data
    both = np.concatenate([data.parts["train"].y, data.parts["validation"].y])
    plain, again = (majority_scores(data, refit=refit) for refit in (False, True))
    np.testing.assert_allclose(again["test"][0], np.bincount(both, minlength=3) / len(both))
    np.testing.assert_allclose(
        plain["test"][0], np.bincount(data.parts["train"].y, minlength=3) / len(data.parts["train"])
    )
    np.testing.assert_array_equal(again["validation"], plain["validation"])
    weighted = id_only_scores(data, class_weight={0: 1e6, 1: 1.0, 2: 1.0})["test"]
    even = id_only_scores(data)["test"]
    assert weighted[:, 0].mean() > 1.5 * even[:, 0].mean()
