"""Stores that earlier releases wrote are read for ever, to the last value."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import features_store as fs
from features_store.verify import verify

V1_0 = Path(__file__).parents[1] / "data" / "archives" / "v1.0"


@pytest.fixture(scope="module")
def values() -> dict:
    """What went into the archive."""
    return json.loads((V1_0 / "values.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def store() -> fs.Store:
    """The archive, as this release reads it."""
    return fs.open_store(V1_0)


def test_index(store, values) -> None:
    """Ids, groups, content hashes and corpus."""
    assert store.ids.tolist() == values["ids"]
    assert store.groups.tolist() == values["groups"]
    assert store.content.tolist() == values["content"]
    assert dict(store.corpus) == values["corpus"]
    assert store.index_digest == "7caba4b68b8df740b27bfce33df76a323fd0ea3a9746b46d55dd4f3aaefa924a"


def test_labels_and_splits(store, values) -> None:
    """Every label of every kind, and what the labels mean."""
    assert set(store.labels) == set(values["labels"])
    for name, expected in values["labels"].items():
        task = store.labels[name].task
        described = [task.kind, list(task.classes), task.range and list(task.range), task.source]
        assert described == [expected[key] for key in ("kind", "classes", "range", "source")]
        np.testing.assert_array_equal(store.labels[name].values, np.array(expected["values"], dtype=float))
    assert set(store.splits) == set(values["splits"])
    for name, expected in values["splits"].items():
        assert store.splits[name].kind == expected["kind"]
        assert store.splits[name].values.tolist() == expected["values"]


def test_blocks(store, values) -> None:
    """Every vector that was written, every state, names, shapes and passports."""
    assert set(store.blocks) == {"toy.pool", "toy.map"}
    pool, maps = store.blocks["toy.pool"], store.blocks["toy.map"]
    states = np.ones((10, 2), int)
    for row, status in ((2, 2), (3, 3), (5, 4), (7, 5), (8, 6)):
        states[row, row % 2] = status
    assert pool.status.tolist() == states.tolist()
    assert maps.status[:, 0].tolist() == [1] * 6 + [0] * 4
    assert [pool.sealed, maps.sealed] == [True, False]
    assert [pool.dtype, maps.dtype] == [np.float16, np.float32]
    assert [pool.item_shape, maps.item_shape] == [(5,), (3, 2, 2)]
    assert list(pool.names) == values["blocks"]["toy.pool"]["names"]
    assert maps.names is None
    for block in (pool, maps):
        expected = values["blocks"][block.name]
        assert dict(block.passport) == expected["passport"]
        good = block.status == fs.Status.WRITTEN
        np.testing.assert_array_equal(block.vectors[good], np.array(expected["values"], block.dtype)[good])
    assert pool.digest == "fbe586c5f18c7b94d000b8c95495e56509f734df3473bc97a807127cbc6aa5bf"


def test_seal_and_digests(store) -> None:
    """The seal, the row digests and the digest of the passport mean what they meant."""
    assert verify(store).problems() == []
    assert (
        store.blocks["toy.pool"].stored_seal.hex()
        == "0a0000000000000036f5752e76577ab2ed31711b84161412922410cbac588977a34a8fe91c6a7dab"
    )


def test_an_open_block_is_continued(tmp_path, store) -> None:
    """This release goes on with a block that the old one began, and seals it."""
    shutil.copytree(V1_0, tmp_path / "store")
    spec = store.blocks["toy.map"].spec
    with fs.BlockWriter(tmp_path / "store" / "toy.map.h5", store.index, spec) as writer:
        assert writer.pending().tolist() == [6, 7, 8, 9]
        writer.write([6, 7, 8, 9], np.ones((4, 12)))
        writer.seal()
    assert verify(fs.open_store(tmp_path / "store")).problems() == []


def test_plain_h5py_reads_it(values) -> None:
    """FORMAT.md section 8, without this software."""
    with h5py.File(V1_0 / "toy.pool.h5") as dump:
        assert dump["images/id"].asstr()[:].tolist() == values["ids"]
        written = dump["blocks/toy.pool/status"][:, 0] == 1
        read = dump["blocks/toy.pool/vectors"][:, 0, :].astype("f4")
    np.testing.assert_array_equal(read[written], np.array(values["blocks"]["toy.pool"]["values"])[written, 0])
