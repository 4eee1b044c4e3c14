"""One small honest dump with everything the format has; the hostile ones, the fuzzer and the archive start from it."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

import features_store as fs
from features_store.hdf5 import add_block, fill_index, new_dump

N, VIEWS, D = 24, 2, 6
BLOCK = "toy.pool"
PASSPORT = {"encoder": "toy", "weights": {"source": "random:0", "sha256": "ab" * 32}, "versions": {"toy": "1.0"}}


def index() -> fs.Index:
    """Twenty-four images with a task of each kind, both kinds of split, groups and content hashes."""
    rng = np.random.default_rng(7)
    polarity = rng.integers(-1, 3, N).astype(np.int16)
    tags = rng.integers(0, 2, (N, 3)).astype(np.uint8)
    tags[3] = 255
    valence = rng.uniform(1, 9, (N, 2)).astype(np.float32)
    valence[5] = np.nan
    tasks = (
        fs.Labels(fs.Task("polarity", "single", ("negative", "neutral", "positive"), source="by hand"), polarity),
        fs.Labels(fs.Task("tags", "multi", ("joy", "Trübsal", "fear")), tags),
        fs.Labels(fs.Task("valence", "regression", ("valence", "arousal"), range=(1.0, 9.0)), valence),
    )
    splits = (
        fs.Split("default", rng.integers(-1, 3, N).astype(np.int8)),
        fs.Split("five", rng.integers(0, 5, N).astype(np.int8), "folds"),
    )
    return fs.Index(
        np.array([f"Ärger/{i:03d}.jpg" for i in range(N)]),
        {one.task.name: one for one in tasks},
        {one.name: one for one in splits},
        rng.integers(-1, 4, N),
        rng.integers(0, 256, (N, 32)).astype(np.uint8),
        {"name": "toy", "options": {"seed": 7}},
    )


def vectors() -> np.ndarray:
    """Values that half precision holds exactly, (N, VIEWS, D) float16."""
    return np.random.default_rng(8).integers(-900, 900, (N, VIEWS, D)).astype(np.float16)


def write(path: Path) -> None:
    """Write the dump; it is made once, since hundreds are wanted."""
    path.write_bytes(_raw())


@cache
def _raw() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "dump.h5")
        return (Path(folder) / "dump.h5").read_bytes()


def make(path: Path) -> None:
    """Make the dump: one sealed block, with three failed vectors."""
    spec = fs.BlockSpec(BLOCK, (D,), PASSPORT, "float16", VIEWS, tuple(f"value {i}" for i in range(D)))
    with new_dump(path) as file:
        fill_index(file, index())
        add_block(file, spec, N)
    with fs.BlockWriter(path, index(), spec) as writer:
        for view in range(VIEWS):
            writer.write(np.arange(N), vectors()[:, view], view=view)
        writer.fail([4], fs.Status.MISSING)
        writer.fail([9], fs.Status.TRUNCATED, view=1)
        writer.seal()
