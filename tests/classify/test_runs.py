"""Run folders: whole or not at all, never over something else, and read back as they were."""

import errno
import json
import os
import shlex
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from classify.config import load_config
from classify.errors import RunError
from classify.runs.folder import find_runs, new_folder, read_run
from classify.runs.predictions import PartPredictions, read_predictions, write_predictions
from classify.studies.seeds import seeds_of
from features_store import Task
from features_store.errors import AffectoryError, StoreError

TASKS = [
    Task("t", "single", ("a", 'b, "c"', "d\ne")),
    Task("t", "multi", ("a", "b")),
    Task("t", "regression", ("v",), range=(-1.0, 1.0)),
    Task("t", "regression", ("v", "w"), range=(1.0, 9.0)),
]


def leave_run(folder, text="old"):
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"text": text}))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_folder_appears_whole(tmp_path):
    """Until the block ends there is only a temporary folder beside; then only the run."""
    place = tmp_path / "deep" / "run"
    with new_folder(place) as folder:
        (folder / "report.json").write_text("{}")
        assert not place.exists()
        assert place.parent in folder.parents
    assert names(place.parent) == ["run"]
    assert names(place) == ["report.json"]


def test_error_leaves_nothing(tmp_path):
    """An error in the middle leaves no folder, and an old run as it was."""
    leave_run(tmp_path / "old")
    for place in ("new", "old"):
        with pytest.raises(ZeroDivisionError), new_folder(tmp_path / place, force=True) as folder:
            raise ZeroDivisionError(folder)
    assert names(tmp_path) == ["old"]
    assert json.loads((tmp_path / "old" / "report.json").read_text()) == {"text": "old"}


def test_run_is_replaced_only_when_asked(tmp_path):
    """The error names both ways out; with force the new run stands there, and only it."""
    leave_run(tmp_path / "run")
    (tmp_path / "run" / "predictions.csv").touch()
    with pytest.raises(RunError, match=r"--force.*--out"), new_folder(tmp_path / "run"):
        pass
    with new_folder(tmp_path / "run", force=True) as folder:
        (folder / "report.json").write_text('"new"')
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["report.json"]


def test_run_that_arrives_meanwhile_is_kept(tmp_path):
    """Two runs to one place: the second to end is refused."""
    with pytest.raises(RunError, match="holds a run already"), new_folder(tmp_path / "run"):
        leave_run(tmp_path / "run", "first")
    assert read_json(tmp_path / "run") == {"text": "first"}


def read_json(folder):
    return json.loads((folder / "report.json").read_text())


def test_something_else_is_never_replaced(tmp_path):
    """A folder of pictures, or a file, stays, whatever is asked; an empty folder may become a run."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.jpg").touch()
    (tmp_path / "file").touch()
    for place in ("pictures", "file"):
        with pytest.raises(RunError, match="is not a run"), new_folder(tmp_path / place, force=True):
            pass
    assert names(tmp_path / "pictures") == ["cat.jpg"]
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as folder:
        (folder / "report.json").write_text("{}")
    assert names(tmp_path / "empty") == ["report.json"]


def test_place_that_cannot_be_written_is_an_error(tmp_path):
    """A parent that is a file is one sentence, not a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write the run"), new_folder(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.kind}{len(task.classes)}")
def test_predictions_read_back_to_the_last_digit(tmp_path, task):
    """Ids, truths and scores survive the file exactly, part by part."""
    random = np.random.default_rng(0)
    k, n = len(task.classes), 7
    score = random.random((n, k)) / 3
    truth = {
        "single": random.integers(k, size=n),
        "multi": random.integers(2, size=(n, k)).astype(np.uint8),
        "regression": random.random((n, k)).astype(np.float32).astype(np.float64),
    }[task.kind]
    if task.kind == "regression" and k == 1:
        truth, score = truth[:, 0], score[:, 0]
    ids = np.array(["a,b.jpg", 'q"uote.png', "é/😀.png", *(f"{i}.png" for i in range(n - 3))])
    parts = {
        "train": PartPredictions(ids[:4], truth[:4], score[:4]),
        "test": PartPredictions(ids[4:], truth[4:], score[4:]),
    }
    write_predictions(tmp_path / "p.csv", task, parts)
    found = read_predictions(tmp_path / "p.csv", task)
    assert list(found) == ["train", "test"]
    for name, part in parts.items():
        np.testing.assert_array_equal(found[name].ids, part.ids)
        np.testing.assert_array_equal(found[name].y_true, part.y_true)
        np.testing.assert_array_equal(found[name].y_score, part.y_score)


@pytest.mark.parametrize("text", ["", "id,part\n", "id,part,truth,probability/a,probability/b\nx,test,c,1,0\n"])
def test_foreign_predictions_are_refused(tmp_path, text):
    """Other columns, or a class that the task has not, are an error that names the file."""
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(RunError, match=r"p\.csv"):
        read_predictions(tmp_path / "p.csv", Task("t", "single", ("a", "b")))


def test_runs_are_found_below_a_folder(runs_folder):
    """A folder stands for the runs below it; naming one twice gives it once."""
    found = find_runs([runs_folder, runs_folder / "polarity" / "linear"])
    assert [run.folder.relative_to(runs_folder).as_posix() for run in found] == [
        f"{task}/{head}" for task in ("affect", "evokes", "polarity", "valence") for head in ("dummy", "linear")
    ]


def test_what_is_being_written_is_no_run(polarity_run, tmp_path):
    """A process that writes a run, or was killed at it, has a report in a folder of its own beside the run's place."""
    shutil.copytree(polarity_run.folder, tmp_path / "made")
    for folder in (".made.abcdefgh.part/made", ".made.abcdefgh.part/old/made"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(polarity_run.folder / "report.json", tmp_path / folder)
    assert [run.folder.name for run in find_runs([tmp_path])] == ["made"]


def test_the_settings_of_a_run_are_no_link(polarity_run, tmp_path):
    """Of a run nothing is read through a link; a file of settings that the user names may be one."""
    folder = shutil.copytree(polarity_run.folder, tmp_path / "run")
    (folder / "config.toml").rename(tmp_path / "settings.toml")
    (folder / "config.toml").symlink_to(tmp_path / "settings.toml")
    with pytest.raises(AffectoryError, match="symbolic link"):
        seeds_of(read_run(folder), 2)
    assert load_config(folder / "config.toml").task == "polarity"


def test_places_without_runs_are_refused(tmp_path):
    """A missing place, an empty one, and a report that is not one are told apart."""
    with pytest.raises(RunError, match="does not exist"):
        find_runs([tmp_path / "none"])
    with pytest.raises(RunError, match="holds no run"):
        find_runs([tmp_path])
    leave_run(tmp_path / "run")
    with pytest.raises(RunError, match="lacks task, kind"):
        read_run(tmp_path / "run")
    (tmp_path / "run" / "report.json").write_text("{")
    with pytest.raises(RunError, match="is not valid JSON"):
        find_runs([tmp_path])


def test_runs_that_may_not_be_read_are_not_left_out(polarity_run, tmp_path, monkeypatch):
    """A comparison without them would look whole."""
    shutil.copytree(polarity_run.folder, tmp_path / "runs" / "mine")
    (tmp_path / "runs" / "theirs").mkdir()
    scan = os.scandir

    def refuse(place):
        if Path(place).name == "theirs":
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="theirs"):
        find_runs([tmp_path / "runs"])


def test_a_head_of_the_first_version_is_refused_with_the_line_that_makes_it_again(store, tmp_path):
    """Reports of 0.1 are read, heads are not: the sentence holds the command that replaces the run in its place."""
    from classify.__main__ import app
    from classify.api import run
    from classify.errors import HeadError
    from classify.inference.model import run_model

    folder = tmp_path / "a run"
    run(str(store), "polarity", "linear", out=str(folder), resamples=20)
    record = json.loads((folder / "model" / "head.json").read_text())
    (folder / "model" / "head.json").write_text(json.dumps({**record, "format_version": 1}))
    assert read_run(folder).report["head"] == "linear"
    with pytest.raises(HeadError, match="earlier version of affectory") as refused:
        run_model(read_run(folder))
    program, *line = shlex.split(str(refused.value).partition("with: ")[2])
    assert (program, line[0]) == ("classify", "run")
    app(line, standalone_mode=False)
    assert run_model(read_run(folder)).task.name == "polarity"


def test_predictions_of_holes_are_refused_before_they_fill_the_memory(tmp_path):
    """A file of zeros takes no space on a disk; as text it would be four times as large."""
    (tmp_path / "p.csv").touch()
    os.truncate(tmp_path / "p.csv", 2**26)
    tracemalloc.start()
    with pytest.raises(RunError, match="zero bytes"):
        read_predictions(tmp_path / "p.csv", TASKS[0])
    assert tracemalloc.get_traced_memory()[1] < 2**26 * 1.5
    tracemalloc.stop()


def test_a_table_of_line_ends_is_refused_at_its_second_line(tmp_path):
    """It would become sixty times as large in memory."""
    (tmp_path / "p.csv").write_bytes(b"id,part,truth\n" + b"\n" * 2**20)
    tracemalloc.start()
    with pytest.raises(RunError, match=r"line 2 has 0 cells|its columns"):
        read_predictions(tmp_path / "p.csv", TASKS[0])
    assert tracemalloc.get_traced_memory()[1] < 2**20 * 4
    tracemalloc.stop()
