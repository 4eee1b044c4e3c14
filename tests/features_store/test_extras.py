"""A package that is not installed: one sentence with the line that installs it, whichever command wants it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import features_store as fs
from features_store.__main__ import app
from features_store.console import EXTRAS

ROOT = Path(__file__).parents[2]
BLOCK = """
import importlib.abc, os, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["ABSENT"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def run(tmp_path: Path, absent: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command where some packages cannot be imported."""
    (tmp_path / "site").mkdir(exist_ok=True)
    (tmp_path / "site/sitecustomize.py").write_text(BLOCK, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "ABSENT": absent}
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images in class folders."""
    from PIL import Image

    root = tmp_path_factory.mktemp("photos")
    for name, colour in (("calm", "red"), ("tense", "blue")):
        (root / name).mkdir()
        Image.new("RGB", (16, 16), colour).save(root / name / "a.jpg")
    return root


EXTRACT = ",".join(sorted(set(EXTRAS["extract"]) - set(EXTRAS["classify"])))


@pytest.mark.parametrize(
    ("absent", "command", "extra"),
    [
        (EXTRACT, ["extract", "run", "folder", "--encoders", "lowlevel", "--data"], "'affectory[extract]'"),
        ("imagehash", ["extract", "check", "folder", "--data"], "'affectory[extract]'"),
    ],
)
def test_one_sentence_with_the_line_to_type(
    absent: str, command: list[str], extra: str, photos: Path, tmp_path: Path
) -> None:
    """Exit code 2, nothing on the standard output, no traceback, nothing written."""
    ended = run(tmp_path, absent, *command, photos)
    errors = [line for line in ended.stderr.splitlines() if not line.startswith(("note: ", "warning: "))]
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    assert len(errors) == 1, ended.stderr
    assert re.fullmatch(r"error: this needs the package '\w+', which is not installed: pip install .+", errors[0])
    assert extra in errors[0]


def test_the_table_is_that_of_the_project_file() -> None:
    """Every extra that the table names is declared, with as many distributions at least as the table has names."""
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in EXTRAS:
        assert re.search(rf"(?m)^{extra} = \[", declared), extra


BASE_ONLY = ",".join(sorted({name for names in EXTRAS.values() for name in names}))


def test_the_store_works_with_the_base_install(tmp_path: Path, make_store) -> None:
    """With numpy, h5py, typer and tqdm alone all commands work; stratification needs an extra, in one sentence."""
    store = tmp_path / "s"
    make_store(store, 30)
    np.savez(tmp_path / "m.npz", x=np.ones((30, 2)), ids=fs.open_store(store).ids)
    lines = [
        ["info", store],
        ["verify", store],
        ["subset", store, "-o", tmp_path / "a.h5", "--sample", 20, "--no-blocks"],
        ["merge", tmp_path / "a.h5", store, "--join", "-o", tmp_path / "c.h5"],
        ["relabel", store, tmp_path / "a.h5", "-o", tmp_path / "d.h5"],
        ["import", store, tmp_path / "m.npz", "-n", "new", "-o", tmp_path / "e.h5"],
        ["export", store, "-b", "one.pool", "-o", tmp_path / "f.csv"],
        ["splits", store, "-n", "new", "--folds", 3, "-o", tmp_path / "g.h5"],
        ["splits", store, "-n", "new", "--folds", 3, "--task", "mood", "-o", tmp_path / "h.h5"],
    ]
    code = "import runpy, shlex, sys\nfor line in sys.argv[1:]:\n    sys.argv = shlex.split(line)\n    try:\n"
    code += "        runpy.run_module('features_store', run_name='__main__')\n    except SystemExit as ended:\n"
    code += "        print('ended', sys.argv[1], ended.code)\n"
    (tmp_path / "all.py").write_text(code)
    ended = run(tmp_path, BASE_ONLY, "all", *(shlex.join(["features-store", *map(str, line)]) for line in lines))
    codes = [line.split()[1:] for line in ended.stdout.splitlines() if line.startswith("ended ")]
    assert codes == [[str(line[0]), "0"] for line in lines[:-1]] + [["splits", "2"]], ended.stderr
    assert ended.stderr == (
        "error: stratified splits need a package that is not installed: pip install 'affectory[classify]'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, "classify  train shallow heads"),
        ([], 0, "affectory PROGRAM --help"),
        (["--version"], 0, "affectory "),
        (["stor"], 2, "unknown program 'stor' (did you mean 'store'?); valid: classify, extract, store"),
        (["store", "--version"], 0, "affectory "),
        (["extract", "--help"], 0, "corpora"),
        (["classify", "--help"], 0, "leaderboard|report"),
    ],
)
def test_the_program_above_the_three(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    """`affectory` names the programs, and imports one only when it is called."""
    (tmp_path / "above.py").write_text("import sys\nfrom features_store.console import affectory\naffectory()\n")
    absent = BASE_ONLY + ("" if arguments[:1] in (["extract"], ["classify"]) else ",extract,classify")
    ended = run(tmp_path, absent, "above", *arguments)
    assert ended.returncode == code, ended.stderr
    assert re.search(words if "|" in words else re.escape(words), ended.stdout + ended.stderr)


@pytest.mark.parametrize("command", [command.name or command.callback.__name__ for command in app.registered_commands])
def test_help_has_panels_and_two_examples(run_command, command: str) -> None:
    """Options stand in named panels, choices are listed, and two lines can be copied."""
    code, said, _ = run_command(command.rstrip("_"), "--help")
    assert code == 0
    assert said.count("features-store ") >= 2
    assert "What is written" in said or command == "diff"


def test_other_missing_modules_are_no_user_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that no extra brings is a fault of the program, and is shown as one."""
    from features_store import console

    def broken() -> None:
        message = "No module named 'nowhere'"
        raise ModuleNotFoundError(message, name="nowhere")

    with pytest.raises(ModuleNotFoundError):
        console.main(broken)
