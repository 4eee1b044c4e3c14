"""Files of answers: what is written is right, and every planted bug is caught."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from classify.config import RunConfig, load_config
from classify.errors import RunError, SubmissionError
from classify.heads.persistence import load_head
from classify.inference.submission import SUBTASKS, Submission, check_submission, plan_submission, write_submission
from classify.runs.folder import Run, read_run
from classify.runs.report_json import Report
from classify.runs.train import run
from features_store import BlockSpec, BlockWriter, Index, Labels, Split, Store, Task, open_store, write_index
from features_store.errors import ExistsError

Rows = list[list[str]]


@pytest.fixture(scope="module")
def disaster_runs(tmp_path_factory) -> list[Run]:
    """Return runs on the three subtasks of a made-up corpus; some test images have no label."""
    folder, random = tmp_path_factory.mktemp("features") / "mediaeval21", np.random.default_rng(5)
    folder.mkdir()
    n, hidden = 240, random.normal(size=(240, 10))
    ids = np.array([f"{i:03}-uuid" for i in random.permutation(n)])
    parts = np.repeat([0, 1, 2], [140, 50, 50])
    labels = {}
    for name, (classes, _) in SUBTASKS.items():
        if name == "subtask1":
            values = np.digitize(hidden[:, 0] + 0.5 * random.normal(size=n), [-0.4, 0.5])
            values[-5:] = -1
            labels[name] = Labels(Task(name, "single", classes), values)
        else:
            values = (hidden[:, : len(classes)] + 0.7 * random.normal(size=(n, len(classes))) > 0.7).astype(np.uint8)
            labels[name] = Labels(Task(name, "multi", classes), values)
    index = Index(ids, labels, {"default": Split("default", parts)})
    write_index(folder / "index.h5", index)
    spec = BlockSpec("planted.pool", (10,), {"encoder": "planted", "weights": {"sha256": "0" * 64}})
    with BlockWriter(folder / "planted.pool.h5", index, spec) as writer:
        writer.write(np.arange(n), hidden)
    out = tmp_path_factory.mktemp("runs")
    return [
        run(RunConfig(str(folder), name, "linear", resamples=20, out=str(out / name)))
        for name in ("subtask1", "subtask2", "subtask3")
    ]


@pytest.fixture(scope="module")
def plan(disaster_runs) -> Submission:
    return plan_submission(disaster_runs)


@pytest.fixture
def written(plan, tmp_path) -> Path:
    write_submission(plan, tmp_path / "run1.csv")
    return tmp_path / "run1.csv"


def _table(path: Path) -> Rows:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _store_of(one: Run) -> Store:
    return open_store(load_config(one.folder / "config.toml").store)


def test_the_official_form(written, disaster_runs) -> None:
    """Titles in the official spelling, every test image once, in the order of the index, labelled or not."""
    header, *rows = _table(written)
    assert header[:5] == ["id", "T1", "T2.1: Joy", "T2.2: Sadness", "T2.3: Fear"]
    assert header[12] == "T3.4: Emphatic pain"
    assert header[-1] == "T3.10:surprise"
    assert len(header) == 19
    assert [row[0] for row in rows] == _store_of(disaster_runs[0]).ids[190:].tolist()
    assert {row[1] for row in rows} <= set(SUBTASKS["subtask1"][0])
    assert {cell for row in rows for cell in row[2:]} == {"0", "1"}


def test_the_score_is_the_reported_one(plan, disaster_runs, tmp_path) -> None:
    """To the last digit what the report says, and what scikit-learn makes of the file."""
    found = write_submission(plan, tmp_path / "a.csv")
    rows, store = _table(tmp_path / "a.csv")[1:], _store_of(disaster_runs[0])
    reported = disaster_runs[0].report["metrics"]["test"]["weighted_f1"]["value"]
    assert found["subtask1"]["value"] == found["subtask1"]["run"] == reported
    assert found["subtask1"]["n_images"] == 45
    truth = store.labels["subtask1"].values[190:]
    said = np.array([SUBTASKS["subtask1"][0].index(row[1]) for row in rows])
    assert f1_score(truth[:45], said[:45], average="weighted") == pytest.approx(reported)
    reported = disaster_runs[1].report["metrics"]["test"]["weighted_f1"]["value"]
    assert found["subtask2"]["value"] == reported
    ones = np.array([row[2:9] for row in rows], dtype=int)
    expected = f1_score(store.labels["subtask2"].values[190:], ones, average="weighted", zero_division=0)
    assert expected == pytest.approx(reported)


def test_own_thresholds(disaster_runs, tmp_path) -> None:
    """Only where asked for; else one half, as in the report."""
    plan = plan_submission(disaster_runs[1:2], own_thresholds=True)
    found = write_submission(plan, tmp_path / "own.csv")
    moved = disaster_runs[1].report["thresholds"]["metrics"]["test"]["weighted_f1"]["value"]
    assert found["subtask2"]["value"] == moved


def test_a_test_set_without_labels(disaster_runs, tmp_path) -> None:
    """Images of another store, made alike, are answered for under the names of the official list."""
    random = np.random.default_rng(6)
    vectors, names = random.normal(size=(30, 10)), [f"{i:02}-test" for i in range(30)]

    def store_of(folder: Path, **passport: object) -> Path:
        folder.mkdir()
        index = Index(np.array([f"images/{name}.jpg" for name in names]), {}, {}, None, None, {"name": "csv"})
        write_index(folder / "index.h5", index)
        spec = BlockSpec("planted.pool", (10,), {"encoder": "planted", "weights": {"sha256": "0" * 64}, **passport})
        with BlockWriter(folder / "planted.pool.h5", index, spec) as writer:
            writer.write(np.arange(30), vectors)
        return folder

    store = store_of(tmp_path / "testset")
    (tmp_path / "testset.csv").write_text("id\n" + "\n".join(reversed(names)) + "\n")
    plan = plan_submission(disaster_runs, store=str(store), template=tmp_path / "testset.csv")
    found = write_submission(plan, tmp_path / "run.csv")
    assert [row[0] for row in _table(tmp_path / "run.csv")[1:]] == names[::-1]
    assert {one["n_images"] for one in found.values()} == {0}
    scores = load_head(disaster_runs[0].folder / "model").predict_proba(open_store(store).matrix(["planted.pool"]))
    said = [SUBTASKS["subtask1"][0][k] for k in scores.argmax(axis=1)]
    assert [row[1] for row in _table(tmp_path / "run.csv")[1:]] == said[::-1]
    assert plan_submission(disaster_runs, store=str(store)).ids == tuple(f"images/{name}.jpg" for name in names)
    other = store_of(tmp_path / "other", transform={"resize": 8})
    with pytest.raises(SubmissionError, match=r"made in another way than the one of .*transform"):
        plan_submission(disaster_runs, store=str(other))
    views = store_of(tmp_path / "views", views={"n": 2})
    assert len(plan_submission(disaster_runs, store=str(views)).ids) == 30


def _shifted(rows: Rows) -> Rows:
    return [[one[0], *other[1:]] for one, other in zip(rows, rows[1:] + rows[:1], strict=True)]


def _swapped(rows: Rows, a: int = 2, b: int = 4) -> Rows:
    order = list(range(len(rows[0])))
    order[a], order[b] = b, a
    return [[row[i] for i in order] for row in rows]


@pytest.mark.parametrize(
    ("bug", "words"),
    [
        (lambda h, r: [h, *_shifted(r)], "scores weighted_f1"),
        (lambda h, r: [h, *_swapped(r)], "scores weighted_f1"),
        (lambda h, r: _swapped([h, *r]), "titles"),
        (lambda h, r: [h, *r[:-1]], "lacks an image"),
        (lambda h, r: [h, *r, r[0]], "names an image twice"),
        (lambda h, r: [h, *r[:-1], ["other", *r[-1][1:]]], "lacks an image"),
        (lambda h, r: [h, *r, ["other", *r[-1][1:]]], "isn't one of the part"),
        (lambda h, r: [h, r[1], r[0], *r[2:]], "its order is another"),
        (lambda h, r: [h, [r[0][0], "Positive", *r[0][2:]], *r[1:]], "says 'Positive'"),
        (lambda h, r: [h, [*r[0][:2], "1.0", *r[0][3:]], *r[1:]], "says '1.0'"),
        (lambda h, r: [h, r[0][:-1], *r[1:]], "line 2 has 18 cells"),
        (lambda h, r: r, "titles"),
        (lambda h, r: [h, *r[:-1], [r[-1][0], {"negative": "positive"}.get(r[-1][1], "negative"), *r[-1][2:]]], "says"),
    ],
    ids=["shifted rows", "swapped cells", "swapped columns", "missing id", "id twice", "other id", "more ids", "order",
         "class name", "number form", "short row", "no header", "one unlabelled cell"],
)  # fmt: skip
def test_planted_bugs(plan, written, bug: Callable[[list[str], Rows], Rows], words) -> None:
    header, *rows = _table(written)
    with written.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(bug(header, rows))
    with pytest.raises(SubmissionError, match=words):
        check_submission(written, plan)


def test_wrong_threshold(plan, tmp_path) -> None:
    """A file that is right in everything but the threshold of one label."""
    second = plan.tasks[1]
    wrong = replace(second, thresholds=(0.9, *[0.5] * (len(second.task.classes) - 1)))
    write_submission(replace(plan, tasks=(plan.tasks[0], wrong, plan.tasks[2])), tmp_path / "wrong.csv")
    with pytest.raises(SubmissionError, match="scores weighted_f1"):
        check_submission(tmp_path / "wrong.csv", plan)


def test_template(disaster_runs, tmp_path) -> None:
    """Its order, its ids with or without an ending; other images are refused."""
    ids = plan_submission(disaster_runs[:1]).ids
    template = tmp_path / "testset.csv"
    template.write_text("n,filename\n" + "".join(f"{i},{name}.jpg\n" for i, name in enumerate(reversed(ids))))
    plan = plan_submission(disaster_runs[:1], template=template)
    assert plan.ids == tuple(reversed(ids))
    write_submission(plan, tmp_path / "t.csv")
    assert [row[0] for row in _table(tmp_path / "t.csv")[1:]] == list(plan.ids)
    template.write_text("filename\n" + "\n".join(ids[1:]))
    with pytest.raises(SubmissionError, match="lacks an image"):
        plan_submission(disaster_runs[:1], template=template)
    template.write_text("name\nx\n")
    with pytest.raises(SubmissionError, match="no column 'id'"):
        plan_submission(disaster_runs[:1], template=template)


def test_other_tasks(make_store, runs_folder, tmp_path) -> None:
    """Any task can be written; a value comes back to the last digit. An image without a vector has no answer."""
    random = np.random.default_rng(1)
    x = random.normal(size=(120, 4))
    task = Task("affect", "regression", ("valence", "arousal"), range=(1.0, 9.0))
    split = Split("default", np.repeat([0, 1, 2], [60, 30, 30]))
    store = make_store({"a.pool": x}, [Labels(task, 5 + x[:, :2] + 0.1 * random.normal(size=(120, 2)))], [split])
    done = run(RunConfig(str(store), "affect", "linear", resamples=20, out=str(tmp_path / "run")))
    found = write_submission(plan_submission([done]), tmp_path / "v.csv")
    assert _table(tmp_path / "v.csv")[0] == ["id", "affect: valence", "affect: arousal"]
    assert found["affect"]["value"] == done.report["metrics"]["test"]["rmse"]["value"]
    with pytest.raises(SubmissionError, match="have no vector in alpha"):
        plan_submission([read_run(runs_folder / "valence" / "linear")])


def test_refusals(disaster_runs, plan, written, tmp_path) -> None:
    with pytest.raises(ExistsError):
        write_submission(plan, written)
    with pytest.raises(SubmissionError, match="same task"):
        plan_submission([disaster_runs[0], disaster_runs[0]])
    with pytest.raises(SubmissionError, match="can't read"):
        check_submission(tmp_path / "none.csv", plan)
    text = written.read_text()
    (tmp_path / "open.csv").write_text(text.replace("\n", '\n"', 1))  # a quote that is never closed
    with pytest.raises(SubmissionError, match=r"open\.csv as a table: unexpected end of data"):
        check_submission(tmp_path / "open.csv", plan)
    other = Run(disaster_runs[0].folder, Report.of({**disaster_runs[0].report, "part_digests": {}}))
    with pytest.raises(RunError, match="other images or labels"):
        plan_submission([other])
