"""Whatever a report says, a page is made of it or one sentence refuses it; nothing of it acts on a page or terminal."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from mutants import mutant

from classify.errors import RunError
from classify.inference.cards import data_card_text, model_card_text
from classify.json_file import parse_json, write_json
from classify.pages.leaderboard import leaderboards
from classify.pages.page import report_page, write_text
from classify.pages.tables import leaderboard_text, run_text
from classify.runs.folder import find_runs, read_run
from classify.runs.report_json import read_report
from features_store.errors import AffectoryError


def shown(folder: Path) -> str:
    """Return everything that is shown of the runs below a folder."""
    runs = find_runs([folder])
    texts = [leaderboard_text(board) for board in leaderboards(runs)]
    texts += [text for run in runs for text in (run_text(run), model_card_text(run), data_card_text(run))]
    return "\n".join([report_page(runs), *texts])


@pytest.fixture
def copied(runs_folder, tmp_path) -> Path:
    """Return a copy of one run that may be damaged."""
    return shutil.copytree(runs_folder / "evokes" / "linear", tmp_path / "runs" / "linear")


@pytest.mark.parametrize("seed", range(25))
def test_a_changed_report_is_shown_or_refused(runs_folder, tmp_path, seed) -> None:
    task = ("polarity", "evokes", "valence", "affect")[seed % 4]
    folder = shutil.copytree(runs_folder / task / "linear", tmp_path / "runs" / "linear")
    good = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_bytes(mutant(good, np.random.default_rng(seed)))
    try:
        text = shown(tmp_path)
    except AffectoryError as refused:
        text = str(refused)
    assert "\x1b" not in text
    assert "<script>alert(1)" not in text


@pytest.mark.parametrize("task", ["polarity", "evokes", "valence", "affect"])
def test_nothing_that_is_written_is_lost_and_nothing_else_comes_in(runs_folder, tmp_path, task) -> None:
    """Each name of a written report is one that the schema knows; a name that it does not know stays outside."""
    for run in sorted((runs_folder / task).iterdir()):
        folder = shutil.copytree(run, tmp_path / run.name)
        written = json.loads((folder / "report.json").read_text())
        read = json.loads(json.dumps(dict(read_report(folder))))
        assert names(written) <= names(read)
        part, metric = next(iter(written["metrics"])), next(iter(written["metrics"]["train"]))
        for one in (written, written["metrics"][part][metric], written["intervals"], written["verdicts"]["test"]):
            one["stranger"] = {"low": "<script>"}
        (folder / "report.json").write_text(json.dumps(written))
        assert "stranger" not in json.dumps(dict(read_report(folder)))


def names(value, place="") -> set[str]:
    """Return the paths of all names in a JSON value; items of a list count as one."""
    if isinstance(value, list):
        return set().union(*(names(one, f"{place}[]") for one in value))
    if not isinstance(value, dict):
        return {place} if value is not None else set()
    return set().union({place}, *(names(one, f"{place}/{name}") for name, one in value.items()))


def test_escapes_of_names_are_taken_out(copied) -> None:
    """A corpus' name may not steer the terminal on which it is printed, nor HTML act in a card."""
    report = json.loads((copied / "report.json").read_text())
    report["corpus"] = "\x1b]0;owned\x07emoji<b>"
    report["created"] = "<img src=x>"
    (copied / "report.json").write_text(json.dumps(report))
    text = shown(copied)
    assert "owned" in text
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "<img src=x>" not in model_card_text(read_run(copied))


def test_a_report_of_a_newer_version_is_refused(copied) -> None:
    report = json.loads((copied / "report.json").read_text())
    (copied / "report.json").write_text(json.dumps({**report, "format_version": 99}))
    with pytest.raises(RunError, match="update affectory"):
        read_run(copied)


def test_a_report_of_the_first_version_is_read(copied) -> None:
    """It has no version, and what later ones added is completed."""
    report = json.loads((copied / "report.json").read_text())
    kept = ("task", "kind", "classes", "head", "metrics", "baselines", "part_digests", "n_test")
    (copied / "report.json").write_text(json.dumps({name: report[name] for name in kept}))
    assert "weighted F1" in shown(copied)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_report_is_a_regular_file(copied, kind) -> None:
    """A link is not followed, and nobody is waited for."""
    path = copied / "report.json"
    if kind == "link":
        path.rename(copied.parent / "elsewhere")
        path.symlink_to(copied.parent / "elsewhere")
    else:
        path.unlink()
        path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(RunError, match=r"symbolic link|regular file|is not a run|Is a directory"):
        read_run(copied)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [*rows[:-1], "x,test,1"],
        lambda rows: [*rows, rows[-1].replace("test", "tset").replace("train", "tset")],
        lambda rows: [*rows, rows[-1].rsplit(",", 1)[0] + ",nan"],
        lambda rows: [*rows, '"' + "x" * 200_000 + '"'],
        lambda rows: [rows[0]],
    ],
)
def test_changed_predictions_are_refused(copied, change) -> None:
    path = copied / "predictions.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(RunError):
        report_page([read_run(copied)])


def test_a_small_file_of_many_values_does_not_fill_the_memory() -> None:
    """A list in three bytes takes sixty in memory."""
    with pytest.raises(RunError, match="more than 6,000,000 values"):
        parse_json(b"[" + b"[]," * 6_000_001 + b"[]]", "it")


def test_names_that_are_not_utf8_are_written(tmp_path) -> None:
    """A file has such a name where another system wrote it; JSON has a way to write it, a page a question mark."""
    write_json(tmp_path / "x.json", {"id": "caf\udce9.png"})
    assert json.loads((tmp_path / "x.json").read_text()) == {"id": "caf\udce9.png"}
    write_text(tmp_path / "x.html", "caf\udce9.png", force=False)
    assert (tmp_path / "x.html").read_text() == "caf?.png"


def test_rows_of_numbers_stand_on_one_line(tmp_path) -> None:
    """So the confusion of 2,000 classes stays below what is read back; texts are as they were."""
    values = {"rows": [[1, 2.5, None], [-1e-9, 3]], "text": "[ 1,\n  2 ]", "empty": [], "words": ["a", "[\n1]"]}
    write_json(tmp_path / "x.json", values)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == values
    assert "[ 1, 2.5, null ]" in text
    assert text.count("\n") < 15
