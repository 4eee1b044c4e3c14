"""A few seconds of mutation fuzzing, and the proof that the fuzzer would tell; `make fuzz` takes longer."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import fuzz
import numpy as np
import pytest


def test_mutations_are_refused_or_read() -> None:
    """No mutation crashes, hangs, fills the memory or raises anything but an error of ours."""
    counts, findings = fuzz.run(200, first=0, cases=120)
    assert not findings, "\n".join(findings)
    assert min(counts.values()) >= 20


@pytest.mark.parametrize(
    ("ending", "expected"),
    [("os.abort()", "exit code -6"), ("raise ValueError('odd')", "exit code 1 .*ValueError: odd")],
)
def test_a_crash_is_told(ending, expected) -> None:
    """A child that dies is a finding that names the mutation it was at."""
    code = f"import os; print(41); print('read'); print(42, flush=True); {ending}"
    _, findings = fuzz.run(1, first=41, program=(sys.executable, "-c", code))
    assert findings
    assert re.match(f"mutation 42: {expected}", findings[0])


def test_mutations_are_repeatable_and_spare_the_data() -> None:
    """A number stands for the same mutation; only metadata are changed in place."""
    with tempfile.TemporaryDirectory() as folder:
        files = fuzz.seeds(Path(folder))
    differing = 0
    for number in range(60):
        raw, places = files[number % len(files)]
        changed = fuzz.mutated(files, number)
        assert changed == fuzz.mutated(files, number)
        assert len(changed) == len(raw)
        differing += changed != raw
        assert len(places) < len(raw)
        assert np.all(np.diff(places) > 0)
    assert differing > 50
