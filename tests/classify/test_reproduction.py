"""`reproduce` is not fooled, prints what is done otherwise, and does what is missing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from classify import preset as presets
from classify.config import load_config
from classify.pages.page import report_page
from classify.preset import find_preset, statements, systems
from classify.runs.folder import Run, read_run
from classify.runs.train import run
from classify.studies import preparation
from classify.studies.published import Difference, differences
from classify.studies.reproduction import reproduce, table
from features_store import open_store
from tests.classify.test_systems import stand_in
from tests.command import run_program
from tests.extract.corpora.layouts import picture

FITTED = {
    "corpus": "fi",
    "split": "poster",
    "n_train": 67937,
}
RECIPE = {"augment": "none", "epochs": 160, "learning_rate": 0.1, "batch_size": 128}
STATES = ("agrees", "assumed", "differs")


def test_every_statement_of_the_five_papers_is_there() -> None:
    """144, each once; those that are not done as said have a reason; patterns name experiments."""
    rows = [one for found in statements().values() for one in found]
    assert len(rows) == len({one.id for one in rows}) == 144
    assert {system: len(found) for system, found in statements().items() if found} == {
        "mediaeval21": 35, "b-t4sa-tfm": 29, "resnet101-conv": 28, "fi-poster": 22, "jndataset": 30,
    }  # fmt: skip
    for system, found in statements().items():
        names = [one.name for one in systems()[system]]
        for one in found:
            assert one.says
            assert one.here
            assert one.state in STATES
            assert not (one.assumed and one.differs), one.id
            assert not one.of or any(one.concerns(name) for name in names), one.id


@pytest.mark.parametrize("system", systems())
def test_what_is_done_otherwise_is_printed_with_its_reason(system, tmp_path, monkeypatch) -> None:
    """Whether or not anything was run."""
    monkeypatch.chdir(tmp_path)
    rows = reproduce(system)
    text, records = table(rows), json.dumps([row.as_json() for row in rows])
    for one in statements()[system]:
        assert (one.state == "agrees") != (f"{one.says}: here {one.here}, because" in text), one.id
        assert one.state == "agrees" or json.dumps(one.differs or one.assumed) in records


def test_statements_of_another_form_are_refused(monkeypatch) -> None:
    """By the name of their file."""
    text = 'system = "s"\n[statements]\nA1 = { says = "x", where = "y" }\n'
    monkeypatch.setattr(presets, "_texts", lambda: {"s.toml": text})
    with pytest.raises(presets.ConfigError, match=r"s\.toml has statements of another form"):
        statements.__wrapped__()


def forged_fi(folder: Path, **changed: object) -> Path:
    """Write a store whose networks claim to be fitted by the preset's recipe, but for what is *changed*."""
    weights = {"source": "fit:resnet32", "sha256": "0" * 64}
    fitted_on = {**FITTED, **{key: value for key, value in changed.items() if key in (*FITTED, "index_digest")}}
    recipe = {**RECIPE, **{key: value for key, value in changed.items() if key in RECIPE}}
    weights |= {"fitted_on": fitted_on, "recipe": recipe}
    return stand_in(folder / "fi", "fi", weights=weights, transform={"crop": [32, 32]})


FORGED = {
    "augmented": ({"augment": "strong"}, "weights.recipe.augment of resnet32.outputs: strong, the preset's: none"),
    "two epochs": ({"epochs": 2}, "weights.recipe.epochs of resnet32.outputs: 2, the preset's: 160"),
    "rate": ({"learning_rate": 0.5}, "weights.recipe.learning_rate of resnet32.outputs: 0.5, the preset's: 0.1"),
    "split": ({"split": "default"}, "weights.fitted_on.split of resnet32.outputs: default, the paper's: poster"),
    "images": ({"index_digest": "f" * 64}, f"images that resnet32.outputs was fitted on: {'f' * 64}, the store's: "),
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> tuple[str, Run]:
    """Return the digest of the stand-ins' index, and a run whose network was fitted as the preset says."""
    folder = tmp_path_factory.mktemp("honest")
    digest = open_store(forged_fi(folder / "bare")).index_digest
    store = forged_fi(folder, index_digest=digest)
    given = {"store": str(store), "preset": "resnet32", "resamples": 20, "out": str(folder / "run")}
    return digest, run(load_config(None, given))


def reproduced(store: Path, name: str = "resnet32"):
    """Return the row of one experiment."""
    (row,) = reproduce("fi-poster", [str(store)], only=[name], is_quick=True)
    return row


def test_a_forged_recipe_is_named(honest, tmp_path) -> None:
    """A network that was fitted otherwise than the preset says, and the command that fits it so."""
    digest, done = honest
    preset = find_preset("resnet32")

    def about(folder: Path, **changed: object) -> list[Difference]:
        found = differences(preset, done, open_store(forged_fi(folder, **{"index_digest": digest, **changed})))
        return [one for one in found if "resnet32.outputs" in one.what]

    assert about(tmp_path / "honest") == []
    for name, (changed, words) in FORGED.items():
        (found,) = about(tmp_path / name, **changed)
        assert str(found).startswith(words)
        assert found.change.startswith("extract fit resnet32 --corpus fi --option candidates=all")
        assert "; extract run fi --data PATH" in found.change


def test_a_stale_run_is_not_taken(tmp_path, monkeypatch) -> None:
    """Vectors exchanged under a finished run: named, and not shown as its number."""
    monkeypatch.chdir(tmp_path)
    store = forged_fi(tmp_path)
    assert reproduced(store).run == "runs/fi/emotion/resnet32-quick"
    shutil.rmtree(store)
    stand_in(store, "fi", sha256="1" * 64)
    row = reproduced(store)
    assert row.verdict == "not comparable"
    assert "made of something else (different: vectors of resnet32.outputs" in row.not_run
    assert row.ours is None


def test_an_honest_run_is_as_published(tmp_path, monkeypatch) -> None:
    """Where the paper's weights are known, and nothing stands that is done otherwise."""
    monkeypatch.chdir(tmp_path)
    one = find_preset("captioning-softmax")
    (block,) = one.widths
    monkeypatch.setitem(one.paper, "images", {"train": 24, "validation": 8, "test": 16})
    monkeypatch.setitem(one.paper, "passports", {block: {"weights.sha256": "a" * 64}})
    monkeypatch.setitem(one.paper, "options", {})
    monkeypatch.setitem(one.run, "resamples", 20)
    monkeypatch.setitem(one.run["set"], "epochs", 1)
    store = stand_in(tmp_path / "fi", "fi", sha256="a" * 64)
    (row,) = reproduce("fi-poster", [str(store)], only=[one.name])
    assert [str(difference) for difference in row.differs] == []
    assert row.verdict == "differs"  # the draw of the poster's split is not published
    monkeypatch.setattr("classify.studies.reproduction.statements", dict)
    (row,) = reproduce("fi-poster", [str(store)], only=[one.name])
    assert row.verdict == "as published"
    assert "as published: corpus, split, blocks, weights and settings are the paper's" in table([row])
    page = report_page([read_run(Path(row.run))])
    assert "Beside the paper (Jacobson, Kowalski, Rtabi" in page
    assert "Left open: the poster names neither the captioning network" in page
    assert "Noisy-Fine-tuned-CNN" in page
    assert "Accuracy during training" not in page  # one epoch is no curve


def test_a_head_is_tested_on_the_other_corpus(tmp_path, monkeypatch) -> None:
    """Only when asked; the number of the paper and ours stand side by side, also afterwards."""
    monkeypatch.chdir(tmp_path)
    name = "accuracy on the 603 photo tweets"
    stand_in(Path("features/b-t4sa-tfm-quick"), "b-t4sa-tfm")
    stand_in(Path("features/vso-603-quick"), "b-t4sa-tfm", n_images=30, first=100)

    def ours(**given: object) -> float | None:
        (row,) = reproduce("b-t4sa-tfm", only=["resnet50-sgd"], is_quick=True, **given)
        assert row.also[name]["paper"] == 0.39
        return row.also[name]["ours"]

    assert ours() is None
    found = ours(do=True)
    assert 0 <= found <= 1
    assert ours() == found
    assert Path("runs/vso-603-quick/polarity/resnet50-sgd-quick-from-b-t4sa-tfm/report.json").is_file()


def test_commands_are_those_of_a_system(tmp_path, monkeypatch) -> None:
    """The data of members, the options of the paper, views for some tasks, imports that nobody can extract."""
    monkeypatch.chdir(tmp_path)
    data = preparation.place_data("jndataset", ["ied=a", "jndataset=oasis=b"])
    plan = preparation.Preparation("jndataset", data)
    fit, extract = plan.missing(find_preset("emosepar-augmented"))
    assert " ".join(fit).startswith("extract fit emosepar --corpus jndataset --option oasis.range=1..9")
    assert "--data ied=a --data oasis=b --out networks/emosepar-augmented-jndataset" in " ".join(fit)
    assert "strong" in fit
    assert "strong" not in plan.missing(find_preset("emosepar"))[0]
    assert extract[-4:] == ("--encoders", f"fit:{fit[-1]}", "--store", "features/jndataset")
    plan = preparation.Preparation("b-t4sa-tfm", {"b-t4sa-tfm": ("labels.csv", ".")})
    preset = find_preset("resnet50-adam")
    assert " ".join(plan.explain_command(preset, Path("r"))) == "classify explain r --each-class 2 --data ."
    assert plan.explain_command(find_preset("resnet50-sgd"), Path("r")) == ()
    assert preparation.Preparation("b-t4sa-tfm").explain_command(preset, Path("r")) == ()  # without pictures
    plan = preparation.Preparation("mediaeval21")
    (command,) = plan.missing(find_preset("mediaeval21-subtask1"))  # its store serves the other subtasks, too
    assert " ".join(command) == (
        "extract run mediaeval21 --data PATH --encoders efficientnet_b2,resnet152,inception_v3,clip_vit_l14 "
        "--policy mediaeval --views 8 --store features/mediaeval21"
    )
    assert preparation.corpora_of("b-t4sa-tfm") == ["b-t4sa-tfm", "vso-603"]


def fi_pictures(folder: Path) -> Path:
    """Write pictures in the layout of FI: a folder for each emotion."""
    emotions = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
    for k, emotion in enumerate(emotions):
        for i in range(10):
            picture(folder / emotion / f"{emotion}_{i:04}.jpg", seed=10 * k + i)
    return folder


@pytest.mark.slow
def test_one_command_from_pictures_to_the_table(tmp_path, monkeypatch) -> None:
    """A network is fitted, vectors are extracted, the head is run and drawn; a second call does nothing of it again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    fi_pictures(tmp_path / "pictures")
    words = ("classify", "reproduce", "fi-poster", "--data", "pictures", "--run", "--quick", "--only", "resnet32")
    first = run_program(*words, "--device", "cpu")
    assert first.code == 0, first.err
    commands = [line.removeprefix("note: $ ") for line in first.err.splitlines() if line.startswith("note: $ ")]
    assert [command.split()[:2] for command in commands] == [["extract", "fit"], ["extract", "run"]]
    assert "--set epochs=1" in commands[0]
    assert "--limit 240 --spread --device cpu" in commands[1]
    assert "0.240" in first.out
    assert "not comparable:" in first.out
    assert "weights.recipe.epochs of resnet32.outputs: 1, the preset's: 160" in first.out
    assert "images that resnet32.outputs was fitted on" not in first.out
    assert "images of each part that resnet32.outputs was fitted on: 240" in first.out
    assert Path("runs/fi-quick/emotion/fi-poster-emotion-confusion.svg").is_file()
    second = run_program(*words, "--device", "cpu")
    assert second.code == 0, second.err
    assert "$ extract" not in second.err
    assert second.out == first.out
    assert np.isfinite(float(first.out.split("accuracy, test")[1].split()[1]))
