"""Make the archive ``v1.0``: a store of format version 1.0, and every value that stands in it.

It was run once, as ``python tests/data/archives/make_v1_0.py``, with the first release; the files it made are read by
a test for ever. It refuses to replace them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import features_store as fs

FOLDER = Path(__file__).with_name("v1.0")
N = 10


def index() -> fs.Index:
    """Ten images with everything an index may have."""
    tasks = [
        fs.Labels(fs.Task("polarity", "single", ("negative", "neutral", "positive"), source="by hand"), _single()),
        fs.Labels(
            fs.Task("tags", "multi", ("joy", "Trübsal")), np.array([[i % 2, 1] for i in range(9)] + [[255, 255]])
        ),
        fs.Labels(fs.Task("va", "regression", ("valence", "arousal"), (1.0, 9.0), "two raters"), _regression()),
    ]
    splits = [
        fs.Split("default", np.array([0, 0, 0, 0, 0, 1, 1, 2, 2, -1])),
        fs.Split("five", np.arange(N) % 5, "folds"),
    ]
    return fs.Index(
        np.array([f"Ärger/{i:02d} 怒り.jpg" for i in range(N)]),
        {one.task.name: one for one in tasks},
        {one.name: one for one in splits},
        np.array([0, 0, 1, 1, 1, 2, -1, -1, 3, 3]),
        (np.arange(N * 32) % 251).reshape(N, 32).astype(np.uint8),
        {"name": "toy", "options": {"labels": "hand", "top": 3}},
    )


def _single() -> np.ndarray:
    return np.array([0, 1, 2, 0, 1, 2, -1, 0, 1, 2])


def _regression() -> np.ndarray:
    values = 1 + np.arange(2.0 * N).reshape(N, 2) / 4
    values[4] = np.nan
    return values


def pooled() -> np.ndarray:
    """Vectors of two views, (N, 2, 5), exact in half precision."""
    return (np.arange(N * 10).reshape(N, 2, 5) - 50) / 8


def maps() -> np.ndarray:
    """Vectors of feature maps, (N, 3, 2, 2), in single precision."""
    return np.sqrt(np.arange(N * 12, dtype=np.float32)).reshape(N, 3, 2, 2)


def main() -> None:
    """Write the store, then the values as they went in."""
    FOLDER.mkdir()
    images = index()
    fs.write_index(FOLDER / "index.h5", images)
    passport = {"encoder": "toy", "weights": {"source": "random:0", "sha256": "ab" * 32}, "versions": {"toy": "1.0"}}
    pool = fs.BlockSpec("toy.pool", (5,), {**passport, "tap": "pool"}, "float16", 2, ("a", "b", "c", "d", "é"))
    with fs.BlockWriter(FOLDER / "toy.pool.h5", images, pool) as writer:
        for view in range(2):
            writer.write(np.arange(N), pooled()[:, view], view=view)
        for row, status in ((2, 2), (3, 3), (5, 4), (7, 5), (8, 6)):
            writer.fail([row], fs.Status(status), view=row % 2)
        writer.seal()
    with fs.BlockWriter(
        FOLDER / "toy.map.h5", images, fs.BlockSpec("toy.map", (3, 2, 2), passport, "float32")
    ) as writer:
        writer.write(np.arange(6), maps()[:6])
    values = {
        "ids": images.ids.tolist(),
        "groups": np.asarray(images.groups).tolist(),
        "content": np.asarray(images.content).tolist(),
        "corpus": dict(images.corpus),
        "labels": {
            name: {
                "kind": one.task.kind,
                "classes": list(one.task.classes),
                "range": one.task.range,
                "source": one.task.source or "unknown",
                "values": np.where(np.isnan(one.values), None, one.values.astype(object)).tolist(),
            }
            for name, one in images.labels.items()
        },
        "splits": {name: {"kind": one.kind, "values": one.values.tolist()} for name, one in images.splits.items()},
        "blocks": {
            "toy.pool": {"passport": dict(pool.passport), "names": pool.names, "values": pooled().tolist()},
            "toy.map": {"passport": passport, "names": None, "values": maps().reshape(N, 1, 12).tolist()},
        },
    }
    (FOLDER / "values.json").write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
