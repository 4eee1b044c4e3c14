"""Figures of several runs: what is in them, that they are whole SVG, and one sentence where nothing can be drawn."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from classify.config import RunConfig
from classify.figures.panels import histogram_figure
from classify.runs.train import run

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def networks(store, tmp_path_factory) -> list[Path]:
    """Return two runs of a perceptron, of other optimisers."""
    folder, made = tmp_path_factory.mktemp("runs"), []
    for optimizer in ("adam", "sgd"):
        settings = {"hidden": [4], "epochs": 5, "optimizer": optimizer}
        config = RunConfig(str(store), "polarity", "mlp", settings=settings, resamples=20, blocks=("alpha.pool",))
        made.append(run(RunConfig(**{**vars(config), "out": str(folder / optimizer)})).folder)
    return made


def drawn(classify, kind: str, *places: object) -> ElementTree.Element:
    """Draw a figure, and return its tree."""
    done = classify("figure", *places, "--kind", kind, "-o", "figure.svg", "--force")
    assert done.code == 0, done.err
    return ElementTree.fromstring(Path("figure.svg").read_text(encoding="utf-8"))


def texts(figure: ElementTree.Element) -> list[str]:
    """Return what can be read in a figure."""
    return [one.text or "" for one in figure.iter(f"{SVG}text")]


def test_curves_of_several_runs(classify, networks) -> None:
    """Loss and accuracy, training and validation of each run, a colour a run."""
    figure = drawn(classify, "curves", *networks)
    assert {"adam (mlp)", "sgd (mlp)", "loss", "accuracy", "training", "validation"} <= set(texts(figure))
    curves = [one for one in figure.iter(f"{SVG}path") if one.get("d", "").count("L") == 4]
    assert len(curves) == 2 * 2 * 2
    assert {one.get("stroke") for one in curves} == {"var(--c1)", "var(--c2)"}
    history = json.loads((networks[0] / "report.json").read_text())["history"]
    assert all(0 <= row["accuracy"] <= 1 and 0 <= row["validation_accuracy"] <= 1 for row in history)


def test_curves_of_networks_of_one_name(classify, tmp_path) -> None:
    """Both are drawn, by the ends of their places that tell them apart."""
    for parent in ("a", "b"):
        (tmp_path / parent / "net").mkdir(parents=True)
        rows = [{"epoch": i, "loss": 2 / i} for i in (1, 2)]
        (tmp_path / parent / "net" / "network.json").write_text(json.dumps({"history": rows}))
    places = [tmp_path / "a" / "net", tmp_path / "b" / "net"]
    assert {"a/net", "b/net"} <= set(texts(drawn(classify, "curves", *places)))


def test_curves_of_a_fitted_network(classify, networks, tmp_path) -> None:
    """The history that `extract fit` writes is drawn beside runs."""
    rows = [{"epoch": i, "loss": 2 / i, "validation_loss": 3 / i} for i in (1, 2, 3)]
    (tmp_path / "emosepar").mkdir()
    (tmp_path / "emosepar" / "network.json").write_text(json.dumps({"history": rows}))
    assert "emosepar" in texts(drawn(classify, "curves", tmp_path / "emosepar", networks[0]))
    (tmp_path / "emosepar" / "network.json").write_text(json.dumps({"history": [{"epoch": "x"}]}))
    done = classify("figure", tmp_path / "emosepar", "--kind", "curves", "-o", "other.svg")
    assert (done.code, done.out) == (1, "") or done.code == 2
    assert "holds no history of epochs" in done.err


def test_confusions_and_planes(classify, networks, runs_folder) -> None:
    """Side by side, each under its name."""
    figure = drawn(classify, "confusion", *networks)
    assert texts(figure).count("predicted") == 2
    assert "sgd (mlp)" in texts(figure)
    figure = drawn(classify, "plane", runs_folder / "affect")
    assert texts(figure).count("valence") == 2
    assert not list(figure.iter(f"{SVG}rect"))  # nothing of the figure before


def test_histograms_of_a_corpus_and_a_member(classify, store, make_union) -> None:
    """An outline for all, one for the member, with their numbers of images."""
    figure = drawn(classify, "histogram", make_union)
    assert "both, 90 images" in texts(figure)
    done = classify("figure", make_union, "--kind", "histogram", "--member", "a", "-o", "member.svg")
    assert done.code == 0, done.err
    words = texts(ElementTree.fromstring(Path("member.svg").read_text()))
    assert {"both, 90 images", "a of both, 60 images"} <= set(words)
    done = classify("figure", make_union, "--kind", "histogram", "--member", "x", "-o", "x.svg")
    assert "no labelled image of a member 'x'" in done.err
    assert not Path("x.svg").exists()


@pytest.fixture
def make_union(tmp_path) -> Path:
    """Return a store of two members, 60 and 30 images."""
    from features_store import Index, Labels, Task, write_index

    values = np.linspace(1, 9, 180).reshape(90, 2).astype(np.float32)
    labels = Labels(Task("affect", "regression", ("valence", "arousal"), range=(1.0, 9.0)), values)
    ids = np.array([f"{'a' if i < 60 else 'b'}/{i:03}.png" for i in range(90)])
    (tmp_path / "both").mkdir()
    write_index(tmp_path / "both" / "index.h5", Index(ids, {"affect": labels}, {}, None, None, {"name": "both"}))
    return tmp_path / "both"


def test_heights_of_a_histogram_are_shares() -> None:
    """Half of the values in one bin: the outline rises to a half."""
    text = histogram_figure({"v": {"c": np.array([1.0, 1.0, 5.0, 9.0])}}, (1.0, 9.0))
    (polygon,) = re.findall(r'<polygon points="([^"]+)"', text)
    heights = [float(point.split(",")[1]) for point in polygon.split()]
    assert (heights[0] - min(heights)) / (heights[0] - 8) == pytest.approx(1 / 1.06, abs=1e-3)


def test_explanations_by_class(classify, networks) -> None:
    """A row for each picture of a class, a column for each run; what one run lacks has an empty place."""
    for at, folder in enumerate(networks):
        place = folder / "explanations"
        place.mkdir()
        images = []
        for i, truth in enumerate(("positive", "negative", "negative")[: 3 - at]):
            Image.new("RGB", (40, 30), (80 * i, 90, 90)).save(place / f"{i}.png")
            images.append({"file": f"{i}.png", "id": f"{i}.jpg", "truth": [truth], "predicted": ["neutral"]})
        (place / "explanations.json").write_text(json.dumps({"images": images, "deletion": None}))
    figure = drawn(classify, "explanations", *networks)
    words = texts(figure)
    assert words.index("negative") < words.index("positive")
    assert len(list(figure.iter(f"{SVG}image"))) == 5
    assert words.count("not explained") == 1
    assert words.count("predicted neutral") == 5


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("curves", "no training of more than one epoch"),
        ("plane", "none of the runs predicts two values"),
        ("explanations", "has no explanations; write some: classify explain"),
        ("pie", "unknown kind of figure 'pie'"),
    ],
)
def test_what_cannot_be_drawn_is_said(classify, runs_folder, kind, words) -> None:
    """In one sentence, and nothing is written."""
    done = classify("figure", runs_folder / "polarity", "--kind", kind, "-o", "figure.svg")
    assert done.code != 0
    assert words in done.err
    assert not Path("figure.svg").exists()


def test_only_svg_and_nothing_overwritten(classify, networks) -> None:
    """A PNG is refused before work; a file that is there stays."""
    assert "give FILE.svg" in classify("figure", *networks, "--kind", "confusion", "-o", "a.png").err
    Path("a.svg").write_text("mine")
    assert classify("figure", *networks, "--kind", "confusion", "-o", "a.svg").code != 0
    assert Path("a.svg").read_text() == "mine"


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("confusion", {"confusion": {}}),
        ("curves", {"history": [{"epoch": 1, "accuracy": "x"}, {"epoch": 2, "accuracy": []}]}),
        ("curves", {"history": [{"epoch": 1, "loss": 1e308}, {"epoch": 2}]}),
    ],
)
def test_reports_of_anybody(classify, networks, tmp_path, kind, change) -> None:
    """What a report lacks, or has of another type, is one sentence."""
    report = json.loads((networks[0] / "report.json").read_text())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_text(json.dumps(report | change))
    done = classify("figure", tmp_path / "run", "--kind", kind, "-o", "x.svg")
    assert done.code == 2
    assert done.err.startswith("error: ")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "network.json").write_text(json.dumps({"history": [{"epoch": 1, "loss": 1e308}] * 2}))
    assert classify("figure", tmp_path / "net", "--kind", "curves", "-o", "x.svg").code == 2


def test_explanations_show_no_picture_of_elsewhere(classify, networks, tmp_path) -> None:
    """An overlay that is a link, or lies in a linked folder, would put the user's own pictures into the figure."""
    Image.new("RGB", (8, 8)).save(tmp_path / "private.png")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_bytes((networks[0] / "report.json").read_bytes())
    entry = {"file": "private.png", "id": "x", "truth": ["neutral"], "predicted": ["neutral"]}
    (tmp_path / "explanations.json").write_text(json.dumps({"images": [entry]}))
    (tmp_path / "a" / "explanations").mkdir()
    (tmp_path / "a" / "explanations" / "private.png").symlink_to(tmp_path / "private.png")
    (tmp_path / "a" / "explanations" / "explanations.json").write_text(json.dumps({"images": [entry]}))
    assert not list(drawn(classify, "explanations", tmp_path / "a").iter(f"{SVG}image"))
    (tmp_path / "b" / "explanations").symlink_to(tmp_path)
    done = classify("figure", tmp_path / "b", "--kind", "explanations", "-o", "x.svg")
    assert (done.code, "symbolic link" in done.err) == (2, True)
