"""The command line as a person or a script meets it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from classify.__main__ import COMMANDS
from features_store import Labels, Split, Task


def test_run_then_compare_then_report(classify, store, tmp_path):
    """The three commands in a row: a run in its default place, a leaderboard, a page; the second time refused."""
    arguments = ["run", store, "--task", "valence", "--head", "linear", "--blocks", "alpha.pool", "--seed", 1]
    done = classify(*arguments)
    assert done.code == 0, done.err
    assert "majority baseline" in done.out
    assert "file names alone reach RMSE" in done.out
    assert "left out (no label)" in done.err
    assert (tmp_path / "runs/planted/valence/linear/report.json").is_file()

    again = classify(*arguments)
    assert again.code == 2
    assert "--force" in again.err
    assert classify(*arguments, "--force").code == 0

    board = json.loads(classify("compare", "runs", "--json").out)[0]
    assert (board["task"], board["rows"][0]["head"], board["part"]) == ("valence", "linear", "test")
    assert classify("report", "runs", "-o", "page.html").code == 0
    refused = classify("report", "runs", "-o", "page.html")
    assert refused.code == 2
    assert "--force" in refused.err


def test_compare_prints_intervals_and_the_baseline(classify, runs_folder):
    """Each board has a line per run and one for the majority baseline, with intervals."""
    text = classify("compare", runs_folder).out
    assert sum(line.split()[:1] == ["majority"] for line in text.splitlines()) == 4
    assert text.count("is the baseline") == 4
    assert "weighted F1" in text
    assert "RMSE" in text


def test_heads_are_listed(classify):
    """The table of heads, for people and for programs, and the options of one."""
    assert "mlp" in classify("heads").out
    assert "kernel=rbf" in classify("heads", "svm").out
    assert "did you mean 'svm'?" in classify("heads", "svn").err
    heads = {head["name"]: head for head in json.loads(classify("heads", "--json").out)}
    assert {"mlp", "moe", "svm", "gbm", "linear", "dummy"} <= set(heads)
    assert "learning_rate" in heads["mlp"]["options"]["single"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"store": "nowhere"}, "nowhere"),
        ({"--task": "polarty"}, "did you mean 'polarity'?"),
        ({"--head": "mpl"}, "did you mean 'mlp'?"),
        ({"--blocks": "alpha.pol"}, "did you mean 'alpha.pool'?"),
        ({"--split": "defautl"}, "did you mean 'default'?"),
        ({"--set": "C_=1"}, "unknown option"),
        ({"--config": "none.toml"}, "none.toml"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(classify, store, tmp_path, change, said):
    """Whatever is wrong: one line on stderr, exit code 2, no traceback, nothing written."""
    values = {"store": store, "--task": "polarity", "--head": "linear"} | change
    options = [item for key, value in values.items() if key != "store" for item in (key, value)]
    done = classify("run", values["store"], *options)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert done.out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_panels_and_two_examples(classify, name):
    """Options stand in named panels; the examples at the end are lines that the program takes."""
    done = classify(name, "--help")
    assert done.code == 0
    lines = [line.partition("classify ")[2].split() for line in done.out.splitlines() if "• classify " in line]
    assert len(lines) == 2
    assert all(line[0] == name for line in lines)
    options = {word for line in lines for word in line if word.startswith("-")}
    assert [option for option in options if f"{option} " not in done.out.partition("Examples")[0]] == []


def test_version_old_names_and_completion(classify):
    """One line with the version; old names of commands are hidden and work; the shells are offered completion."""
    assert classify("--version").out.startswith("affectory ")
    shown = classify("--help").out
    assert "--install-completion" in shown
    for old, name in (("curve", "learning-curve"), ("test", "evaluate")):
        assert f"│ {old} " not in shown
        assert f"│ {name} " in shown
        assert classify(old, "--help").code == 0


def test_a_class_name_stays_within_its_cell(make_store, classify):
    """Line breaks and marks of direction in the name of an output are written as escapes."""
    task = Task("t", "regression", ("up\nset", "\u202eleft"), (-1.0, 1.0))
    y, x = np.random.default_rng(0).uniform(-1, 1, size=(2, 60, 2)).astype(np.float32)
    place = make_store({"a.pool": x}, [Labels(task, y)], [Split("default", np.resize([0, 0, 1, 2], 60))])
    done = classify("run", place, "--task", "t", "--head", "dummy", "--out", "runs/here")
    assert done.code == 0, done.err
    for text in (done.out, classify("compare", "runs").out):
        assert "up\\nset" in text
        assert "\\u202eleft" in text
        assert "\u202e" not in text
        assert not any(line.startswith("set") for line in text.splitlines())


def test_help_imports_nothing_heavy():
    """`--help` stays quick: no learning library and no template engine is imported for it."""
    heavy = {"torch", "sklearn", "scipy", "lightgbm", "jinja2", "matplotlib"}
    code = f"import sys, classify.__main__; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_paired_comparison(classify, store, runs_folder, tmp_path):
    """``compare --paired`` adds the pairs of heads of each board; baselines are no heads."""
    text = classify("compare", runs_folder / "polarity", "--paired").out
    assert "there are no two heads to compare" in text
    assert "id-only" in text
    weak = ["--blocks", "alpha.pool", "--set", "C=1e-9", "--out", tmp_path / "weak"]
    done = classify("run", store, "--task", "polarity", "--head", "linear", *weak)
    assert done.code == 0, done.err
    both = [runs_folder / "polarity", tmp_path / "weak"]
    assert "linear – weak (linear)" in classify("compare", *both, "--paired").out
    (pair,) = json.loads(classify("compare", *both, "--paired", "--json").out)[0]["pairs"]
    assert (pair["better"], pair["mcnemar"]) == ("linear", None)
    assert pair["p_holm"] == pair["difference"]["p"] < 0.05


def test_audit_and_curve_leave_files(classify, store, tmp_path):
    """Both write one file where the report looks for it, and nothing is overwritten unasked."""
    done = classify("run", store, "--task", "polarity", "--head", "linear", "--blocks", "alpha.pool")
    assert done.code == 0, done.err
    arguments = ["audit", store, "--task", "polarity", "--blocks", "alpha.pool"]
    done = classify(*arguments)
    assert done.code == 0, done.err
    assert "where none is wrong, about" in done.out
    found = json.loads((tmp_path / "runs/planted/polarity/audit.json").read_text())
    assert found["blocks"] == ["alpha.pool"]
    assert classify(*arguments).code == 2
    assert classify(*arguments, "--threshold", "2", "--force").code == 2

    done = classify("learning-curve", "runs", "--points", "2", "--repeats", "1")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "runs/planted/polarity/linear/curve.json").read_text())["points"]
    refused = classify("curve", "runs")
    assert refused.code == 2
    assert "--force" in refused.err
