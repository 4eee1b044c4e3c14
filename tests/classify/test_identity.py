"""What counts as the same run: one identity for sweep, search, submit, curve, reproduce and the leaderboards."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import classify
from classify.config import RunConfig, load_config
from classify.errors import ConfigError, ModelError, RunError
from classify.inference.submission import plan_submission
from classify.pages.leaderboard import leaderboards
from classify.pages.pairs import pairs
from classify.runs.folder import find_runs
from classify.runs.identity import differing_aspects, digest_of, run_identity
from classify.runs.layout import lay_out
from classify.studies.learning_curve import fit_learning_curve
from features_store import BlockSpec, BlockWriter, Index, Labels, Split, Task, write_index

N = 80
FACTS = {
    "classes": ("a", "b", "c"), "y": np.arange(N) % 3, "part": np.where(np.arange(N) % 4 == 3, 2, 0), "groups": None,
    "x": np.random.default_rng(0).normal(size=(N, 4)), "ids": [f"{i}.jpg" for i in range(N)], "encoder": "x", "open": 0,
}  # fmt: skip
GROUPS = np.arange(N) // 8 * 2 + (np.arange(N) % 4 == 3)  # whole in either part


def make(folder, **changes):
    """Write a store; each change is one fact that is different."""
    facts = {**FACTS, **changes}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    labels = {"t": Labels(Task("t", "single", facts["classes"]), facts["y"])}
    splits = {"default": Split("default", facts["part"])}
    index = Index(np.array(facts["ids"]), labels, splits, facts["groups"])
    write_index(folder / "index.h5", index)
    spec = BlockSpec("x", (4,), {"encoder": facts["encoder"], "weights": {"source": "?"}}, "float32")
    with BlockWriter(folder / "x.h5", index, spec) as writer:
        rows = np.arange(N - facts["open"])
        writer.write(rows, facts["x"][rows].astype("f4"))
    return folder


def identity(folder, **settings):
    config = load_config(None, {"store": str(folder), "task": "t", "head": "linear", **settings})
    layout = lay_out(config)
    return run_identity(config, layout)


CHANGES = {
    "classes": {"classes": ("a", "b", "d")},
    "labels": {"y": np.roll(FACTS["y"], 1)},
    "groups": {"groups": GROUPS},
    "rows": {"ids": FACTS["ids"], "part": np.roll(FACTS["part"], 1)},
    "vectors": {"x": FACTS["x"] + 1},
    "passport": {"encoder": "y"},
    "one image": {"ids": ["other.jpg", *FACTS["ids"][1:]]},
    "an open row": {"open": 1},
}


@pytest.mark.parametrize("changed", CHANGES)
def test_every_fact_is_part_of_the_identity(tmp_path, changed):
    """A store with one fact changed is another one; a copy elsewhere is the same."""
    first = identity(make(tmp_path / "a"))
    assert identity(make(tmp_path / "elsewhere" / "b")) == first
    other = identity(make(tmp_path / "c", **CHANGES[changed]))
    assert digest_of(other) != digest_of(first)
    assert differing_aspects(first, other)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(["C", "max_iter", "standardize"]), st.integers(1, 9)), st.integers(0, 3))
def test_settings_count_by_value_and_places_do_not(tmp_path_factory, options, seed):
    """1 is 1.0, a default that is spelled out is the default, and out, preset and verbose decide nothing."""
    folder = tmp_path_factory.getbasetemp() / "settings"
    folder = folder if folder.exists() else make(folder)
    options.pop("standardize", None)
    first = identity(folder, seed=seed, set=options)
    spelled = {"C": "auto", "project": "auto", **{name: float(v) if name == "C" else v for name, v in options.items()}}
    assert identity(folder, seed=seed, set=spelled, out="x") == first
    assert identity(folder, seed=seed + 1, set=options) != first


@pytest.mark.parametrize("changed", ["classes", "labels", "groups", "vectors", "passport"])
def test_curve_and_submit_refuse_a_store_that_changed(tmp_path, changed):
    """The sentence names what is different."""
    run = classify.run(make(tmp_path / "a"), "t", "linear", out=tmp_path / "run", resamples=20)
    make(tmp_path / "a", **CHANGES[changed])
    for ask in (fit_learning_curve, lambda one: plan_submission([one])):
        with pytest.raises(RunError, match=r"holds other images or labels.*different: .*run it again"):
            ask(run)


def test_leaderboards_go_by_what_was_measured(tmp_path):
    """The same data in two folders share a board; other training labels are told; names stay distinct."""
    y = FACTS["y"].copy()
    y[:4] = (y[:4] + 1) % 3
    y[3] = FACTS["y"][3]
    stores = [make(tmp_path / "here" / "s"), make(tmp_path / "there" / "s2"), make(tmp_path / "s3", y=y)]
    for i, store in enumerate(stores):
        classify.run(store, "t", "linear", out=tmp_path / "runs" / str(i) / "linear", resamples=20, seed=i)
    found = find_runs([tmp_path / "runs"])
    (board,) = leaderboards(found)
    assert sorted(row.name for row in board.rows) == [f"{i}/linear (linear, seed {i})" for i in range(3)]
    assert len(pairs(board, n_resamples=20)) == 3
    told = [text for row in board.rows for text in row.warnings if "trained on other train images or labels" in text]
    assert [text.split(" ")[0] for text in told] == ["2/linear"]
    grouped = classify.run(make(tmp_path / "g", groups=GROUPS), "t", "linear", out=tmp_path / "g1", resamples=20)
    (board,) = leaderboards([found[0], grouped])
    assert any(
        "g1 (linear) has other groups of train, test images than" in text for row in board.rows for text in row.warnings
    )
    renamed = make(tmp_path / "s4", classes=("a", "b", "d"))
    classify.run(renamed, "t", "linear", out=tmp_path / "runs" / "4", resamples=20)
    assert len(leaderboards(find_runs([tmp_path / "runs"]))) == 2


def test_one_way_from_arguments_to_a_configuration(tmp_path, monkeypatch):
    """Python, file and command line agree; what is unknown, of another type or without effect is refused."""
    monkeypatch.chdir(tmp_path)
    store = make(tmp_path / "s")
    with pytest.raises(ConfigError, match="unknown argument or option of head svm 'c'"):
        classify.run(store, "t", "svm", c=1)
    for name, value in (("refit", True), ("calibration", "none"), ("preset", "x"), ("out", "x")):
        with pytest.raises(ConfigError, match=f"{name} is given"):
            classify.cross_validate(store, "t", "linear", **{name: value})
    with pytest.raises(ConfigError, match="seed is 'x'"):
        classify.run(store, "t", "linear", seed="x")
    with pytest.raises(ConfigError, match="unknown preset 'nonesuch'"):
        classify.run(store, preset="nonesuch")
    given = {"store": str(store), "preset": "emosepar-emoji"}
    from classify.preset import presets

    name = next(iter(presets()))
    expected = load_config(None, {**given, "preset": name})
    from classify.api import _config

    assert _config(store, None, None, (), {"preset": name}) == expected
    assert expected.settings == presets()[name].run.get("set", {})


def test_a_report_has_a_version_and_old_ones_are_read(tmp_path):
    """A report without passports is read, and what cannot be answered from it is one sentence."""
    store = make(tmp_path / "s")
    run = classify.run(store, "t", "linear", out=tmp_path / "run", resamples=20)
    assert run.report["format_version"] == 2
    report = {
        name: value for name, value in run.report.items() if name not in ("passports", "format_version", "identity")
    }
    (tmp_path / "run" / "report.json").write_text(json.dumps(report))
    from classify.studies.cross_corpus import cross_corpus_test

    with pytest.raises(ValueError, match="does not say how its blocks were made"):
        cross_corpus_test(tmp_path / "run", str(make(tmp_path / "o", ids=[f"o{i}.jpg" for i in range(N)])))


def test_a_cross_corpus_run_is_run_again_from_its_file(tmp_path):
    """The file names the tested run and the map of classes; the numbers are equal. Curves pass over it."""
    store = make(tmp_path / "s")
    other = make(tmp_path / "o", ids=[f"o{i}.jpg" for i in range(N)], classes=("a", "b", "z"))
    run = classify.run(store, "t", "linear", out=tmp_path / "run", resamples=20)
    from classify.studies.cross_corpus import cross_corpus_test, run_config

    tested = cross_corpus_test(run.folder, str(other), class_map={"z": "c"}, resamples=20, out=str(tmp_path / "x"))
    repeated = run_config(load_config(tested.folder / "config.toml", {"out": str(tmp_path / "y")}))
    assert repeated.report["metrics"] == tested.report["metrics"]
    with pytest.raises(RunError, match="was fitted elsewhere"):
        fit_learning_curve(tested)


def test_names_stay_below_runs(tmp_path):
    """A store that is called like a way up, or a task with a separator, leaves the folder of runs where it is."""
    assert ".." not in RunConfig("..", "t", "linear").folder.parts
    assert RunConfig("s", "a/b\n", "linear").folder.parts == ("runs", "s", "a%2Fb%0A", "linear")


def test_a_predictor_takes_paths_and_says_so():
    """An array of pixels, and one path in the place of a list, are answered in one sentence."""
    from classify.inference.predictor import Predictor

    predictor = Predictor.__new__(Predictor)
    with pytest.raises(ModelError, match="an image is given as ndarray; a predictor takes paths"):
        next(predictor([np.zeros((4, 4, 3))]))
    with pytest.raises(ModelError, match=r"give a list of paths, like \['a.jpg'\]"):
        next(predictor("a.jpg"))
    with pytest.raises(ModelError, match="give a list of paths"):
        next(predictor(3))
