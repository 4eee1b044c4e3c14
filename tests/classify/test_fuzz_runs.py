"""A short walk of the fuzzer over what runs are shared as; `make fuzz` and the slow tests walk on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_runs import Fuzz


def test_a_short_walk(store, runs_folder, tmp_path) -> None:
    """Every mutation is refused in a sentence, or read."""
    fuzz = Fuzz(store, runs_folder / "polarity", tmp_path)
    ends = [fuzz.case(number) for number in range(48)]
    assert set(ends) == {"refused", "read"}


@pytest.mark.slow
def test_a_long_walk() -> None:
    script = Path(__file__).with_name("fuzz_runs.py")
    environment = {**os.environ, "PYTHONPATH": str(script.parents[2])}
    subprocess.run([sys.executable, str(script), "--seconds", "120"], check=True, timeout=600, env=environment)
