"""Each recipe of docs/extending.md is applied to a copy of the packages, and its commands are run there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_readme import make_photos

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
STEP = re.compile(r"^(\S[^\n]*):\n\n```(?:python|toml)\n(.*?)```", re.DOTALL | re.MULTILINE)
RUN = """
import runpy, sys
from tests.command import run_program
for line in sys.stdin:
    if line.startswith("python "):
        runpy.run_path(line.split()[1])
        continue
    done = run_program(line.strip())
    print(done.out, flush=True)
    if done.code:
        raise SystemExit(f"{line}{done.err}")
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """Return a folder with a copy of the packages, to which every recipe is applied, and pictures."""
    folder = tmp_path_factory.mktemp("copy")
    for package in ("features_store", "extract", "classify"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    for name in ("__init__.py", "command.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests" / name)
    for text in SECTIONS.values():
        for where, code in STEP.findall(text):
            apply(folder, where, code)
    make_photos(folder / "photos", 12)
    return folder


def apply(folder: Path, where: str, code: str) -> None:
    """Write a new file, or put a row below a line that stands once in a file, or at the end of it."""
    path, *below = re.findall(r"`(.+?)`", where)
    if "a new file" in where:
        assert not (folder / path).exists(), path
        (folder / path).write_text(code, encoding="utf-8")
        return
    text = (folder / path).read_text(encoding="utf-8")
    if below:
        assert text.count(f"{below[0]}\n") == 1, below[0]
        text = text.replace(f"{below[0]}\n", f"{below[0]}\n{code}")
    else:
        text += f"\n{code}"
    (folder / path).write_text(text, encoding="utf-8")


def test_the_recipes_run_in_their_order(copy: Path) -> None:
    """Every command ends 0; the vectors, the head and the metric are there."""
    blocks = [block for text in SECTIONS.values() for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    assert len(blocks) == len(SECTIONS) == 7
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    given = {"input": "".join(blocks), "cwd": copy, "env": environment}
    done = subprocess.run([sys.executable, "-c", RUN], **given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((copy / "runs/colour/mood/nearest-mean/report.json").read_text())
    assert report["parameters"]["sharpness"] == 2
    assert report["metrics"]["train"]["accuracy"]["value"] > 0.9  # calm is blue and tense is red
    linear = json.loads((copy / "runs/colour/mood/linear/report.json").read_text())["metrics"]["train"]
    assert linear["error_rate"]["value"] == pytest.approx(1 - linear["accuracy"]["value"])
    ordered = json.loads((copy / "runs/ordered/report.json").read_text())
    assert ordered["kind"] == "ordinal"
    assert ordered["metrics"]["train"].keys() == linear.keys()
    for store in ("careful", "second"):
        assert (copy / f"features/{store}/lowlevel.features.h5").is_file()
    assert "error_rate" in done.stdout


def test_a_recipe_that_does_not_fit_is_noticed(copy: Path) -> None:
    """The check above can fail: a line that is not there, a file that is."""
    with pytest.raises(AssertionError):
        apply(copy, "In `classify/heads/__init__.py`, below `no such line`", "x = 1\n")
    with pytest.raises(AssertionError):
        apply(copy, "`classify/heads/base.py`, a new file", "x = 1\n")
