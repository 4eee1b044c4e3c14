"""Vectors are what they were: tight from a tensor, loose from a JPEG, whose decoding and resizing may change."""

from __future__ import annotations

import golden
import numpy as np
import pytest

QUICK = ("efficientnet_lite0", "lowlevel", *golden.NETWORKS)


def compare(name: str) -> None:
    with np.load(golden.path_of(name)) as file:
        expected = dict(file)
    network = golden.build(name)
    found = golden.vectors(network)
    if network.spec.needs_hub and str(found["sha256"]) != str(expected["sha256"]):
        pytest.skip("this torch draws other random weights from the same seed")
    assert found.keys() == expected.keys()
    assert str(found.pop("sha256")) == str(expected["sha256"])
    for key, values in found.items():
        size = np.abs(expected[key]).max()
        tolerance = 1e-3 if key.startswith("tensor") else 1e-2
        assert np.abs(values - expected[key]).max() <= tolerance * size, key


@pytest.mark.parametrize("name", QUICK)
def test_golden_vectors(name):
    compare(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in golden.names() if name not in QUICK])
def test_golden_vectors_of_the_large_networks(name):
    compare(name)


def test_every_encoder_of_the_table_has_golden_vectors():
    assert {path.stem for path in golden.FOLDER.glob("*.npz")} == {golden.path_of(name).stem for name in golden.names()}
