"""A fitted head on another corpus: classes mapped, absent ones keep their row, other makings refused."""

import re
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from classify.config import RunConfig
from classify.errors import RunError, TaskError
from classify.heads.persistence import load_head
from classify.pages.page import report_page
from classify.runs.folder import read_run
from classify.runs.train import run
from classify.studies.cross_corpus import cross_corpus_test
from features_store import BlockSpec, BlockWriter, Index, Labels, MismatchError, Split, Task, open_store, write_index

N = 70
BINARY = Task("polarity", "single", ("negative", "positive"))
FEELING = Task("feeling", "single", ("gloom", "delight", "calm"))
EVOKES = Task("evokes", "multi", ("joy", "dread"))
AFFECT = Task("affect", "regression", ("valence", "arousal"), range=(1.0, 7.0))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Return a store of other images whose ``alpha.pool`` has the passport of the planted one; no neutral image."""
    folder, random = tmp_path_factory.mktemp("other") / "photo-tweets", np.random.default_rng(5)
    folder.mkdir()
    codes = (np.arange(N) % 4 > 0).astype(np.int16)
    labels = {
        "polarity": Labels(BINARY, np.where(np.arange(N) < 3, -1, codes)),
        "feeling": Labels(FEELING, np.resize([0, 1, 2], N).astype(np.int16)),
        "evokes": Labels(EVOKES, random.integers(0, 2, (N, 2)).astype(np.uint8)),
        "affect": Labels(AFFECT, random.uniform(1, 7, (N, 2)).astype(np.float32)),
    }
    ids = np.array([f"tweet{i}.jpg" for i in range(N)])
    index = Index(ids, labels, {"default": Split("default", np.full(N, 2))}, None, None, {"name": "vso-603"})
    write_index(folder / "index.h5", index)
    write(folder, index, "alpha.pool", "0" * 64, random.normal(size=(N, 12)))
    return folder


def write(folder, index, name, sha256, vectors):
    """Write a block whose weights have the given hash."""
    spec = BlockSpec(name, (12,), {"encoder": "alpha.pool", "weights": {"source": "planted", "sha256": sha256}})
    with BlockWriter(folder / f"{name}.h5", index, spec) as writer:
        writer.write(np.arange(len(vectors)), vectors)


def test_the_head_is_scored_as_it_is_and_keeps_its_empty_class(polarity_run, other, tmp_path):
    """Metrics are scikit-learn's on the head's own answers; neutral stays in the table with support 0."""
    done = cross_corpus_test(polarity_run.folder, str(other), resamples=40, out=str(tmp_path / "t"))
    assert str(polarity_run.folder) not in (done.folder / "config.toml").read_text()  # it may be shared
    store = open_store(other)
    rows = np.arange(3, N)
    said = load_head(polarity_run.folder / "model").predict(store.matrix(["alpha.pool"], rows))
    truth = np.where(rows % 4 > 0, 2, 0)
    found = done.report["metrics"]["test"]
    assert found["accuracy"]["value"] == pytest.approx(accuracy_score(truth, said))
    weighted = f1_score(truth, said, average="weighted", labels=[0, 1, 2], zero_division=0)
    assert found["weighted_f1"]["value"] == pytest.approx(weighted)
    table = {row["class"]: row for row in done.report["per_class"]["test"]}
    assert table["neutral"]["support"] == 0
    assert np.array(done.report["confusion"]["test"]).shape == (3, 3)
    for empty in (0, 1):  # the recall of a class without images, as papers print it
        recall = recall_score(truth, said, average="macro", labels=[0, 1, 2], zero_division=empty)
        shown = re.search(
            r'macro average</th>(?:<td class="n">[^<]*</td>){2}<td class="n">([^<]*)', report_page([done], empty=empty)
        )
        assert shown[1] == f"{recall:.2f}"
    assert found["macro_recall"]["value"] == pytest.approx(
        recall_score(truth, said, average="macro", labels=[0, 1, 2], zero_division=0)
    )
    assert done.report["dropped"] == {"test": {"no label": 3}}
    assert done.report["transfer"]["trained_on"] == "planted"
    assert any("'neutral'" in text for text in done.report["warnings"])
    majority = polarity_run.report["baselines"]["majority"]["test"]
    assert done.report["baselines"]["majority"]["test"].keys() == majority.keys()
    assert read_run(done.folder).predictions["test"].ids.tolist() == [f"tweet{i}.jpg" for i in rows]
    again = {"resamples": 40, "out": str(tmp_path / "t")}
    with pytest.raises(RunError, match="--force"):
        cross_corpus_test(polarity_run.folder, str(other), **again)
    cross_corpus_test(polarity_run.folder, str(other), **again, force=True)


def test_classes_are_mapped(polarity_run, other, tmp_path):
    """Other names go to the head's classes, or are left out; an unmapped class with images is asked about."""
    mapped = {"gloom": "negative", "delight": "positive", "calm": "none"}
    options = {"task": "feeling", "resamples": 20}
    done = cross_corpus_test(polarity_run.folder, str(other), class_map=mapped, out=str(tmp_path / "t"), **options)
    assert done.report["n_test"] == 47
    assert [row["support"] for row in done.report["per_class"]["test"]] == [24, 0, 23]
    for wrong, words in (
        ({}, r"class 'gloom' has images.*--map gloom=CLASS"),
        ({**mapped, "joy": "positive"}, "unknown class of the store's task 'feeling' 'joy'"),
        ({**mapped, "calm": "neutrall"}, "did you mean 'neutral'"),
    ):
        with pytest.raises(TaskError, match=words):
            cross_corpus_test(polarity_run.folder, str(other), class_map=wrong, out=str(tmp_path / "x"), **options)
    assert not (tmp_path / "x").exists()


def test_a_class_of_the_head_that_is_called_none_is_a_class(store, other, tmp_path):
    """The word for "left out" does not take its images away; then there is no word for that."""
    renamed = RunConfig(str(store), "polarity", "linear", merge={"none": ("neutral",)}, blocks=("alpha.pool",))
    fitted = run(replace(renamed, resamples=20, out=str(tmp_path / "run")))
    mapped = {"gloom": "negative", "delight": "positive", "calm": "none"}
    options = {"task": "feeling", "resamples": 20, "out": str(tmp_path / "t")}
    done = cross_corpus_test(fitted.folder, str(other), class_map=mapped, **options)
    support = {row["class"]: row["support"] for row in done.report["per_class"]["test"]}
    assert support == {"negative": 24, "none": 23, "positive": 23}
    del mapped["calm"]
    with pytest.raises(TaskError, match=r"--map calm=CLASS$"):
        cross_corpus_test(fitted.folder, str(other), class_map=mapped, **options, force=True)


def test_several_labels_and_values(runs_folder, other, tmp_path):
    """Multi-label columns are mapped by name; a regression needs the same outputs on the same scale."""
    mapped = {"dread": "fear"}
    done = cross_corpus_test(
        runs_folder / "evokes/linear", str(other), class_map=mapped, resamples=20, out=str(tmp_path / "t")
    )
    truth = open_store(other).labels["evokes"].values
    assert [row["support"] for row in done.report["per_class"]["test"]] == [*truth.sum(axis=0).tolist(), 0]
    with pytest.raises(TaskError, match=r"\(1.0, 7.0\).*\(1.0, 9.0\)"):
        cross_corpus_test(runs_folder / "affect/linear", str(other))
    with pytest.raises(TaskError, match=r"'polarity' of the store is single"):
        cross_corpus_test(runs_folder / "affect/linear", str(other), task="polarity")


def test_other_weights_and_the_same_images_are_refused(polarity_run, store, other, tmp_path):
    """A block that was made in another way names the field; the run's own corpus is no other corpus."""
    index = open_store(other).index
    folder = tmp_path / "made-otherwise"
    folder.mkdir()
    write_index(folder / "index.h5", index)
    write(folder, index, "alpha.pool", "1" * 64, np.zeros((N, 12)))
    with pytest.raises(MismatchError, match=r"'alpha.pool'.*weights.sha256"):
        cross_corpus_test(polarity_run.folder, str(folder))
    with pytest.raises(TaskError, match="needs other ones"):
        cross_corpus_test(polarity_run.folder, str(store))


def test_a_refitted_head_of_a_preset_is_named_after_it(store, other, tmp_path, monkeypatch):
    """The default place lies with the runs of the other store."""
    monkeypatch.chdir(tmp_path)
    asked = {"blocks": ("alpha.pool",), "resamples": 20, "preset": "resnet50-sgd", "out": str(tmp_path / "fitted")}
    fitted = run(RunConfig(str(store), "polarity", "linear", **asked))
    done = cross_corpus_test(fitted.folder, str(other), resamples=20)
    assert done.folder.as_posix() == "runs/photo-tweets/polarity/resnet50-sgd-from-planted"


def known_store(folder, ids, x, y, *, content=None, groups=None, part=0):
    """Write a store of given images, with the same block as any other."""
    folder.mkdir(parents=True)
    labels = {"polarity": Labels(BINARY, y)}
    index = Index(np.array(ids), labels, {"default": Split("default", np.full(len(ids), 0) + part)}, groups, content)
    write_index(folder / "index.h5", index)
    write(folder, index, "alpha.pool", "0" * 64, x)
    return folder


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    """Return a run on labels drawn at random, which its head knows by heart, and what it was fitted on."""
    folder, random, n = tmp_path_factory.mktemp("memory"), np.random.default_rng(1), 60
    facts = {
        "ids": [f"{i}.jpg" for i in range(n)],
        "x": random.normal(size=(n, 12)),
        "y": random.integers(0, 2, n),
        "content": random.integers(1, 256, (n, 32), dtype=np.uint8),
    }
    part = np.where(np.arange(n) < 40, 0, np.where(np.arange(n) < 50, 1, 2))
    store = known_store(folder / "corpus", part=part, **facts)
    fitted = run(RunConfig(str(store), "polarity", "svm", settings={"C": 1e4}, resamples=20, out=str(folder / "run")))
    assert fitted.report["metrics"]["train"]["accuracy"]["value"] == 1
    return fitted, facts


@pytest.mark.parametrize("way", ["name", "content", "vectors", "group"])
def test_images_that_the_head_was_fitted_on_are_counted_and_left_out(memory, tmp_path, way):
    """In a superset of the training images, whatever their names; labels are noise, and so is the score."""
    fitted, facts = memory
    random, more = np.random.default_rng(2), 100
    n, groups = 60 + more, None
    old = facts["ids"] if way == "name" else [f"corpus/{name}" for name in facts["ids"]]
    x = facts["x"] if way == "vectors" else facts["x"] + 1e-2
    content = random.integers(1, 256, (n, 32), dtype=np.uint8)
    if way == "content":
        content[:60] = facts["content"]
    if way == "group":  # one name is known, and each of the others is of a group with it
        old = [*facts["ids"][:1], *old[1:]]
        groups = np.where(np.arange(n) < 50, 3, -1)
    fresh = {"ids": [f"new{i}.jpg" for i in range(more)], "x": random.normal(size=(more, 12))}
    store = known_store(
        tmp_path / "s",
        [*old, *fresh["ids"]],
        np.concatenate([x, fresh["x"]]),
        np.concatenate([facts["y"], random.integers(0, 2, more)]),
        content=None if way == "vectors" else content,
        groups=groups,
    )
    done = cross_corpus_test(fitted.folder, str(store), resamples=20, out=str(tmp_path / "t"))
    assert done.report["n_test"] == n - 50  # the ten test images of the run were never fitted on
    assert done.report["dropped"]["test"] == {"seen in training": 50}
    assert sum(done.report["transfer"]["left_out"].values()) == 50
    assert done.report["transfer"]["left_out"][way] == (49 if way == "group" else 50)
    assert any("50 images" in text for text in done.report["warnings"])
    assert done.report["metrics"]["test"]["accuracy"]["value"] < 0.75


def test_a_cut_of_the_training_images_leaves_nothing_to_test(memory, tmp_path):
    """It is refused, with their number; so is the file of a run that says the same."""
    fitted, facts = memory
    store = known_store(tmp_path / "s", facts["ids"][:30], facts["x"][:30], facts["y"][:30])
    with pytest.raises(TaskError, match=r"30 images \(30 by name\)"):
        cross_corpus_test(fitted.folder, str(store), out=str(tmp_path / "t"))
    assert not (tmp_path / "t").exists()
