"""Rows made again as a passport says."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from PIL import Image

import extract
from extract import pipeline
from extract.corpora import find_corpus
from extract.encoders import Weights, build_encoders, find_encoders
from extract.errors import CorpusError, RefusedImageError, WeightsError
from extract.recompute import recompute
from extract.settings import RunSettings
from features_store import MismatchError, open_store

SMALL = "timm:test_efficientnet@blocks.2:max"
BLOCK = "timm-test_efficientnet.blocks.2.max"


@pytest.fixture
def store(class_folder, tmp_path):
    networks = build_encoders(find_encoders([SMALL, "lowlevel"]), Weights("random", 3))
    settings = RunSettings(device="cpu", views=2, batch_size=3)
    pipeline.run(find_corpus("folder").read(class_folder), networks, tmp_path / "store", settings)
    return open_store(tmp_path / "store")


@pytest.mark.parametrize("block", [BLOCK, "lowlevel.features"])
def test_vectors_come_back(store, class_folder, block):
    ids = [str(store.ids[row]) for row in (5, 0)]
    again = recompute(store.blocks[block].passport, ids, store.corpus, class_folder)
    for row, vectors in zip((5, 0), again, strict=True):
        stored = np.asarray(store.blocks[block].vectors[row], dtype=np.float64)
        assert vectors.shape == stored.shape
        cosines = (vectors * stored).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(stored, axis=1)
        assert cosines.min() > 0.99999


def test_an_image_that_has_gone_or_was_cut_has_a_reason(store, class_folder):
    (class_folder / "cats" / "0.jpg").unlink()
    cut = class_folder / "cats" / "1.jpg"
    cut.write_bytes(cut.read_bytes()[:-5])
    gone, truncated, _ = recompute(
        store.blocks["lowlevel.features"].passport,
        ["cats/0.jpg", "cats/1.jpg", "cats/2.jpg"],
        store.corpus,
        class_folder,
    )
    assert gone == "the corpus has no such image any more"
    assert truncated.startswith("truncated: ")


@pytest.mark.parametrize("name", [SMALL, "lowlevel"])
def test_an_encoder_is_a_function_of_paths_and_pictures(store, class_folder, name):
    """Its vectors are those of the store, whatever the number of images."""
    encode = extract.load_encoder(name, weights="random:3", device="cpu")
    paths = [class_folder / image_id for image_id in store.ids.tolist()] * 2  # more than one batch
    (block, vectors), *more = encode(paths).items()
    assert not more
    assert vectors.dtype == np.float32
    stored = np.asarray(store.blocks[block].vectors[:, 0]).reshape(8, -1)
    assert np.allclose(vectors, np.concatenate([stored] * 2), rtol=2e-3, atol=1e-3)
    pictures = encode([Image.open(paths[0]), Image.open(paths[1])])[block]
    assert np.allclose(pictures, vectors[:2], rtol=2e-2, atol=2e-2)  # by another decoder of JPEGs
    assert encode([])[block].shape == (0, vectors.shape[1])
    cut = class_folder / "cut.jpg"
    cut.write_bytes(paths[0].read_bytes()[:-9])
    with pytest.raises(RefusedImageError, match=r"cut\.jpg: "):
        encode([paths[0], cut])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"weights": {"source": "random:4", "sha256": "0"}}, MismatchError, "made with weights"),
        ({"weights": {"source": "file", "sha256": "0"}}, WeightsError, "a file whose place is not recorded"),
        ({"transform": {"resize": 1}}, MismatchError, "made with transform"),
        ({"views": {"n": 2, "policy": "mediaeval", "version": 0}}, MismatchError, "made with the views"),
    ],
)
def test_what_cannot_be_made_again_says_why(store, class_folder, change, error, words):
    passport = {**store.blocks[BLOCK].passport, **change}
    with pytest.raises(error, match=words):
        recompute(passport, ["cats/0.jpg"], store.corpus, class_folder)


def test_a_passport_fetches_nothing_unasked(store, class_folder, monkeypatch, tmp_path):
    """It may be a stranger's, and it chooses the weights."""
    from huggingface_hub import constants

    reached = []
    monkeypatch.setattr(socket.socket, "connect", lambda _self, address: reached.append(address) or 1 / 0)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    passport = {**store.blocks[BLOCK].passport, "encoder": "resnet50", "weights": {"source": "timm:resnet50"}}
    with pytest.raises(WeightsError, match="'resnet50' are not on this machine; --allow-download"):
        recompute(passport, ["cats/0.jpg"], store.corpus, class_folder)
    assert not reached


def test_a_store_names_no_file_outside_of_its_pictures(store, class_folder, tmp_path):
    (tmp_path / "diary").write_text("private")
    corpus = {"name": "csv", "options": {"file": str(tmp_path / "diary")}}
    with pytest.raises(CorpusError, match=r"there is no table .*/diary") as caught:
        recompute(store.blocks[BLOCK].passport, ["cats/0.jpg"], corpus, class_folder)
    assert "private" not in str(caught.value)


def test_a_block_of_somebody_elses_is_refused(store, class_folder):
    with pytest.raises(MismatchError, match="not made by `extract`"):
        recompute({"encoder": "gcn"}, ["cats/0.jpg"], store.corpus, class_folder)
    with pytest.raises(MismatchError, match="does not say which corpus"):
        recompute(store.blocks[BLOCK].passport, ["cats/0.jpg"], {}, class_folder)
