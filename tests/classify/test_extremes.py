"""Data at its limits: few groups, one label, long numbers in names, the ends of float32, features far from 0."""

import shutil

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.svm import SVC

import classify
from classify.__main__ import app
from classify.config import RunConfig
from classify.errors import ConfigError, HeadError, TaskError
from classify.heads import make_head
from classify.runs.layout import lay_out
from classify.runs.train import fit_head
from classify.studies.ablation import ablate
from classify.studies.audit import audit
from features_store import BlockSpec, BlockWriter, Index, Labels, Split, Task, write_index
from features_store.errors import StoreError

Y = np.arange(40) % 3


@pytest.fixture
def make(tmp_path):
    """Return a maker of small stores with one task ``t`` and one block ``x``."""

    def store(y=Y, kind="single", classes="abc", part=None, ids=None, groups=None, x=None):
        folder, y = tmp_path / "s", np.asarray(y)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        n = len(y)
        part = np.where(np.arange(n) % 4 == 3, 2, 0) if part is None else np.asarray(part)
        x = np.random.default_rng(0).normal(size=(n, 4)) if x is None else x
        ids = [f"{i}.jpg" for i in range(n)] if ids is None else ids
        scale = (0.0, 100.0) if kind == "regression" else None
        labels = {"t": Labels(Task("t", kind, tuple(classes), scale), y)}
        index = Index(np.array(ids), labels, {"default": Split("default", part)}, groups)
        write_index(folder / "index.h5", index)
        spec = BlockSpec("x", x.shape[1:], {"encoder": "x", "weights": {"source": "?"}}, "float32")
        with BlockWriter(folder / "x.h5", index, spec) as writer:
            writer.write(np.arange(n), x.astype("f4"))
        return folder

    return store


def done(store, tmp_path, head="linear", **options):
    options = {"resamples": 20, "force": True, **options}
    return classify.run(store, "t", head, out=tmp_path / "run", **options)


@pytest.mark.parametrize("n_groups", [1, 2, 3, 4])
def test_few_groups_in_training_are_no_reason_to_fail(make, tmp_path, n_groups):
    """The baselines take as many folds as there are groups, or none."""
    groups = np.arange(40) % (n_groups + 1)
    assert done(make(groups=groups, part=np.where(groups == n_groups, 2, 0)), tmp_path).report["metrics"]["test"]


@pytest.mark.parametrize("n_train", [1, 2, 3, 4])
def test_few_images_in_training_are_no_reason_to_fail(make, tmp_path, n_train):
    y = np.arange(12.0)[:, None]
    assert done(make(y, "regression", "a", part=[0] * n_train + [2] * (12 - n_train)), tmp_path).report["n_train"]


def test_folds_above_the_number_of_images_are_refused(make):
    """In one sentence, by both commands that deal folds."""
    store = make()
    with pytest.raises(TaskError, match="100 folds cannot be made of 30 images; take from 2 folds to 30"):
        classify.cross_validate(store, "t", "linear", folds=100)
    with pytest.raises(TaskError, match="100 folds"):
        ablate(RunConfig(str(store), "t", "svm"), folds=100)


def test_a_name_may_hold_a_long_number(make, tmp_path):
    """39 digits are beyond float32, in which trees compare; 400 beyond float64."""
    ids = [f"{10 ** (45 + 400 * (i % 2)) + i}.jpg" for i in range(40)]
    assert done(make(ids=ids), tmp_path).report["baselines"]["id-only"]


@pytest.mark.parametrize("head", ["linear", "svm", "gbm", "mlp", "dummy"])
def test_a_task_of_several_labels_may_have_one(make, tmp_path, head):
    """Every head answers one column; cross-validation, ablation and audit go through."""
    store = make((np.arange(40) % 2)[:, None].astype("u1"), "multi", "a")
    options = {"epochs": 2} if head == "mlp" else {}
    run = done(store, tmp_path, head, **options)
    assert run.predictions["test"].y_score.shape == (10, 1)
    if head == "linear":
        assert classify.cross_validate(store, "t", head, resamples=20).scores.shape == (30, 1)
        assert audit(str(store), "t")["label_errors"]["n_judged"]
        for way in ("svm", "ridge"):
            assert ablate(RunConfig(str(store), "t", way, resamples=20))["subsets"]


@pytest.mark.parametrize("pair", [(1e-45, 0), (3e38, 0), (3e38, -3e38), (1e-39, -1e-39)])
@pytest.mark.parametrize("head", ["linear", "svm", "mlp"])
def test_a_feature_beyond_float32_counts_as_constant(make, tmp_path, head, pair):
    """The report says how many there were, and the head answers as if the feature were not there."""
    x = np.random.default_rng(0).normal(size=(40, 4))
    x[:, 1] = np.where(np.arange(40) % 2, *pair)
    options = {"epochs": 2} if head == "mlp" else {}
    run = done(make(x=x), tmp_path, head, **options)
    assert any(text.startswith("1 of 4 features vary too little or too much") for text in run.report["warnings"])
    assert np.isfinite(run.predictions["test"].y_score).all()
    if head == "svm":
        x[:, 1] = 0
        plain = done(make(x=x), tmp_path, head)
        assert np.allclose(run.predictions["test"].y_score, plain.predictions["test"].y_score, atol=1e-6)


def test_class_weights_and_costs_are_by_name_wherever_heads_are_fitted(make, tmp_path):
    """Negative, NaN and nearly all zero are refused by the name; 0 leaves a class out; a fold may lack a class."""
    store = make(np.where(np.arange(40) == 0, 2, np.arange(40) % 2))
    for weight in (-1, float("nan")):
        for head in ("mlp", "moe", "svm", "linear"):
            with pytest.raises(HeadError, match=r"class_weight is \{'a': .*a weight from 0"):
                done(store, tmp_path, head, class_weight={"a": weight})
    with pytest.raises(ConfigError, match="at least two classes"):
        done(store, tmp_path, "svm", class_weight={"a": 0, "b": 0})
    run = done(store, tmp_path, "svm", class_weight={"a": 0})
    assert (run.predictions["test"].y_score.argmax(axis=1) != 0).all()
    cost = [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    for head, options in (
        ("svm", {"class_weight": {"c": 0}}), ("svm", {"class_weight": "balanced"}),
        ("linear", {"class_weight": {"a": 2}}),
        ("mlp", {"epochs": 2, "cost": cost, "class_weight": "balanced"}),
    ):  # fmt: skip
        assert ablate(RunConfig(str(store), "t", head, settings=options, resamples=20))["subsets"]
        assert np.isfinite(classify.cross_validate(store, "t", head, resamples=20, **options).scores).all()
    with pytest.raises(HeadError, match="takes maps"):
        ablate(RunConfig(str(store), "t", "conv"))


def test_svm_is_the_same_machine_far_from_zero():
    """Without standardizing, features around 1,000 are told apart as scikit-learn does in float64."""
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 20))
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int)
    x = (x + 1000).astype(np.float32)
    ours = make_head("svm", "single", standardize=False, C=1.0).fit(x[:200], y[:200])
    theirs = SVC(gamma=1 / 20).fit(x[:200].astype(float), y[:200])
    assert np.allclose(ours._decision(x[200:])[:, 0], theirs.decision_function(x[200:].astype(float)), atol=1e-2)


@pytest.mark.parametrize("C", [1.0, 1e4])
def test_linear_converges_whatever_the_penalty(C):
    """The log loss is that of a solver which is told to go on; one that stops early says so, also when streaming."""
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 600)).astype(np.float32)
    y = (x @ random.normal(size=(600, 3)) / 24 + random.normal(size=(400, 3))).argmax(axis=1)
    ours = make_head("linear", "single", C=C).fit(x[:200], y[:200])
    z = ((x - x[:200].mean(axis=0)) / x[:200].std(axis=0) / np.sqrt(600)).astype(float)
    theirs = LogisticRegression(C=C, tol=1e-9, max_iter=10_000).fit(z[:200], y[:200])
    expected = log_loss(y[200:], theirs.predict_proba(z[200:]))
    assert log_loss(y[200:], ours.predict_proba(x[200:])) == pytest.approx(expected, rel=1e-3)
    for stream in ("always", "never"):
        with pytest.warns(UserWarning, match="converge"):
            make_head("linear", "single", C=C, max_iter=2, stream=stream).fit(x[:200], y[:200])


def test_gbm_refits_each_label_for_its_own_rounds_and_says_when_it_learned_nothing(make):
    """A label of noise stops at once and stays short; 18 rows allow no split."""
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 30))
    y = np.column_stack([x[:, 0] > 0, random.integers(2, size=200)]).astype("u1")
    store = make(y, "multi", "ab", part=np.arange(200) % 2, x=x)
    config = RunConfig(str(store), "t", "gbm")
    layout = lay_out(config)
    heads, refit, _ = fit_head(make_head("gbm", "multi", n_jobs=1), layout, refit=True)
    rounds = [booster.current_iteration() for booster in heads["validation"].boosters_]
    assert rounds[0] > rounds[1]
    assert [booster.current_iteration() for booster in heads["test"].boosters_] == rounds
    assert refit["n_rounds"] == rounds
    with pytest.warns(UserWarning, match=r"no tree found a split.*lower min_leaf \(10\)"):
        make_head("gbm", "single").fit(x[:18], np.arange(18) % 3)


@pytest.mark.parametrize("head", ["linear", "knn"])
def test_a_head_that_learned_nothing_says_so(make, tmp_path, head):
    """Features that never vary teach nothing, whatever the head."""
    told = done(make(x=np.full((40, 3), 7.0)), tmp_path, head).report["warnings"]
    assert any("Every image gets the same prediction" in line for line in told)


@pytest.mark.parametrize(
    ("kind", "y", "classes", "words"),
    [
        (
            "multi",
            np.ones((40, 2), "u1"),
            "ab",
            "Every image of the train part has the class 'a': it cannot be learned.",
        ),
        ("regression", np.full((40, 1), 7.0, "f4"), "v", "Every image of the train part has the same 'v'"),
    ],
)
def test_what_never_varies_in_training_is_told(make, tmp_path, kind, y, classes, words):
    """As for a class that no image has."""
    assert any(line.startswith(words) for line in done(make(y, kind, classes), tmp_path).report["warnings"])


def test_a_place_that_cannot_be_written_is_found_before_the_work(make, tmp_path, monkeypatch):
    """For a run, a file and a page; folders that trying made are gone again."""

    def no_work(*args, **options):
        pytest.fail("the place should have been tried first")

    store, run = make(), None
    run = done(store, tmp_path)
    (tmp_path / "file").touch()
    for module in (
        "classify.runs.train.fit_head",
        "classify.studies.ablation.path_scores",
        "classify.pages.page.report_page",
    ):
        monkeypatch.setattr(module, no_work)
    with pytest.raises(StoreError, match="cannot write"):
        classify.run(store, "t", "linear", out=tmp_path / "file" / "run")
    with pytest.raises(StoreError, match="cannot write"):
        classify.report(run, tmp_path / "file" / "page.html")
    with pytest.raises(StoreError, match="cannot write"):
        app(["ablate", str(store), "--task", "t", "--out", str(tmp_path / "file" / "a.json")], standalone_mode=False)
    with pytest.raises(StoreError, match="cannot write"):
        classify.run(store, "t", "linear", out=tmp_path / "new" / ("x" * 300))
    assert not (tmp_path / "new").exists()
