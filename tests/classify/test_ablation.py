"""Which block pays: a planted signal is found where it was planted, by every way of fitting."""

import json
import os

import numpy as np
import pytest

from classify.__main__ import app
from classify.config import RunConfig
from classify.errors import ConfigError, HeadError
from classify.figures.charts import ablation_chart
from classify.pages.tables import ablation_text
from classify.studies.ablation import ablate, subsets_of
from features_store import Labels, Split, Task, open_store

NETWORK = {"epochs": 4, "hidden": 8}


def ablated(store, task, head="svm", *, folds=3, notify=lambda line: None, **more):
    """Return a quick ablation."""
    return ablate(RunConfig(str(store), task, head, **{"resamples": 60, **more}), folds=folds, notify=notify)


@pytest.fixture(scope="module")
def found(store):
    """Return the ablation of ``polarity``, whose signal lies in alpha.pool alone."""
    return ablated(store, "polarity")


def test_the_block_with_the_signal_is_found(found):
    """The best subset holds it; it gains, alone and on top; the other does not; the gains add up."""
    assert [subset["blocks"] for subset in found["subsets"]][-1] == ["beta.pool"]
    alpha, beta = (found["gains"][f"{name}.pool"] for name in ("alpha", "beta"))
    assert min(alpha[key]["low"] for key in ("alone", "on_average", "on_top_of_the_others")) > 0
    assert beta["on_top_of_the_others"]["low"] <= 0
    whole = next(s for s in found["subsets"] if len(s["blocks"]) == 2)["metrics"]["weighted_f1"]["value"]
    total = sum(gain["on_average"]["value"] for gain in (alpha, beta))
    assert total == pytest.approx(whole - found["blind"])
    assert found["n_tried"] == len(found["subsets"]) == 3


def test_a_block_of_noise_is_not_shown_to_pay(make_store):
    """By weighted F1 the most common answer of balanced classes scores below a guess; noise gains nothing over it."""
    shown = 0
    for seed in range(4):
        random = np.random.default_rng(seed)
        labels = [Labels(Task("t", "single", tuple("abc")), random.permutation(np.arange(150) % 3))]
        blocks = {name: random.normal(size=(150, 6)) for name in ("a.pool", "b.pool")}
        noise = make_store(blocks, labels, [Split("default", np.repeat([0, 2], [130, 20]))])
        got = ablated(noise, "t", "ridge")
        assert got["baseline"]["weighted_f1"]["value"] < 0.2 < got["blind"]
        shown += got["gains"]["a.pool"]["alone"]["low"] > 0
    assert shown <= 1


def test_what_a_pair_gains_is_the_difference_of_its_subsets(found):
    """Ordered pairs: the second block added to the first."""
    value = {tuple(s["blocks"]): s["metrics"]["weighted_f1"]["value"] for s in found["subsets"]}
    (pair,) = (p for p in found["pairs"] if p["added"] == "alpha.pool")
    assert pair["to"] == "beta.pool"
    assert pair["value"] == pytest.approx(value["alpha.pool", "beta.pool"] - value["beta.pool",])


@pytest.mark.parametrize("task", ["evokes", "valence", "affect"])
@pytest.mark.parametrize("head", ["svm", "ridge", "mlp"])
def test_every_kind_of_task_and_way_of_fitting(store, task, head):
    """The planted block is better than the baseline and than the empty one; an error counts downwards."""
    settings = NETWORK if head == "mlp" else {}
    got = ablated(store, task, head, settings=settings)
    if head != "mlp":
        assert "alpha.pool" in got["subsets"][0]["blocks"]
        assert got["gains"]["alpha.pool"]["alone"]["low"] > 0
    assert got["greater_is_better"] == (task == "evokes")
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert "majority" in ablation_text(got)


def test_the_test_part_is_left_alone(store, found):
    """Only labelled images of train and validation with all vectors are answered for."""
    opened = open_store(store)
    places, labels = opened.splits["default"].values, opened.labels["polarity"]
    usable = opened.usable(["alpha.pool", "beta.pool"])
    assert found["n_images"] == int((np.isin(places, (0, 1)) & labels.known & usable).sum())


def test_of_many_blocks_each_alone_and_all_but_one_are_tried():
    """Every subset of six is 63; of seven there are fifteen."""
    assert len(subsets_of("abcdef")) == 63
    many = subsets_of("abcdefg")
    assert sorted({len(subset) for subset in many}) == [1, 6, 7]
    assert len(many) == 15


def test_seven_blocks_have_gains(make_store, store):
    """Alone, and what leaving one out costs."""
    index = open_store(store).index
    random = np.random.default_rng(0)
    labels, split = index.labels["polarity"], index.splits["default"]
    told = np.eye(3)[labels.values.clip(0)] + random.normal(size=(len(index), 3))
    blocks = {f"b{i}.pool": random.normal(size=(len(index), 4)) for i in range(6)} | {"told.pool": told}
    notes = []
    folder = make_store(blocks, [labels], [split])
    got = ablated(folder, "polarity", "ridge", notify=notes.append)
    assert got["gains"]["told.pool"]["on_top_of_the_others"]["low"] > 0
    assert got["gains"]["b0.pool"]["on_top_of_the_others"]["low"] <= 0
    assert got["pairs"] == []
    assert "7 blocks" in notes[0]
    assert ablation_chart(got).startswith("<svg")


def test_the_same_seed_gives_the_same_numbers_and_leaves_the_store_alone(store, found):
    """Threads change nothing, and nothing is written beside the dumps."""
    before = sorted(os.listdir(store))
    again = ablated(store, "polarity")
    assert {**again, "created": 0} == {**found, "created": 0}
    assert sorted(os.listdir(store)) == before


@pytest.mark.parametrize(("head", "option"), [("svm", "C"), ("ridge", "alpha")])
def test_a_list_of_values_is_a_path_of_which_each_subset_shows_the_best(store, tmp_path, monkeypatch, head, option):
    """Each subset has the value, and the score, of the best of as many ablations of one value each."""
    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    values = [100, 0.001, 1]
    arguments = ["ablate", str(store), "--task", "polarity", "--head", head, "--folds", "3", "--json"]
    place = ["--set", f"{option}={values}", "--out", "path.json"]
    printed = CliRunner().invoke(app, [*arguments, *place])
    assert printed.exit_code == 0, printed.output
    got = json.loads(printed.stdout)
    alone = {value: ablated(store, "polarity", head, settings={option: value}) for value in values}
    by_value = {
        value: {tuple(s["blocks"]): s["metrics"]["weighted_f1"]["value"] for s in one["subsets"]}
        for value, one in alone.items()
    }
    for subset in got["subsets"]:
        scores = {value: found[tuple(subset["blocks"])] for value, found in by_value.items()}
        assert subset["metrics"]["weighted_f1"]["value"] == pytest.approx(max(scores.values()))
        assert scores[subset["chosen"][option]] == pytest.approx(max(scores.values()))
    assert len({round(score, 6) for found in by_value.values() for score in found.values()}) > 3
    assert got["path"] == {"option": option, "values": sorted(values)}
    assert got["n_tried"] == 9
    text = ablation_text(got)
    assert f"best of 9 (3 sets of blocks x 3 values of {option}) on the images that chose it" in text
    assert ablation_chart(got).startswith("<svg")


@pytest.mark.parametrize("given", [[], [1, 1], [1, "x"], [0, 1], [1, -1], "x"])
def test_lists_that_are_no_path_are_refused(store, given):
    """Before anything is fitted."""
    with pytest.raises((ConfigError, HeadError), match="C is"):
        ablated(store, "polarity", settings={"C": given})


def test_options_that_make_no_sense_are_refused(store):
    """By name."""
    with pytest.raises(ConfigError, match="folds is 1"):
        ablated(store, "polarity", folds=1)
    with pytest.raises(ConfigError, match="resamples is 3"):
        ablated(store, "polarity", resamples=3)
    with pytest.raises(HeadError, match="ridge head of an ablation takes alpha; not 'C'"):
        ablated(store, "polarity", "ridge", settings={"C": 1})
    with pytest.raises(HeadError, match="unknown head 'svn'"):
        ablated(store, "polarity", "svn")


def test_command(store, tmp_path, monkeypatch):
    """A table, a JSON file that the report finds, and a chart; nothing is overwritten unasked."""
    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    arguments = ["ablate", str(store), "--task", "polarity", "--head", "ridge", "--folds", "3"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "alpha.pool + beta.pool" in done.output
    folder = tmp_path / "runs" / "planted" / "polarity"
    assert json.loads((folder / "ablation-ridge.json").read_text())["head"] == "ridge"
    chart = (folder / "ablation-ridge.svg").read_text()
    assert "alpha.pool" in chart
    again = CliRunner().invoke(app, arguments)
    assert "exists" in str(again.exception)
    printed = CliRunner().invoke(app, [*arguments, "--force", "--json"])
    assert json.loads(printed.stdout)["task"] == "polarity"
