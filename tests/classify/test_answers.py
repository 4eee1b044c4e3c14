"""What is said of an image, and of many classes, warnings and tests, in words that hold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from classify.errors import ModelError
from classify.evaluation.wording import p_text
from classify.explain.attribution import Target
from classify.explain.explainer import Explanation
from classify.figures.charts import confusion_chart
from classify.inference.model import Prediction, csv_header, run_model
from classify.inference.predictor import Encoders
from classify.runs.folder import read_run
from classify.runs.record import by_kind
from features_store import Task


def test_values_stay_on_the_scale(runs_folder) -> None:
    """A value beyond the task's scale is cut to its end, and the row says what it was."""
    model = run_model(read_run(runs_folder / "affect" / "linear"))
    prediction = model.predict("a.jpg", np.array([11.5, 4.25]))
    assert prediction.scores.tolist() == [9.0, 4.25]
    assert json.loads(model.as_json(prediction))["beyond_the_scale"] == {"valence": 11.5}
    assert model.as_csv(prediction) == "a.jpg,9.0,4.25,valence 11.5,,,"
    assert csv_header(model) == "image,predicted/valence,predicted/arousal,beyond the scale,novelty,novelty note,reason"
    assert model.as_text(prediction) == "a.jpg: valence 9.000 (cut to the scale from 11.500), arousal 4.250"
    inside = model.predict("b.jpg", np.array([8.5, 4.25]))
    assert json.loads(model.as_json(inside))["beyond_the_scale"] == {}


def test_decisions_beside_what_they_were_made_on(runs_folder) -> None:
    """The head's own values, each beside its threshold, come before the calibrated ones, in their order."""
    model = run_model(read_run(runs_folder / "evokes" / "linear"))
    first, second, _ = model.postprocessing.thresholds
    prediction = model.predict("a.jpg", np.array([first + 1e-6, second - 1e-6, 0.001]))
    assert prediction.predicted == ("joy",)
    text = model.as_text(prediction)
    assert text.startswith("a.jpg: joy (")
    assert f"joy {first:.2f}, given from {first:.2f}" in text
    assert f"fear {second - 1e-6:.2f}, given from {second:.2f}" in text


def test_names_of_images_do_not_steer_a_terminal(runs_folder) -> None:
    model = run_model(read_run(runs_folder / "affect" / "linear"))
    assert "\x1b" not in model.as_text(model.predict("\x1b[31ma.jpg", np.array([5.0, 5.0])))


def test_many_classes_have_no_grid() -> None:
    """Of 1,000 classes the strongest confusions are drawn, a bar for each."""
    matrix = np.diag(np.full(1000, 5))
    matrix[3, 7], matrix[8, 1] = 40, 2
    figure = confusion_chart(matrix.tolist(), [f"class {k}" for k in range(1000)])
    assert len(figure) < 20_000
    assert "class 3, class 7" in figure
    assert "40 of 45" in figure
    assert "class 5" not in figure


@pytest.mark.parametrize(("p", "text"), [(0.0, "< 0.001"), (0.0004, "< 0.001"), (0.0006, "0.001"), (1.0, "1.000")])
def test_no_p_is_zero(p, text) -> None:
    assert p_text(p) == text
    assert p_text(float("nan")) == "–"


def test_warnings_of_a_kind_are_said_once() -> None:
    texts = [f"No image of the test part has the class '{k}': its row is empty." for k in range(900)]
    said = by_kind(["another", *texts, "another"])
    assert len(said) == 3
    assert said[2] == f"{texts[0]} (899 more of this kind)"
    assert by_kind(texts[:3]) == texts[:3]


def test_a_value_below_the_mean_keeps_its_sign() -> None:
    """What draws a value down is negative, and has the share of what it explains."""
    blocks, target = (
        {"a.pool": -0.5, "b.pool": 0.125},
        Target(Task("v", "regression", ("valence",), (-1.0, 1.0)), 0, -1.0),
    )
    words = [("gloomy sky", -0.25)]
    told = Explanation(
        Prediction("a.jpg", np.array([-0.5])), target, -0.5, -0.125, blocks, words, {}, np.zeros((64, 64))
    )
    assert told.shares == {"a.pool": 1.0, "b.pool": 0.0}
    lines = str(told).splitlines()
    assert lines[0] == "a.jpg: valence, -0.50 (mean image -0.12)"
    assert lines[1].split() == ["a.pool", "-0.50", "100%"]
    assert lines[3] == "  by name: gloomy sky -0.25"


PASSPORT = {
    "encoder": "timm:resnet18.a1_in1k",
    "tap": "pool",
    "dtype": "float16",
    "transform": {},
    "weights": {"source": "timm", "sha256": "0" * 64},
}


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", "O"), ("dtype", None), ("tap", 7), ("transform", [1]), ("encoder", {}), ("weights", "x"), ("layer", 1)],
)
def test_odd_passports_are_refused(field, value) -> None:
    """What a passport says is of its type, before anything is built as it says."""
    with pytest.raises(ModelError, match="was not made by an encoder of this program"):
        Encoders({"a.pool": PASSPORT | {field: value}})


def test_weights_are_fetched_only_when_asked(monkeypatch, tmp_path) -> None:
    """The passport of a stranger chooses a network; without a word of the user nothing is fetched for it."""
    pytest.importorskip("timm")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"timm:resnet18.*--allow-download"):
        Encoders({"a.pool": PASSPORT})
