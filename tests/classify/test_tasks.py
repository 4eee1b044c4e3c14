"""Rows and targets of each part: every image of the split is used, or counted under a reason."""

import numpy as np
import pytest

from classify.data.tasks import choose_blocks, task_rows
from classify.errors import TaskError
from features_store import (
    FailedRowsError,
    Index,
    Labels,
    Split,
    Task,
    UnknownNameError,
    open_store,
    write_index,
)

from .conftest import write_block


def lay_out(store, task="polarity", split="default", blocks=("alpha.pool",), **more):
    return task_rows(open_store(store), task, split=split, blocks=blocks, **more)


def test_every_image_is_used_or_counted(store):
    """Parts, losses and unused images add up to the index; the losses are those that were planted."""
    found = lay_out(store)
    used = sum(len(part) for part in found.parts.values())
    lost: dict[str, int] = {}
    for counts in found.dropped.values():
        for reason, count in counts.items():
            lost[reason] = lost.get(reason, 0) + count
    assert used + sum(lost.values()) + found.unused == 260
    assert lost == {"no label": 10, "missing": 1, "undecodable": 2, "not extracted yet": 1}


def test_rows_carry_their_own_labels_and_ids(store):
    """y, ids and groups of a part are those of its rows."""
    opened, found = open_store(store), lay_out(store)
    for code, part in enumerate(found.parts.values()):
        np.testing.assert_array_equal(part.y, opened.labels["polarity"].values[part.rows])
        np.testing.assert_array_equal(part.ids, opened.ids[part.rows])
        np.testing.assert_array_equal(part.groups, opened.groups[part.rows])
        assert (opened.splits["default"].values[part.rows] == code).all()
        assert (np.diff(part.rows) > 0).all()


def test_blocks_decide_who_is_dropped(store):
    """A block with all its vectors drops nobody for want of one."""
    assert set(lay_out(store, blocks=("beta.pool",)).dropped["train"]) == {"no label"}


def test_targets_have_the_form_of_their_kind(store):
    """Codes, indicator rows, a line of values, or rows of values."""
    forms = {task: lay_out(store, task).parts["train"].y for task in ("polarity", "evokes", "valence", "affect")}
    assert [y.shape[1:] for y in forms.values()] == [(), (3,), (), (2,)]
    assert set(np.unique(forms["evokes"])) == {0, 1}
    assert not np.isnan(forms["valence"]).any()


def test_without_validation_part_there_is_none(store):
    """A split of two parts gives two parts."""
    assert list(lay_out(store, split="holdout").parts) == ["train", "test"]


def test_digest_changes_with_labels_and_rows(store):
    """Two parts are the same exactly if ids and targets are."""
    one, again, other = lay_out(store), lay_out(store), lay_out(store, blocks=("beta.pool",))
    assert one.parts["test"].digest == again.parts["test"].digest
    assert one.parts["test"].digest != other.parts["test"].digest
    assert one.parts["test"].digest != lay_out(store, "valence").parts["test"].digest


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "polarty"}, "unknown task 'polarty' (did you mean 'polarity'?)"),
        ({"split": "defalt"}, "unknown split 'defalt' (did you mean 'default'?)"),
        ({"blocks": ("alpha.poll",)}, "unknown block 'alpha.poll'"),
    ],
)
def test_unknown_names_list_the_valid_ones(store, options, said):
    """A misspelt name is answered with the nearest and all valid ones."""
    with pytest.raises(UnknownNameError) as caught:
        lay_out(store, **options)
    assert said in str(caught.value)


def test_folds_and_failures_are_refused_when_asked(store):
    """A split of folds is not one of parts; with on_failed="error" a missing vector stops the run."""
    with pytest.raises(TaskError, match="holds folds"):
        lay_out(store, split="folds")
    with pytest.raises(FailedRowsError, match="lack a vector"):
        lay_out(store, on_failed="error")


def test_default_blocks_are_those_of_vectors(store):
    """Maps are left out unless a head for maps asks for them; by name they are refused."""
    opened = open_store(store)
    assert choose_blocks(opened) == ("alpha.pool", "beta.pool")
    assert choose_blocks(opened, ["beta.pool"]) == ("beta.pool",)
    with pytest.raises(TaskError, match=r"holds maps of shape \(4, 2, 2\)"):
        choose_blocks(opened, ["alpha.map"])


def tiny(folder, places, polarity):
    """Write a store of a few images with one block of one number each."""
    folder.mkdir()
    task = Task("polarity", "single", ("negative", "neutral", "positive"))
    ids = np.array([f"{i}.png" for i in range(len(places))])
    index = Index(ids, {"polarity": Labels(task, np.array(polarity))}, {"default": Split("default", np.array(places))})
    write_index(folder / "index.h5", index)
    write_block(folder, index, "alpha.pool", np.arange(len(places), dtype=float)[:, None])
    return folder


def test_class_absent_from_a_part_is_told(tmp_path):
    """A class without test images keeps its place; one without training images cannot be learned."""
    found = lay_out(tiny(tmp_path / "s", [0, 0, 0, 2, 2], [0, 2, 2, 0, 1]))
    assert found.warnings == (
        "No image of the train part has the class 'neutral': it cannot be learned.",
        "No image of the test part has the class 'positive': its row stays, empty.",
    )


@pytest.mark.parametrize(
    ("places", "polarity", "said"),
    [
        ([0, 0, 2], [0, 0, 1], "all 2 training images of task 'polarity' are 'negative'"),
        ([0, 0, -1], [0, 1, 1], "nothing to score on"),
        ([0, 2, 2], [-1, 0, 1], "nothing to train on"),
    ],
)
def test_tasks_that_cannot_be_run_are_refused(tmp_path, places, polarity, said):
    """One class, no part to score, or no training image: an error before any fit."""
    with pytest.raises(TaskError, match=said):
        lay_out(tiny(tmp_path / "s", places, polarity))
