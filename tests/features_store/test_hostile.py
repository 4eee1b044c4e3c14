"""Every hostile file is refused in one sentence, or read correctly; none crashes, hangs or fills the memory."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import honest
import hostile
import numpy as np
import pytest

import features_store as fs
from features_store import console
from features_store.__main__ import app

_READ_ALL = """
import json, pathlib, resource, sys, time
import features_store as fs
from features_store.summary import summarise

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

folder, honest = map(pathlib.Path, sys.argv[1:])
summarise(fs.open_store(honest))
before = peak()
found = {}
for path in sorted(folder.iterdir()):
    start = time.process_time()
    try:
        store = fs.open_store(path)
        summarise(store)
        store.matrix(list(store.blocks), on_failed="nan")
        said = None
    except fs.AffectoryError as error:
        said = f"{type(error).__name__}: {error}"
    found[path.name] = [said, peak(), time.process_time() - start]
print(json.dumps([before, found]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> tuple[Path, dict[str, hostile.Hostile]]:
    """All hostile files."""
    made = tmp_path_factory.mktemp("hostile") / "files"
    return made, hostile.make_folder(made)


@pytest.fixture(scope="module")
def outcomes(folder, tmp_path_factory) -> tuple[int, dict[str, list]]:
    """Peak memory in MiB before; of each file the error, the peak after it, and the processor seconds it took."""
    good = tmp_path_factory.mktemp("honest") / "good.h5"
    honest.write(good)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _READ_ALL, str(folder[0]), str(good)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=limit,
        env={"OPENBLAS_NUM_THREADS": "1", "PATH": ""},
    )
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    before, found = json.loads(done.stdout)
    return before, found


def test_all_are_refused_or_read(folder, outcomes) -> None:
    """Each file meets the fate that its maker expects."""
    _, cases = folder
    assert len(cases) >= 100
    wrong = []
    for name, case in cases.items():
        said = outcomes[1][name][0]
        good = said is None if case.refusal is None else said is not None and re.search(case.refusal, said)
        if not good:
            wrong.append(f"{case.name}: expected {case.refusal}, got {said}")
    assert not wrong, "\n".join(wrong)


def test_none_fills_the_memory(folder, outcomes) -> None:
    """The peak of the process that reads them all stays within 100 MiB of its peak after an honest file."""
    before, found = outcomes
    worst = max(peak for _, peak, _ in found.values())
    first = next(name for name, (_, peak, _) in found.items() if peak == worst)
    assert worst - before <= 100, f"{worst - before} MiB at {folder[1][first].name}"


def test_none_takes_long(folder, outcomes) -> None:
    """A file of a few kilobytes is decided within seconds of processor time."""
    slow = {folder[1][name].name: seconds for name, (_, _, seconds) in outcomes[1].items() if seconds > 5}
    assert not slow


def test_none_crashes_the_command_line(folder, capsys, monkeypatch) -> None:
    """`features-store info` ends with exit code 2 and one line for a refused file, and with 0 for the others."""
    path, cases = folder
    wrong = []
    for name, case in [*cases.items()][::3]:  # what opening gives is checked above, of every file
        monkeypatch.setattr(sys, "argv", ["features-store", "info", str(path / name)])
        with pytest.raises(SystemExit) as ended:
            console.main(app)
        said = capsys.readouterr().err
        code = ended.value.code or 0
        one_line = said.count("\n") == 1 and said.startswith("error: ") and len(said) < 900
        if (code, one_line) != ((0, False) if case.refusal is None else (2, True)):
            wrong.append(f"{case.name}: exit code {code}, {said[:300]!r}")
    assert not wrong, "\n".join(wrong)


def test_what_may_be_read_is_read_correctly(folder) -> None:
    """Foreign layouts and unknown parts change no value."""
    path, cases = folder
    expected, index = honest.vectors().astype(np.float32), honest.index()
    names = [name for name, case in cases.items() if case.refusal is None]
    assert len(names) >= 8
    for name in names:
        store = fs.open_store(path / name)
        assert store.ids.tolist() == index.ids.tolist()
        for task, labels in index.labels.items():
            np.testing.assert_array_equal(store.labels[task].values, labels.values, err_msg=cases[name].name)
        for split in index.splits:
            np.testing.assert_array_equal(store.splits[split].values, index.splits[split].values)
        rows = np.random.default_rng(0).permutation(honest.N)
        for view in range(honest.VIEWS):
            read = store.matrix([honest.BLOCK], rows, view=view, on_failed="nan")
            good = store.usable([honest.BLOCK], view=view)[rows]
            assert good.sum() == honest.N - 1 - view
            np.testing.assert_array_equal(read[good], expected[rows[good], view], err_msg=cases[name].name)
            assert np.isnan(read[~good]).all()
        good = store.blocks[honest.BLOCK].status == fs.Status.WRITTEN
        np.testing.assert_array_equal(store.blocks[honest.BLOCK].vectors[good], honest.vectors()[good])
