"""Support vector machines on one Gram matrix against scikit-learn's, and the probabilities made of them."""

import itertools

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from classify.data.folds import cuts, deal_strata
from classify.data.kinds import KINDS
from classify.errors import HeadError
from classify.heads import make_head
from classify.heads.one_vs_rest import indicator_columns, log_loss
from classify.heads.svm import COSTS, WIDTHS

X = np.random.default_rng(0).normal(size=(240, 20)).astype(np.float32)
HIDDEN = X @ np.random.default_rng(9).normal(size=(20, 2)).astype(np.float32)
TARGETS = {
    "single": np.array(["negative", "neutral", "positive"])[np.digitize(HIDDEN[:, 0], [-2, 2])],
    "multi": (HIDDEN > 0).astype(np.uint8),
    "regression": 5 + HIDDEN / HIDDEN.std(axis=0),
}


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_svm_equals_scikit_learn_on_standardized_rows(kernel):
    """The machines are libsvm's: one label's decision and a regression, from the Gram matrix, match."""
    y = TARGETS["multi"]
    standard = StandardScaler().fit_transform(X)
    if kernel == "linear":
        standard = standard / np.sqrt(20)
    head = make_head("svm", "multi", kernel=kernel, C=3.0).fit(X, y)
    reference = SVC(C=3.0, kernel=kernel, gamma=1 / 20).fit(standard, y[:, 0])
    assert np.allclose(head._decision(X)[:, 0], reference.decision_function(standard), atol=5e-3)
    y = TARGETS["regression"]
    target = (y[:, 1] - y[:, 1].mean()) / y[:, 1].std()
    reference = SVR(C=3.0, kernel=kernel, gamma=1 / 20).fit(standard, target)
    expected = reference.predict(standard) * y[:, 1].std() + y[:, 1].mean()
    assert np.allclose(
        make_head("svm", "regression", kernel=kernel, C=3.0).fit(X, y).predict(X)[:, 1], expected, atol=5e-3
    )


def test_svm_probabilities_are_calibrated():
    """On fresh rows the mean probability of each class is near its share, noise or not."""
    random = np.random.default_rng(4)
    X = random.normal(size=(3000, 10))
    y = (random.random(3000) < 1 / (1 + np.exp(-2 * X[:, 0]))).astype(int)
    found = make_head("svm", "single", kernel="linear").fit(X[:600], y[:600]).predict_proba(X[600:])[:, 1]
    for low in (0.0, 0.25, 0.5, 0.75):
        inside = (found >= low) & (found < low + 0.25)
        assert y[600:][inside].mean() == pytest.approx(found[inside].mean(), abs=0.08)


def test_class_weight_lifts_the_rare_class():
    """With "balanced" the rare class is predicted more often, by svm and linear alike."""
    random = np.random.default_rng(5)
    y = np.repeat(["often", "rare"], [270, 30])
    X = random.normal(size=(300, 5)) + (y == "rare")[:, None] * 0.7
    for name in ("svm", "linear"):
        plain, balanced = (make_head(name, "single", class_weight=w).fit(X, y) for w in (None, "balanced"))
        assert np.sum(balanced.predict(X) == "rare") > 2 * np.sum(plain.predict(X) == "rare")


def test_svm_refuses_more_rows_than_its_gram_matrix_may_have():
    """And names the option, and the heads that can."""
    y = TARGETS["single"]
    with pytest.raises(HeadError, match=r"240 x 240.*max_rows is 100.*linear or mlp"):
        make_head("svm", "single", max_rows=100).fit(X, y)


@pytest.mark.parametrize("kind", TARGETS)
def test_c_and_gamma_are_the_best_of_an_explicit_grid(kind):
    """By the same folds; given ones are taken, and gamma is not searched beside a given C."""
    x, y, truth = X[:90], TARGETS[kind][:90], codes(kind)[:90]
    folds, head = cuts(deal_strata(KINDS[kind].strata(truth))), make_head("svm", kind).fit(x, y)
    losses = {}
    for C, gamma in itertools.product(COSTS, WIDTHS):
        tried = make_head(
            "svm", kind, C=C, gamma=gamma / 20, **({} if kind == "regression" else {"calibration_folds": 2})
        )
        if kind == "regression":
            found = [((tried.fit(x[a], y[a]).predict(x[b]) - y[b]) ** 2 / y.var(axis=0)).mean() for a, b in folds]
        else:
            found = [score(tried.fit(x[a], y[a]).predict_proba(x[b]), truth[b], kind) for a, b in folds]
        losses[C, gamma / 20] = np.mean(found)
    assert losses[head.C_, head.gamma_] <= min(losses.values()) * 1.05 + 0.01  # its folds share one standardization
    assert head.search_["n_tried"] == 12
    given = make_head("svm", kind, C=2.0).fit(x, y)
    assert (given.C_, given.gamma_, given.search_) == (2.0, 1 / 20, {})


def test_of_many_classes_some_choose_c_and_gamma(monkeypatch):
    """All are fitted in the end; a thousand would take an hour to choose by."""
    random, y, fits, fit = np.random.default_rng(2), np.repeat(np.arange(12), 6), [], SVC.fit
    x = random.normal(size=(12, 8))[y] * 3 + random.normal(size=(72, 8)) * 0.1
    monkeypatch.setattr("classify.heads.svm.JUDGED", 5)
    monkeypatch.setattr(SVC, "fit", lambda self, *a, **k: (fits.append(1), fit(self, *a, **k))[1])
    head = make_head("svm", "single", calibration_folds=2).fit(x, y)
    assert len(fits) == 12 * 5 * 5 + 12 * 3
    p = head.predict_proba(x)
    assert p.sum(axis=1) == pytest.approx(1)
    assert (head.classes_[p.argmax(axis=1)] == y).mean() > 0.95


def codes(kind):
    """Return labels as heads see them."""
    return np.unique(TARGETS[kind], return_inverse=True)[1] if kind == "single" else TARGETS[kind]


def score(p, y, kind):
    """Return the log loss."""
    return log_loss(p, indicator_columns(y, 3), multilabel=kind == "multi")
