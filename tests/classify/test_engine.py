"""What makes a hundred experiments quick: gathered batches, orders by blocks, many networks in one scan, streaming."""

import numpy as np
import pytest
import torch
from scipy import stats

from classify.data.rows import ArrayRows, RowMatrix, shuffled_by_blocks, shuffles_by_blocks
from classify.errors import HeadError
from classify.heads import make_head
from features_store import BlockSpec, BlockWriter, Index, open_store, write_index

RANDOM = np.random.default_rng(31)
N, D = 240, 30
X = RANDOM.normal(size=(N, D)).astype(np.float32)
HELD = (X[:60] + 0.5 * RANDOM.normal(size=(60, D))).astype(np.float32)
LABELS = {
    "single": (X[:, 0] + RANDOM.normal(size=N) > 0).astype(int) + (X[:, 1] > 0.5),
    "multi": (X[:, :4] + RANDOM.normal(size=(N, 4)) > 0.4).astype(int),
    "regression": X[:, :1] @ np.ones((1, 2)) + RANDOM.normal(size=(N, 2)),
}


def said(head, x):
    """Return what a head says: probabilities, or values."""
    return head.predict_proba(x) if hasattr(head, "predict_proba") else head.predict(x)


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """Return a store of two blocks with two views each."""
    folder = tmp_path_factory.mktemp("views")
    index = Index(np.array([f"{i}.png" for i in range(50)]))
    write_index(folder / "index.h5", index)
    for name, width in (("a.pool", 5), ("b.pool", 3)):
        with BlockWriter(
            folder / f"{name}.h5", index, BlockSpec(name, (width,), {"encoder": name}, n_views=2)
        ) as writer:
            for view in range(2):
                writer.write(np.arange(50), RANDOM.normal(size=(50, width)), view=view)
    return open_store(folder)


@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize("rows", [[3, 4, 5, 6], [40, 2, 2, 17], [9], []], ids=str)
def test_gathered_rows_are_the_vectors_of_the_file(views, view, rows):
    """Neighbours, scattered rows, repeated rows, one row and none, of either view, as float32."""
    rows = np.array(rows, dtype=np.int64)
    expected = np.hstack([np.asarray(views.blocks[n].vectors)[:, view] for n in ("a.pool", "b.pool")])[rows]
    into = np.full((len(rows), 8), np.nan, dtype=np.float32)
    taken = RowMatrix(views, ["a.pool", "b.pool"], view=view).take(rows, into)
    assert np.array_equal(taken, expected.astype(np.float32))
    assert np.shares_memory(taken, into) or not len(rows)


def test_an_order_by_blocks_is_a_permutation_that_keeps_blocks_together():
    """Each row comes once; the rows of a pool come from few stretches of the file."""
    generator = torch.Generator().manual_seed(0)
    order = shuffled_by_blocks(1000, generator, block=20, pool=5)
    assert np.array_equal(np.sort(order), np.arange(1000))
    for start in range(0, 900, 100):
        stretches = np.unique(order[start : start + 100] // 20)
        assert len(stretches) <= 22  # the blocks of two pools, each over an edge; a full shuffle touches 43
    assert not np.array_equal(order, shuffled_by_blocks(1000, generator, block=20, pool=5))
    again = shuffled_by_blocks(1000, torch.Generator().manual_seed(0), block=20, pool=5)
    assert np.array_equal(order, again)


@pytest.mark.parametrize("n_rows", [1, 19, 20, 21])
def test_an_order_of_few_rows_is_a_permutation(n_rows):
    """Fewer rows than a block, and one more."""
    order = shuffled_by_blocks(n_rows, torch.Generator().manual_seed(3), block=20, pool=4)
    assert sorted(order.tolist()) == list(range(n_rows))


def test_a_row_is_equally_likely_anywhere_as_in_a_full_shuffle():
    """By chi-squared over many passes: the place of a row, and the batch it falls into."""
    generator, passes, n_rows = torch.Generator().manual_seed(1), 600, 320
    places = np.stack([np.argsort(shuffled_by_blocks(n_rows, generator, block=16, pool=4)) for _ in range(passes)])
    for row in (0, 7, 160, 319):
        counts = np.bincount(places[:, row] * 8 // n_rows, minlength=8)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_batches_by_blocks_mix_the_classes_of_a_sorted_file():
    """In a file sorted by class a batch of a full shuffle holds both classes evenly; by blocks it nearly does."""
    classes = np.repeat([0, 1], 4096)
    generator = torch.Generator().manual_seed(2)

    def spread(order):
        shares = classes[order].reshape(-1, 64).mean(axis=1)
        return shares.std() / np.sqrt(0.25 / 64)

    by_blocks = np.mean([spread(shuffled_by_blocks(8192, generator, block=64, pool=32)) for _ in range(20)])
    fully = np.mean([spread(torch.randperm(8192, generator=generator).numpy()) for _ in range(20)])
    assert fully == pytest.approx(1, abs=0.1)
    assert by_blocks < 1.8  # a pool of 32 blocks adds 1/32 of a batch's own variance 64 times over: sqrt(1 + 2)
    unmixed = spread(np.arange(8192))
    assert unmixed > 7


def test_training_by_blocks_learns_what_a_full_shuffle_learns():
    """Both orders reach the same loss, within the spread of seeds."""
    y = (X[:, 0] > 0).astype(int)
    order = np.argsort(y, kind="stable")  # the worst case: a file sorted by class

    def loss(shuffle, seed):
        head = make_head("mlp", "single", shuffle=shuffle, random_state=seed, epochs=20, hidden=16, dropout=0.0)
        return head.fit(X[order], y[order]).history_[-1]["loss"]

    full, blocks = ([loss(shuffle, seed) for seed in range(5)] for shuffle in ("full", "blocks"))
    assert np.mean(blocks) == pytest.approx(np.mean(full), abs=4 * np.std(full) + 0.02)


def test_rows_are_shuffled_by_blocks_only_beyond_memory(views):
    """Arrays are in memory already; a choice that does not exist is refused."""
    assert not shuffles_by_blocks("auto", ArrayRows(X))
    assert not shuffles_by_blocks("auto", RowMatrix(views, ["a.pool"]))
    assert shuffles_by_blocks("blocks", ArrayRows(X))


def test_rows_larger_than_half_of_memory_are_shuffled_by_blocks(views, monkeypatch):
    """The limit is the machine's own."""
    monkeypatch.setattr("classify.data.rows.physical_memory", lambda: 50 * 5 * 2)
    assert shuffles_by_blocks("auto", RowMatrix(views, ["a.pool"]))


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_linear_heads_that_stream_equal_those_that_hold_the_rows(kind):
    """Also with two classes, with weighted classes, and where a label never varies."""
    options = {"alpha": 1.0} if kind == "regression" else {"C": 1.0, "max_iter": 3000}
    y = LABELS[kind]
    held = make_head("linear", kind, stream="never", **options).fit(X, y)
    streamed = make_head("linear", kind, stream="always", **options).fit(X, y)
    assert np.abs(said(held, HELD) - said(streamed, HELD)).max() < 5e-3  # scikit-learn's own tolerance
    if kind == "multi":
        y = np.column_stack([y, np.zeros(N, dtype=int)])
    if kind == "single":
        y = (y > 0).astype(int)
    more = options if kind == "regression" else {"class_weight": "balanced", **options}
    held = make_head("linear", kind, stream="never", **more).fit(X, y)
    streamed = make_head("linear", kind, stream="always", **more).fit(X, y)
    assert np.abs(said(held, HELD) - said(streamed, HELD)).max() < 5e-3  # scikit-learn's own tolerance
    with pytest.raises(HeadError, match="stream is 'maybe'; it takes always or auto or never"):
        make_head("linear", kind, stream="maybe").fit(X, y)


@pytest.mark.parametrize("name", ["mlp", "moe", "linear"])
def test_equal_seeds_give_equal_bits(name):
    """Twice the same head on the same rows, streamed, projected or shuffled by blocks."""
    wide, y = RANDOM.normal(size=(60, 150)).astype(np.float32), LABELS["single"][:60]
    options = (
        {"stream": "always"}
        if name == "linear"
        else {"epochs": 3, "optimizer": "sgd", "shuffle": "blocks", "random_state": 7}
    )
    one, other = (make_head(name, "single", **options).fit(wide, y).predict_proba(wide) for _ in range(2))
    assert np.array_equal(one, other)
