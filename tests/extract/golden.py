"""Golden vectors: what each encoder gives today for one tensor and one JPEG, kept in ``tests/data/golden``.

``python tests/extract/golden.py [ENCODER...]`` makes them again; look at the difference before you commit it.

A file holds, for each tap, up to 256 values of the vector of a fixed tensor and of a fixed JPEG, and the digest of the
weights: where random weights are drawn in another way (another release of torch), there is nothing to compare.
"""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "data" / "golden"
JPEG = FOLDER / "palace.jpg"
N_VALUES = 256
NETWORKS = ("timm:test_resnet", "timm:test_vit", "timm:test_efficientnet")


def names() -> list[str]:
    """Return the encoders that have golden vectors: those of the table, and three tiny networks."""
    from extract.encoders import ENCODERS

    return [*ENCODERS, *NETWORKS]


def path_of(name: str) -> Path:
    """Return the file of an encoder."""
    return FOLDER / f"{name.replace(':', '-')}.npz"


def build(name: str):
    """Build an encoder: with its own weights where pip brings them, else with random ones."""
    from extract.encoders import Weights, build_encoders, find_encoders

    (encoder,) = find_encoders([name])
    return build_encoders([encoder], Weights("random", 0) if encoder.needs_hub else Weights())[0]


def tensor(network) -> np.ndarray:
    """Return fixed pixels of the shape that a network takes: (1, 3, height, width) uint8, smooth and with edges."""
    _, height, width = network.input_shape
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(x / 17 + at) * np.cos(y / 23 - at) + 27 * ((x // 32 + y // 32) % 2) for at in range(3)]
    return np.clip(np.stack(waves), 0, 255).astype(np.uint8)[None]


def vectors(network) -> dict[str, np.ndarray]:
    """Compute what a file holds, by ``KIND TAP`` with the kinds ``tensor`` and ``jpeg``; and ``sha256``."""
    from extract.engines import Cpu
    from extract.engines.forward import Forward
    from extract.inputs.images import make_decoder

    forward = Forward(network, Cpu())
    inputs = {"jpeg": network.prepare(make_decoder("pillow")(JPEG.read_bytes()))[None]}
    if network.module is not None:
        inputs["tensor"] = tensor(network)
    found = {"sha256": np.array(network.weights.get("sha256", ""))}
    for kind, batch in inputs.items():
        for tap, vector in forward(batch).items():
            values = vector[0].ravel()
            found[f"{kind} {tap}"] = values[:: max(1, len(values) // N_VALUES)][:N_VALUES].astype(np.float32)
    return found


def make_jpeg() -> None:
    """Make the JPEG from a photograph that comes with scikit-learn (by Yann Forget, CC BY)."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    file = io.BytesIO()
    Image.fromarray(np.asarray(load_sample_image("china.jpg"))).resize((400, 267)).save(file, "JPEG", quality=85)
    FOLDER.mkdir(parents=True, exist_ok=True)
    JPEG.write_bytes(file.getvalue())


def main() -> None:
    """Make the files of the encoders named, or of all."""
    if not JPEG.exists():
        make_jpeg()
    for name in sys.argv[1:] or names():
        found = vectors(build(name))
        np.savez_compressed(path_of(name), **found)
        digest = hashlib.sha256(path_of(name).read_bytes()).hexdigest()[:12]
        print(f"{path_of(name)}: {', '.join(found)}; sha256 {digest}", flush=True)


if __name__ == "__main__":
    main()
