"""The README is run: every command of its blocks, on a small folder of pictures."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command import run_program

ROOT = Path(__file__).parents[1]
# What a test machine must do otherwise: no hub, so the network that needs none; few pictures, so a small sweep.
SUBSTITUTES = {
    "--profile fusion": "--encoders lowlevel",
    'profile="fusion"': 'encoders="lowlevel"',
    'load_encoder("efficientnet_lite0")': 'load_encoder("lowlevel")',
    "efficientnet_lite0.pool": "lowlevel.features",
    '"report.html"': '"python.html"',
}


def blocks() -> list[str]:
    """Shell commands of the README, comments cut off."""
    text = (ROOT / "README.md").read_text()
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for language, block in fenced if not language for line in block.splitlines()]
    return [
        re.split(r"\s{2,}#", line)[0].strip()
        for line in lines
        if re.match(r"(extract|classify|features-store|make) ", line)
    ]


COMMANDS = blocks()
OWN_IMAGES = [line for line in COMMANDS if not line.startswith("make ") and "photos" in line]


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make ")])
def test_make_targets_exist(line: str) -> None:
    """Each target that the README names is one."""
    target = line.split()[1]
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def make_photos(folder: Path, n_each: int) -> None:
    """Write ``calm/*.jpg`` and ``tense/*.jpg``: noise around blue and around red."""
    rng = np.random.default_rng(0)
    for name, colour in (("calm", (60, 90, 200)), ("tense", (200, 40, 30))):
        (folder / name).mkdir(parents=True)
        for number in range(n_each):
            pixels = (np.array(colour) + rng.integers(-40, 40, (48, 64, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A working folder with ``photos/CLASS/*.jpg``: blue calm pictures and red tense ones."""
    place = tmp_path_factory.mktemp("readme")
    make_photos(place / "photos", 12)
    return place


def test_one_page_on_ones_own_images(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands for one's own images end 0, in the README's order, and leave a store, a run and a page."""
    monkeypatch.chdir(photos)
    assert len(OWN_IMAGES) >= 3, "the README's page on one's own images was not found"
    for line in OWN_IMAGES:
        for old, new in SUBSTITUTES.items():
            line = line.replace(old, new)  # noqa: PLW2901
        done = run_program(line)
        assert done.code == 0, f"{line}\n{done.err}"
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))
    assert code.count("import ") == 2, "one example of each stage"
    for old, new in SUBSTITUTES.items():
        code = code.replace(old, new)
    exec(compile(code, "README.md", "exec"), {})
    assert (photos / "report.html").stat().st_size > 10_000
    assert (photos / "python.html").stat().st_size > 10_000
    assert (photos / "calm.zip").is_file()
    assert (photos / "runs/photos/label/auto/report.json").is_file()


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith("make ")])
def test_every_command_knows_its_options(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is only shown, with placeholders, has the sub-command and the options that it shows."""
    monkeypatch.setenv("COLUMNS", "200")
    program, command, *words = line.split()
    done = run_program(program, command, "--help")
    assert done.code == 0, line
    shown = {word for word in words if word.startswith("-")}
    assert {option for option in shown if option not in done.out} == set(), line


def test_the_experiment_in_one_file(tmp_path: Path) -> None:
    """The README's file is a valid one, and says what the README says of it."""
    from classify.config import load_config

    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "run.toml").write_text(block)
    config = load_config(tmp_path / "run.toml", {})
    assert (config.head, config.refit, config.settings["cost"]) == ("mlp", True, [[0, 2], [1, 0]])
    assert config.merge == {"tense": ("angry", "afraid")}
