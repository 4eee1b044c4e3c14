"""Every published experiment runs on a stand-in of its corpus, and is put beside its paper honestly."""

import json
from pathlib import Path

import numpy as np
import pytest

from classify import preset as presets
from classify.config import load_config
from classify.errors import ConfigError
from classify.preset import find_preset, systems
from classify.runs.layout import lay_out, quick, unfitted_head
from classify.runs.train import run
from classify.studies.reproduction import differences, reproduce, table
from features_store import BlockSpec, BlockWriter, Index, Labels, Split, Task, write_index

PRESETS = presets.presets()
N_IMAGES = 48
EMOTIONS = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
TASKS = {
    "subtask1": Task("subtask1", "single", ("negative", "neutral", "positive")),
    "subtask2": Task("subtask2", "multi", ("joy", "sadness", "fear", "disgust", "anger", "surprise", "neutral")),
    "subtask3": Task("subtask3", "multi", tuple(f"emotion{k}" for k in range(10))),
    "polarity": Task("polarity", "single", ("negative", "neutral", "positive")),
    "emotion": Task("emotion", "single", EMOTIONS),
    "five": Task("five", "single", ("negative", "positive")),
    "valence_arousal": Task("valence_arousal", "regression", ("valence", "arousal"), range=(1.0, 9.0)),
}


def stand_in(folder: Path, corpus: str, *, n_images: int = N_IMAGES, sources: dict[str, str] | None = None) -> Path:
    """Write a store in which every preset of *corpus* finds its task, split and blocks; only maps are smaller."""
    members = [one for one in PRESETS.values() if one.corpus == corpus]
    random = np.random.default_rng(0)
    hidden = random.normal(size=n_images)
    labels = {one.run["task"]: labels_of(TASKS[one.run["task"]], hidden, random) for one in members}
    parts = np.resize([0, 0, 0, 1, 2, 2], n_images)
    splits = {name: Split(name, parts) for name in {one.run["split"] for one in members}}
    ids = np.array([f"{i:04}.jpg" for i in range(n_images)])
    index = Index(ids, labels, splits, None, None, {"name": corpus})
    folder.mkdir(parents=True)
    write_index(folder / "index.h5", index)
    widths = {block: shape for one in members for block, shape in one.widths.items()}
    for name, shape in ((k, v if len(v) == 1 else (16, 2, 2)) for k, v in widths.items()):
        source = (sources or {}).get(name, "stand-in")
        spec = BlockSpec(name, shape, {"encoder": name, "weights": {"source": source}})
        vectors = random.normal(size=(n_images, int(np.prod(shape)))).astype(np.float32)
        vectors[:, :4] += hidden[:, None]
        with BlockWriter(folder / f"{name}.h5", index, spec) as writer:
            writer.write(np.arange(n_images), vectors)
    return folder


def labels_of(task: Task, hidden: np.ndarray, random: np.random.Generator) -> Labels:
    """Return labels that follow from the hidden value, and a little from chance."""
    if task.kind == "regression":
        return Labels(task, (5 + hidden[:, None] + 0.1 * random.normal(size=(len(hidden), 2))).astype(np.float32))
    if task.kind == "multi":
        return Labels(
            task, (hidden[:, None] + random.normal(size=(len(hidden), len(task.classes))) > 0).astype(np.uint8)
        )
    ranks = np.argsort(np.argsort(hidden)) * len(task.classes) // len(hidden)
    return Labels(task, ranks.astype(np.int16))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Return a stand-in for each corpus that a preset names."""
    folder = tmp_path_factory.mktemp("features")
    return {corpus: stand_in(folder / corpus, corpus) for corpus in {one.corpus for one in PRESETS.values()}}


def test_the_experiments_of_the_five_systems_are_there():
    """Each experiment has a file, named after its system."""
    expected = {f"mediaeval21-subtask{k}{more}" for k in (1, 2, 3) for more in ("", "-paper")}
    expected |= {f"{net}-{opt}" for net in ("resnet50", "seresnet50") for opt in ("sgd", "adam", "nadam")}
    expected |= {f"resnet101-conv-{k}" for k in range(1, 10)}
    expected |= {"captioning-softmax", "resnet32", "fractalnet"}
    expected |= {"emosepar", "emosepar-augmented", "vgg16-va", "inception-va", "xception-va"}
    assert set(PRESETS) == expected
    assert sorted(systems()) == ["b-t4sa-tfm", "fi-poster", "jndataset", "mediaeval21", "resnet101-conv"]


def test_widths_are_the_papers():
    """The card's vectors sum to 11,368 values, the paper's to 11,414."""
    width = {name: sum(int(np.prod(shape)) for shape in one.widths.values()) for name, one in PRESETS.items()}
    assert width["mediaeval21-subtask1"] == 11_368
    assert width["mediaeval21-subtask1-paper"] == 11_414
    assert PRESETS["resnet101-conv-1"].widths == {"resnet101.map": (2048, 8, 8)}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_laid_out(name, stores):
    """Each finds its task, split and blocks, and its head takes each of its options."""
    config = load_config(None, {"store": str(stores[PRESETS[name].corpus]), "preset": name})
    assert unfitted_head(config, lay_out(config)) is not None


REPRESENTATIVE = {(one.system, one.corpus, one.run["head"], one.run["task"]): name for name, one in PRESETS.items()}


@pytest.mark.parametrize(
    "name", [n if n in REPRESENTATIVE.values() else pytest.param(n, marks=pytest.mark.slow) for n in PRESETS]
)
def test_every_preset_runs_quickly(name, stores, tmp_path):
    """`classify run STORE --preset NAME --quick` leaves a run with the paper's metric, and says that it is quick."""
    one = find_preset(name)
    config = quick(load_config(None, {"store": str(stores[one.corpus]), "preset": name, "out": str(tmp_path / "run")}))
    done = run(config)
    assert done.report["preset"] == name
    assert done.report["metrics"][one.paper["part"]][one.paper["metric"]]["value"] is not None
    assert any("no result" in text for text in done.report["warnings"])
    assert len(done.report["history"]) in (0, 3)
    assert (done.report["refit"] is not None) == name.startswith("mediaeval21")


def test_parameters_are_as_many_as_published(stores, tmp_path):
    """The dense head of ResNet-50: 2048 x 1024 + 1024, 1024 x 3 + 3; with the trunk's 23.5 M about 26 M."""
    store = str(stores["b-t4sa-tfm"])
    done = run(quick(load_config(None, {"store": store, "preset": "resnet50-sgd", "out": str(tmp_path / "run")})))
    assert done.report["n_parameters"] == 2048 * 1024 + 1024 + 1024 * 3 + 3
    assert done.report["parameters"]["init"] == "glorot_normal"


def test_flags_win_over_a_preset_and_its_rates_stay(stores):
    """Options given beside a preset replace its own, one by one; another head drops them all."""
    config = load_config(None, {"store": "x", "preset": "resnet50-sgd", "set": {"epochs": 7}})
    assert (config.settings["epochs"], config.settings["batch_size"]) == (7, 32)
    assert config.folder.as_posix() == "runs/x/polarity/resnet50-sgd"
    assert load_config(None, {"store": "x", "preset": "resnet50-sgd", "head": "svm"}).settings == {}
    with pytest.raises(ConfigError, match="did you mean 'resnet50-sgd'"):
        load_config(None, {"store": "x", "preset": "resnet50-sdg"})


def test_a_damaged_preset_is_named():
    """A file that lacks what it must say is refused by name."""
    text = 'system = "s"\n[paper]\nmetric = "rmse"\npart = "test"\n[[experiment]]\nname = "x"\n'
    with pytest.raises(ConfigError, match=r"experiment 1 of s\.toml lacks .*corpus.*paper.citation"):
        presets.read_experiments(text, "s.toml")


def test_reproduce_says_in_what_it_differs(stores, tmp_path, monkeypatch):
    """Corpus too small, weights of another source, a quick run: not a reproduction, and each is said."""
    monkeypatch.chdir(tmp_path)
    rows = reproduce("jndataset", [str(stores["twitter1"]), str(stores["jndataset"])], is_quick=True)
    assert [row.preset for row in rows] == [one.name for one in systems()["jndataset"]]
    by_name = {row.preset: row for row in rows}
    row = by_name["vgg16-va"]
    assert row.paper == 1.78
    assert row.difference == pytest.approx(row.ours["value"] - 1.78)
    words = " | ".join(row.differs)
    assert "the paper's: 12,021" in words
    assert "weights of vgg16.pool: stand-in, the paper's: VGG-16, ImageNet" in words
    assert "--quick" in words
    assert "epochs: 3, the preset's: 100" in words
    text = table(rows)
    assert "not a reproduction" in text
    assert "1.780" in text
    json.dumps([one.as_json() for one in rows])
    assert reproduce("jndataset", [str(stores["jndataset"])], is_quick=True) == rows  # the runs are there already


def test_what_a_store_lacks_is_not_run(stores):
    """An experiment whose corpus no store has is a row with the reason, not an error."""
    rows = reproduce("resnet101-conv", [str(stores["fi"])], is_quick=True)
    assert all("no block resnet101.map" in row.not_run or "no task 'five'" in row.not_run for row in rows)
    assert "not run" in table(rows)
    with pytest.raises(ConfigError, match="unknown system"):
        reproduce("mediaeval22", [])


def test_the_papers_own_corpus_split_and_weights_are_a_reproduction(tmp_path, monkeypatch):
    """With nothing left that differs, the number counts."""
    one = find_preset("captioning-softmax")
    store = stand_in(tmp_path / "fi", "fi", sources=dict(one.paper["weights"]))
    done = run(
        load_config(None, {"store": str(store), "preset": one.name, "set": {"epochs": 1}, "out": str(tmp_path / "r")})
    )
    found = differences(one, done)
    assert found[0].startswith("split: 24 train images, the paper's: 67,937")
    assert found[-1] == "epochs: 1, the preset's: 1000"
    monkeypatch.setitem(one.paper, "images", {"train": 24, "validation": 8, "test": 16})
    monkeypatch.setitem(one.run["set"], "epochs", 1)
    assert differences(one, done) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["captioning-softmax", "resnet32", "fractalnet", "emosepar", "vgg16-va", "xception-va"]
)
def test_small_presets_run_in_full(name, stores, tmp_path):
    """Every epoch and rate as published, on the stand-in."""
    one = find_preset(name)
    done = run(load_config(None, {"store": str(stores[one.corpus]), "preset": name, "out": str(tmp_path / "run")}))
    assert done.report["metrics"]["train"][one.paper["metric"]]["value"] is not None


def test_blocks_splits_and_tasks_are_those_that_stage_one_makes():
    """Presets name what `extract` writes: encoders' blocks with their shapes, corpora's tasks and splits."""
    from extract.corpora import find_corpus
    from extract.encoders import ENCODERS

    made = {one.block(tap.name): tap.shape for one in ENCODERS.values() for tap in one.taps}
    for name, one in PRESETS.items():
        corpus = find_corpus(one.corpus)
        assert one.run["task"] in corpus.tasks, name
        assert one.run["split"] in corpus.splits, name
        if one.name.endswith("-paper") or one.paper["weights"].get(one.run["blocks"][0], "").startswith("fit:"):
            continue  # brought in by `features-store import`, or trained by `extract fit`
        assert {block: made.get(block) for block in one.widths} == dict(one.widths), name
