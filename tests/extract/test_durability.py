"""Kills, full disks and watchers: an extraction loses nothing and shows nothing half-written."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import features_store as fs

HERE = Path(__file__).parent


@pytest.mark.parametrize("n", [12, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_at_random_instants(tmp_path: Path, n: int) -> None:
    """SIGKILL at random instants: each file opens, no row is torn, and the resumed block is byte-equal."""
    done = subprocess.run(
        [sys.executable, HERE / "zygote.py", tmp_path, str(n), "0", "1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kills, stores, resumed = map(int, done.stdout.split())
    assert kills >= n
    assert stores >= 2
    assert resumed >= 2


WRITER = """
import sys, numpy as np, features_store as fs
from features_store import writer
writer._COMMIT_SECONDS = 0.005
index = fs.Index(np.array([f"{i}.jpg" for i in range(2000)]))
with fs.BlockWriter(sys.argv[1], index, fs.BlockSpec("toy.pool", (256,), {})) as block:
    print("ready", flush=True)
    order = np.random.default_rng(0).permutation(2000)
    for rows in np.array_split(order, 200):
        block.write(rows, np.repeat(rows[:, None] % 1000 + 1.0, 256, axis=1))
"""


def test_readers_see_only_whole_rows(tmp_path: Path) -> None:
    """Plain h5py, opening the file again and again while it is written, never sees a torn row."""
    path = tmp_path / "b.h5"
    child = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    seen: set[int] = set()
    while child.poll() is None:
        with h5py.File(path, "r", locking=False) as file:
            status = file["blocks/toy.pool/status"][:, 0]
            vectors = file["blocks/toy.pool/vectors"][:, 0]
        rows = np.flatnonzero(status == 1)
        seen.add(len(rows))
        np.testing.assert_array_equal(vectors[rows], np.repeat(rows[:, None] % 1000 + 1.0, 256, axis=1))
    assert child.wait() == 0
    child.stdout.close()
    assert len(seen) > 2, "the reader must have looked while rows were coming"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


INDEX = fs.Index(np.array([f"{i}.jpg" for i in range(1000)]))


def test_a_full_disk_is_an_error_before_the_first_row(small_disk: Path) -> None:
    """The block's whole space is reserved first; nothing is left behind."""
    with pytest.raises(fs.DiskSpaceError, match="does not fit on its disk"):
        fs.BlockWriter(small_disk / "b.h5", INDEX, fs.BlockSpec("toy.pool", (4096,), {}))
    assert list(small_disk.iterdir()) == []
    fs.BlockWriter(small_disk / "b.h5", INDEX, fs.BlockSpec("toy.pool", (1024,), {})).close()


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def test_a_disk_that_fills_up_in_the_middle_loses_nothing(small_disk: Path) -> None:
    """Where the reservation was lost (a copy with holes), the error comes in the middle, and the file resumes."""
    spec, path = fs.BlockSpec("toy.pool", (1024,), {}), small_disk / "b.h5"
    fs.BlockWriter(path, INDEX, spec).close()
    subprocess.run(["fallocate", "--dig-holes", path], check=True)
    filler = small_disk / "filler"
    rows, vectors = np.arange(1000), np.ones((1000, 1024), np.float32)
    with fs.BlockWriter(path, INDEX, spec) as writer:
        writer.write(rows[:100], vectors[:100])
    fill(filler)
    with pytest.raises(fs.DiskSpaceError, match=r"b\.h5 does not fit"), fs.BlockWriter(path, INDEX, spec) as writer:
        writer.write(rows[100:], vectors[100:])
    filler.unlink()
    with fs.BlockWriter(path, INDEX, spec) as writer:
        assert writer.pending().tolist() == list(range(100, 1000))
        writer.write(writer.pending(), vectors[100:])
        writer.seal()
    np.testing.assert_array_equal(fs.open_store(path).matrix(["toy.pool"]), vectors)


HOLDER = """
import sys, time, numpy as np, features_store as fs
index = fs.Index(np.array([f"{i}.jpg" for i in range(1000)]))
with fs.BlockWriter(sys.argv[1], index, fs.BlockSpec("toy.pool", (8,), {})):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_writer_is_told_who_holds_the_block(tmp_path: Path) -> None:
    """Across processes; and a killed holder leaves no lock behind."""
    path, spec = tmp_path / "b.h5", fs.BlockSpec("toy.pool", (8,), {})
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(fs.LockedError, match=f"is being written by process {holder.pid} on {os.uname().nodename}"):
        fs.BlockWriter(path, INDEX, spec)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    started = time.monotonic()
    fs.BlockWriter(path, INDEX, spec).close()
    assert time.monotonic() - started < 5
