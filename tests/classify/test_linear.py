"""The strengths that linear heads choose for themselves: those that an explicit sweep would choose."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from classify.data.folds import cuts, deal_strata
from classify.data.kinds import KINDS
from classify.heads import make_head
from classify.heads.linear import ALPHAS, COSTS
from classify.heads.one_vs_rest import indicator_columns, log_loss

RANDOM = np.random.default_rng(0)
N = 30
GROUPS = np.array([*np.repeat(np.arange(5), 4), *[-1] * 10])


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["images", "groups"])
@pytest.mark.parametrize(("width", "project"), [(8, "auto"), (50, "auto"), (50, "never")])
def test_ridge_is_the_best_of_a_sweep_that_leaves_out_each_unit(width, project, groups):
    """Error and weights are those of 45 regressions for each image, or group, that is left out."""
    x = RANDOM.normal(size=(N, width)).astype(np.float32)
    y = np.stack([x[:, 0] + RANDOM.normal(size=N), 5 * x[:, 1] + RANDOM.normal(size=N)], axis=1)
    head = make_head("linear", "regression", project=project).fit(x, y, groups=groups)
    z = ((x - x.mean(axis=0)) / x.std(axis=0) / np.sqrt(width)).astype(float)
    units = np.arange(N) if groups is None else np.where(GROUPS < 0, 100 + np.arange(N), GROUPS)
    missed = np.zeros((len(ALPHAS), *y.shape))
    for unit in np.unique(units):
        out = units == unit
        b, mean = z[~out] - z[~out].mean(axis=0), y[~out].mean(axis=0)
        shifted = b.T @ b + ALPHAS[:, None, None] * np.eye(width)
        answers = (z[out] - z[~out].mean(axis=0)) @ np.linalg.solve(shifted, b.T @ (y[~out] - mean)) + mean
        missed[:, out] = y[out] - answers
    losses = ((missed**2).mean(axis=1) / y.var(axis=0)).mean(axis=1)
    best = int(np.argmin(losses))
    assert head.alpha_ == pytest.approx(ALPHAS[best], rel=1e-5)
    assert head.search_["inner_loss"] == pytest.approx(losses[best], rel=1e-5)
    np.testing.assert_allclose(head.predict(x), Ridge(alpha=ALPHAS[best]).fit(z, y).predict(z), atol=1e-4)


@pytest.mark.parametrize("signal", [0.0, 4.0])
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_logistic_regression_is_the_best_of_an_explicit_sweep(kind, signal):
    """By the log loss of the same folds; with nothing to learn the penalty is strong."""
    random = np.random.default_rng(7)
    x = random.normal(size=(90, 10)).astype(np.float32)
    hidden = signal * x[:, :2] / 2 + random.normal(size=(90, 2))
    y = np.digitize(hidden[:, 0], [-1, 1]) if kind == "single" else (hidden > 0).astype(int)
    head = make_head("linear", kind).fit(x, y)
    assert (head.C_ < 0.2) == (signal == 0)
    losses, folds = [], cuts(deal_strata(KINDS[kind].strata(y), n_folds=3))
    for cost in COSTS[::2]:
        parts = [make_head("linear", kind, C=cost).fit(x[a], y[a]).predict_proba(x[b]) for a, b in folds]
        truth = np.concatenate([y[b] for _, b in folds])
        columns = indicator_columns(truth, 3)
        losses.append(log_loss(np.concatenate(parts), columns, multilabel=kind == "multi"))
    assert head.search_["inner_loss"] <= min(losses) + 0.005


def test_given_strengths_are_taken():
    """Nothing is searched."""
    x, y = RANDOM.normal(size=(30, 4)), np.arange(30) % 2
    assert make_head("linear", "single", C=0.5).fit(x, y).C_ == 0.5
    head = make_head("linear", "regression", alpha=2.0).fit(x, y)
    assert (head.alpha_, head.search_) == (2.0, {})


def test_groups_that_are_classes_leave_nothing_to_choose_by():
    """No inner fold has a class of the others; the fit is that of the first C."""
    random, y = np.random.default_rng(0), np.arange(60) % 3
    x = random.normal(size=(60, 4)).astype(np.float32)
    head, plain = make_head("linear", "single").fit(x, y, groups=y), make_head("linear", "single", C=1.0).fit(x, y)
    np.testing.assert_array_equal(head.predict_proba(x), plain.predict_proba(x))
