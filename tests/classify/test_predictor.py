"""Predictions on image files: equal to those of the run, one reason per bad image, other weights refused."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from classify.__main__ import app
from classify.errors import ModelError
from classify.inference.model import Prediction, random_weights, run_model
from classify.inference.predictor import Predictor, image_paths
from classify.runs.folder import read_run
from features_store.errors import AffectoryError
from tests.command import run_program


@pytest.fixture(scope="module")
def predictor(pictured_runs) -> Predictor:
    return Predictor(run_model(pictured_runs["mlp"]))


def _said(run) -> dict[str, np.ndarray]:
    return {i: s for part in run.predictions.values() for i, s in zip(part.ids.tolist(), part.y_score, strict=True)}


def test_equals_the_run(predictor, pictured_runs, pictures) -> None:
    """From the picture file comes what came from the store, which another program path had filled."""
    run = pictured_runs["mlp"]
    said, images = _said(run), sorted(_said(run))[:8]
    for image, prediction in zip(images, predictor([str(pictures / i) for i in images]), strict=True):
        assert prediction.scores == pytest.approx(said[image], abs=2e-4)
        assert prediction.predicted == (run.task.classes[int(said[image].argmax())],)
        after = run.postprocessing.calibrated(prediction.scores[None])
        assert (prediction.calibrated is None) == (after is None)
        if after is not None:
            assert prediction.calibrated == pytest.approx(after[0])


def test_neighbours_do_not_matter(predictor, pictures) -> None:
    """One by one and many at once: the same digits, in the same order."""
    paths = image_paths([str(pictures / "warm")])[:5]
    alone, together = list(predictor(paths)), list(predictor.many(paths))
    assert [a.image for a in alone] == [a.image for a in together] == paths
    assert np.array_equal([a.scores for a in alone], [a.scores for a in together])


def test_bad_images_are_rows_with_reasons(predictor, pictures, tmp_path) -> None:
    good = next((pictures / "warm").glob("*.png"))
    cut, text = tmp_path / "cut.png", tmp_path / "text.png"
    cut.write_bytes(good.read_bytes()[:-40])
    text.write_text("no picture")
    found = list(predictor.many([str(cut), str(text), str(tmp_path / "none.png"), str(good)]))
    assert [bool(a.reason) for a in found] == [True, True, True, False]
    for prediction, word in zip(found, ("truncated", "undecodable", "missing"), strict=False):
        assert word in prediction.reason
        assert "0x" not in prediction.reason
        assert prediction.scores is None


def test_other_weights_are_refused(pictured_runs) -> None:
    """The error names both digests."""
    model = run_model(pictured_runs["mlp"])
    passports = json.loads(json.dumps(model.passports))
    passport = passports["efficientnet_lite0.pool"]
    theirs = passport["weights"]["sha256"]
    passport["weights"]["sha256"] = "f" * 64
    with pytest.raises(ModelError, match="f" * 64) as caught:
        Predictor(replace(model, passports=passports))
    assert theirs in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("transform", {"resize": 1}, "transform"),
        ("architecture", "other", "architecture"),
        ("encoder", None, "was not made by an encoder"),
        ("encoder", "nonesuch", "nonesuch"),
    ],
)
def test_other_making_is_refused(pictured_runs, field, value, words) -> None:
    model = run_model(pictured_runs["mlp"])
    passports = json.loads(json.dumps(model.passports))
    passports["lowlevel.features"][field] = value
    with pytest.raises(ModelError, match=words):
        Predictor(replace(model, passports=passports, blocks=("lowlevel.features",)))


def test_a_checkpoint_file_has_to_be_named(pictured_runs) -> None:
    model = run_model(pictured_runs["mlp"])
    passports = json.loads(json.dumps(model.passports))
    passports["efficientnet_lite0.pool"]["weights"]["source"] = "file"
    with pytest.raises(ModelError, match="--weights efficientnet_lite0=FILE"):
        Predictor(replace(model, passports=passports))


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("resnet50", "", "unknown network 'resnet50'; valid: efficientnet_lite0"),
        ("efficientnet_lit0", "", r"did you mean 'efficientnet_lite0'\?"),
        ("lowlevel", "", "valid: efficientnet_lite0"),
        ("efficientnet_lite0", "random:3", "no network of these blocks reads a file"),
    ],
)
def test_a_checkpoint_that_nothing_reads_is_refused(pictured_runs, tmp_path, name, source, words) -> None:
    """Otherwise the prediction would be that of other weights, without a word."""
    model = run_model(pictured_runs["mlp"])
    passports = json.loads(json.dumps(model.passports))
    if source:
        passports["efficientnet_lite0.pool"]["weights"]["source"] = source
    with pytest.raises(ModelError, match=words):
        Predictor(replace(model, passports=passports), weights={name: tmp_path})


def test_random_weights_are_warned_of() -> None:
    assert random_weights({"a": {"weights": {"source": "random:3"}}, "b": {"weights": {}}, "c": {}}) == [
        "block 'a' comes from a network with random weights (random:3): its predictions mean nothing"
    ]


def test_command(pictured_runs, pictures, tmp_path) -> None:
    """CSV and JSON lines, paths from the input, one bad image; the numbers are those of the run."""
    run = pictured_runs["svm"]
    bad = tmp_path / "bad.png"
    bad.write_text("x")
    image = sorted(_said(run))[0]
    done = CliRunner().invoke(app, ["predict", str(run.folder), "-", "--json"], input=f"{pictures / image}\n{bad}\n")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.exit_code, [line["reason"] is None for line in lines]) == (3, [True, False])
    assert list(lines[0]["probabilities"].values()) == pytest.approx(_said(run)[image], abs=2e-4)
    assert "1 image without a prediction" in done.stderr
    done = CliRunner().invoke(app, ["predict", str(run.folder), str(pictures / "cold"), str(bad), "--csv"])
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 19
    assert float(rows[0]["probability/cold"]) + float(rows[0]["probability/warm"]) == pytest.approx(1)
    assert rows[-1]["said"] == ""
    assert "undecodable" in rows[-1]["reason"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.png", "--json", "--csv"], "exclude"),
        (["-", "x.png"], "cannot be mixed"),
        (["."], "holds no image"),
        (["-"], "no path came"),
    ],
)
def test_command_refuses(pictured_runs, tmp_path, monkeypatch, arguments, words) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    done = CliRunner().invoke(app, ["predict", str(pictured_runs["mlp"].folder), *arguments])
    assert isinstance(done.exception, AffectoryError)
    assert words in str(done.exception)


def test_a_run_of_an_older_version(pictured_runs, tmp_path) -> None:
    folder = shutil.copytree(pictured_runs["mlp"].folder, tmp_path / "old")
    report = json.loads((folder / "report.json").read_text())
    del report["passports"]
    (folder / "report.json").write_text(json.dumps(report))
    with pytest.raises(ModelError, match="run it again"):
        run_model(read_run(folder))


def test_names_of_images_stay_on_their_line(polarity_run) -> None:
    """A line break in a file's name would give a line of its own to an image that nobody asked for."""
    model = run_model(polarity_run)
    scores = model.scores(np.zeros((1, model.head.n_features_in_), np.float32))[0]
    for prediction in (
        model.predict("a\nb.png \u202egnp", scores),
        Prediction("a\nb.png", reason="missing"),
    ):
        line = model.as_text(prediction)
        assert line.startswith(r"a\nb.png")
        assert not {"\n", "\u202e"} & set(line)


def test_paths_that_are_no_text(pictured_runs, monkeypatch) -> None:
    """Names come as the file system has them; an endless line is no name, and must not fill the memory."""
    data = b"caf\xe9.png\nnone.png\na\0b.png\n" + b"x" * 200_000 + b"\nlast.png\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
    ended = run_program("classify", "predict", pictured_runs["svm"].folder, "-", "--max-failed", "9")
    assert (ended.code, ended.out.count("no prediction")) == (0, 5), ended.err
