"""Thresholds of labels: the best there are, chosen on the validation part, applied without disturbing the order."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from classify.errors import TaskError
from classify.evaluation.postprocessing import at_thresholds, best_thresholds
from features_store import Task

MULTI = Task("m", "multi", ("a", "b", "c"))


@pytest.fixture
def labels():
    """Return truth and scores of three labels, with ties, none of which is best cut at one half."""
    random = np.random.default_rng(0)
    truth = (random.random((200, 3)) < [0.1, 0.4, 0.8]).astype(np.uint8)
    scores = np.clip(0.25 * truth + [0.05, 0.5, 0.3] + 0.2 * random.normal(size=(200, 3)), 0.01, 0.99).round(2)
    return truth, scores


def test_many_images_settle_on_the_best_threshold(labels):
    """Of many copies of the images, every possible cut, tried by scikit-learn's F1, is hardly better."""
    truth, scores = (np.repeat(a, 40, axis=0) for a in labels)
    for k, chosen in enumerate(best_thresholds(MULTI, truth, scores)):
        tried = [f1_score(truth[:, k], scores[:, k] >= cut, zero_division=0) for cut in np.unique(scores[:, k])[::6]]
        assert f1_score(truth[:, k], scores[:, k] >= chosen) >= max(tried) - 0.02
        assert 0 < chosen < 1


def test_a_threshold_from_few_images_stays_near_one_half(labels):
    """The same images forty times over have the same best cut; once, the threshold lies nearer to one half."""
    few = best_thresholds(MULTI, *labels)
    many = best_thresholds(MULTI, *(np.repeat(a, 40, axis=0) for a in labels))
    assert abs(few[0] - 0.5) < 0.8 * abs(many[0] - 0.5)
    assert (few[0] > 0.5) == (many[0] > 0.5)


def test_a_label_unknown_to_the_head_is_not_given_to_all():
    """Twenty-six images have it, and scores say nothing of which: the highest F1 would be to give it to every image."""
    random = np.random.default_rng(3)
    truth = np.zeros((300, 3), np.uint8)
    truth[random.permutation(300)[:26], 0] = 1
    scores = np.clip(0.09 + 0.02 * random.normal(size=(300, 3)), 0.01, 0.99)
    assert best_thresholds(MULTI, truth, scores)[0] == 0.5


def test_bent_scores_decide_at_one_half(labels):
    """After bending, one half decides what the thresholds decided, and the average precision is the same."""
    truth, scores = labels
    at = [0.2, 0.66, 0.35]
    bent = at_thresholds(scores, at)
    np.testing.assert_array_equal(bent >= 0.5, scores >= at)
    assert bent.min() >= 0
    assert bent.max() <= 1
    for k in range(3):
        same = average_precision_score(truth[:, k], bent[:, k])
        assert same == pytest.approx(average_precision_score(truth[:, k], scores[:, k]))


def test_rare_and_constant_labels_keep_one_half(labels):
    """Nine images are no ground for a threshold, and nor are labels that all have."""
    truth, scores = labels
    truth, scores = truth.copy(), scores.copy()
    truth[:, 0], truth[:, 1] = 0, 1
    truth[:9, 0] = 1
    scores[:9, 0] += 0.5
    assert best_thresholds(MULTI, truth, scores)[:2] == [0.5, 0.5]


def test_other_tasks_are_refused():
    """Only labels have thresholds."""
    with pytest.raises(TaskError, match="multi-label"):
        best_thresholds(Task("t", "single", ("a", "b")), np.zeros(9), np.zeros((9, 2)))
