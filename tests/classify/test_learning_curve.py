"""Learning curves: nested subsets that keep groups and classes, and a last point that is the run itself."""

import itertools
import json

import numpy as np
import pytest

from classify.errors import RunError, TaskError
from classify.runs.folder import Run, read_run
from classify.runs.report_json import Report
from classify.studies.learning_curve import fit_learning_curve, growing_subsets
from features_store import AffectoryError, Task

SINGLE = Task("t", "single", ("a", "b", "c"))


def test_subsets_grow_and_keep_groups_and_classes():
    """Each set lies in the next; groups come whole; a rare class is in the smallest already."""
    random = np.random.default_rng(0)
    y = (random.random(400) < 0.5).astype(np.int64)
    y[7] = 2
    groups = np.where(random.random(400) < 0.5, np.arange(400) // 4, -1)
    found = growing_subsets(SINGLE, y, 6, groups=groups, seed=1)
    sizes = [len(one) for one in found]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == 400
    assert sizes[0] < 30
    for small, large in itertools.pairwise(found):
        assert set(small) <= set(large)
    for one in found:
        inside = np.isin(np.arange(400), one)
        assert all(len(set(inside[groups == g])) == 1 for g in np.unique(groups[groups >= 0]))
        assert set(y[one]) == {0, 1, 2}
    other = growing_subsets(SINGLE, y, 6, groups=groups, seed=2)
    assert set(other[0]) != set(found[0])


def test_few_images_have_no_curve():
    """Forty training images are the least."""
    with pytest.raises(TaskError, match="39 training images are too few"):
        growing_subsets(SINGLE, np.arange(39) % 3, 4)


@pytest.mark.parametrize("task", ["polarity", "affect"])
def test_last_point_is_the_run(runs_folder, task):
    """On all training images the curve is at the run's own metric, and it began worse."""
    run = read_run(runs_folder / task / "linear")
    found = fit_learning_curve(run, n_points=3, n_repeats=2)
    own = run.report["metrics"]["test"][found["metric"]]["value"]
    assert found["points"][-1]["n"] == run.report["n_train"]
    assert found["points"][-1]["value"] == pytest.approx(own)
    first = found["points"][0]
    assert (first["value"] > own) == (task == "affect")
    assert first["lowest"] <= first["value"] <= first["highest"]


def test_a_changed_store_is_refused(runs_folder):
    """If the labels are not those that the run was scored on, the curve would be of something else."""
    run = read_run(runs_folder / "polarity" / "linear")
    other = Run(run.folder, Report.of({**run.report, "part_digests": {"test": "other"}}))
    with pytest.raises(RunError, match="holds other images or labels"):
        fit_learning_curve(other)
    for wrong, words in (
        ({"n_points": 1}, "at least 2"),
        ({"n_points": 10**9}, "at most 1000"),
        ({"seed": -1}, "a seed is a whole number"),
    ):
        with pytest.raises(AffectoryError, match=words):
            fit_learning_curve(run, **wrong)


def test_report_is_plain_json(runs_folder):
    """What comes out can be written without NaN."""
    run = read_run(runs_folder / "valence" / "linear")
    json.dumps(fit_learning_curve(run, n_points=2, n_repeats=1), allow_nan=False)
