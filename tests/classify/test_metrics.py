"""Metrics against scikit-learn, and against numbers worked by hand."""

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from classify.data.kinds import kind_of
from classify.errors import TaskError
from classify.evaluation.metrics import confusion, greater_is_better, metrics, per_class, primary_metric
from features_store import Task

POLARITY = Task("polarity", "single", ("negative", "neutral", "positive"))
EVOKES = Task("evokes", "multi", ("joy", "fear", "awe", "never"))
AFFECT = Task("affect", "regression", ("valence", "arousal"), range=(1.0, 9.0))


def averages(truth, decided):
    """Return scikit-learn's precision and recall, averaged over classes in both ways."""
    found = {"precision": sk.precision_score, "recall": sk.recall_score}
    return {
        f"{a}_{name}": score(truth, decided, average=a, zero_division=0)
        for name, score in found.items()
        for a in ("weighted", "macro")
    }


def test_single_label_metrics_agree_with_scikit_learn():
    """Every single-label metric equals scikit-learn's on random scores."""
    random = np.random.default_rng(0)
    truth, score = random.integers(0, 3, 200), random.dirichlet([1, 1, 1], 200)
    found, decided = metrics(POLARITY, truth, score), score.argmax(axis=1)
    expected = {f"{a}_f1": sk.f1_score(truth, decided, average=a) for a in ("weighted", "macro", "micro")}
    expected |= averages(truth, decided)
    expected |= {
        "accuracy": sk.accuracy_score(truth, decided),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, decided),
        "log_loss": sk.log_loss(truth, score),
    }
    assert found == pytest.approx(expected)
    assert np.array_equal(confusion(POLARITY, truth, score), sk.confusion_matrix(truth, decided))


def test_multi_label_metrics_agree_with_scikit_learn():
    """Every multi-label metric equals scikit-learn's, with tied scores and a label that never occurs."""
    random = np.random.default_rng(1)
    truth = (random.random((150, 4)) < [0.5, 0.2, 0.8, 0.0]).astype(np.uint8)
    score = np.round(random.random((150, 4)), 1)
    found, decided = metrics(EVOKES, truth, score), (score >= 0.5).astype(int)
    expected = {
        f"{a}_f1": sk.f1_score(truth, decided, average=a, zero_division=0) for a in ("weighted", "macro", "micro")
    }
    expected |= averages(truth, decided)
    expected |= {
        "subset_accuracy": sk.accuracy_score(truth, decided),
        "hamming_loss": sk.hamming_loss(truth, decided),
        "mean_average_precision": np.mean([sk.average_precision_score(truth[:, k], score[:, k]) for k in range(3)]),
    }
    assert found == pytest.approx(expected)


def test_regression_metrics_by_hand():
    """RMSE, CC, SAGR and MAE of four images, worked by hand; SAGR is about the midpoint 5, not about 0."""
    truth = np.array([[2.0, 4.0], [4.0, 6.0], [6.0, 4.0], [8.0, 6.0]])
    score = np.array([[3.0, 4.0], [6.0, 4.0], [6.0, 4.0], [9.0, 8.0]])
    found = metrics(AFFECT, truth, score)
    assert found["rmse/valence"] == pytest.approx(math.sqrt((1 + 4 + 0 + 1) / 4))
    assert found["mae/valence"] == pytest.approx(1.0)
    assert found["sagr/valence"] == pytest.approx(3 / 4)
    assert found["sagr/arousal"] == pytest.approx(3 / 4)
    assert found["cc/arousal"] == pytest.approx(4 / math.sqrt(4 * 12))
    assert found["rmse"] == pytest.approx(math.sqrt((6 + 8) / 8))
    assert found["sagr"] == pytest.approx(6 / 8)
    assert found["cc_pooled"] == pytest.approx(np.corrcoef(truth.ravel(), score.ravel())[0, 1])


def test_regression_of_one_output_takes_a_flat_array():
    """One output may come as (n,); its pooled numbers are the output's own."""
    task = Task("valence", "regression", ("valence",), range=(-1.0, 1.0))
    found = metrics(task, np.array([0.5, -0.5, 0.2]), np.array([0.4, 0.1, 0.3]))
    assert found["rmse"] == found["rmse/valence"]
    assert found["sagr"] == pytest.approx(2 / 3)


def test_constant_prediction_has_no_correlation():
    """The correlation of a baseline that always says the same is undefined, not 0."""
    found = metrics(AFFECT, np.random.default_rng(2).uniform(1, 9, (30, 2)), np.full((30, 2), 4.1))
    assert math.isnan(found["cc/valence"])


def test_absent_class_keeps_its_row():
    """A three-class head scored on images without the neutral class: the row stays, with support 0."""
    truth, score = np.array([0, 0, 2, 2]), np.eye(3)[[0, 1, 2, 2]]
    rows = per_class(POLARITY, truth, score)
    assert [row["class"] for row in rows] == list(POLARITY.classes)
    assert rows[1] == {"class": "neutral", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    found = metrics(POLARITY, truth, score)
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx((0.5 + 1) / 2)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_log_loss_of_a_class_that_the_head_ruled_out_is_finite():
    """A probability of 0 for the truth costs much, not infinitely much."""
    assert 10 < metrics(POLARITY, np.array([0]), np.array([[0.0, 0.0, 1.0]]))["log_loss"] < 100


def test_no_positive_anywhere():
    """Without one positive label F1 is 0 and the mean average precision is undefined."""
    found = metrics(EVOKES, np.zeros((5, 4)), np.full((5, 4), 0.1))
    assert found["weighted_f1"] == 0
    assert math.isnan(found["mean_average_precision"])


def test_decisions():
    """Single: the most probable class; multi: at one half."""
    assert kind_of(POLARITY).decide([[0.2, 0.5, 0.3]]).tolist() == [1]
    assert kind_of(EVOKES).decide([[0.5, 0.49, 0, 1]]).tolist() == [[1, 0, 0, 1]]


def test_ranking():
    """Each kind has a metric that ranks; errors and losses are better when lower."""
    assert [primary_metric(t) for t in (POLARITY, EVOKES, AFFECT)] == ["weighted_f1", "weighted_f1", "rmse"]
    better = {name: greater_is_better(name) for name in ("weighted_f1", "rmse/valence", "log_loss", "cc/valence")}
    assert better == {"weighted_f1": True, "rmse/valence": False, "log_loss": False, "cc/valence": True}


@pytest.mark.parametrize(
    ("task", "truth", "score"),
    [
        (POLARITY, [0, 1], np.ones((2, 4))),
        (POLARITY, [0, 1, 2], np.ones((2, 3))),
        (POLARITY, [0, -1], np.ones((2, 3))),
        (POLARITY, ["a", "b"], np.ones((2, 3))),
        (EVOKES, np.zeros((2, 3)), np.ones((2, 4))),
        (AFFECT, np.zeros((0, 2)), np.zeros((0, 2))),
    ],
)
def test_what_does_not_fit_the_task_is_refused(task, truth, score):
    """Wrong shapes, codes out of range and no rows give one error that names the task."""
    with pytest.raises(TaskError, match=task.name):
        metrics(task, np.array(truth), score)
