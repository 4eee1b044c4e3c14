"""Explanations: parts that add up, slopes that are slopes, maps that lie where the picture is, a check that fires."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from classify.__main__ import app
from classify.errors import ModelError, RunError
from classify.explain import saliency
from classify.explain.attribution import (
    Target,
    block_values,
    choose_target,
    feature_values,
    gradient,
    training_mean,
)
from classify.explain.deletion_check import deletion_check, summarize
from classify.explain.explainer import (
    Explainer,
    Picture,
    chosen_images,
    explain_images,
    matching_id,
    scored_images,
)
from classify.inference.model import run_model
from classify.pages.pictures import Pictures, explained_images
from classify.runs.folder import read_run
from features_store.errors import AffectoryError, ExistsError
from features_store.schema import Task

pytest.importorskip("captum")

COLUMNS = {"a": slice(0, 2), "b": slice(2, 3), "c": slice(3, 6)}


def test_shares_of_a_sum_are_its_terms() -> None:
    """Where the blocks just add up, each part is its own term."""
    weights, x, mean = np.arange(1.0, 7), np.full(6, 2, np.float32), np.ones(6, np.float32)
    parts = block_values(lambda rows: rows @ weights, x, mean, COLUMNS)
    assert parts == pytest.approx({"a": 3, "b": 3, "c": 15})


def test_shares_are_shapley_values() -> None:
    """Against the definition: the mean gain over all orders of joining, for a function with interactions."""
    random = np.random.default_rng(0)
    x, mean = random.normal(size=(2, 6)).astype(np.float32)

    def logits(rows: np.ndarray) -> np.ndarray:
        return np.tanh(rows[:, 0] * rows[:, 2] + rows[:, 3]) + rows[:, 4] * rows[:, 1]

    expected = dict.fromkeys(COLUMNS, 0.0)
    for order in itertools.permutations(COLUMNS):
        row = mean.copy()
        for name in order:
            before = logits(row[None])[0]
            row[COLUMNS[name]] = x[COLUMNS[name]]
            expected[name] += (logits(row[None])[0] - before) / math.factorial(len(COLUMNS))
    parts = block_values(logits, x, mean, COLUMNS)
    assert parts == pytest.approx(expected, abs=1e-6)
    assert sum(parts.values()) == pytest.approx(logits(x[None])[0] - logits(mean[None])[0], abs=1e-6)


def test_many_blocks_fall_back() -> None:
    columns = {str(i): slice(i, i + 1) for i in range(12)}
    parts = block_values(lambda rows: rows.sum(axis=1), np.ones(12, np.float32), np.zeros(12, np.float32), columns)
    assert parts == pytest.approx(dict.fromkeys(columns, 1.0))


def test_features() -> None:
    x, mean = np.array([3, 5, 7], np.float32), np.array([1, 1, 1], np.float32)
    lost = feature_values(lambda rows: rows[:, 0] + 10.0 * rows[:, 2], x, mean, slice(1, 3))
    assert lost == pytest.approx([0, 60])


@pytest.mark.parametrize("head", ["mlp", "svm"])
def test_gradient_is_the_slope(pictured_runs, pictured_store, head) -> None:
    """Against a difference along a random direction, in the head's own scale."""
    run = pictured_runs[head]
    model = run_model(run)
    from features_store import open_store

    x = open_store(pictured_store).matrix(model.blocks, [3])[0]
    target = choose_target(model.task, model.scores(x[None])[0], np.zeros(2))
    slope = gradient(model, x, target)
    direction = (np.random.default_rng(0).normal(size=len(x)) * model.head.standardizer_.scale).astype(np.float32)
    step = 0.01 * direction
    above, below = target.logits(model.scores(np.stack([x + step, x - step])))
    assert float(slope @ direction) == pytest.approx((above - below) / 0.02, rel=0.03, abs=0.02)


def test_trees_have_no_slope(pictured_runs) -> None:
    model = run_model(pictured_runs["gbm"])
    assert gradient(model, np.zeros(2253, np.float32), Target(model.task, 1)) is None
    assert training_mean(model, pictured_runs["gbm"]).shape == (2253,)  # from the store


def test_target() -> None:
    single, value = Task("t", "single", ("a", "b")), Task("v", "regression", ("v",), range=(0.0, 1.0))
    scores, mean = np.array([0.2, 0.8]), np.array([0.5, 0.5])
    assert choose_target(single, scores, mean).name == "b"
    assert choose_target(value, scores[:1], mean[:1]).logits(np.array([[3.0]])) == [-3]
    assert choose_target(single, scores, mean).logits(scores[None]) == pytest.approx([math.log(4)])


def test_regions() -> None:
    """Edge 256 and crop 224 show seven eighths of the shorter side, and less of the longer one."""
    assert saliency.region_of({"resize": [128, 128]}, 10, 20) == saliency.WHOLE
    region = saliency.region_of({"resize": 256, "crop": [224, 224]}, 100, 200)
    assert region == pytest.approx((1 / 16, 0.5 - 7 / 32, 15 / 16, 0.5 + 7 / 32))


def test_combined_maps_keep_weights_and_places() -> None:
    """Each map counts by its weight whatever its scale; the warm corner stays in its corner; below 0 is nothing."""
    one, other = np.zeros((7, 7)), np.full((7, 7), -5.0)
    one[0, 0], other[6, 6] = 1000.0, 0.001
    field = saliency.combined(
        [saliency.SaliencyMap(one, saliency.WHOLE, ""), saliency.SaliencyMap(other, saliency.WHOLE, "")], [0.75, 0.25]
    )
    assert field[:32, :32].sum() / field.sum() == pytest.approx(0.75, abs=0.01)
    assert field[32:, 32:].sum() / field.sum() == pytest.approx(0.25, abs=0.01)
    inner = saliency.combined([saliency.SaliencyMap(np.ones((7, 7)), (0.25, 0.25, 0.75, 0.75), "")], [1.0])
    assert (inner > 0).mean() == pytest.approx(0.25)


def test_covered_cells() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (50, 30, 3)).astype(np.uint8)
    changed = saliency.covered(picture, np.array([0, 63]), 8)
    different = (changed != picture).any(axis=2)
    assert not different[7:43].any()
    assert different[:6, :4].mean() > 0.9
    assert (changed[:6, :4] == picture.reshape(-1, 3).mean(axis=0).round()).all()


@pytest.fixture(scope="module")
def explainer(pictured_runs):
    return Explainer(pictured_runs["mlp"])


def test_explanation(explainer, pictures) -> None:
    """Blocks sum to the decision, each map to what its blocks add, and the words name features of the block."""
    from extract.encoders.lowlevel import feature_names

    found = explainer.explain(explainer.open(str(next((pictures / "warm").glob("*.png")))))
    assert sum(found.blocks.values()) == pytest.approx(found.logit - found.mean_logit, abs=1e-4)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert {name: one.method for name, one in found.maps.items()} == {
        "efficientnet_lite0": "Grad-CAM",
        "lowlevel": "occlusion",
    }
    assert found.maps["efficientnet_lite0"].cells.shape == (7, 7)
    for name, block in (("efficientnet_lite0", "efficientnet_lite0.pool"), ("lowlevel", "lowlevel.features")):
        assert found.maps[name].cells.sum() == pytest.approx(found.blocks[block], abs=1e-4)
    assert found.concepts
    assert {name for name, _ in found.concepts} <= set(feature_names())


def test_grad_cam_by_hand(explainer, pictures) -> None:
    """The map is Selvaraju's: maps weighed by their mean gradient, here for a network that ends in average pooling."""
    import torch

    picture = explainer.open(str(next((pictures / "cold").glob("*.png"))))
    target = explainer.target(picture)
    network = explainer.encoders.networks[0]
    slope = gradient(explainer.model, picture.vector, target)[explainer.columns["efficientnet_lite0.pool"]]
    with torch.no_grad():
        x = network.normalise(torch.from_numpy(network.prepare(picture.pixels[0])[None]))
        maps = network.module.forward_features(x)[0].numpy()  # (1280, 7, 7)
    expected = np.einsum("c,chw->hw", slope / 49, maps)
    cells = explainer.maps(picture, target, dict.fromkeys(explainer.columns, 0.0))["efficientnet_lite0"].cells
    assert np.allclose(cells, expected - expected.mean(), rtol=0, atol=1e-4 * np.abs(expected).max())


def test_tokens_have_no_last_map() -> None:
    """A vision transformer's only map is its patches' embedding, which no Grad-CAM should be made of."""
    pytest.importorskip("timm")
    from extract.encoders import Weights, build_encoders, find_encoders

    names = ["timm:test_vit.r160_in1k", "timm:test_resnet.r160_in1k"]
    vit, resnet = build_encoders(find_encoders(names), Weights("random"))
    assert saliency.last_map(vit) is None
    assert saliency.last_map(resnet) is not None


def test_folder(explainer, pictured_runs, pictures) -> None:
    """What the page reads is there; a second time nothing is overwritten; a bad image leaves nothing half-written."""
    run, files = pictured_runs["mlp"], scored_images(pictured_runs["mlp"], pictures)
    by_class = [path.split("/")[-2] for path in chosen_images(run, files, each_class=2)]
    assert by_class == ["cold"] * 2 + ["warm"] * 2
    paths = chosen_images(run, files, 2)
    explain_images(run, explainer, paths)
    shown = explained_images(run, Pictures(pictures))
    assert len(shown["items"]) == len(paths)
    assert shown["items"][0]["picture"] is not None
    told = json.loads((run.folder / "explanations" / "explanations.json").read_text())["images"][0]
    assert told["id"] in files
    assert told["truth"] == [told["id"].split("/")[0]]
    assert len(list((run.folder / "explanations" / "encoders").glob("*.png"))) == 2 * len(paths)
    with pytest.raises(ExistsError):
        explain_images(run, explainer, paths)
    with pytest.raises(ModelError, match=r"none\.png"):
        explain_images(run, explainer, ["none.png"], force=True)
    assert len(json.loads((run.folder / "explanations" / "explanations.json").read_text())["images"]) == len(paths)
    assert not list(run.folder.glob(".explanations*"))


def test_images_by_path(polarity_run, tmp_path) -> None:
    assert matching_id(polarity_run, "/somewhere/pictures/030.png") == "pictures/030.png"
    assert matching_id(polarity_run, "/somewhere/030.png") is None
    with pytest.raises(RunError, match="--data FOLDER"):
        scored_images(polarity_run, tmp_path)


class Planted:
    """Stands for an explainer whose decision is the redness of a picture, and whose map is right, wrong or chance."""

    def __init__(self, sign: float) -> None:
        self.sign, self.random = sign, np.random.default_rng(0)

    def open(self, path: str) -> Picture:
        if path == "none.png":
            raise ModelError(path)
        pixels = self.random.integers(0, 60, (64, 64, 3)).astype(np.uint8)
        y, x = self.random.integers(0, 40, 2)
        pixels[y : y + 16, x : x + 16, 0] = 250
        return Picture(path, [pixels], self.vectors([[pixels]])[0])

    def vectors(self, pictures: list[list[np.ndarray]]) -> np.ndarray:
        return np.array([[(pixels[0][:, :, 0] > 200).mean()] for pixels in pictures], dtype=np.float32)

    def logits(self, vectors: np.ndarray, target: None) -> np.ndarray:
        return vectors[:, 0].astype(np.float64)

    def target(self, picture: Picture) -> None:
        return None

    def block_values(self, picture: Picture, target: None) -> dict[str, float]:
        return {}

    def maps(self, picture: Picture, target: None, values: dict[str, float]) -> np.ndarray:
        return self.sign * picture.pixels[0][:, :, 0] + self.random.normal(size=(64, 64))

    def field(self, maps: np.ndarray, values: dict[str, float]) -> np.ndarray:
        return maps


def test_deletion_check_says_yes_and_no() -> None:
    """Maps that point at what is decided by pass; maps that point elsewhere, or nowhere, do not."""
    paths = [f"{i}.png" for i in range(12)]
    right, none, wrong = (deletion_check(Planted(sign), [*paths, "none.png"]) for sign in (1.0, 0.0, -1.0))
    assert (right["passed"], none["passed"], wrong["passed"]) == (True, False, False)
    assert right["n_images"] == 12
    assert right["hottest"] == pytest.approx(1 / 16, abs=0.01)  # all of the red square
    assert right["random"] == pytest.approx(13 / 64 / 16, abs=0.006)  # its share of the cells
    assert right["difference"]["p"] <= 0.001
    assert right["difference_moved"]["p"] <= 0.001
    assert none["difference"]["p"] > 0.025
    assert wrong["difference"]["p"] > 0.9
    assert deletion_check(Planted(1.0), paths[:7]) == {"n_images": 7, "passed": None}  # too few to say anything


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["large losses", "large gains"])
def test_few_large_exceptions_do_not_pass_the_deletion_check(sign: float) -> None:
    """Maps that could have chosen any of the coverings pass no more often than is meant, few pictures or many."""
    for n in (8, 20):
        draws = [sign * np.random.default_rng(i).lognormal(size=(n, 11)) for i in range(300)]
        assert np.mean([summarize(losses, i)["passed"] for i, losses in enumerate(draws)]) <= 0.055
    assert summarize(np.zeros((8, 11)))["passed"] is False  # a head that nothing moves


def test_deletion_check_of_a_run(explainer, pictured_runs, pictures, monkeypatch) -> None:
    """It runs through the real encoders, and its result comes into the folder and onto the page."""
    monkeypatch.setattr("classify.explain.explainer.GRID", 2)
    monkeypatch.setattr("classify.explain.deletion_check.N_DRAWS", 1)
    run, files = pictured_runs["mlp"], list(scored_images(pictured_runs["mlp"], pictures).values())
    found = deletion_check(explainer, (files * 8)[:8])
    assert found["difference"]["value"] == pytest.approx(found["hottest"] - found["random"])
    explain_images(run, explainer, files[:1], deletion=found, force=True)
    assert explained_images(run, Pictures(pictures))["deletion"]["n_images"] == 8


def test_command(pictured_runs, pictures, monkeypatch) -> None:
    """On a head without a gradient, so that every map is made by covering."""
    monkeypatch.setattr("classify.explain.explainer.GRID", 2)
    run, image = pictured_runs["gbm"], next((pictures / "warm").glob("*.png"))
    done = CliRunner().invoke(app, ["explain", str(run.folder), str(image)])
    assert done.exit_code == 0, done.exception
    assert "lowlevel.features" in done.output
    told = json.loads((read_run(run.folder).folder / "explanations" / "explanations.json").read_text())
    assert told["images"][0]["method"] == "occlusion"
    again = CliRunner().invoke(app, ["explain", str(run.folder), str(image)])
    assert isinstance(again.exception, AffectoryError)
