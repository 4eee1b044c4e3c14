"""Whatever a device delays, reorders or refuses, the vectors are those of a direct pass, each in its own row."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from late import Late

from extract import pipeline
from extract.corpora.dataset import Dataset
from extract.encoders.spec import Encoder, EncoderSpec, Tap
from extract.engines.local import LocalEngine
from extract.errors import DeviceFault, RefusedImageError
from extract.settings import RunSettings
from features_store import Index, Status, open_store

N_IMAGES = 11


class Grey:
    """Pictures of one grey level each; some of them are missing."""

    def __init__(self, missing: set[int]) -> None:
        self.missing = missing

    def __len__(self) -> int:
        return N_IMAGES

    def read(self, row: int) -> bytes:
        if row in self.missing:
            raise RefusedImageError(Status.MISSING, "planted")
        return b"P5 4 4 255\n" + bytes([row * 10]) * 16

    def modified(self, row: int) -> float:
        return float("nan")


class Levels(torch.nn.Module):
    """Answers with the first pixel, and with what only that image could give."""

    def forward(self, x):
        first = x[:, 0, 0, :1].float()
        return torch.cat([first, first], dim=1), torch.cat([first * 2, first + 1], dim=1)


def encoder() -> Encoder:
    spec = EncoderSpec("levels", "", "affectory", "", (Tap("one", (2,)), Tap("two", (2,))), needs_weights=False)
    return Encoder(
        spec,
        lambda rgb: np.full((3, 4, 4), rgb[0, 0, 0]),
        (3, 4, 4),
        {"one": (2,), "two": (2,)},
        {},
        {},
        module=Levels(),
        outputs=lambda module, x: dict(zip(("one", "two"), module(x), strict=True)),
    )


def run(store: Path, missing: set[int], device: Late, **how: object) -> None:
    dataset = Dataset(Index(np.array([f"{row:02}.pgm" for row in range(N_IMAGES)])), Grey(missing))
    options = RunSettings(compile="off", precision="float32", max_failed="100%", decode_threads=2, **how)
    pipeline.run(dataset, [encoder()], store, options, LocalEngine(options, device))


def check(store: Path, missing: set[int], n_views: int, limit: int) -> None:
    """View 0 holds the grey level of its own row; other views are darker or brighter copies of it."""
    blocks = open_store(store).blocks
    one, two = blocks["levels.one"], blocks["levels.two"]
    expected = [Status.MISSING if row in missing else Status.WRITTEN for row in range(limit)]
    for block in (one, two):
        assert block.status.shape == (N_IMAGES, n_views)
        assert all((block.status[:limit, view] == expected).all() for view in range(n_views))
        assert (block.status[limit:] == Status.PENDING).all()
    written = [row for row in range(limit) if row not in missing]
    levels = np.asarray(one.vectors)[written][:, :, 0].astype(float)
    assert np.array_equal(levels[:, 0], [row * 10 for row in written])
    assert np.array_equal(np.asarray(two.vectors)[written][:, :, 0], levels * 2)
    assert np.array_equal(np.asarray(two.vectors)[written][:, :, 1], levels + 1)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 99),
    delay=st.sampled_from([0.0, 0.002, 0.01]),
    n_slots=st.integers(1, 4),
    batch_size=st.integers(1, 7),
    n_views=st.integers(1, 3),
    missing=st.sets(st.integers(0, N_IMAGES - 1), max_size=8),
    limit=st.integers(1, N_IMAGES),
    dies_at=st.none() | st.integers(1, 6),
)
def test_rows_get_their_own_vectors(seed, delay, n_slots, batch_size, n_views, missing, limit, dies_at):
    kind = type("Late", (Late,), {"delay": delay, "n_slots": n_slots, "seed": seed})
    how = {"batch_size": batch_size, "views": n_views, "limit": limit}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        dying = kind()
        dying.dies_at = dies_at
        with contextlib.suppress(DeviceFault):
            run(store, missing, dying, **how)
        alive = kind()
        run(store, missing, alive, **how)  # the same command ends it
        check(store, missing, n_views, limit)
        assert not dying.torn + alive.torn


class Careless(Late):
    """A device that does not wait until a batch has left its memory."""

    delay = 0.02

    def start(self, function, batch):
        _, landed = super().start(function, batch)
        return (lambda: None), landed


class Swapped(Late):
    """A device that gives the taps in another order."""

    def start(self, function, batch):
        return super().start(lambda pixels: list(function(pixels))[::-1], batch)


class Early(Late):
    """A device whose vectors are taken from their memory before they have landed there."""

    def start(self, function, batch):
        (left, landed), memory = super().start(function, batch), np.zeros((2, len(batch), 2), np.float32)

        def land() -> None:
            memory[:] = landed()[0]

        threading.Thread(target=land).start()
        return left, lambda: (list(memory), 0.0)


@pytest.mark.parametrize("device", [Careless, Swapped, Early])
def test_a_wrong_device_would_be_noticed(tmp_path, device):
    late = device()
    run(tmp_path, set(), late, batch_size=1)
    assert bool(late.torn) == (device is Careless)
    with pytest.raises(AssertionError):
        check(tmp_path, set(), 1, N_IMAGES)
