"""A package that is not installed: one sentence with the line that installs it, whichever command wants it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from features_store.extras import EXTRA_OF

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


EXTRACT = ",".join(name for name, extra in EXTRA_OF.items() if extra == "extract")


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
    for extra in set(EXTRA_OF.values()) - {""}:
        assert re.search(rf"(?m)^{extra} = \[", declared), extra


def test_other_missing_modules_are_no_user_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that no extra brings is a fault of the program, and is shown as one."""
    from features_store import console

    def broken() -> None:
        message = "No module named 'nowhere'"
        raise ModuleNotFoundError(message, name="nowhere")

    with pytest.raises(ModuleNotFoundError):
        console.main(broken)
