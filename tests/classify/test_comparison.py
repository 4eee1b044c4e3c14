"""Comparing two runs: closed forms, planted differences, and groups that count once."""

import math

import numpy as np
import pytest
from scipy import stats

from classify.errors import TaskError
from classify.evaluation.bootstrap import Spread
from classify.evaluation.comparison import holm, less, mcnemar
from features_store import Task

SINGLE = Task("t", "single", ("a", "b"))
MULTI = Task("m", "multi", ("a", "b"))
VALUES = Task("v", "regression", ("v",), (-1.0, 1.0))


def scores_of(truth, right):
    """Probabilities that decide rightly where *right*."""
    predicted = np.where(right, truth, 1 - truth)
    return np.eye(2)[predicted] * 0.8 + 0.1


def differences(task, truth, scores, **options):
    """One head less the other, by every metric."""
    first, second = (Spread.of(task, truth, score, **options) for score in scores)
    return {name: less(first, second, name) for name in first.values}


@pytest.fixture
def pair():
    """Two heads, right on 80% and 65% of 600 images, on partly the same ones."""
    random = np.random.default_rng(0)
    truth, luck = random.integers(2, size=600), random.random(600)
    return truth, luck < 0.8, (luck + 0.2 * random.random(600)) < 0.75


def test_mcnemar_is_the_binomial_sum(pair):
    """The p-value is that of the binomial distribution with one half, summed by hand."""
    truth, one, other = pair
    found = mcnemar(SINGLE, truth, (scores_of(truth, one), scores_of(truth, other)))
    b, c = int((one & ~other).sum()), int((other & ~one).sum())
    tail = sum(math.comb(b + c, k) for k in range(max(b, c), b + c + 1)) / 2 ** (b + c)
    assert (found.only_first, found.only_second) == (b, c)
    assert found.p == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(SINGLE, truth, (scores_of(truth, one),) * 2).p == 1.0


def test_mcnemar_of_labels_counts_whole_images():
    """An image of a multi-label task is right only if all its labels are; a regression is refused."""
    truth = np.array([[1, 0], [1, 1], [0, 0]])
    first = np.array([[0.9, 0.1], [0.9, 0.4], [0.1, 0.1]])
    second = np.array([[0.9, 0.9], [0.9, 0.9], [0.1, 0.1]])
    found = mcnemar(MULTI, truth, (first, second))
    assert (found.only_first, found.only_second, found.p) == (1, 1, 1.0)
    with pytest.raises(TaskError, match="regression"):
        mcnemar(VALUES, np.zeros(3), (np.zeros(3), np.zeros(3)))


def test_difference_of_accuracies_is_the_paired_t_test(pair):
    """For accuracy the jackknife is the standard error of a paired mean; its freedom falls with a high kurtosis."""
    truth, one, other = (a[:400] for a in pair)
    found = differences(SINGLE, truth, (scores_of(truth, one), scores_of(truth, other)), n_resamples=50)["accuracy"]
    paired = one.astype(float) - other
    error = paired.std(ddof=1) / np.sqrt(400)
    freedom = min(399, 800 / (stats.kurtosis(paired, fisher=False) - 397 / 399))
    assert found.value == pytest.approx(paired.mean())
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, freedom, paired.mean(), error))
    assert found.p == pytest.approx(2 * stats.t.sf(paired.mean() / error, freedom))


def test_few_images_that_decide_are_few():
    """Of 20,000 images two heads differ on twenty: t has about forty degrees of freedom, not the images' number."""
    truth, right = np.zeros(20_000, dtype=int), np.ones(20_000, dtype=bool)
    one, other = right.copy(), right.copy()
    one[:6], other[6:20] = False, False
    found = differences(SINGLE, truth, (scores_of(truth, one), scores_of(truth, other)), n_resamples=2)["accuracy"]
    sign_test = stats.binomtest(6, 20).pvalue
    assert 0.5 * sign_test < found.p < 1.5 * sign_test


def test_equal_runs_differ_in_nothing(pair):
    """A run beside itself: difference 0, interval 0 to 0, p 1, in every metric."""
    truth, one, _ = pair
    for found in differences(SINGLE, truth, (scores_of(truth, one),) * 2, n_resamples=50).values():
        assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_p_has_no_floor_but_what_the_images_can_show(pair):
    """A plain difference has a p far below one in the number of resamples; of five images, not below 1/16."""
    truth, one, _ = pair
    found = differences(SINGLE, truth, (scores_of(truth, one), scores_of(truth, ~one)), n_resamples=100)["accuracy"]
    assert found.p < 1e-9
    few = np.ones(600, dtype=bool)
    few[:5] = False
    found = differences(SINGLE, truth, (scores_of(truth, few), scores_of(truth, few | True)), n_resamples=400)
    assert found["accuracy"].p >= 2.0**-4
    assert found["accuracy"].p == pytest.approx(2.0**-4, rel=0.6)


def test_few_units_have_no_p(pair):
    """Nine groups, or nine images, say nothing of a difference; there is a value."""
    truth, one, other = (a[:90] for a in pair)
    scores = (scores_of(truth, one), scores_of(truth, other))
    grouped = differences(SINGLE, truth, scores, groups=np.arange(90) % 9)["accuracy"]
    alone = differences(SINGLE, truth[:9], (scores[0][:9], scores[1][:9]))["accuracy"]
    for found in (grouped, alone):
        assert math.isnan(found.p)
        assert math.isnan(found.low)
        assert math.isfinite(found.value)


def test_undefined_metric_stays_undefined():
    """A correlation with a constant has no difference, no interval and no p; JSON says null."""
    truth = np.linspace(-1, 1, 30)
    found = differences(VALUES, truth, (truth, np.zeros(30)), n_resamples=40)
    assert math.isnan(found["cc/v"].value)
    assert found["cc/v"].as_json() == {"value": None, "low": None, "high": None, "p": None}
    assert found["rmse"].value < 0
    assert found["rmse"].p < 0.1


def test_copies_in_a_group_add_no_certainty(pair):
    """Each image five times over, grouped, gives the interval of the images once; ungrouped, a much smaller one."""
    truth, one, other = (a[:120] for a in pair)
    scores = (scores_of(truth, one), scores_of(truth, other))
    five = [np.repeat(a, 5, axis=0) for a in (truth, *scores)]
    width = lambda found: found["accuracy"].high - found["accuracy"].low  # noqa: E731
    once = width(differences(SINGLE, truth, scores))
    grouped = width(differences(SINGLE, five[0], (five[1], five[2]), groups=np.repeat(np.arange(120), 5)))
    loose = width(differences(SINGLE, five[0], (five[1], five[2])))
    assert grouped == pytest.approx(once, rel=0.1)
    assert loose < 0.6 * once


def test_false_alarms_are_as_rare_as_promised():
    """Of pairs of equally good heads, on few groups, at most about one in twenty is called different at 0.05."""
    random = np.random.default_rng(1)
    alarms = 0
    for _ in range(400):
        truth = random.integers(2, size=60)
        right = [np.repeat(random.random(12) < 0.7, 5) ^ (random.random(60) < 0.2) for _ in range(2)]
        scores = tuple(scores_of(truth, one) for one in right)
        found = differences(SINGLE, truth, scores, groups=np.repeat(np.arange(12), 5), n_resamples=200)
        alarms += found["accuracy"].p <= 0.05
    assert alarms <= 400 * 0.05 + 3 * np.sqrt(400 * 0.05 * 0.95)


def test_holm_by_hand():
    """The textbook's steps: sorted, times 4, 3, 2, 1, never falling, never above 1; NaN is no test."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    found = holm([0.02, float("nan"), 0.5])
    assert found[0] == pytest.approx(0.04)
    assert math.isnan(found[1])
    assert holm([]) == []
