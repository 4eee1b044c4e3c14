"""One run end to end on a store with planted signal."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score, mean_squared_error

from classify.config import RunConfig, load_config
from classify.errors import ConfigError, RunError
from classify.evaluation.metrics import metrics
from classify.heads.persistence import load_head
from classify.runs.folder import read_run
from classify.runs.train import run
from features_store import UnknownNameError, open_store

KEYS = {
    "task",
    "kind",
    "head",
    "blocks",
    "n_features",
    "n_train",
    "n_test",
    "seed",
    "metrics",
    "baselines",
    "timings",
    "passports",
    "versions",
    "history",
    "parameters",
    "dropped",
    "per_class",
    "confusion",
    "warnings",
}


def test_folder_holds_everything(polarity_run):
    """The run folder has its six parts, and the report every promised key."""
    names = {path.name for path in polarity_run.folder.iterdir()}
    assert names == {"config.toml", "report.json", "predictions.csv", "adjustment.json", "model", "plots"}
    assert set(polarity_run.report) >= KEYS
    assert (polarity_run.folder / "plots" / "confusion.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("task", ["polarity", "evokes", "valence", "affect"])
def test_metrics_are_those_of_the_predictions(runs_folder, task):
    """Scoring predictions.csv again gives the report's numbers, and each lies within its interval."""
    found = read_run(runs_folder / task / "linear")
    for part, predictions in found.predictions.items():
        again = metrics(found.task, predictions.y_true, predictions.y_score)
        said = found.report["metrics"][part]
        assert {name: entry["value"] for name, entry in said.items()} == pytest.approx(again)
        for entry in said.values():  # a label with few images leaves no interval, and then it is said why
            assert entry["low"] is None or entry["low"] <= entry["value"] <= entry["high"]
            assert (entry["low"] is None) == ("reason" in entry)


def test_planted_signal_is_found_and_the_baseline_is_the_majority(runs_folder):
    """The head learns what was planted; the baseline is what scikit-learn says of a constant answer."""
    found = read_run(runs_folder / "polarity" / "linear")
    part = found.predictions["test"]
    common = np.bincount(found.predictions["train"].y_true).argmax()
    constant = np.full(len(part.y_true), common)
    baseline = found.report["baselines"]["majority"]["test"]
    assert baseline["weighted_f1"]["value"] == pytest.approx(f1_score(part.y_true, constant, average="weighted"))
    assert found.report["metrics"]["test"]["weighted_f1"]["low"] > baseline["weighted_f1"]["high"] + 0.2

    found = read_run(runs_folder / "affect" / "linear")
    part = found.predictions["test"]
    mean = np.tile(found.predictions["train"].y_true.mean(axis=0), (len(part.y_true), 1))
    baseline = found.report["baselines"]["majority"]["test"]
    assert baseline["rmse"]["value"] == pytest.approx(np.sqrt(mean_squared_error(part.y_true, mean)))
    assert baseline["cc/valence"] == {"value": None, "low": None, "high": None}


def test_dummy_run_equals_its_own_baseline(runs_folder):
    """The head `dummy` and the baseline beside it are the same thing, scored alike."""
    report = read_run(runs_folder / "evokes" / "dummy").report
    assert report["metrics"] == report["baselines"]["majority"]


@pytest.mark.parametrize("head", ["mlp", "gbm"])
def test_one_seed_gives_equal_metrics(store, tmp_path, head):
    """Two runs with one seed agree to the last digit, intervals included."""
    settings = {"epochs": 3} if head == "mlp" else {"n_rounds": 10, "n_jobs": 1}
    config = RunConfig(str(store), "polarity", head, ("alpha.pool",), seed=5, settings=settings, resamples=50)
    one, two = (run(replace(config, out=str(tmp_path / name))) for name in "ab")
    assert one.report["metrics"] == two.report["metrics"]
    assert one.report["history"] == two.report["history"]


def test_config_in_the_folder_does_the_run_again(polarity_run, tmp_path):
    """The config.toml of a run leads to the same numbers in another place."""
    config = load_config(polarity_run.folder / "config.toml", {"out": str(tmp_path / "again")})
    assert run(config).report["metrics"] == polarity_run.report["metrics"]


def test_saved_head_gives_the_saved_predictions(polarity_run, store):
    """model/ holds the fitted head: its probabilities are those of predictions.csv."""
    opened, part = open_store(store), polarity_run.predictions["test"]
    rows = np.flatnonzero(np.isin(opened.ids, part.ids))
    said = load_head(polarity_run.folder / "model").predict_proba(opened.matrix(["alpha.pool"], rows))
    np.testing.assert_allclose(said, part.y_score, atol=1e-6)


def test_counts_of_the_report_are_those_of_the_table(polarity_run):
    """Sizes, confusion matrix and per-class table describe the same images."""
    report = polarity_run.report
    assert report["n_test"] == len(polarity_run.predictions["test"].ids) == np.sum(report["confusion"]["test"])
    assert [row["support"] for row in report["per_class"]["test"]] == np.sum(
        report["confusion"]["test"], axis=1
    ).tolist()
    assert report["dropped"]["train"]["no label"] > 0
    assert report["n_features"] == 12
    assert report["intervals"]["resampled"] == "groups"


def test_random_weights_are_warned_about(store, tmp_path):
    """A block of an untrained network is named in the report's warnings."""
    config = RunConfig(str(store), "polarity", "linear", resamples=20, out=str(tmp_path / "r"))
    (warning,) = run(config).report["warnings"]
    assert "beta.pool" in warning
    assert "random:0" in warning


def test_split_without_validation_runs(store, tmp_path):
    """Two parts: no validation metrics, no error; the loss of validation is not in the history."""
    config = RunConfig(str(store), "polarity", "mlp", ("alpha.pool",), "holdout", settings={"epochs": 2}, resamples=20)
    report = run(replace(config, out=str(tmp_path / "r"))).report
    assert set(report["metrics"]) == {"train", "test"}
    assert report["n_validation"] == 0


def test_no_local_path_leaks_into_the_report(polarity_run, store):
    """The report may be shared: it names the corpus, not where it lies."""
    assert str(store.parent) not in json.dumps(dict(polarity_run.report))


def test_taken_place_is_refused_before_the_store_is_opened(polarity_run):
    """A place that is taken costs no work: even a store that does not exist is not looked at."""
    config = RunConfig("no/such/store", "polarity", "linear", out=str(polarity_run.folder))
    with pytest.raises(RunError, match="--force"):
        run(config)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"task": "polarty"}, UnknownNameError, "did you mean 'polarity'"),
        ({"blocks": ("alfa.pool",)}, UnknownNameError, "did you mean 'alpha.pool'"),
        ({"settings": {"random_state": 1}}, ConfigError, "seed of the run"),
    ],
)
def test_mistakes_leave_nothing(store, tmp_path, change, error, said):
    """A wrong name is an error that helps, and no folder remains of it."""
    config = RunConfig(str(store), "polarity", "linear", out=str(tmp_path / "runs" / "r"))
    with pytest.raises(error, match=said):
        run(replace(config, **change))
    assert not list(tmp_path.iterdir())
