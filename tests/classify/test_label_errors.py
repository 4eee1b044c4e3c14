"""Doubtful labels: planted mistakes are found, and an image never judges itself."""

import numpy as np
import pytest

from classify.data.folds import deal_strata
from classify.data.kinds import kind_of
from classify.evaluation.label_errors import improbable_values, out_of_fold, probable_errors
from features_store import Task

SINGLE = Task("t", "single", ("a", "b", "c"))
MULTI = Task("m", "multi", ("a", "b"))
VALUES = Task("v", "regression", ("v", "w"), (-9.0, 9.0))


@pytest.fixture(scope="module")
def clouds():
    """Return three clouds of 80 points in 10 dimensions, and their classes."""
    random = np.random.default_rng(0)
    classes = np.repeat(np.arange(3), 80)
    return random.normal(size=(240, 10)) + 2.2 * np.eye(3, 10)[classes] * 2, classes


def test_planted_mistakes_lead_the_list(clouds):
    """Of 18 wrong labels nearly all are found, and the head of the list is nothing else."""
    X, classes = clouds
    wrong = np.random.default_rng(1).choice(240, 18, replace=False)
    given = classes.copy()
    given[wrong] = (given[wrong] + 1) % 3
    found = probable_errors(SINGLE, given, out_of_fold(SINGLE, X, given))
    positions = [error.position for error in found]
    assert len(set(positions) & set(wrong)) >= 16
    assert len(set(positions[:12]) & set(wrong)) >= 11
    assert all(classes[e.position] == e.suggested for e in found[:10])


def test_wrong_single_labels_of_several_are_found(clouds):
    """In a multi-label task the label that is wrong is named."""
    X, classes = clouds
    truth = np.column_stack([classes == 0, classes >= 1]).astype(np.uint8)
    given = truth.copy()
    wrong = {(int(i), int(i) % 2) for i in np.random.default_rng(1).choice(240, 24, replace=False)}
    for i, k in wrong:
        given[i, k] ^= 1
    found = [(e.position, e.output) for e in probable_errors(MULTI, given, out_of_fold(MULTI, X, given))]
    assert set(found[:8]) <= wrong
    assert len(wrong & set(found)) >= 12


def test_threshold_by_hand():
    """Class means 0.8 and 0.6: only the image that reaches the other class's mean, and prefers it, is doubted."""
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.3, 0.7], [0.45, 0.55], [0.4, 0.6], [0.35, 0.65]])
    given = np.array([0, 0, 0, 0, 1, 1])
    (error,) = probable_errors(Task("t", "single", ("a", "b")), given, p)
    assert (error.position, error.given, error.suggested) == (2, 0, 1)
    assert error.score == pytest.approx(0.4)


def test_a_group_never_judges_itself():
    """Copies with one random label each: by themselves they confirm it, as groups they cannot."""
    random = np.random.default_rng(0)
    X = np.repeat(random.normal(size=(40, 120)), 5, axis=0)
    y = np.repeat(random.integers(2, size=40), 5)
    task = Task("t", "single", ("a", "b"))
    alone = (out_of_fold(task, X, y).argmax(axis=1) == y).mean()
    grouped = (out_of_fold(task, X, y, groups=np.repeat(np.arange(40), 5)).argmax(axis=1) == y).mean()
    assert alone > 0.9
    assert grouped < 0.7


def test_far_values_are_found(clouds):
    """A value moved by many deviations is named with its output; clean values mostly are not."""
    X, _ = clouds
    random = np.random.default_rng(2)
    y = X[:, :2] + 0.3 * random.normal(size=(240, 2))
    y[17, 1] += 6
    found = improbable_values(y, out_of_fold(VALUES, X, y))
    assert (found[0].position, found[0].output) == (17, 1)
    assert len(found) < 6


def test_folds_keep_groups_and_classes(clouds):
    """Every class is in every fold, no group is in two, and all kinds of task can be dealt."""
    _, classes = clouds
    groups = np.where(np.arange(240) % 3, -1, np.arange(240) // 12)
    folds = deal_strata(classes, groups=groups)
    assert all(len(np.unique(folds[groups == g])) == 1 for g in np.unique(groups[groups >= 0]))
    assert all(len(np.unique(folds[classes == c])) == 5 for c in range(3))
    for task, y in (
        (MULTI, np.eye(2, dtype=np.uint8)[classes % 2]),
        (VALUES, np.random.default_rng(0).normal(size=(240, 2))),
    ):
        assert np.bincount(deal_strata(kind_of(task).strata(y))).min() >= 46
