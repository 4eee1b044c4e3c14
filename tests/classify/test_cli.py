"""The command line as a person or a script meets it: in a process of its own."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def classify(tmp_path):
    """Return a function that runs ``classify`` in an empty folder."""

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "classify", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd(), "COLUMNS": "200"},
            timeout=120,
            check=False,
        )

    return call


def test_run_then_compare_then_report(classify, store, tmp_path):
    """The three commands in a row: a run in its default place, a leaderboard, a page; the second time refused."""
    arguments = ["run", store, "--task", "valence", "--head", "linear", "--blocks", "alpha.pool", "--seed", 1]
    done = classify(*arguments)
    assert done.returncode == 0, done.stderr
    assert "majority baseline" in done.stdout
    assert "file names alone reach RMSE" in done.stdout
    assert "left out (no label)" in done.stderr
    assert (tmp_path / "runs/planted/valence/linear/report.json").is_file()

    again = classify(*arguments)
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert classify(*arguments, "--force").returncode == 0

    board = json.loads(classify("compare", "runs", "--json").stdout)[0]
    assert (board["task"], board["rows"][0]["head"], board["part"]) == ("valence", "linear", "test")
    assert classify("report", "runs", "-o", "page.html").returncode == 0
    refused = classify("report", "runs", "-o", "page.html")
    assert refused.returncode == 2
    assert "--force" in refused.stderr


def test_compare_prints_intervals_and_the_baseline(classify, runs_folder):
    """Each board has a line per run and one for the majority baseline, with intervals."""
    text = classify("compare", runs_folder).stdout
    assert sum(line.split()[:1] == ["majority"] for line in text.splitlines()) == 4
    assert text.count("is the baseline") == 4
    assert "weighted F1" in text
    assert "RMSE" in text


def test_heads_are_listed(classify):
    """The table of heads, for people and for programs, and the options of one."""
    assert "mlp" in classify("heads").stdout
    assert "kernel=rbf" in classify("heads", "svm").stdout
    assert "did you mean 'svm'?" in classify("heads", "svn").stderr
    heads = {head["name"]: head for head in json.loads(classify("heads", "--json").stdout)}
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
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_help_imports_nothing_heavy():
    """`--help` stays quick: no learning library and no template engine is imported for it."""
    heavy = {"torch", "sklearn", "scipy", "lightgbm", "jinja2", "matplotlib"}
    code = f"import sys, classify.__main__; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_paired_comparison(classify, store, runs_folder, tmp_path):
    """``compare --paired`` adds the pairs of heads of each board; baselines are no heads."""
    text = classify("compare", runs_folder / "polarity", "--paired").stdout
    assert "there are no two heads to compare" in text
    assert "id-only" in text
    weak = ["--blocks", "alpha.pool", "--set", "C=1e-9", "--out", tmp_path / "weak"]
    done = classify("run", store, "--task", "polarity", "--head", "linear", *weak)
    assert done.returncode == 0, done.stderr
    both = [runs_folder / "polarity", tmp_path / "weak"]
    assert "linear – weak (linear)" in classify("compare", *both, "--paired").stdout
    (pair,) = json.loads(classify("compare", *both, "--paired", "--json").stdout)[0]["pairs"]
    assert (pair["better"], pair["mcnemar"]) == ("linear", None)
    assert pair["p_holm"] == pair["difference"]["p"] < 0.05


def test_audit_and_curve_leave_files(classify, store, tmp_path):
    """Both write one file where the report looks for it, and nothing is overwritten unasked."""
    done = classify("run", store, "--task", "polarity", "--head", "linear", "--blocks", "alpha.pool")
    assert done.returncode == 0, done.stderr
    arguments = ["audit", store, "--task", "polarity", "--blocks", "alpha.pool"]
    done = classify(*arguments)
    assert done.returncode == 0, done.stderr
    assert "where none is wrong, about" in done.stdout
    found = json.loads((tmp_path / "runs/planted/polarity/audit.json").read_text())
    assert found["blocks"] == ["alpha.pool"]
    assert classify(*arguments).returncode == 2
    assert classify(*arguments, "--threshold", "2", "--force").returncode == 2

    done = classify("curve", "runs", "--points", "2", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "runs/planted/polarity/linear/curve.json").read_text())["points"]
    refused = classify("curve", "runs")
    assert refused.returncode == 2
    assert "--force" in refused.stderr
