"""Intervals, and the weighted metrics behind them, against explicit resamples scored by scikit-learn and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from scipy.stats import t as student_t
from sklearn import metrics as sk

from classify.evaluation.bootstrap import bootstrap, draws
from classify.evaluation.metrics import metrics, resampled_metrics
from features_store import Task

SINGLE = Task("polarity", "single", ("negative", "neutral", "positive"))
MULTI = Task("evokes", "multi", ("joy", "fear", "awe"))
AFFECT = Task("affect", "regression", ("valence", "arousal"), range=(1.0, 9.0))


def data(task, n=60, seed=0):
    random = np.random.default_rng(seed)
    if task.kind == "single":
        return random.integers(3, size=n), random.dirichlet(np.ones(3), size=n)
    if task.kind == "multi":
        return (random.random((n, 3)) < 0.4).astype(np.uint8), random.random((n, 3)).round(1)  # ties
    truth = random.uniform(1, 9, size=(n, 2))
    return truth, truth + random.normal(size=(n, 2))


def test_one_label_has_one_interval():
    """Weighted, macro and micro F1 of a single label are one number, with the same ends."""
    random = np.random.default_rng(0)
    y = (random.random((80, 1)) < 0.4).astype(np.uint8)
    found = bootstrap(Task("evokes", "multi", ("joy",)), y, 0.4 * y + 0.6 * random.random((80, 1)))
    assert found["macro_f1"].low < found["macro_f1"].value < found["macro_f1"].high
    assert found["macro_f1"] == found["weighted_f1"] == found["micro_f1"]
    assert found["macro_recall"] == found["weighted_recall"]


def averages(y, said, **labels):
    """Return precision and recall, averaged over classes in both ways."""
    found = {}
    for a in ("weighted", "macro"):
        precision, recall, _, _ = sk.precision_recall_fscore_support(y, said, average=a, zero_division=0, **labels)
        found |= {f"{a}_precision": precision, f"{a}_recall": recall}
    return found


def by_sklearn(task, y, p):
    """Every metric, by libraries that know nothing of weights."""
    if task.kind == "single":
        said, labels = p.argmax(axis=1), [0, 1, 2]
        f1 = {
            f"{a}_f1": sk.f1_score(y, said, labels=labels, average=a, zero_division=0)
            for a in ("weighted", "macro", "micro")
        }
        f1 |= averages(y, said, labels=labels)
        present = np.isin(labels, y)
        recall = sk.recall_score(y, said, labels=labels, average=None, zero_division=0)
        return f1 | {
            "accuracy": sk.accuracy_score(y, said),
            "balanced_accuracy": recall[present].mean(),
            "log_loss": sk.log_loss(y, p, labels=labels),
        }
    if task.kind == "multi":
        said = (p >= 0.5).astype(int)
        f1 = {f"{a}_f1": sk.f1_score(y, said, average=a, zero_division=0) for a in ("weighted", "macro", "micro")}
        f1 |= averages(y, said)
        present = [k for k in range(3) if y[:, k].any()]
        return f1 | {
            "subset_accuracy": sk.accuracy_score(y, said),
            "hamming_loss": sk.hamming_loss(y, said),
            "mean_average_precision": np.mean([sk.average_precision_score(y[:, k], p[:, k]) for k in present]),
        }
    found = {}
    for d, name in enumerate(task.classes):
        t, v = y[:, d], p[:, d]
        found[f"rmse/{name}"] = math.sqrt(sk.mean_squared_error(t, v))
        found[f"cc/{name}"] = pearsonr(t, v).statistic
        found[f"sagr/{name}"] = np.mean(np.sign(t - 5) == np.sign(v - 5))
        found[f"mae/{name}"] = sk.mean_absolute_error(t, v)
    found["rmse"] = math.sqrt(sk.mean_squared_error(y.ravel(), p.ravel()))
    found["cc_pooled"] = pearsonr(y.ravel(), p.ravel()).statistic
    found["sagr"] = np.mean(np.sign(y - 5) == np.sign(p - 5))
    return found


@pytest.mark.parametrize("task", [SINGLE, MULTI, AFFECT], ids=lambda task: task.kind)
def test_weighted_metrics_equal_scoring_each_resample(task):
    """A resample as weights gives what scikit-learn gives for the images written out."""
    y, p = data(task)
    (weights,) = draws(len(y), 25, seed=1)
    found = resampled_metrics(task, y, p, weights)
    assert set(found) == set(metrics(task, y, p))
    for i, weight in enumerate(weights):
        rows = np.repeat(np.arange(len(y)), weight.astype(int))
        for name, expected in by_sklearn(task, y[rows], p[rows]).items():
            assert found[name][i] == pytest.approx(expected, abs=1e-9), name


@pytest.mark.parametrize("task", [SINGLE, MULTI, AFFECT], ids=lambda task: task.kind)
def test_groups_are_drawn_whole(task):
    """With groups, a unit's weight is the weight of each of its images."""
    y, p = data(task, n=30)
    units = np.arange(30) // 3
    (weights,) = draws(10, 8, seed=2)
    grouped = resampled_metrics(task, y, p, weights, units=units)
    written_out = resampled_metrics(task, y, p, weights[:, units])
    for name, values in grouped.items():
        np.testing.assert_allclose(values, written_out[name], atol=1e-9, err_msg=name)


def test_class_absent_from_a_resample_keeps_its_row():
    """Images of one class only: the other classes count as 0 in the macro F1, and not in the mean recall."""
    y, p = np.array([0, 0, 1, 2]), np.eye(3)[[0, 0, 1, 2]]
    found = resampled_metrics(SINGLE, y, p, np.array([[2.0, 2.0, 0.0, 0.0]]))
    assert found["macro_f1"][0] == pytest.approx(1 / 3)
    assert found["balanced_accuracy"][0] == 1.0


def test_draws_are_resamples_and_follow_the_seed():
    """Each row adds up to the number of units; the mean weight is 1, its variance that of a bootstrap."""
    weights = np.concatenate(list(draws(2000, 3000, seed=3)))  # more than one chunk
    assert weights.shape == (3000, 2000)
    assert (weights.sum(axis=1) == 2000).all()
    assert weights.var() == pytest.approx(1 - 1 / 2000, abs=0.01)
    np.testing.assert_array_equal(weights[:5], next(draws(2000, 5, seed=3)))
    assert not np.array_equal(weights[:5], next(draws(2000, 5, seed=4)))


@pytest.mark.parametrize("task", [SINGLE, MULTI, AFFECT], ids=lambda task: task.kind)
def test_metrics_are_the_resampled_ones_with_every_weight_one(task):
    """There is one engine: a number is its own resample."""
    for seed in range(20):
        y, p = data(task, n=37, seed=seed)
        ones = resampled_metrics(task, y, p, np.ones((1, 37)))
        for name, value in metrics(task, y, p).items():
            assert ones[name][0] == pytest.approx(value, rel=1.3e-15, abs=1.3e-15), name


def test_interval_of_accuracy_is_wilsons():
    """For a share of 400 images it is what the textbook has, with Student's t for the normal quantile."""
    y = np.r_[np.zeros(280, dtype=int), np.ones(120, dtype=int)]
    p = np.tile([1.0, 0.0, 0.0], (400, 1))
    found = bootstrap(SINGLE, y, p, n_resamples=100)["accuracy"]
    expected = proportion_wilson(0.7, 400, student_t.ppf(0.975, 399))
    assert found.value == 0.7
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
    assert bootstrap(SINGLE, y, p, n_resamples=100, seed=9)["accuracy"] == found


def proportion_wilson(p, n, z):
    """The two roots of (p - q)^2 = z^2 q (1 - q) / n."""
    return np.sort(np.roots([1 + z * z / n, -(2 * p + z * z / n), p * p]).real)


def test_interval_of_an_error_is_close_to_that_of_its_logarithm():
    """On 2,000 images the bootstrap-t interval of RMSE is the delta method's, worked by hand."""
    random = np.random.default_rng(0)
    task = Task("v", "regression", ("v",), range=(-9.0, 9.0))
    truth = random.normal(size=2000)
    error = random.normal(size=2000)
    found = bootstrap(task, truth, truth + error, n_resamples=2000)["rmse"]
    step = 1.96 * (error**2).std() / np.sqrt(2000) / (2 * (error**2).mean())
    assert found.low == pytest.approx(found.value * np.exp(-step), rel=0.006)
    assert found.high == pytest.approx(found.value * np.exp(step), rel=0.006)


def test_copies_in_a_group_do_not_narrow_the_interval():
    """Ten copies of each image, grouped, give the interval of the images; ungrouped, a far narrower one."""
    y, p = data(SINGLE, n=80)
    many_y, many_p, groups = np.repeat(y, 10), np.repeat(p, 10, axis=0), np.repeat(np.arange(80), 10)
    for name in ("accuracy", "weighted_f1", "log_loss"):
        honest = bootstrap(SINGLE, y, p)[name]
        grouped = bootstrap(SINGLE, many_y, many_p, groups=groups)[name]
        naive = bootstrap(SINGLE, many_y, many_p)[name]
        assert (grouped.low, grouped.high) == pytest.approx((honest.low, honest.high), abs=0.005)
        assert naive.high - naive.low < 0.5 * (honest.high - honest.low)


def test_perfect_answers_lie_within_their_interval():
    """28 classes with two images each, all right: no interval of macro F1 excludes 1, and none is of zero width."""
    task = Task("t", "single", tuple(f"c{i}" for i in range(28)))
    y = np.repeat(np.arange(28), 2)
    found = bootstrap(task, y, np.eye(28)[y])
    assert found["macro_f1"].value == 1
    assert math.isnan(found["macro_f1"].low)
    assert "have fewer than 5 test images" in found["macro_f1"].reason
    for name in ("accuracy", "weighted_f1", "micro_f1"):
        assert found[name].low < 0.95
        assert found[name].high == 1


def test_an_interval_is_over_the_classes_that_have_images_enough():
    """Over the others the sentence names those left out; the value stays that of all classes."""
    random = np.random.default_rng(0)
    y = np.r_[np.repeat([0, 1], 30), 2, 2, 2, 2]
    p = np.eye(3)[np.where(random.random(64) < 0.7, y, (y + 1) % 3)]
    found = bootstrap(SINGLE, y, p)
    one = found["macro_f1"]
    assert one.reason == "No interval for macro F1 over all 3 classes: positive has fewer than 5 test images."
    assert one.value == pytest.approx(sk.f1_score(y, p.argmax(axis=1), average="macro"))
    assert one.over["n_classes"] == 2
    assert one.over["value"] == pytest.approx(sk.f1_score(y, p.argmax(axis=1), average="macro", labels=[0, 1]))
    assert one.over["low"] < one.over["value"] < one.over["high"]
    assert found["weighted_f1"].low < found["weighted_f1"].value < found["weighted_f1"].high


def test_average_precision_takes_twenty_positives():
    """A label with fewer is left out of the interval."""
    y, p = data(MULTI, n=120)
    y[:, 1] = 0
    y[:19, 1] = 1
    one = bootstrap(MULTI, y, p)["mean_average_precision"]
    assert one.reason.startswith("No interval: 1 label has fewer than 20 test images;")
    assert one.over["n_classes"] == 2


@pytest.mark.parametrize("n_groups", [1, 9])
@pytest.mark.parametrize("task", [SINGLE, MULTI, AFFECT], ids=lambda task: task.kind)
def test_few_groups_have_no_interval(task, n_groups):
    """Under ten groups, or images, there is a value and a sentence; of ten there is an interval."""
    y, p = data(task, n=60)
    primary = {"single": "weighted_f1", "multi": "weighted_f1", "regression": "rmse"}[task.kind]
    one = bootstrap(task, y, p, groups=np.arange(60) % n_groups)[primary]
    assert math.isnan(one.low)
    assert f"come from {n_groups} group" in one.reason
    assert "only 7 test images" in bootstrap(task, y[:7], p[:7])[primary].reason
    assert math.isfinite(bootstrap(task, y, p, groups=np.arange(60) % 10)[primary].low)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([SINGLE, MULTI, AFFECT]),
    n=st.integers(1, 60),
    n_groups=st.integers(1, 60),
    seed=st.integers(0, 10**6),
    sure=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_an_interval_contains_its_value(kind, n, n_groups, seed, sure):
    """Whatever the answers, the groups and the classes that are missing."""
    y, p = data(kind, n=n, seed=seed)
    right = np.eye(3)[y] if kind.kind == "single" else y
    p = sure * right + (1 - sure) * p
    for one in bootstrap(
        kind, y, p, groups=np.random.default_rng(seed).integers(n_groups, size=n), n_resamples=40
    ).values():
        for found in ({"value": one.value, "low": one.low, "high": one.high}, one.over or {}):
            if found and not math.isnan(found["low"]):
                assert found["low"] <= found["value"] <= found["high"]
                assert found["low"] < found["high"]
        assert not math.isnan(one.low) or one.reason or math.isnan(one.value)


def test_images_alone_are_units_of_their_own():
    """A group of -1 means alone: the same as no groups at all."""
    y, p = data(SINGLE)
    alone = bootstrap(SINGLE, y, p, groups=np.full(len(y), -1), n_resamples=50)
    assert alone == bootstrap(SINGLE, y, p, n_resamples=50)


def test_undefined_metrics_are_none_in_json():
    """A constant prediction has no correlation: NaN inside, None in the report."""
    y, _ = data(AFFECT)
    found = bootstrap(AFFECT, y, np.tile([4.1, 5.3], (len(y), 1)), n_resamples=50)
    assert found["cc/valence"].as_json() == {"value": None, "low": None, "high": None}
    assert found["rmse"].low < found["rmse"].value < found["rmse"].high
