"""Every writing command, killed between its file operations and given again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_no_kill_loses_or_leaves_anything() -> None:
    script = Path(__file__).with_name("kills.py")
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1])}
    command = [sys.executable, str(script), "--kills", "4"]
    subprocess.run(command, check=True, timeout=3600, cwd=script.parents[1], env=environment)
