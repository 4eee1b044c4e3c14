"""The head ``knn`` against scikit-learn's, and the choice of k by inner folds."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from classify.errors import HeadError
from classify.heads import make_head

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(90, 5)).astype(np.float32)


def test_it_is_the_mean_of_the_nearest_by_cosine():
    """With k and plain weights given."""
    y = X[:, :2] * 3 + 1
    z = StandardScaler().fit(X[:60])
    expected = KNeighborsRegressor(4, metric="cosine").fit(z.transform(X[:60]), y[:60]).predict(z.transform(X[60:]))
    head = make_head("knn", "regression", k=4, sharpness=0.0).fit(X[:60], y[:60])
    np.testing.assert_allclose(head.predict(X[60:]), expected, atol=1e-5)
    assert head.search_ == {}


@pytest.mark.parametrize("kind", ["single", "binary", "multi"])
def test_probabilities_are_shares_drawn_towards_those_of_all(kind):
    """Finite log-odds for every class, however few neighbours."""
    y = {"single": np.digitize(X[:, 0], [-0.5, 0.5]), "binary": (X[:, 0] > 0) * 1}.get(kind, (X[:, :2] > 0) * 1)
    p = make_head("knn", "multi" if kind == "multi" else "single", k=1).fit(X, y).predict_proba(X)
    assert 0 < p.min() < p.max() < 1
    if kind != "multi":
        np.testing.assert_allclose(p.sum(axis=1), 1)


def test_k_follows_from_the_noise():
    """Few neighbours where labels are clean, many where they are not; a group is never its own neighbour."""
    x = RANDOM.normal(size=(240, 2)).astype(np.float32)
    angle = np.arctan2(x[:, 1], x[:, 0])
    clean = make_head("knn", "regression").fit(x, np.sin(3 * angle))
    noisy = make_head("knn", "regression").fit(x, 0.1 * np.sin(angle) + RANDOM.normal(size=240))
    assert clean.k_ <= 10
    assert noisy.k_ >= 20
    groups, twice = np.repeat(np.arange(120), 2), np.repeat(RANDOM.normal(size=120), 2)
    pairs = np.repeat(RANDOM.normal(size=(120, 20)), 2, axis=0)
    assert make_head("knn", "regression").fit(pairs, twice).search_["inner_loss"] < 0.6
    assert make_head("knn", "regression").fit(pairs, twice, groups=groups).search_["inner_loss"] > 0.9


def test_too_many_rows_are_refused():
    """With the option that allows them."""
    with pytest.raises(HeadError, match="max_rows is 50; raise it"):
        make_head("knn", "regression", max_rows=50).fit(np.zeros((51, 2)), np.arange(51.0))
