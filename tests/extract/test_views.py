"""Views: drawn from id and number alone, within the ranges of their policy, and equal whoever makes them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from extract import pipeline
from extract.corpora import find_corpus
from extract.errors import EncoderError
from extract.inputs.views import EDGE, POLICIES, Views
from extract.settings import RunSettings
from features_store import MismatchError, Status, open_store


def ramp(height: int, width: int) -> np.ndarray:
    """An image whose red is the column and whose green is the row."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 90)], axis=-1).astype(np.uint8)


def fitted(view: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, float]:
    """Least-squares map from the pixels of a view to those of the ramp: 2 x 2 matrix, largest residual."""
    y, x = np.nonzero(inside)
    design = np.stack([x, y, np.ones_like(x)], axis=1).astype(float)
    found, *_ = np.linalg.lstsq(design, view[y, x, :2].astype(float), rcond=None)
    return found[:2].T, float(np.abs(design @ found - view[y, x, :2]).max())


def test_view_zero_is_the_image_itself():
    rgb = ramp(30, 40)
    for policy in POLICIES:
        assert Views(3, policy).make(rgb, "a.jpg", 0) is rgb


@pytest.mark.parametrize("policy", POLICIES)
def test_a_view_depends_on_id_and_number_and_on_nothing_else(policy):
    rgb = ramp(200, 250)
    make = Views(9, policy).make
    one = make(rgb, "a.jpg", 5)
    others = [make(rgb, "a.jpg", 4), make(rgb, "b.jpg", 5), make(rgb, "a.jpg", 6)]
    assert np.array_equal(Views(50, policy).make(rgb, "a.jpg", 5), one)  # whatever was made before, or will be
    assert all(other.shape != one.shape or not np.array_equal(other, one) for other in others)


# The pixels, once and for all: another machine, or another version of a library, must not change them.
GOLDEN = {
    "mediaeval": "8effc9a9628c9d47",
    "flip-rotate-crop": "b456b52ab8773314",
    "random-crop": "503cc3d25e557037",
    "strong": "3af3ad8656742d8e",
}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_pixels_are_the_same_everywhere(policy):
    rgb = np.random.default_rng(0).integers(0, 256, (1000, 700, 3), dtype=np.uint8)
    digest = hashlib.sha256()
    for view in range(1, 5):
        digest.update(Views(5, policy).make(rgb, "königsberg/1.jpg", view).tobytes())
    assert digest.hexdigest()[:16] == GOLDEN[policy]


def test_rotation_flip_and_crop_stay_within_their_policy():
    rgb = ramp(200, 240)
    angles, flips = [], 0
    for view in range(1, 81):
        found = Views(81, "flip-rotate-crop").make(rgb, "a.jpg", view)
        assert found.shape == (175, 210, 3)  # 0.875 of both edges
        inside = np.zeros(found.shape[:2], dtype=bool)
        inside[45:130, 60:150] = True  # what no rotation moves out of the image
        matrix, residual = fitted(found, inside)
        assert residual < 1.5
        flips += matrix[0, 0] < 0
        matrix[:, 0] *= np.sign(matrix[0, 0])
        assert np.allclose(matrix @ matrix.T, np.eye(2), atol=0.03)
        angles.append(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    assert 20 <= flips <= 60
    assert -20.5 < min(angles) < -15
    assert 15 < max(angles) < 20.5


def test_a_random_crop_is_what_the_network_sees_of_it():
    """Its window, .875 of the shorter edge in the middle of the view, lies anywhere in the image and inside it."""
    rgb, middles = ramp(200, 240), []
    for view in range(1, 81):
        found = Views(81, "random-crop").make(rgb, "a.jpg", view)
        assert found.shape == rgb.shape
        middles.append(found[98:103, 118:123].reshape(-1, 3).mean(axis=0))
    (left, up, _), (right, down, _) = np.min(middles, axis=0), np.max(middles, axis=0)
    assert 120 - 33.5 < left < 120 - 25 < 120 + 25 < right < 120 + 33.5  # (240 - 0.875 * 200) / 2
    assert 100 - 13.5 < up < 100 - 9 < 100 + 9 < down < 100 + 13.5


def test_strong_views_zoom_within_a_fifth():
    rgb, sizes = ramp(220, 220), []
    for view in range(1, 41):
        found = Views(41, "strong").make(rgb, "a.jpg", view)
        assert found.shape == rgb.shape
        inside = np.zeros(found.shape[:2], dtype=bool)
        inside[100:120, 100:120] = True
        matrix, residual = fitted(found, inside)
        assert residual < 2
        sizes.append(abs(np.linalg.det(matrix)))  # 1 / (zoom x * zoom y), and a little for the shear
    assert 1 / 1.2**2 * 0.9 < min(sizes) < 0.9
    assert 1.1 < max(sizes) < 1 / 0.8**2 * 1.1


def test_brightness_and_crop_stay_within_their_policy():
    grey = np.full((200, 300, 3), 100, np.uint8)
    found = [Views(81).make(grey, "a.jpg", view) for view in range(1, 81)]
    levels = [int(one[0, 0, 0]) for one in found]
    assert all((one == one[0, 0]).all() for one in found)
    assert 80 <= min(levels) < 88
    assert 112 < max(levels) <= 120
    heights = [one.shape[0] for one in found]
    assert 160 <= min(heights) < 170
    assert 190 < max(heights) <= 200


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (300, 2), (40, 3000), (2500, 1900)])
def test_awkward_shapes_have_views_of_bounded_size(policy, shape):
    found = Views(2, policy).make(np.zeros((*shape, 3), np.uint8), "a.jpg", 1)
    assert found.dtype == np.uint8
    assert min(found.shape[:2]) >= 1
    assert max(found.shape[:2]) < 4 * EDGE


def test_mistakes_are_named():
    with pytest.raises(EncoderError, match=r"unknown policy of views 'strnog' \(did you mean 'strong'\?\)"):
        Views(2, "strnog")
    with pytest.raises(EncoderError, match="0 views were requested; 1"):
        Views(0)


# ---- in a store -----------------------------------------------------------------------------------------------------


def block_of(reading, network, store: Path, *, views: Views, **settings):
    pipeline.run(
        reading,
        [network],
        store,
        RunSettings(device="cpu", views=views.n, policy=views.policy, batch_size=4, max_failed="100%", **settings),
    )
    return open_store(store).blocks["toy.hash"]


def test_a_store_keeps_each_view_whatever_the_threads(class_folder, tmp_path, toy):
    (class_folder / "cats" / "9.jpg").write_bytes(b"\xff\xd8\xff")
    reading = find_corpus("folder").read(class_folder)
    views = Views(3, "flip-rotate-crop")
    one = block_of(reading, toy, tmp_path / "one", views=views, decode_threads=1)
    many = block_of(reading, toy, tmp_path / "many", views=views, decode_threads=5)
    plain = block_of(reading, toy, tmp_path / "plain", views=Views())
    assert one.sealed
    assert one.shape == (9, 3, 64)
    assert one.vectors[...].tobytes() == many.vectors[...].tobytes()
    assert np.array_equal(one.vectors[:, 0], plain.vectors[:, 0])
    assert (one.status[4] == Status.TRUNCATED).all()
    good = np.delete(one.vectors, 4, axis=0)
    assert len(np.unique(good.reshape(-1, 64), axis=0)) == 8 * 3
    assert one.passport["views"]["policy"] == "flip-rotate-crop"
    assert one.passport["views"]["rotation"] == 20
    assert plain.passport["views"] is None


def test_another_policy_or_number_of_views_is_refused(class_folder, tmp_path, toy):
    reading = find_corpus("folder").read(class_folder)
    block_of(reading, toy, tmp_path, views=Views(2, "strong"))
    with pytest.raises(MismatchError, match=r"views\.policy: 'strong' / 'mediaeval'"):
        block_of(reading, toy, tmp_path, views=Views(2, "mediaeval"))
    with pytest.raises(MismatchError, match="shape"):
        block_of(reading, toy, tmp_path, views=Views(3, "strong"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_views_after_kills_are_those_of_an_undisturbed_run(tmp_path):
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("zygote.py"), tmp_path, "4", "1", "3"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 4
