"""A synthetic store of any size with a planted signal, and its labels: what the large benches run on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from features_store import BlockSpec, BlockWriter, Index, Labels, Split, Store, Task, open_store, write_index

CARD = {"efficientnet_b2.pool": 1408, "resnet152.pool": 2048, "inception_v3.all": 3048, "clip_vit_l14.all": 4864}
B_T4SA = 368_586
CLASSES = ("negative", "neutral", "positive")
_STEP = 8192


def make_store(folder: Path, n_images: int, widths: Mapping[str, int] = CARD, *, seed: int = 0) -> Store:
    """Write a store of half-precision blocks in which a few directions of each block tell the class.

    Rows are a sum of a class mean on 64 features, 32 shared factors, and noise; scales and means differ by feature. A
    folder that holds a store of that size already is opened as it is.

    Parameters
    ----------
    folder : Path
    n_images : int
    widths : mapping of str to int
        Features by block.
    seed : int

    Returns
    -------
    Store
    """
    if (folder / "index.h5").exists():
        store = open_store(folder)
        if store.n_images == n_images and {n: b.n_features for n, b in store.blocks.items()} == dict(widths):
            return store
        shutil.rmtree(folder)
    random = np.random.default_rng(seed)
    classes = random.integers(3, size=n_images)
    index = _index(classes, random)
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=n_images * len(widths), desc="making the store", unit="row", delay=2) as bar:
        for place, (name, width) in enumerate(widths.items()):
            _write_block(folder, index, name, width, classes, np.random.default_rng([seed, place]), bar)
    write_index(folder / "index.h5", index)  # last, so that a store cut short is made again
    return open_store(folder)


def _index(classes: np.ndarray, random: np.random.Generator) -> Index:
    polarity = Task("polarity", "single", CLASSES, source="planted")
    valence = Task("valence", "regression", ("valence",), range=(-3.0, 3.0), source="planted")
    n_images = len(classes)
    parts = random.choice(3, p=[0.8, 0.1, 0.1], size=n_images)
    noisy = (classes - 1 + 0.7 * random.normal(size=n_images)).clip(-3, 3)[:, None]
    return Index(
        np.array([f"{i:07}.jpg" for i in range(n_images)]),
        {"polarity": Labels(polarity, classes), "valence": Labels(valence, noisy)},
        {"default": Split("default", parts), "all": Split("all", np.zeros(n_images))},
        corpus={"name": "synthetic"},
    )


def _write_block(
    folder: Path, index: Index, name: str, width: int, classes: np.ndarray, random: np.random.Generator, bar: tqdm
) -> None:
    means = np.zeros((3, width), dtype=np.float32)
    means[:, random.choice(width, 64, replace=False)] = 0.12 * random.normal(size=(3, 64))
    factors = random.normal(size=(32, width)).astype(np.float32) / 6
    scale, shift = (random.uniform(0.3, 1.5, width).astype(np.float32) for _ in range(2))
    # Fresh noise for 4 billion values takes minutes: rows share a table of noise, each rolled by its own offset.
    table = random.normal(size=(_STEP, 2 * width)).astype(np.float32)
    spec = BlockSpec(name, (width,), {"encoder": name, "weights": {"source": "synthetic", "sha256": "0" * 64}})
    with BlockWriter(folder / f"{name}.h5", index, spec) as writer:
        for start in range(0, len(index), _STEP):
            rows = np.arange(start, min(start + _STEP, len(index)))
            offset = int(random.integers(width))
            noise = table[random.permutation(_STEP)[: len(rows)], offset : offset + width]
            x = noise + means[classes[rows]] + random.normal(size=(len(rows), 32)).astype(np.float32) @ factors
            writer.write(rows, (x * scale + shift).astype(np.float16))
            bar.update(len(rows))
