"""From pictures to a page, through the three command lines, on planted colours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from features_store import open_store
from tests.command import run_program


def command(*words: object) -> str:
    """Run a program and return its standard output."""
    done = run_program(*words)
    assert done.code == 0, done.err
    return done.out


def test_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One damaged picture is a row with a reason; a planted colour is learned; the page holds the number."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, red in (("warm", 190), ("cold", 60)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, 60, (40, 56, 3)) + np.array([red, 90, 250 - red])
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "photos" / name / f"{number}.jpg")
    (tmp_path / "photos" / "warm" / "broken.jpg").write_bytes((tmp_path / "photos/warm/1.jpg").read_bytes()[:400])

    command("extract", "run", "folder", "--data", "photos", "--encoders", "lowlevel", "--store", "features/photos")
    summary = json.loads(command("features-store", "info", "features/photos", "--json"))
    assert summary["blocks"]["lowlevel.features"]["status"] == {"written": 80, "truncated": 1}
    command("features-store", "verify", "features/photos")

    command("classify", "run", "features/photos", "--task", "label", "--head", "linear")
    report = json.loads((tmp_path / "runs/photos/label/linear/report.json").read_text())
    assert report["metrics"]["test"]["accuracy"]["value"] > 0.95
    assert report["baselines"]["majority"]["test"]["accuracy"]["value"] < 0.7
    assert open_store("features/photos").labels["label"].task.classes == ("cold", "warm")

    command("classify", "report", "runs/photos/label/linear", "-o", "report.html")
    assert "linear" in (tmp_path / "report.html").read_text()
