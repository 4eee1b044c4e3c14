"""The kinds of task: one contract for all of them, and what each decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from classify.data.kinds import KINDS, kind_of
from classify.errors import TaskError
from features_store import Labels, Task
from features_store.schema import KINDS as STORED

TASKS = {
    "single": Task("t", "single", ("a", "b", "c")),
    "multi": Task("t", "multi", ("a", "b", "c")),
    "regression": Task("t", "regression", ("v", "w"), (-1.0, 1.0)),
    "one output": Task("t", "regression", ("v",), (-1.0, 1.0)),
}
VALUES: dict[str, Any] = {
    "single": [0, 2, 2, 0],
    "multi": [[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1]],
    "regression": [[0.5, -0.5], [0.1, 0.2], [1, 1], [0, 0]],
    "one output": [[0.5], [0.25], [-1], [0]],
}
each = pytest.mark.parametrize("name", TASKS)


def _y(name: str) -> np.ndarray:
    return kind_of(TASKS[name]).targets(Labels(TASKS[name], np.array(VALUES[name])).values)


def test_there_is_a_class_for_each_kind_that_a_store_knows() -> None:
    assert tuple(KINDS) == STORED


@each
def test_truth_goes_through_cells_unchanged(name: str) -> None:
    kind, y = kind_of(TASKS[name]), _y(name)
    cells = [[str(cell) for cell in row] for row in kind.truth_cells(y)]
    read = kind.read_truth(cells)
    assert len(cells[0]) == len(kind.truth_columns)
    assert read.dtype == y.dtype or not kind.has_classes
    np.testing.assert_array_equal(read, y)


@each
def test_perfect_scores_decide_the_truth(name: str) -> None:
    kind, y = kind_of(TASKS[name]), _y(name)
    scores = kind.indicators(y).astype(float) if kind.has_classes else y
    assert scores.shape == kind.blank(len(y)).shape
    checked = kind.checked(y, scores)[1]
    assert checked.shape == (len(y), kind.n_columns)
    np.testing.assert_array_equal(kind.decide(scores), y)
    if kind.has_classes:
        np.testing.assert_array_equal(kind.decided(scores), kind.indicators(y))
        assert kind.observed(y, scores).shape == kind.confidence(scores).shape
        assert list(kind.class_counts(y).values()) == kind.indicators(y).sum(axis=0).tolist()
    else:
        assert not kind.class_counts(y)
        assert not kind.decided(scores).any()
    assert set(kind.summary(y)) == set(TASKS[name].classes)
    assert all(set(one) == set(kind.summary_keys) for one in kind.summary(y).values())


@each
def test_scores_of_another_width_are_refused(name: str) -> None:
    with pytest.raises(TaskError, match="expected at least one row and a column of scores for each of"):
        kind_of(TASKS[name]).checked(_y(name), np.zeros((4, 7)))


def test_a_code_beyond_the_classes_is_refused() -> None:
    with pytest.raises(TaskError, match=r"codes 0\.\.2, found 3"):
        kind_of(TASKS["single"]).checked(np.array([0, 3]), np.zeros((2, 3)))


def test_classes_are_mapped_and_images_without_a_label_stay_without() -> None:
    places = np.array([0, 1, 0])
    np.testing.assert_array_equal(KINDS["single"].mapped(np.array([2, -1, 1]), places, 2), [0, -1, 1])
    rows = np.array([[0, 0, 1], [255, 255, 255], [0, 1, 0]], np.uint8)
    np.testing.assert_array_equal(KINDS["multi"].mapped(rows, places, 2), [[1, 0], [255, 255], [0, 1]])


def test_a_class_that_training_never_saw_has_probability_0() -> None:
    class Head:
        classes_ = np.array([0, 2])

        def predict_proba(self, X: np.ndarray) -> np.ndarray:
            return np.full((len(X), 2), 0.5)

    np.testing.assert_array_equal(kind_of(TASKS["single"]).scores(Head(), np.zeros((1, 1))), [[0.5, 0, 0.5]])


def test_rows_without_any_probability_become_even() -> None:
    found = KINDS["single"].normalized(np.array([[0.0, 0.0], [0.2, 0.6]]))
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.25, 0.75]])


def test_thresholds_decide_labels() -> None:
    kind, scores = kind_of(TASKS["multi"]), np.array([[0.3, 0.6, 0.9]])
    assert kind.decide(scores).tolist() == [[0, 1, 1]]
    assert kind.decided(scores, (0.2, 0.7, 0.9)).tolist() == [[True, False, True]]
