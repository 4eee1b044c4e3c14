"""The lazy matrix against the vectors that the store holds."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_predict

from classify.data.rows import ArrayRows, RowMatrix, batches
from classify.errors import HeadError
from classify.heads import make_head
from features_store import FailedRowsError, open_store

BLOCKS = ("alpha.pool", "beta.pool")
ROWS = np.array([200, 3, 90, 41, 7, 150])


@pytest.fixture(scope="module")
def opened(store):
    """Return the shared small store, open."""
    return open_store(store)


@pytest.fixture(scope="module")
def expected(opened):
    """Return the whole matrix, put together by hand."""
    return np.hstack([np.asarray(opened.blocks[name].vectors)[:, 0] for name in BLOCKS]).astype(np.float32)


def test_take_gathers_rows_of_all_blocks_in_order(opened, expected):
    """Positions count within the chosen rows, and the blocks stand side by side as named."""
    matrix = RowMatrix(opened, BLOCKS, ROWS)
    assert matrix.shape == (6, 18)
    assert len(matrix) == 6
    taken = matrix.take(np.array([5, 0, 2]))
    assert taken.dtype == np.float32
    assert np.array_equal(taken, expected[[150, 200, 90]])
    assert np.array_equal(RowMatrix(opened, BLOCKS[::-1], ROWS).take(np.array([1]))[0, :6], expected[3, 12:])


def test_take_fills_the_buffer_given(opened, expected):
    """With *out* nothing new is allocated."""
    buffer = np.empty((4, 18), np.float32)
    taken = RowMatrix(opened, BLOCKS, ROWS).take(np.array([1, 3]), out=buffer[:2])
    assert np.shares_memory(taken, buffer)
    assert np.array_equal(buffer[:2], expected[[3, 41]])


def test_whole_matrix_and_cuts(opened, expected):
    """As an array it holds all its rows; cut by positions, mask or slice it stays lazy."""
    matrix = RowMatrix(opened, BLOCKS, ROWS)
    assert np.array_equal(np.asarray(matrix), expected[ROWS])
    assert np.asarray(matrix, dtype=np.float64).dtype == np.float64
    for key in (np.array([2, 0]), ROWS > 90, slice(1, 3), (np.array([1]), ...)):
        cut = matrix[key]
        assert isinstance(cut, RowMatrix)
        rows = ROWS[key[0] if isinstance(key, tuple) else key]
        assert np.array_equal(np.asarray(cut), expected[rows])
    for key in (3, (0, 1)):
        with pytest.raises(IndexError, match="cut by"):
            matrix[key]
    with pytest.raises(ValueError, match="without a copy"):
        np.array(matrix, copy=False)


def test_batches_cover_each_row_once_in_one_buffer(opened, expected):
    """Each position comes once; within a batch they ascend; the buffer is reused."""
    order = np.array([4, 1, 5, 0, 3, 2])
    seen, buffers = [], set()
    for positions, x in batches(RowMatrix(opened, BLOCKS, ROWS), order, 4):
        assert np.array_equal(x, expected[ROWS[positions]])
        seen.append(positions.tolist())
        buffers.add(x.__array_interface__["data"][0])
    assert seen == [[0, 1, 4, 5], [2, 3]]
    assert len(buffers) == 1


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_array_rows_have_the_same_face(dtype):
    """An array gives the same batches as float32, and is not changed."""
    array = np.arange(40, dtype=dtype).reshape(10, 4)
    got = np.concatenate([x.copy() for _, x in batches(ArrayRows(array), size=3)])
    assert got.dtype == np.float32
    assert np.array_equal(got, array)
    assert np.array_equal(ArrayRows(array).take(np.array([9, 0])), array[[9, 0]])


def test_rows_without_a_vector_are_refused(opened):
    """A row that the store marks as failed never turns into numbers."""
    with pytest.raises(FailedRowsError):
        RowMatrix(opened, BLOCKS, np.array([19, 20])).take(np.array([1]))


@pytest.mark.parametrize("name", ["mlp", "svm", "linear", "gbm", "dummy"])
def test_heads_learn_the_same_from_the_matrix_as_from_an_array(opened, expected, name):
    """Lazy rows and their array give the same probabilities, to the bit for one batch order."""
    rows = np.arange(30, 230)
    y = opened.labels["polarity"].values[rows]
    options = {"epochs": 3} if name == "mlp" else {"n_rounds": 5, "n_jobs": 1} if name == "gbm" else {}
    lazy = make_head(name, "single", **options).fit(RowMatrix(opened, BLOCKS, rows), y)
    full = make_head(name, "single", **options).fit(expected[rows], y)
    assert np.array_equal(lazy.predict_proba(RowMatrix(opened, BLOCKS, ROWS)), full.predict_proba(expected[ROWS]))


def test_matrix_of_other_blocks_is_refused_with_both_lists(opened):
    """A head fitted on two blocks names them, and the blocks that it was given."""
    rows = np.arange(30, 100)
    head = make_head("linear", "single").fit(RowMatrix(opened, BLOCKS, rows), opened.labels["polarity"].values[rows])
    with pytest.raises(HeadError, match=r"was fitted on the blocks alpha\.pool, beta\.pool.*X has beta\.pool"):
        head.predict(RowMatrix(opened, ["beta.pool"], rows))


def test_cross_validation_cuts_the_matrix(opened, expected):
    """scikit-learn's own cross-validation works on the lazy matrix, even with its own estimators."""
    rows = np.arange(30, 230)
    y = opened.labels["polarity"].values[rows]
    folds = KFold(3)
    matrix = RowMatrix(opened, BLOCKS, rows)
    for head in (make_head("linear", "single"), LogisticRegression()):
        lazy = cross_val_predict(head, matrix, y, cv=folds)
        assert np.array_equal(lazy, cross_val_predict(head, expected[rows], y, cv=folds))
