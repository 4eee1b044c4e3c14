"""Calibration: the planted temperature comes back, errors by hand, and nothing but the validation part is used."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.isotonic import IsotonicRegression

from classify.data.tasks import Part
from classify.errors import ConfigError, RunError, TaskError
from classify.evaluation.calibration import (
    Calibration,
    calibration_error,
    expected_errors,
    fit_calibration,
    reliability,
)
from classify.evaluation.postprocessing import (
    POSTPROCESSING,
    Postprocessing,
    fit_postprocessing,
    read_postprocessing,
)
from features_store import Task

SINGLE = Task("t", "single", ("a", "b", "c"))
MULTI = Task("m", "multi", ("a", "b"))
VALUES = Task("v", "regression", ("v",), (-1.0, 1.0))


def overconfident(n, temperature, seed=0):
    """Truth drawn from softmax(z), and a head that says softmax(z * temperature)."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(n, 3)) * 1.5
    truth = (softmax(z, axis=1).cumsum(axis=1) > random.random((n, 1))).argmax(axis=1)
    return truth, softmax(z * temperature, axis=1)


@pytest.mark.parametrize("planted", [0.5, 2.5])
def test_planted_temperature_comes_back(planted):
    """A head whose logits were multiplied is divided by as much, and is then as good as the truth allows."""
    truth, said = overconfident(6000, planted)
    found, reason = fit_calibration(SINGLE, truth, said)
    assert found.temperature == pytest.approx(planted, rel=0.06)
    assert found.interval[0] < found.temperature < found.interval[1]
    assert reason == ""
    after = found.apply(said)
    np.testing.assert_allclose(after.sum(axis=1), 1)
    np.testing.assert_array_equal(after.argmax(axis=1), said.argmax(axis=1))


def test_temperature_is_where_the_log_loss_is_least():
    """An independent minimiser of the log loss over log temperature finds the same."""
    truth, said = overconfident(200, 3.0, seed=3)
    loss = lambda t: -log_softmax(np.log(said) / np.exp(t[0]), axis=1)[np.arange(200), truth].mean()  # noqa: E731
    best = minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12}).x[0]
    assert fit_calibration(SINGLE, truth, said)[0].temperature == pytest.approx(np.exp(best), rel=1e-3)


def test_labels_share_one_temperature():
    """For a multi-label task the logits of all labels are divided alike."""
    random = np.random.default_rng(0)
    z = random.normal(size=(5000, 2))
    truth = (random.random((5000, 2)) < 1 / (1 + np.exp(-z))).astype(np.uint8)
    found, _ = fit_calibration(MULTI, truth, 1 / (1 + np.exp(-2 * z)))
    assert found.temperature == pytest.approx(2.0, rel=0.06)


def test_isotonic_is_scikit_learns():
    """Each class is bent as scikit-learn bends it, but never to 0 or 1; rows of a single-label task are scaled to 1."""
    truth, said = overconfident(1200, 2.0)
    found, _ = fit_calibration(SINGLE, truth, said, method="isotonic")
    columns = [
        IsotonicRegression(out_of_bounds="clip").fit(said[:, k], truth == k).predict(said[:, k]) for k in range(3)
    ]
    expected = np.column_stack(columns).clip(1 / 1202, 1 - 1 / 1202)
    np.testing.assert_allclose(found.apply(said), expected / expected.sum(axis=1, keepdims=True), atol=1e-9)


def test_what_cant_be_settled_is_left_alone():
    """Too few images, or a head that is always right, give nothing and a sentence; a regression is refused."""
    truth, said = overconfident(999, 3.0)
    assert "1,000 validation images" in fit_calibration(SINGLE, truth, said, method="isotonic")[1]
    assert fit_calibration(SINGLE, truth[:19], said[:19]) == (
        None,
        "a temperature takes 20 validation images, and there are 19",
    )
    truth = np.arange(60) % 3
    found, reason = fit_calibration(SINGLE, truth, np.eye(3)[truth] * 0.9 + 0.033)
    assert found is None
    assert "right on all 60" in reason
    with pytest.raises(TaskError, match="no probabilities"):
        fit_calibration(VALUES, np.zeros(30), np.zeros(30))


def test_exact_heads_are_left_alone():
    """Of heads that say the truth's own odds, at most about one in twenty is tempered, and then it is said why not."""
    kept = 0
    for seed in range(150):
        truth, said = overconfident(60, 1.0, seed=seed)
        found, reason = fit_calibration(SINGLE, truth, said)
        kept += found is not None
        assert found is not None or "60 images do not tell T from 1" in reason
    assert kept <= 150 * 0.05 + 3 * np.sqrt(150 * 0.05 * 0.95)


def test_copies_of_an_image_settle_no_temperature():
    """Twenty images, fifty times each: as groups they say what twenty say, or less; as images they would say more."""
    truth, said = overconfident(20, 1.6, seed=1)
    many, groups = (np.repeat(truth, 50), np.repeat(said, 50, axis=0)), np.repeat(np.arange(20), 50)
    assert fit_calibration(SINGLE, *many)[0] is not None
    assert fit_calibration(SINGLE, *many, groups=groups)[0] is None
    assert fit_calibration(SINGLE, truth, said)[0] is None


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_a_class_that_training_never_saw_gets_no_probability(method):
    """What the head gives 0, because it knows no such class, stays 0."""
    task = Task("t", "single", ("a", "b", "c", "never"))
    truth, said = overconfident(1500, 3.0)
    said = np.column_stack([said, np.zeros(1500)])
    truth[:5] = 3
    parts = {"train": part("train", truth[5:505]), "validation": part("validation", truth)}
    found = fit_postprocessing(task, parts, {"validation": said}, method=method).calibration
    after = found.apply(said)
    assert (after[:, 3] == 0).all()
    np.testing.assert_allclose(after.sum(axis=1), 1)
    assert Calibration.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_calibration_error_by_hand():
    """Two bins: 0.6 and 0.6 of which one came true, 0.9 which came true: (2 * 0.1 + 1 * 0.1) / 3."""
    task = Task("t", "single", ("a", "b"))
    said = np.array([[0.6, 0.4], [0.4, 0.6], [0.9, 0.1]])
    curve = reliability(task, np.array([0, 0, 0]), said, n_bins=5)
    assert [(row["low"], row["n"]) for row in curve] == [(0.6, 2), (0.8, 1)]
    assert [row["true"] for row in curve] == [0.5, 1.0]
    assert calibration_error(curve) == pytest.approx((2 * 0.1 + 0.1) / 3)
    assert reliability(MULTI, np.array([[1, 0]]), np.array([[1.0, 0.0]]))[-1]["n"] == 1


def test_expected_error_is_what_exact_probabilities_show():
    """Heads that say exactly the truth's odds have, on average, the error that is expected of them."""
    errors = []
    for seed in range(60):
        truth, said = overconfident(150, 1.0, seed=seed)
        errors.append(calibration_error(reliability(SINGLE, truth, said)))
    mean, most = expected_errors(SINGLE, said)
    assert mean == pytest.approx(np.mean(errors), rel=0.15)
    assert np.mean(np.array(errors) > most) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)
    assert mean > 0.02


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_calibration_survives_json(method):
    """Written and read back, it says the same to the last digit."""
    truth, said = overconfident(1000, 2.0)
    found, _ = fit_calibration(SINGLE, truth, said, method=method)
    again = Calibration.from_json(json.loads(json.dumps(found.as_json())))
    assert again == found
    np.testing.assert_array_equal(again.apply(said), found.apply(said))


@pytest.mark.parametrize(
    "change",
    [{"method": "magic"}, {"temperature": None}, {"temperature": "hot"}, {"curves": 3}, {"kind": "regression"}],
)
def test_damaged_calibrations_are_refused(change):
    """Whatever is not a calibration is an error of ours, not a wrong probability."""
    good = Calibration("temperature", "single", 1.5, (), 30).as_json()
    assert Calibration.from_json(good).temperature == 1.5
    with pytest.raises(ConfigError, match="are not a calibration"):
        Calibration.from_json(good | change)


def part(name, y):
    return Part(name, np.arange(len(y)), y, np.array([f"{name}{i}" for i in range(len(y))]))


def test_postprocessing_looks_at_the_validation_part_only():
    """Other labels in the test part change nothing; without a validation part there is nothing."""
    truth, said = overconfident(300, 4.0)
    scores = {"train": said[:100], "validation": said[100:200], "test": said[200:]}
    parts = {name: part(name, truth[i * 100 : (i + 1) * 100]) for i, name in enumerate(scores)}
    first = fit_postprocessing(SINGLE, parts, scores)
    spoilt = {**parts, "test": part("test", (truth[200:] + 1) % 3), "train": part("train", (truth[:100] + 1) % 3)}
    assert fit_postprocessing(SINGLE, spoilt, scores) == first
    assert first.calibration.n_images == 100
    assert fit_postprocessing(SINGLE, {"train": parts["train"]}, scores).calibration is None
    assert fit_postprocessing(SINGLE, parts, scores, method="none").calibration is None


def test_run_keeps_its_postprocessing(runs_folder):
    """A run leaves what it learned from the validation part, and its calibrated predictions come from it."""
    from classify.runs.folder import read_run

    run = read_run(runs_folder / "evokes" / "linear")
    assert run.postprocessing.thresholds is not None
    report = run.report["calibration"]
    assert report["fitted_on"] == "validation"
    assert set(report["parts"]) == {"validation", "test"}
    if run.postprocessing.calibration is None:
        assert report["reason"]
        assert all(found.calibrated is None for found in run.predictions.values())
    else:
        for found in run.predictions.values():
            np.testing.assert_allclose(found.calibrated, run.postprocessing.calibrated(found.y_score), atol=1e-12)
        test = run.predictions["test"]
        after = reliability(run.task, test.y_true, test.calibrated)
        assert report["parts"]["test"]["after"]["ece"] == pytest.approx(calibration_error(after))
    assert read_run(runs_folder / "valence" / "linear").postprocessing.calibration is None


def test_a_damaged_file_is_refused(tmp_path):
    """A file of anything else is refused by name; no file is an empty one."""
    assert read_postprocessing(tmp_path) == Postprocessing(reason="the run has none")
    for text in ("{", "[]", '{"calibration": null, "thresholds": [2], "reason": ""}', '{"calibration": {}}'):
        (tmp_path / POSTPROCESSING).write_text(text)
        with pytest.raises(RunError, match=r"adjustment\.json"):
            read_postprocessing(tmp_path)
