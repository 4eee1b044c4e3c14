"""Sums of the blocks' Gram matrices against scikit-learn on the concatenated, standardised matrix."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from classify.errors import HeadError
from classify.heads.gram import Grams, block_grams
from classify.heads.kernel import svm_path, svr_path
from features_store import open_store

WIDTHS = {"a.pool": 40, "b.pool": 25, "c.pool": 70}
SUBSETS = [("a.pool",), ("b.pool", "c.pool"), ("a.pool", "b.pool", "c.pool")]
N = 150
TIGHT = 1e-8
COSTS = (0.01, 0.3, 3.0, 30.0, 100.0)
ROWS = np.arange(N - 10)[::-1].copy()  # a choice of the store's rows, in an order of its own
TRAIN, HELD = np.arange(0, 100), np.arange(100, 140)


@pytest.fixture(scope="module")
def opened(make_store):
    """Return a store whose features have unlike scales and means, one of them constant."""
    random = np.random.default_rng(11)
    blocks = {
        name: random.normal(size=(N, width)) * random.uniform(0.1, 4, size=width) + random.normal(size=width)
        for name, width in WIDTHS.items()
    }
    blocks["b.pool"][:, 3] = 2.5
    return open_store(make_store(blocks))


@pytest.fixture(scope="module")
def grams(opened):
    """Return the Gram matrices of all blocks, standardised on the training rows."""
    return block_grams(opened, WIDTHS, ROWS, TRAIN)


@pytest.fixture(scope="module")
def labels():
    """Return classes, labels and targets of the rows."""
    random = np.random.default_rng(12)
    return {
        "single": random.integers(3, size=len(ROWS)),
        "multi": (random.uniform(size=(len(ROWS), 4)) > 0.6).astype(np.int64),
        "regression": random.normal(size=(len(ROWS), 2)) * [1, 5] + [0, 40],
    }


def standardised(opened, subset):
    """Return the concatenated matrix as scikit-learn would standardise it, over the root of its width."""
    x = np.hstack([np.asarray(opened.blocks[name].vectors)[ROWS, 0].astype(np.float64) for name in subset])
    return StandardScaler().fit(x[TRAIN]).transform(x) / np.sqrt(x.shape[1])


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_support_vector_machines_equal_svc(opened, grams, labels, subset):
    """One class against the rest and label by label, for every cost of a path."""
    kernel, x = grams.kernel(subset), standardised(opened, subset)
    y = labels["single"]
    for columns in ((y[:, None] == np.arange(3)).astype(np.int64), labels["multi"]):
        decided = svm_path(kernel, columns, TRAIN, HELD, costs=COSTS, tolerance=TIGHT)
        for i, cost in enumerate(COSTS):
            for k, column in enumerate(columns.T):
                machine = SVC(C=cost, kernel="linear", tol=TIGHT).fit(x[TRAIN], column[TRAIN])
                assert np.allclose(decided[i, :, k], machine.decision_function(x[HELD]), atol=1e-3)


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_rbf_kernel_equals_svc_and_svr(opened, grams, labels, subset):
    """Distances from sums of inner products."""
    kernel, x = grams.kernel(subset, "rbf"), standardised(opened, subset)
    column = labels["multi"][:, :1]
    machine = SVC(C=3.0, kernel="rbf", gamma=1.0, tol=TIGHT).fit(x[TRAIN], column[TRAIN, 0])
    decided = svm_path(kernel, column, TRAIN, HELD, costs=[3.0], tolerance=TIGHT)[0, :, 0]
    assert np.allclose(decided, machine.decision_function(x[HELD]), atol=1e-3)
    targets = labels["regression"]
    said = svr_path(kernel, targets, TRAIN, HELD, costs=[3.0], epsilon=0.2, tolerance=TIGHT)[0]
    for k, y in enumerate(targets.T):
        mean, deviation = y[TRAIN].mean(), y[TRAIN].std()
        other = (
            SVR(C=3.0, epsilon=0.2, gamma=1.0, tol=TIGHT).fit(x[TRAIN], (y[TRAIN] - mean) / deviation).predict(x[HELD])
        )
        assert np.allclose(said[:, k], other * deviation + mean, atol=1e-3 * deviation)


def test_weights_of_rows_reach_the_machine(opened, grams, labels):
    """A path with weighted rows is the weighted machine at each cost."""
    column, x = labels["multi"][:, :1], standardised(opened, SUBSETS[2])
    weights = np.where(column == 1, 3.0, 0.5)
    decided = svm_path(grams.kernel(SUBSETS[2]), column, TRAIN, HELD, costs=COSTS, weights=weights, tolerance=TIGHT)
    for i, cost in enumerate(COSTS):
        machine = SVC(C=cost, kernel="linear", tol=TIGHT).fit(
            x[TRAIN], column[TRAIN, 0], sample_weight=weights[TRAIN, 0]
        )
        assert np.allclose(decided[i, :, 0], machine.decision_function(x[HELD]), atol=1e-3)


def test_a_label_that_never_varies_is_decided_by_its_value(grams):
    """No machine can be fitted on one side only."""
    columns = np.zeros((len(ROWS), 2), dtype=np.int64)
    columns[:, 1] = 1
    assert (svm_path(grams.kernel(SUBSETS[0]), columns, TRAIN, HELD, costs=[1.0])[0] == [-1.0, 1.0]).all()


def test_unknown_blocks_and_kernels_are_refused(grams):
    """Each by its name."""
    with pytest.raises(HeadError, match=r"unknown block 'd\.pool'"):
        grams.kernel(["d.pool"])
    with pytest.raises(HeadError, match="unknown kernel 'cubic'"):
        grams.kernel(["a.pool"], "cubic")
    with pytest.raises(HeadError, match="at least one block"):
        grams.kernel([])
    with pytest.raises(HeadError, match="too large"):
        block_grams(None, [], np.arange(20_001), np.arange(3))


def test_gamma_can_be_given():
    """As the factor of the kernel."""
    grams = Grams({"a": np.eye(2, dtype=np.float32)}, {"a": 4})
    assert np.array_equal(grams.kernel(["a"], gamma=0.5), np.eye(2) / 2)
    assert np.allclose(grams.kernel(["a"], "rbf", gamma=0.5), [[1, np.exp(-1)], [np.exp(-1), 1]])
