"""What the numbers claim, simulated on worlds of known truth: a short version of ``python -m tests.bench coverage``.

Beside each claim stands the method that it replaces, which the same test must catch.
"""

import math
import re

import numpy as np
import pytest

from classify.evaluation.bootstrap import Spread, intervals
from classify.evaluation.calibration import fit_calibration
from classify.evaluation.comparison import less
from classify.evaluation.verdict import judge
from tests.bench.bench_coverage import calibrated, constant, coverage, equal_heads, noise
from tests.bench.worlds import WORLDS, World, endless

TIMES = 80


def at_most(share, times=TIMES):
    """The most of *times* that a true rate of *share* hardly ever exceeds: three Monte Carlo errors."""
    return share + 3 * np.sqrt(share * (1 - share) / times)


def at_least(share, times=TIMES):
    """The least, alike."""
    return share - 3 * np.sqrt(share * (1 - share) / times)


@pytest.mark.parametrize(
    ("name", "n", "grouped"),
    [
        ("3 skewed", 30, False),
        ("3 skewed", 150, True),
        ("28 classes", 83, False),
        ("3 labels", 83, False),
        ("shares", 83, False),
    ],
)
def test_intervals_cover(name, n, grouped):
    """Every interval that is given covers at 92% or more, and contains its own value."""
    for metric, rates in coverage(name, n, grouped=grouped, times=TIMES).items():
        given = rates["given"] * TIMES
        if given >= 60:
            assert rates["covers"] / rates["given"] >= at_least(0.92, given), metric
        assert rates["lacks_value"] == 0, metric


def test_the_percentile_interval_is_caught():
    """As it was: macro F1 over 28 classes, and mAP over 28 labels, of 83 images are hardly ever covered."""
    for name, metric in (("28 classes", "macro_f1"), ("28 labels", "mean_average_precision")):
        covered, world, aim = 0, WORLDS[name], endless(name)[0][metric]
        for i in range(20):
            truth, score, _ = world.draw(83, i, grouped=False)
            spread = Spread.of(world.task, truth, score, n_resamples=200, seed=i)
            low, high = np.quantile(spread.resampled[metric], [0.025, 0.975])
            covered += low <= aim <= high
            assert math.isnan(intervals(spread)[metric].low)
        assert covered < 10


@pytest.mark.parametrize(
    ("name", "grouped"), [("3 classes", False), ("3 labels", False), ("valence", False), ("3 classes", True)]
)
def test_noise_is_not_better(name, grouped):
    """A head without knowledge is called better in one of forty worlds; 5% is the most that is promised."""
    found = noise(name, 83, grouped=grouped, times=60)
    assert found
    for metric, rates in found.items():
        assert rates["better"] <= at_most(0.05, 60), metric


def test_the_majority_as_the_measure_of_nothing_is_caught():
    """As it was: an interval above the majority's macro F1, or mAP, calls noise better nearly always."""
    above = {"macro_f1": 0, "mean_average_precision": 0}
    for name, metric in (("3 classes", "macro_f1"), ("28 labels", "mean_average_precision")):
        blind = World(WORLDS[name].task, WORLDS[name].shares, 0.0)
        for i in range(20):
            truth, score, _ = blind.draw(83, i, grouped=False)
            spread = Spread.of(blind.task, truth, score, n_resamples=100, seed=i)
            majority = Spread.of(blind.task, truth, constant(blind, truth), n_resamples=100, seed=i)
            above[metric] += np.quantile(spread.resampled[metric], 0.025) > majority.values[metric]
    assert above["macro_f1"] >= 18
    assert above["mean_average_precision"] >= 12


def test_groups_are_dealt_whole():
    """Ten images of each of thirty groups agree, in label and in answer; dealt one by one they would show knowledge."""
    task = WORLDS["3 classes"].task
    whole = single = 0
    for i in range(60):
        random = np.random.default_rng(i)
        groups = np.repeat(np.arange(30), 10)
        truth = np.repeat(random.integers(3, size=30), 10)
        score = np.repeat(random.dirichlet(np.ones(3), size=30), 10, axis=0)
        head = Spread.of(task, truth, score, groups, n_resamples=60)
        rest = Spread.of(task, truth, np.full((300, 3), 1 / 3), groups, n_resamples=60)
        whole += judge(task, truth, head, rest, groups, n_deals=120)["macro_f1"].verdict == "better"
        single += judge(task, truth, head, rest, None, n_deals=120)["macro_f1"].verdict == "better"
    assert whole <= at_most(0.05, 60) * 60
    assert single > 15


def test_groups_of_odd_sizes_have_no_verdict():
    """Where under half of the images can be dealt nothing is judged."""
    task = WORLDS["3 classes"].task
    groups = np.repeat(np.arange(12), np.arange(1, 13))
    random = np.random.default_rng(0)
    truth, score = random.integers(3, size=78), random.dirichlet(np.ones(3), size=78)
    spread = Spread.of(task, truth, score, groups, n_resamples=50)
    assert judge(task, truth, spread, spread, groups) == {}


def test_knowledge_is_found():
    """A head that knows a little is called better, by weighted and macro F1, accuracy and mAP."""
    found = {}
    for name, metrics in (
        ("3 classes", ("weighted_f1", "macro_f1", "accuracy")),
        ("3 labels", ("mean_average_precision",)),
    ):
        truth, score, _ = WORLDS[name].draw(83, 1, grouped=False)
        world = WORLDS[name]
        head, rest = (Spread.of(world.task, truth, s, n_resamples=200) for s in (score, constant(world, truth)))
        judged = judge(world.task, truth, head, rest)
        found |= {metric: judged[metric].verdict for metric in metrics}
    assert set(found.values()) == {"better"}


def test_equal_heads_are_not_different():
    """Two equally good heads, thirty images and sixteen groups: p is below 0.05 in one of twenty worlds."""
    for name, n, grouped in (("3 classes", 30, False), ("valence", 80, True)):
        for metric, rates in equal_heads(name, n, grouped=grouped, times=TIMES).items():
            assert rates["different"] <= at_most(0.05), (name, metric)


def test_the_share_of_resamples_as_a_p_is_caught():
    """As it was: with twelve groups, the share of resamples beyond zero is below 0.05 too often."""
    alarms, world, floor = 0, WORLDS["3 skewed"], []
    for i in range(200):
        truth, one, groups = world.draw(60, i, grouped=True)
        other = _other_errors(world, truth, groups, np.random.default_rng(i))
        first, second = (Spread.of(world.task, truth, s, groups, n_resamples=200, seed=i) for s in (one, other))
        apart = first.resampled["log_loss"] - second.resampled["log_loss"]
        p = 2 * (min((apart <= 0).sum(), (apart >= 0).sum()) + 1) / 201
        alarms += p <= 0.05
        floor.append(less(first, second, "log_loss").p)
    assert alarms > at_most(0.05, 200) * 200
    assert np.mean(np.array(floor) <= 0.05) <= at_most(0.05, 200)


def _other_errors(world, truth, groups, random):
    shared, own = random.normal(size=(groups.max() + 1, 3))[groups], random.normal(size=(len(truth), 3))
    logits = np.log(world.shares) + world.signal * np.eye(3)[truth] + np.sqrt(0.5) * (shared + own)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", ["3 classes", "3 labels"])
def test_exact_probabilities_are_left_alone(name):
    """A temperature is kept, and a head called miscalibrated, in one of twenty worlds of exact probabilities."""
    found = calibrated(name, 42, grouped=False, times=TIMES)
    assert found["temperature"]["kept"] <= at_most(0.05)
    assert found["ECE"]["above its 95% point"] <= at_most(0.05)


def test_a_temperature_kept_for_its_value_is_caught():
    """As it was: of exact heads on twenty images, four in ten were called too sure, or not sure enough."""
    called, world = 0, WORLDS["3 classes"]
    for i in range(TIMES):
        _, score, _ = world.draw(20, i, grouped=False)
        random = np.random.default_rng(i)
        truth = (score.cumsum(axis=1) < random.random((20, 1))).sum(axis=1).clip(max=2)
        found, reason = fit_calibration(world.task, truth, score)
        temperature = found.temperature if found else float((re.findall(r"T = ([\d.]+)", reason) or ["1"])[0])
        called += temperature > 1.25 or temperature < 0.8
    assert called > 3 * at_most(0.05) * TIMES
