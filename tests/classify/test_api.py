"""The Python API: the same results as the command line, light to import, readable in a notebook."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import classify
from classify.errors import ConfigError
from features_store import Labels, Split, Task, open_store


def test_three_lines(store, tmp_path) -> None:
    """Open, fit, cross-validate, report."""
    run = classify.run(store, "polarity", "linear", blocks=["alpha.pool"], out=tmp_path / "run", resamples=20, C=0.5)
    found = classify.cross_validate(store, "polarity", "linear", blocks=["alpha.pool"], folds=3, resamples=20)
    page = classify.report(run, tmp_path / "report.html")
    assert run.report["parameters"]["C"] == 0.5
    assert classify.open_run(tmp_path / "run").report == run.report
    assert found.metrics["accuracy"].value > found.majority["accuracy"].high
    assert "linear" in page.read_text()


def test_as_the_command_line(store, polarity_run, tmp_path) -> None:
    options = {"blocks": ["alpha.pool"], "out": tmp_path / "run", "resamples": 60}
    run = classify.run(open_store(store), "polarity", "linear", **options)
    assert run.report["metrics"] == polarity_run.report["metrics"]


def test_cross_validation_is_scikit_learns(make_store) -> None:
    """The same folds through scikit-learn by hand: the same decisions; each image is in one fold; no test image."""
    random = np.random.default_rng(2)
    x = random.normal(size=(150, 4)).astype(np.float16).astype(np.float32)
    y = (x[:, 0] + 0.7 * random.normal(size=150) > 0).astype(np.int16)
    split = Split("default", np.repeat([0, 1, 2], 50))
    store = open_store(make_store({"a.pool": x}, [Labels(Task("t", "single", ("no", "yes")), y)], [split]))
    found = classify.cross_validate(store, "t", "linear", folds=4, resamples=20)
    assert found.ids.tolist() == store.ids[:100].tolist()
    said = np.zeros(100, dtype=int)
    for fold in range(4):
        train, held = found.folds != fold, found.folds == fold
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / 4, max_iter=1000))  # C counts per feature
        said[held] = model.fit(x[:100][train], y[:100][train]).predict(x[:100][held])
    assert (said == found.scores.argmax(axis=1)).mean() > 0.98
    assert found.metrics["accuracy"].value == pytest.approx(accuracy_score(y[:100], said), abs=0.02)
    assert len(found.by_fold) == 4
    assert "4-fold cross-validation, 100 images" in str(found)


@pytest.mark.parametrize("task", ["evokes", "valence", "affect"])
def test_every_kind(store, task) -> None:
    found = classify.cross_validate(store, task, "linear", blocks=["alpha.pool"], folds=2, resamples=20)
    assert "<table>" in found._repr_html_()
    assert np.isfinite(found.scores).all()


def test_notebooks(store, runs_folder) -> None:
    """What a corpus named is escaped."""
    shown = open_store(store)._repr_html_()
    assert "alpha.pool" in shown
    assert "260 images, corpus planted" in shown
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown
    run = classify.open_run(runs_folder / "evokes" / "linear")
    assert "linear on evokes" in run._repr_html_()
    assert "<script" not in run._repr_html_()


def test_mistakes(store, make_store) -> None:
    with pytest.raises(ConfigError, match="folds is 1"):
        classify.cross_validate(store, "polarity", "linear", folds=1)
    with pytest.raises(AttributeError, match="it offers"):
        classify.nonesuch  # noqa: B018
    one, other = make_store({"a.pool": np.ones((4, 2))}), make_store({"b.pool": np.ones((4, 2))})
    apart = open_store([one / "index.h5", one / "a.pool.h5", other / "b.pool.h5"])
    with pytest.raises(ConfigError, match="several places"):
        classify.run(apart, "t", "linear")


def test_import_is_light() -> None:
    heavy = "{'torch', 'sklearn', 'extract', 'numpy'}"
    code = f"import sys, classify; print(sorted({heavy} & set(sys.modules)), dir(classify))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ")
    assert "cross_validate" in done.stdout


def test_load(pictured_runs, pictures) -> None:
    """A predictor from a run, in one line."""
    pytest.importorskip("timm")
    image = str(next((pictures / "warm").glob("*.png")))
    answer = next(classify.load(pictured_runs["mlp"])([image]))
    assert answer.scores.sum() == pytest.approx(1)


def test_the_majority_of_cross_validation_is_one_answer(make_store):
    """Refitted without each image it would be wrong on all of them: what is left out is what the others lack."""
    y = np.arange(30) % 3
    labels = [Labels(Task("t", "single", ("a", "b", "c")), np.append(y, [0, 1, 2]))]
    place = make_store(
        {"a.pool": np.zeros((33, 2), np.float32)}, labels, [Split("default", np.repeat([0, 2], [30, 3]))]
    )
    found = classify.cross_validate(place, "t", "dummy", folds=10)
    assert found.majority["accuracy"].value == pytest.approx(1 / 3)
    assert "not shown to know anything of the images" in str(found)
