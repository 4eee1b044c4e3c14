"""A split that parts groups: refused unless it was published so or is allowed; then stamped, and scored without."""

import json
import sys

import numpy as np
import pytest
from sklearn.metrics import f1_score

import classify
from classify.__main__ import main
from classify.errors import ConfigError, TaskError
from classify.runs.folder import find_runs, read_run
from classify.runs.report_json import read_report
from features_store import BlockSpec, BlockWriter, Index, Labels, Split, Task, write_index

N, SIZE = 240, 3  # images, and images of a group
GROUPS = np.arange(N) // SIZE
TASK = Task("t", "single", ("a", "b", "c"))


def make(folder, source="", *, cross=40, validation=False, groups=GROUPS):
    """Write a store whose labels are drawn by group and whose vectors say nothing but the group.

    The last image of the first `cross` groups is tested, and so are all images of the last 20 groups.
    """
    random = np.random.default_rng(0)
    y, x = random.integers(0, 3, N // SIZE)[GROUPS], random.normal(size=(N // SIZE, 40))[GROUPS]
    part = np.where(GROUPS >= 60, 2, 0)
    part[(np.arange(N) % SIZE == SIZE - 1) & (cross > GROUPS)] = 2
    if validation:
        part[part == 2] = 1
    folder.mkdir(parents=True)
    index = Index(
        np.array([f"{i}.jpg" for i in random.permutation(N)]),
        {"t": Labels(TASK, y)},
        {"default": Split("default", part, "parts", source), "other": Split("other", np.where(GROUPS >= 60, 2, 0))},
        groups,
    )
    write_index(folder / "index.h5", index)
    with BlockWriter(folder / "x.h5", index, BlockSpec("x", (40,), {"encoder": "x", "weights": {"source": "?"}})) as w:
        w.write(np.arange(N), x)
    return folder


def call(monkeypatch, *arguments):
    """Run the command line; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["classify", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make(tmp_path_factory.mktemp("crossing") / "tweets", "published")


@pytest.fixture(scope="module")
def unstated(tmp_path_factory):
    return make(tmp_path_factory.mktemp("crossing") / "tweets")


@pytest.fixture(scope="module")
def runs(published, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for head in ("svm", "dummy"):
        classify.run(published, "t", head, out=str(folder / head), resamples=60)
    return folder


def test_a_published_split_goes_on_and_is_scored_again_without_what_crosses(runs, published):
    """The second value is scikit-learn's on the test images of groups that training has no image of."""
    found = read_report(runs / "svm")
    assert found["crossing"]["source"] == "published"
    assert (found["crossing"]["n_groups"], found["crossing"]["n_images"]) == (40, 120)
    clean = found["crossing"]["parts"]["test"]
    assert (clean["n_images"], clean["n_left_out"]) == (60, 40)
    said = read_run(runs / "svm").predictions["test"]
    kept = said.groups >= 60
    mine = f1_score(said.y_true[kept], said.y_score[kept].argmax(axis=1), average="weighted", zero_division=0)
    assert clean["metrics"]["weighted_f1"]["value"] == pytest.approx(mine)
    assert found["metrics"]["test"]["weighted_f1"]["value"] > mine + 0.1
    assert 0.2 < mine < 0.55
    judged = found["verdicts"]["test"]["head"]["weighted_f1"]
    assert judged["verdict"] == "unclear"  # labels were drawn by group: there is nothing to know


def test_every_table_of_a_published_split_is_stamped(runs, published, monkeypatch, capsys, tmp_path):
    """Summary, leaderboard, page and notebook name groups and images, and print the value without them."""
    counts, without = "40 groups of 120 images", "without 40 that cross"
    clean = read_report(runs / "svm")["crossing"]["parts"]["test"]["metrics"]["weighted_f1"]["value"]
    asked = ("run", published, "--task", "t", "--head", "svm", "--out", tmp_path / "r")
    assert call(monkeypatch, *asked) == 0
    told = capsys.readouterr()
    assert counts in told.err
    assert counts in told.out
    assert without in told.out
    assert f"{clean:.3f}" in told.out
    assert call(monkeypatch, "compare", runs) == 0
    told = capsys.readouterr().out
    assert counts in told
    assert without in told
    assert f"{clean:.3f}" in told
    assert call(monkeypatch, "compare", runs, "--json") == 0
    rows = json.loads(capsys.readouterr().out)[0]["rows"]
    assert all(row["crossing"]["n_left_out"] == 40 for row in rows)
    assert call(monkeypatch, "report", runs, "--out", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert counts in page
    assert without in page
    assert without in find_runs([runs])[0]._repr_html_()
    assert call(monkeypatch, "curve", runs / "svm", "--points", 2, "--repeats", 1) == 0
    assert counts in capsys.readouterr().out


def test_pairs_are_compared_without_what_crosses(runs, published, tmp_path, monkeypatch, capsys):
    """Two heads that know groups by heart differ on images of new groups only."""
    for seed, head in enumerate(("linear", "svm")):
        classify.run(published, "t", head, out=str(tmp_path / head), resamples=20, seed=seed)
    assert call(monkeypatch, "compare", tmp_path, "--paired", "--json") == 0
    (pair,) = json.loads(capsys.readouterr().out)[0]["pairs"]
    clean = {
        head: read_report(tmp_path / head)["crossing"]["parts"]["test"]["metrics"]["weighted_f1"]["value"]
        for head in ("linear", "svm")
    }
    assert pair["difference"]["value"] == pytest.approx(clean[pair["first"]] - clean[pair["second"]])
    assert call(monkeypatch, "compare", tmp_path, "--paired") == 0
    assert "differences without 40 that cross" in capsys.readouterr().out


COMMANDS = {
    "run": ("run", "{store}", "--task", "t", "--head", "linear", "--out", "{place}"),
    "ablate": ("ablate", "{store}", "--task", "t", "--head", "ridge", "--folds", 2, "--out", "{place}.json"),
    "sweep": ("sweep", "{sweep}", "--out", "{place}"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("source", ["", "made"])
def test_any_other_crossing_split_is_refused_unless_allowed(command, source, unstated, tmp_path, monkeypatch, capsys):
    """One sentence and exit code 2, before anything is written; with the option the result is stamped."""
    store = unstated
    if source == "made":  # groups that came to a split that was whole without them
        store = make(tmp_path / "s", "made", groups=None)
        index = classify.open_store(store).index
        write_index(store / "groups.h5", Index(index.ids, groups=GROUPS))
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(f'store = "{store}"\ntask = "t"\n[[grid]]\nhead = ["linear"]\nresamples = [20]\n')
    filled = [str(one).format(store=store, place=tmp_path / "out", sweep=sweep) for one in COMMANDS[command]]
    assert call(monkeypatch, *filled) == 2
    told = capsys.readouterr().err
    assert told.count("\n") <= 2
    assert "--allow-split-groups" in told
    assert "groups of" in told
    assert not list(tmp_path.glob("out*"))
    assert call(monkeypatch, *filled, "--allow-split-groups") == 0
    told = capsys.readouterr()
    assert "groups of" in told.out


def test_python_refuses_and_stamps_alike(unstated, published):
    """`cross_validate` deals whole groups, so its values stand; the split is named all the same."""
    with pytest.raises(TaskError, match="parts 40 groups of 120 images"):
        classify.cross_validate(unstated, "t", "linear", folds=2)
    done = classify.cross_validate(unstated, "t", "linear", folds=2, allow_split_groups=True, resamples=20)
    assert "40 groups of 120 images" in str(done)
    assert "40 groups of 120 images" in str(classify.cross_validate(published, "t", "linear", folds=2, resamples=20))
    with pytest.raises(ConfigError, match="allow_split_groups"):
        classify.run(unstated, "t", "linear", allow_split_groups="yes")


def test_where_every_scored_image_crosses_nothing_is_left_to_judge(tmp_path):
    """The value without them is undefined, and there is no verdict."""
    store = make(tmp_path / "s", "published", validation=True)
    index = classify.open_store(store).index
    values = np.where(GROUPS >= 60, -1, index.splits["default"].values)
    (store / "index.h5").unlink()
    splits = {"default": Split("default", values, "parts", "published")}
    write_index(store / "index.h5", Index(index.ids, index.labels, splits, GROUPS))
    done = classify.run(store, "t", "linear", out=str(tmp_path / "r"), resamples=20)
    clean = done.report["crossing"]["parts"]["validation"]
    assert (clean["n_images"], clean["n_left_out"]) == (0, 40)
    assert clean["metrics"]["weighted_f1"]["value"] is None
    assert "group mate" in done.report["verdicts"]["validation"]["reason"]


def test_whole_groups_and_images_that_are_not_used_cross_nothing(unstated, tmp_path, monkeypatch, capsys):
    """Another split of the same store runs as ever, and its report says that nothing crosses."""
    done = classify.run(unstated, "t", "linear", split="other", out=str(tmp_path / "r"), resamples=20)
    assert done.report["crossing"] is None
    assert not any("group" in text for text in done.report["warnings"])
    index = classify.open_store(unstated).index
    y = index.labels["t"].values.copy()
    y[(index.splits["default"].values == 2) & (GROUPS < 60)] = -1  # what crosses has no label
    store = make(tmp_path / "s")
    (store / "index.h5").unlink()
    write_index(store / "index.h5", Index(index.ids, {"t": Labels(TASK, y)}, index.splits, GROUPS))
    assert classify.run(store, "t", "linear", out=str(tmp_path / "q"), resamples=20).report["crossing"] is None
