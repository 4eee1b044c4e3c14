"""Low-level features on images whose features are known."""

from __future__ import annotations

import numpy as np
import pytest

from extract.encoders import Weights, build_encoders, find_encoders
from extract.encoders.lowlevel import SIDE, describe, feature_names

NAMES = np.array(feature_names())


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def part(vector: np.ndarray, start: str) -> np.ndarray:
    return vector[[name.startswith(start) for name in NAMES]]


def test_each_value_has_its_own_name(noise):
    assert len(describe(noise)) == len(NAMES) == len(set(NAMES)) == 973


def test_histograms_are_shares(noise):
    vector = describe(noise)
    for channel in ["red", "green", "blue", "hue", "saturation", "value"]:
        assert part(vector, f"{channel} ").sum() == pytest.approx(1)
    counts = np.histogram(noise[..., 1], bins=16, range=(0, 256))[0] / SIDE**2
    assert part(vector, "green ") == pytest.approx(counts)
    assert part(vector, "lbp ").reshape(4, 10).sum(axis=1) == pytest.approx(1)


def test_colourfulness_by_hand():
    flat = np.full((SIDE, SIDE, 3), 90, np.uint8)
    assert part(describe(flat), "colourfulness") == pytest.approx(0)
    halves = np.zeros((SIDE, SIDE, 3), np.uint8)
    halves[: SIDE // 2, :, 0] = 255  # red over black: rg is 1 and 0, yb is 0.5 and 0
    spread, mean = np.hypot(0.5, 0.25), np.hypot(0.5, 0.25)
    assert part(describe(halves), "colourfulness") == pytest.approx(spread + 0.3 * mean)


@pytest.mark.parametrize(("axis", "direction"), [(1, "0"), (0, "90")])
@pytest.mark.parametrize("wavelength", [4, 8, 16, 32])
def test_a_grating_answers_in_its_own_filter(axis, direction, wavelength):
    wave = 127 + 120 * np.sin(2 * np.pi * np.arange(SIDE) / wavelength)
    grating = np.broadcast_to(np.expand_dims(wave, 1 - axis), (SIDE, SIDE)).astype(np.uint8)
    vector = describe(np.repeat(grating[..., None], 3, axis=2))
    sums = {name.rpartition(" field ")[0]: 0.0 for name in NAMES if name.startswith("gabor")}
    for name, value in zip(NAMES, vector, strict=True):
        if name.startswith("gabor"):
            sums[name.rpartition(" field ")[0]] += value
    assert max(sums, key=sums.get) == f"gabor wavelength {wavelength} direction {direction}"


def test_any_image_gives_finite_values(noise):
    (network,) = build_encoders(find_encoders(["lowlevel"]), Weights())
    for rgb in (noise[:1, :1], noise[:1], np.zeros((5, 900, 3), np.uint8), np.full((300, 2, 3), 255, np.uint8)):
        assert np.isfinite(network.prepare(rgb)).all()
