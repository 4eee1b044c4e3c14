"""Small stores for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import features_store as fs

MakeStore = Callable[..., fs.Store]


@pytest.fixture
def make_store() -> MakeStore:
    """Return a function that writes a folder store: labels of each kind, a split, groups, and half-precision blocks."""

    def make(
        folder: Path,
        n: int = 12,
        *,
        blocks: tuple[str, ...] = ("one.pool", "two.pool"),
        prefix: str = "set",
        failed: tuple[int, ...] = (),
        passport: dict | None = None,
        seed: int = 0,
    ) -> fs.Store:
        rng = np.random.default_rng(seed)
        index = fs.Index(
            np.array([f"{prefix}/{i:03d}.jpg" for i in range(n)]),
            {
                "mood": fs.Labels(fs.Task("mood", "single", ("bad", "good"), source="toy"), np.arange(n) % 2),
                "tags": fs.Labels(fs.Task("tags", "multi", ("x", "y")), rng.integers(0, 2, (n, 2))),
                "va": fs.Labels(fs.Task("va", "regression", ("v",), (1, 9)), rng.uniform(1, 9, (n, 1))),
            },
            {"default": fs.Split("default", np.arange(n) % 3)},
            np.arange(n) // 2,
            None,
            {"reader": "toy"},
        )
        folder.mkdir(parents=True)
        fs.write_index(folder / "index.h5", index)
        for name in blocks:
            spec = fs.BlockSpec(name, (4,), passport or {"encoder": name, "weights": {"source": "toy", "sha256": "ab"}})
            with fs.BlockWriter(folder / f"{name}.h5", index, spec) as writer:
                good = np.setdiff1d(np.arange(n), failed)
                writer.write(good, rng.integers(-99, 99, (len(good), 4)))
                writer.fail(failed, fs.Status.TRUNCATED)
                writer.seal()
        return fs.open_store(folder)

    return make


@pytest.fixture
def run_command(capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs ``features-store`` in this process: exit code, output, errors."""
    from features_store.__main__ import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["features-store", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return code, captured.out, captured.err

    return run
