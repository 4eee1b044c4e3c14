"""Photographs that ship with scikit-image and scikit-learn, and small folders of images."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.__main__ import app
from extract.encoders.spec import Encoder, EncoderSpec, Tap
from features_store import console


@pytest.fixture(scope="session", autouse=True)
def _two_threads():
    import torch

    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def photos() -> dict[str, np.ndarray]:
    """RGB photographs by name: a cat, an espresso, a palace, an astronaut."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    return {
        "chelsea": data.chelsea(),
        "coffee": data.coffee(),
        "china": np.asarray(load_sample_image("china.jpg")),
        "astronaut": data.astronaut(),
    }


@pytest.fixture
def class_folder(tmp_path: Path, photos: dict[str, np.ndarray]) -> Path:
    """Eight images in two class folders, four of them cut from each of two photographs."""
    root = tmp_path / "images"
    for name, photo in (("cats", photos["chelsea"]), ("drinks", photos["coffee"])):
        (root / name).mkdir(parents=True)
        for at in range(4):
            Image.fromarray(photo[at * 10 : at * 10 + 200, at * 20 : at * 20 + 240]).save(root / name / f"{at}.jpg")
    return root


@pytest.fixture
def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run ``extract ...`` as its console script does; returns exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["extract", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            console.main(app)
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture(scope="session")
def toy() -> Encoder:
    """An encoder without torch: 64 values that change with each pixel."""

    def prepare(rgb: np.ndarray) -> np.ndarray:
        digest = hashlib.sha512(repr(rgb.shape).encode() + rgb.tobytes()).digest()
        return np.frombuffer(digest, dtype=np.int8).astype(np.float32)

    encoder = EncoderSpec("toy", "a hash", "affectory", "", (Tap("hash", (64,)),), needs_weights=False)
    return Encoder(encoder, prepare, (64,), {"hash": (64,)}, {}, {}, input_dtype="float32")
