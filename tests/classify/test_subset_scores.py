"""Scores of subsets of blocks from shared Gram matrices and sums, against scikit-learn on the concatenated matrix."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from classify.config import RunConfig
from classify.data.kinds import kind_of
from classify.errors import HeadError
from classify.heads.one_vs_rest import probabilities
from classify.studies.subset_scores import MAX_ROWS, Images, path_scores
from features_store import Labels, Task, open_store

WIDTHS = {"a.pool": 12, "b.pool": 7, "c.pool": 20}
SUBSETS = [("b.pool",), ("a.pool", "c.pool"), ("a.pool", "b.pool", "c.pool")]
N = 150
ROWS = np.arange(N - 10)[::-1].copy()  # a choice of the store's rows, in an order of its own
FOLDS = np.arange(len(ROWS)) % 3
SINGLE, MULTI = Task("s", "single", tuple("xyz")), Task("m", "multi", tuple("uvw"))
VALUES = Task("r", "regression", ("v", "w"), (-10.0, 100.0))


@pytest.fixture(scope="module")
def opened(make_store):
    """Return a store whose features have unlike scales and means, one of them constant."""
    random = np.random.default_rng(11)
    blocks = {
        name: random.normal(size=(N, width)) * random.uniform(0.1, 4, size=width) + random.normal(size=width) * 20
        for name, width in WIDTHS.items()
    }
    blocks["b.pool"][:, 3] = 2.5
    hidden = blocks["a.pool"][:, :3] - blocks["a.pool"][:, :3].mean(axis=0) + random.normal(size=(N, 3))
    labels = [
        Labels(SINGLE, hidden.argmax(axis=1)),
        Labels(MULTI, (hidden > 0.5).astype(np.uint8)),
        Labels(VALUES, hidden[:, :2] * [1, 5] + [0, 40]),
    ]
    return open_store(make_store(blocks, labels))


def fit_of(head, **settings):
    """Return what is fitted."""
    return RunConfig("store", "task", head, settings=settings)


def images_of(opened, task):
    """Return the images of a task."""
    y = kind_of(task).targets(opened.labels[task.name].values[ROWS])
    return Images(opened, task, ROWS, y, FOLDS)


def standardized(opened, subset, train):
    """Return the concatenated matrix as scikit-learn would standardize it, over the root of its width."""
    x = np.hstack([np.asarray(opened.blocks[name].vectors)[ROWS, 0].astype(np.float64) for name in subset])
    return StandardScaler().fit(x[train]).transform(x) / np.sqrt(x.shape[1])


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("weight", [None, "balanced"])
@pytest.mark.parametrize("task", [SINGLE, MULTI], ids=lambda task: task.kind)
def test_machines_equal_svc_for_every_subset_and_cost(opened, task, kernel, weight):
    """One class against the rest and label by label; the path stops early where no row is bound, and is still right."""
    images, costs = images_of(opened, task), [0.01, 1.0, 100.0]
    paths = path_scores(images, SUBSETS, fit_of("svm", kernel=kernel, C=costs, class_weight=weight))
    truth = kind_of(task).indicators(images.y).astype(int)
    counts = truth[FOLDS != 0].mean(axis=0)
    for subset, path in paths.items():
        train, held = images.cuts[0]
        x = standardized(opened, subset, train)
        for cost, found in zip(costs, path, strict=True):
            decided = []
            for k, y in enumerate(truth[train].T):
                row = np.ones(len(y))
                if weight and task is SINGLE:
                    row = (1 / (3 * counts))[images.y[train]]
                elif weight:
                    row = np.where(y == 1, 0.5 / counts[k], 0.5 / (1 - counts[k]))
                machine = SVC(C=cost, kernel=kernel, gamma=1.0).fit(x[train], y, sample_weight=row)
                decided.append(machine.decision_function(x[held]))
            expected = probabilities(np.stack(decided, axis=1), multilabel=task is MULTI)
            np.testing.assert_allclose(found[held], expected, atol=5e-3)


def test_regression_machines_equal_svr(opened):
    """Targets are brought to mean 0 and variance 1, and answers back."""
    images, costs = images_of(opened, VALUES), [0.1, 10.0]
    paths = path_scores(images, SUBSETS[1:2], fit_of("svm", C=costs, epsilon=0.2))
    train, held = images.cuts[1]
    x, y = standardized(opened, SUBSETS[1], train), images.y
    for cost, found in zip(costs, paths[SUBSETS[1]], strict=True):
        for k in range(2):
            mean, deviation = y[train, k].mean(), y[train, k].std()
            machine = SVR(C=cost, epsilon=0.2, gamma=1.0).fit(x[train], (y[train, k] - mean) / deviation)
            expected = machine.predict(x[held]) * deviation + mean
            np.testing.assert_allclose(found[held, k], expected, atol=5e-3 * deviation)


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_ridge_equals_scikit_learn_for_every_fold_and_penalty(opened, subset):
    """Standardized on the fold's own training rows, which follows from the sums."""
    images, alphas = images_of(opened, VALUES), [0.01, 1.0, 100.0]
    paths = path_scores(images, SUBSETS, fit_of("ridge", alpha=alphas))[subset]
    for train, held in images.cuts:
        x = standardized(opened, subset, train)
        for alpha, found in zip(alphas, paths, strict=True):
            other = Ridge(alpha=alpha).fit(x[train], images.y[train])
            np.testing.assert_allclose(found[held], other.predict(x[held]), rtol=1e-4, atol=1e-4)


def test_ridge_decides_labels_at_one_half(opened):
    """As least squares on 0 and 1 would, brought into (0, 1)."""
    images = images_of(opened, MULTI)
    (scores,) = path_scores(images, SUBSETS[:1], fit_of("ridge"))[SUBSETS[0]]
    train, held = images.cuts[0]
    x = standardized(opened, SUBSETS[0], train)
    np.testing.assert_array_equal(scores[held] >= 0.5, Ridge().fit(x[train], images.y[train]).predict(x[held]) >= 0.5)
    assert 0 < scores.min() < scores.max() < 1


def test_a_label_that_never_varies_is_decided_by_its_value(make_store):
    """No machine can be fitted on one side only."""
    y = np.zeros((30, 2), np.uint8)
    y[:, 1] = 1
    store = open_store(make_store({"a.pool": np.random.default_rng(0).normal(size=(30, 4))}, [Labels(MULTI_2, y)]))
    images = Images(store, MULTI_2, np.arange(30), y, np.arange(30) % 2)
    (scores,) = path_scores(images, [("a.pool",)], fit_of("svm"))["a.pool",]
    assert ((scores >= 0.5) == y).all()


MULTI_2 = Task("n", "multi", ("never", "always"))


def test_too_many_rows_for_a_gram_matrix_are_refused(opened):
    """With the head that takes them."""
    rows = np.zeros(MAX_ROWS + 1, dtype=np.int64)
    images = Images(opened, SINGLE, rows, rows % 3, rows)
    with pytest.raises(HeadError, match="too large; at most 20000"):
        path_scores(images, SUBSETS, fit_of("svm"))
