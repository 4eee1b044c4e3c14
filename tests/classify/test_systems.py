"""Every published experiment runs on a stand-in of its corpus, and is put beside its paper honestly."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from classify import preset as presets
from classify.config import load_config
from classify.errors import ConfigError
from classify.preset import find_preset, systems
from classify.runs.folder import read_run
from classify.runs.layout import lay_out, quick, unfitted_head
from classify.runs.train import run
from classify.studies.published import differences
from classify.studies.reproduction import reproduce, table
from features_store import BlockSpec, BlockWriter, Index, Labels, Split, Task, open_store, write_index

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


def stand_in(
    folder: Path, corpus: str, *, n_images: int = N_IMAGES, sha256: str = "0" * 64, first: int = 0, **forged
) -> Path:
    """Write a store in which every preset of *corpus* finds its task, split and blocks; only maps are smaller.

    *forged* are fields of the passports, and ``width`` that of every block; ids count from *first*.
    """
    members = [one for one in PRESETS.values() if one.corpus == corpus]
    random = np.random.default_rng(0)
    hidden = random.normal(size=n_images)
    labels = {one.run["task"]: labels_of(TASKS[one.run["task"]], hidden, random) for one in members}
    parts = np.resize([0, 0, 0, 1, 2, 2], n_images)
    splits = {name: Split(name, parts) for name in {one.run["split"] for one in members}}
    ids = np.array([f"{i:04}.jpg" for i in range(first, first + n_images)])
    index = Index(ids, labels, splits, None, None, {"name": corpus})
    folder.mkdir(parents=True)
    write_index(folder / "index.h5", index)
    widths = {block: shape for one in members for block, shape in one.widths.items()}
    for name, published_shape in widths.items():
        shape = published_shape if len(published_shape) == 1 else (16, 2, 2)
        shape = (forged["width"],) if "width" in forged else shape
        encoder, _, tap = name.rpartition(".")
        passport = {"encoder": encoder, "tap": tap, "weights": {"source": "stand-in", "sha256": sha256}}
        spec = BlockSpec(name, shape, passport | {k: v for k, v in forged.items() if k != "width"})
        vectors = random.normal(size=(n_images, int(np.prod(shape)))).astype(np.float32)
        vectors[:, :4] += hidden[:, None]
        if tap == "outputs" and corpus != "jndataset":  # probabilities
            vectors = np.exp(vectors) / np.exp(vectors).sum(axis=1, keepdims=True)
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
    expected |= {"captioning-softmax", "captioning-softmax-1e-3", "resnet32", "fractalnet", "caffenet-fine-tuned"}
    expected |= {"emosepar", "emosepar-augmented", "vgg-t4sa-ft-f", "vgg-t4sa-ft-a"}
    expected |= {f"{net}-va{more}" for net in ("vgg16", "inception", "xception") for more in ("", "-frozen")}
    assert set(PRESETS) == expected
    assert sorted(systems()) == ["b-t4sa-tfm", "fi-poster", "jndataset", "mediaeval21", "resnet101-conv", "vgg-t4sa"]


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


REPRESENTATIVE = {(one.system, one.run["head"]): name for name, one in PRESETS.items()}


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
    words = " | ".join(map(str, row.differs))
    assert "the paper's: 12,021" in words
    assert "weights of vgg16-va.outputs: stand-in, the paper's: fit:vgg16" in words
    assert "transform.crop of vgg16-va.outputs: absent, the paper's: [150, 150]" in words
    assert "option oasis.range of the corpus: None, the paper's: 1..9" in words
    assert "--quick" in words
    assert "epochs: 3, the preset's: 100" in map(str, by_name["vgg16-va-frozen"].differs)
    assert by_name["vgg16-va-frozen"].paper is None
    text, row_report = table(rows), read_run(Path(row.run)).report
    assert row.verdict == "not comparable"
    assert "not comparable:" in text
    assert row.also["cc_pooled"]["paper"] == 0.92
    assert row.also["cc_pooled"]["ours"] == row_report["metrics"]["test"]["cc_pooled"]["value"]
    assert "1.780" in text
    assert f"    note: {row.note}" in text
    assert "weights.recipe.augment of emosepar-augmented.outputs: absent, the preset's: strong" in text
    assert "changed by: extract fit emosepar --corpus jndataset --option oasis.range=1..9" in text
    json.dumps([one.as_json() for one in rows])
    assert reproduce("jndataset", [str(stores["jndataset"])], is_quick=True) == rows  # the runs are there already


def test_what_a_store_lacks_is_not_run(stores, tmp_path, monkeypatch):
    """An experiment whose corpus no store has is a row with the reason and the commands; others are not listed."""
    monkeypatch.chdir(tmp_path)
    rows = reproduce("resnet101-conv", [str(stores["fi"])], is_quick=True, data=["emotionroi=here"])
    assert {row.not_run for row in rows} == {
        "no vectors in features/emotionroi-quick",
        "no vectors in features/twitter1-quick",
    }
    text = table(rows)
    assert "to do: extract run emotionroi --data here --encoders resnet101_map --policy random-crop" in text
    assert "to do: extract run twitter1 --data PATH --encoders resnet101_map" in text
    (row,) = reproduce("mediaeval21", only=["mediaeval21-subtask1-paper"])
    assert "resnet152_11k.pool5, youtube8m.concepts" in row.not_run
    assert "features-store import" in row.not_run
    with pytest.raises(ConfigError, match="unknown experiment of mediaeval21 'x'"):
        reproduce("mediaeval21", only=["x"])
    with pytest.raises(ConfigError, match="unknown corpus of resnet101-conv"):
        reproduce("resnet101-conv", data=["emotion=here"])
    with pytest.raises(ConfigError, match="unknown system"):
        reproduce("mediaeval22", [])


@pytest.fixture
def published(monkeypatch):
    """Return a preset whose parts, weights and length are those of a stand-in."""
    one = find_preset("captioning-softmax")
    (block,) = one.widths
    monkeypatch.setitem(one.paper, "images", {"train": 24, "validation": 8, "test": 16})
    monkeypatch.setitem(one.paper, "passports", {block: {"weights.sha256": "a" * 64}})
    monkeypatch.setitem(one.paper, "options", {"range": "1..9"})
    monkeypatch.setitem(one.run["set"], "epochs", 1)
    return one


def words_of(*given) -> list[str]:
    """Return differences as they are printed."""
    return [str(one) for one in differences(*given)]


def with_options(done, **options):
    """Return a run whose corpus was read with other options."""
    report = done.report
    return replace(done, report=replace(report, reader={**report.reader, "options": options}))


FORGERIES = {
    "width": ({"width": 4}, "width of coca_mscoco.embedding: [4], the paper's: [512]"),
    "weights": ({"sha256": "b" * 64}, "weights.sha256 of coca_mscoco.embedding: bbbb"),
    "encoder": ({"encoder": "lowlevel"}, "encoder of coca_mscoco.embedding: lowlevel"),
    "tap": ({"tap": "tokens"}, "tap of coca_mscoco.embedding: tokens"),
    "views": ({"views": {"n": 4, "policy": "flip"}}, "views of coca_mscoco.embedding: 4"),
    "precision": ({"autocast": "bfloat16"}, "precision of coca_mscoco.embedding: bfloat16"),
}


def test_a_forged_store_is_not_as_published(published, tmp_path, monkeypatch):
    """A run on the paper's own corpus, split, weights and settings is as published; each forgery is named."""
    store = stand_in(tmp_path / "fi", "fi", sha256="a" * 64)
    config = load_config(None, {"store": str(store), "preset": published.name, "out": str(tmp_path / "run")})
    done = with_options(run(config), range="1..9")
    assert words_of(published, done, open_store(store)) == []
    for name, (forged, words) in FORGERIES.items():
        other = open_store(stand_in(tmp_path / name / "fi", "fi", **{"sha256": "a" * 64, **forged}))
        (found,) = words_of(published, done, other)
        assert found.startswith(words)
    other = stand_in(tmp_path / "views" / "canonical" / "fi", "fi", sha256="a" * 64, views={"n": 4, "policy": "flip"})
    folder = tmp_path / "canonical"
    given = {"store": str(store), "preset": published.name, "views": "canonical", "out": str(folder)}
    canonical = with_options(run(load_config(None, given)), range="1..9")
    assert words_of(published, canonical, open_store(other)) == ["views: canonical, the preset's: all"]
    monkeypatch.setitem(published.paper, "policy", "flip")
    assert words_of(published, done, open_store(other)) == []
    assert words_of(published, done, open_store(store)) == ["views of coca_mscoco.embedding: none, the paper's: flip"]
    monkeypatch.delitem(published.paper, "policy")
    (found,) = words_of(published, with_options(done, range="1..7"), open_store(store))
    assert found == "option range of the corpus: 1..7, the paper's: 1..9"
    monkeypatch.setitem(published.paper, "images", {"train": 25})
    monkeypatch.setitem(published.run["set"], "epochs", 9)
    monkeypatch.setitem(published.run, "split", "other")
    found = words_of(published, done, open_store(store))
    assert found == [
        "split, train images: 24, the paper's: 25",
        f"split: {done.report.split}, the preset's: other",
        "epochs: 1, the preset's: 9",
    ]


def test_weights_without_an_identity_are_named(published, tmp_path, monkeypatch):
    """What a paper says in prose is no identity."""
    monkeypatch.setitem(published.paper, "passports", {})
    store = stand_in(tmp_path / "fi", "fi")
    config = load_config(None, {"store": str(store), "preset": published.name, "out": str(tmp_path / "run")})
    (found,) = words_of(published, with_options(run(config), range="1..9"), open_store(store))
    assert found.startswith("weights of coca_mscoco.embedding: stand-in, the paper's: ")
    assert found.endswith("the paper's weights are not identified")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["captioning-softmax", "resnet32", "emosepar", "vgg16-va-frozen"])
def test_small_presets_run_in_full(name, stores, tmp_path):
    """Every epoch and rate as published, on the stand-in."""
    one = find_preset(name)
    done = run(load_config(None, {"store": str(stores[one.corpus]), "preset": name, "out": str(tmp_path / "run")}))
    assert done.report["metrics"]["train"][one.paper["metric"]]["value"] is not None


def test_blocks_splits_and_tasks_are_those_that_stage_one_makes():
    """Presets name what `extract` writes: encoders' blocks with their shapes, corpora's tasks and splits."""
    from extract.corpora import find_corpus
    from extract.encoders import ENCODERS, find_encoders

    sized = find_encoders(["vgg16~150", "inception_v3~150", "xception~150"])
    made = {one.block(tap.name): tap.shape for one in (*ENCODERS.values(), *sized) for tap in one.taps}
    for name, one in PRESETS.items():
        corpus = find_corpus(one.corpus)
        assert one.run["task"] in corpus.tasks, name
        assert one.run["split"] in corpus.splits, name
        if one.name.endswith("-paper") or one.paper["weights"].get(one.run["blocks"][0], "").startswith("fit:"):
            continue  # brought in by `features-store import`, or trained by `extract fit`
        assert {block: made.get(block) for block in one.widths} == dict(one.widths), name


def test_reproduce_on_a_report_of_0_1(stores, tmp_path, monkeypatch):
    """It has no identity: what it records is compared, that its vectors are unknown is said, and changes are found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jndataset").symlink_to(stores["jndataset"])
    config = quick(load_config(None, {"store": "jndataset", "preset": "vgg16-va-frozen"}))
    folder = run(config).folder
    report = json.loads((folder / "report.json").read_text())
    later = ("format_version", "identity", "verdicts", "n_tried", "chosen_on", "midpoint", "novelty", "crossing")
    old = {name: value for name, value in report.items() if name not in later}
    old["baselines"] = {"majority": old["baselines"]["majority"]}
    (folder / "report.json").write_text(json.dumps(old))

    def reproduced():
        rows = reproduce("jndataset", ["jndataset"], is_quick=True)
        return next(one for one in rows if one.preset == "vgg16-va-frozen")

    row = reproduced()
    assert row.ours["value"] == old["metrics"]["test"]["rmse"]["value"]
    assert any("vectors: not recorded by a report of version 0.1" in str(text) for text in row.differs)
    assert json.loads((folder / "report.json").read_text()) == old
    report["identity"]["vectors"]["vgg16-150.pool"] = ["another", "seal"]
    (folder / "report.json").write_text(json.dumps(report))
    assert "different: vectors of vgg16-150.pool" in reproduced().not_run
    old["part_digests"]["test"] = "0" * 64
    (folder / "report.json").write_text(json.dumps(old))
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("seed = 0", "seed = 5"))
    assert "different: seed, labels of test" in reproduced().not_run
