"""Bootstrap intervals against explicit resamples scored by scikit-learn and scipy."""

import math

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn import metrics as sk

from classify.evidence.intervals import bootstrap, draws
from classify.evidence.metrics import metrics
from classify.evidence.resamples import resampled_metrics
from classify.evidence.verdict import verdict
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


def by_sklearn(task, y, p):
    """Every metric, by libraries that know nothing of weights."""
    if task.kind == "single":
        said, labels = p.argmax(axis=1), [0, 1, 2]
        f1 = {
            f"{a}_f1": sk.f1_score(y, said, labels=labels, average=a, zero_division=0)
            for a in ("weighted", "macro", "micro")
        }
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


def test_interval_of_accuracy_is_the_binomial_one():
    """For a share of 400 images the percentile interval is the normal approximation, which is exact enough."""
    y = np.r_[np.zeros(280, dtype=int), np.ones(120, dtype=int)]
    p = np.tile([1.0, 0.0, 0.0], (400, 1))
    found = bootstrap(SINGLE, y, p, n_resamples=4000)["accuracy"]
    half = 1.96 * math.sqrt(0.7 * 0.3 / 400)
    assert found.value == 0.7
    assert found.low == pytest.approx(0.7 - half, abs=0.006)
    assert found.high == pytest.approx(0.7 + half, abs=0.006)


def test_copies_in_a_group_do_not_narrow_the_interval():
    """Ten copies of each image, grouped, give the interval of the images; ungrouped, a far narrower one."""
    y, p = data(SINGLE, n=80)
    many_y, many_p, groups = np.repeat(y, 10), np.repeat(p, 10, axis=0), np.repeat(np.arange(80), 10)
    honest = bootstrap(SINGLE, y, p)["accuracy"]
    grouped = bootstrap(SINGLE, many_y, many_p, groups=groups)["accuracy"]
    naive = bootstrap(SINGLE, many_y, many_p)["accuracy"]
    assert (grouped.low, grouped.high) == pytest.approx((honest.low, honest.high))
    assert naive.high - naive.low < 0.5 * (honest.high - honest.low)


def test_images_alone_are_units_of_their_own():
    """A group of -1 means alone: the same as no groups at all."""
    y, p = data(SINGLE)
    alone = bootstrap(SINGLE, y, p, groups=np.full(len(y), -1), n_resamples=50)
    assert alone == bootstrap(SINGLE, y, p, n_resamples=50)


def test_undefined_metrics_are_none_in_json():
    """A constant prediction has no correlation: NaN inside, None in the report, and no verdict."""
    y, _ = data(AFFECT)
    found = bootstrap(AFFECT, y, np.tile([4.1, 5.3], (len(y), 1)), n_resamples=50)
    assert found["cc/valence"].as_json() == {"value": None, "low": None, "high": None}
    assert found["rmse"].low < found["rmse"].value < found["rmse"].high
    assert verdict("cc/valence", found["rmse"].as_json(), found["cc/valence"].as_json()) == "undefined"


@pytest.mark.parametrize(
    ("name", "low", "high", "baseline", "expected"),
    [
        ("accuracy", 0.6, 0.7, 0.5, "better"),
        ("accuracy", 0.6, 0.7, 0.65, "unclear"),
        ("accuracy", 0.6, 0.7, 0.8, "worse"),
        ("rmse/valence", 0.6, 0.7, 0.8, "better"),
        ("rmse", 0.6, 0.7, 0.5, "worse"),
        ("accuracy", 1 / 3, 1 / 3, 1 / 3 - 1e-16, "unclear"),
    ],
)
def test_verdict_needs_the_whole_interval(name, low, high, baseline, expected):
    """Better or worse only where the interval lies wholly on that side, in the metric's own direction."""
    ours = {"value": (low + high) / 2, "low": low, "high": high}
    assert verdict(name, ours, {"value": baseline}) == expected
