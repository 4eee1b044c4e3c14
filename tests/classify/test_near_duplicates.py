"""Near-duplicates: planted ones are found, by vectors and by bytes, whatever the size of the pieces."""

import numpy as np
import pytest

from classify.data.seen import first_equal
from classify.evaluation import near_duplicates as duplicates
from classify.evaluation.near_duplicates import find_duplicates, safe_threshold
from features_store import BlockSpec, BlockWriter, Index, open_store


@pytest.fixture(scope="module")
def planted(make_store):
    """Return a store whose images 60 to 64 are near-copies of 5 to 9 in both blocks; 65 is one in a single block."""
    random = np.random.default_rng(0)
    alpha, beta = 3 + random.normal(size=(80, 24)), np.abs(random.normal(size=(80, 40)))
    for copy, original in zip(range(60, 65), range(5, 10), strict=True):
        alpha[copy] = alpha[original] + 0.01 * random.normal(size=24)
        beta[copy] = beta[original] + 0.01 * random.normal(size=40)
    alpha[65] = alpha[10]
    return open_store(make_store({"alpha.pool": alpha.astype(np.float32), "beta.pool": beta.astype(np.float32)}))


ROWS, OTHERS, BLOCKS = np.arange(60, 80), np.arange(60), ["alpha.pool", "beta.pool"]


def test_planted_copies_are_found(planted):
    """Each near-copy with its original, and no other image; one that agrees in one block only is not enough."""
    found = find_duplicates(planted, BLOCKS, ROWS, OTHERS)
    assert {(pair.row, pair.other) for pair in found} == set(zip(range(60, 65), range(5, 10), strict=True))
    assert (65, 10) in {(p.row, p.other) for p in find_duplicates(planted, ["alpha.pool"], ROWS, OTHERS)}
    assert [pair.cosine for pair in found] == sorted((pair.cosine for pair in found), reverse=True)


def test_every_pair_is_looked_at(planted, monkeypatch):
    """With threshold -1 the nearest neighbours are numpy's, and pieces of three rows give the same."""
    centred = [planted.matrix([name]).astype(np.float64) for name in BLOCKS]
    centred = [x - x[OTHERS].mean(axis=0) for x in centred]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in centred]
    cosine = np.mean([x[ROWS] @ x[OTHERS].T for x in unit], axis=0)
    whole = find_duplicates(planted, BLOCKS, ROWS, OTHERS, threshold=-1)
    monkeypatch.setattr(duplicates, "_PIECE_BYTES", 4 * 64 * 3)
    for found in (whole, find_duplicates(planted, BLOCKS, ROWS, OTHERS, threshold=-1)):
        assert {p.row: p.other for p in found} == dict(zip(ROWS, OTHERS[cosine.argmax(axis=1)], strict=True))
        assert {p.row: p.cosine for p in found} == pytest.approx(
            dict(zip(ROWS, cosine.max(axis=1), strict=True)), abs=2e-3
        )


def test_equal_bytes_count_where_hashes_are_there():
    """Equal digests are duplicates; zeros mean that none was computed."""
    content = np.zeros((6, 32), np.uint8)
    content[0], content[4], content[1] = 7, 7, 9
    assert first_equal(content[3:], content[:3]).tolist() == [-1, 0, -1]


def test_constant_vectors_are_no_duplicates(make_store):
    """Vectors that are all the mean have no direction, hence no cosine."""
    store = open_store(make_store({"a.pool": np.ones((20, 4), np.float32)}))
    assert find_duplicates(store, ["a.pool"], np.arange(10, 20), np.arange(10)) == []


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_copies_are_found_at_any_scale(tmp_path, scale):
    """The squares of these values leave float32; directions do not depend on them."""
    X = np.random.default_rng(0).normal(size=(40, 64))
    X[30:35] = X[:5]
    index = Index(np.array([f"{i}.png" for i in range(40)]))
    with BlockWriter(tmp_path / "a.h5", index, BlockSpec("a.pool", (64,), {"encoder": "a"}, "float32")) as writer:
        writer.write(np.arange(40), (X * scale).astype(np.float32))
    store = open_store(tmp_path / "a.h5")
    found = find_duplicates(store, ["a.pool"], np.arange(30, 40), np.arange(30))
    assert [(pair.row, pair.other) for pair in found] == [(30 + k, k) for k in range(5)]


@pytest.mark.parametrize("widths", [(1,), (1, 1), (1, 1, 1), (2, 2), (3, 1), (2, 2, 2)])
def test_chance_makes_no_duplicates_of_narrow_blocks(make_store, widths):
    """In one column all directions are two; independent vectors of narrow blocks are no copies of each other."""
    random = np.random.default_rng(0)
    blocks = {f"b{i}.pool": random.normal(size=(300, n)).astype(np.float32) for i, n in enumerate(widths)}
    store, least = open_store(make_store(blocks)), safe_threshold(widths, 150 * 150)
    assert len(find_duplicates(store, list(blocks), np.arange(150), np.arange(150, 300), threshold=least)) <= 1
