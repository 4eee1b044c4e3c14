"""Ridge and principal components from moments, and the streaming solvers, against scikit-learn on the matrix."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from classify.data.rows import ArrayRows
from classify.errors import HeadError
from classify.heads import moments as engine
from classify.heads.base import Standardiser
from classify.heads.fullbatch import Problem, solve
from classify.heads.moments import accumulate, block_columns, ridge_path

WIDTHS = {"a": 12, "b": 7, "c": 20}
SUBSETS = [("a",), ("c", "b"), ("a", "b", "c")]
STRENGTHS = (0.1, 10.0, 1000.0)
RANDOM = np.random.default_rng(21)
N = 400
X = RANDOM.normal(size=(N, 39)) @ RANDOM.normal(size=(39, 39)) * RANDOM.uniform(0.01, 3, size=39)
X = (X + RANDOM.normal(size=39) * 20).astype(np.float32)
X[:, 5] = -3.25
Y = np.stack([X[:, 0] + RANDOM.normal(size=N), RANDOM.normal(size=N) * 3 + 50], axis=1)
FOLDS = RANDOM.integers(4, size=N) - (RANDOM.uniform(size=N) < 0.1) * 10  # some rows are in no fold


@pytest.fixture(params=["float64", "float32"])
def totals(request, monkeypatch):
    """Total the products in float64, and in float32 as for very wide features."""
    if request.param == "float32":
        monkeypatch.setattr(engine, "_WIDE", 0)
    monkeypatch.setattr(engine, "_CHUNK_BYTES", 39 * 4 * 70)  # several chunks a fold
    return request.param


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_ridge_equals_scikit_learn_for_every_fold_and_strength(totals, subset):
    """Standardised on the fold's own training rows, which follows from the sums."""
    sums = accumulate(ArrayRows(X), Y, FOLDS)
    everything = accumulate(ArrayRows(X), Y, np.where(FOLDS >= 0, 0, -1))[0]
    columns = block_columns(WIDTHS, subset)
    for fold, held in sums.items():
        train, test = (FOLDS >= 0) & (fold != FOLDS), fold == FOLDS
        scaler = StandardScaler().fit(X[train][:, columns].astype(np.float64))
        z = scaler.transform(X[:, columns].astype(np.float64))
        for strength, ridge in zip(STRENGTHS, ridge_path(everything.without(held), columns, STRENGTHS), strict=True):
            other = Ridge(alpha=strength).fit(z[train], Y[train])
            ours = ridge.predict(X[test][:, columns])
            assert np.allclose(ours, other.predict(z[test]), rtol=1e-4, atol=1e-4 if totals == "float64" else 3e-3)


def test_columns_of_blocks_ascend_whatever_the_order_named():
    """Blocks keep their place in the concatenation."""
    assert block_columns(WIDTHS, ("b", "a")).tolist() == list(range(19))
    assert block_columns(WIDTHS, ("c",)).tolist() == list(range(19, 39))


def test_a_strength_of_zero_is_refused():
    """The message quotes it."""
    (moments,) = accumulate(ArrayRows(X), Y).values()
    with pytest.raises(HeadError, match="ridge strength is 0"):
        ridge_path(moments, np.arange(39), [1.0, 0.0])


def test_values_that_are_no_numbers_are_refused_with_their_place():
    """The one pass sees every value."""
    bad = X.copy()
    bad[300, 7] = np.nan
    with pytest.raises(HeadError, match="row 300, column 7"):
        accumulate(ArrayRows(bad), Y)


def labels(kind):
    """Return labels that follow from the features with noise."""
    z = StandardScaler().fit_transform(X.astype(np.float64))
    score = z @ np.random.default_rng(3).normal(size=(39, 3)) / 6 + np.random.default_rng(4).normal(size=(N, 3))
    return score.argmax(axis=1) if kind == "softmax" else (score > 0.3).astype(np.int64)


@pytest.fixture(scope="module")
def standardised():
    """Return rows, their standardiser and the matrix that it makes of them."""
    rows = ArrayRows(X)
    standardiser = Standardiser.fit(rows, standardize=True)
    return rows, standardiser, standardiser(X).astype(np.float64)


@pytest.mark.parametrize("kind", ["softmax", "multi"])
def test_logistic_regression_equals_scikit_learn(standardised, kind):
    """Softmax over classes, and a sigmoid for each label, for several costs at once."""
    rows, standardiser, z = standardised
    y = labels(kind)
    columns = [y] if kind == "softmax" else list(y.T)
    loss = "softmax" if kind == "softmax" else "logistic"
    problems = [Problem(loss, column, cost) for column in columns for cost in (0.001, 0.05)]
    for problem, solution in zip(problems, solve(rows, standardiser, problems, tolerance=1e-7), strict=True):
        other = LogisticRegression(C=problem.cost, tol=1e-9, max_iter=5000).fit(z, problem.y)
        ours = z @ solution.coef.T + solution.intercept
        assert solution.converged
        assert np.allclose(ours, other.decision_function(z).reshape(ours.shape), atol=1e-3)


def test_weights_leave_rows_out(standardised):
    """Folds are weights of rows: a weight of 0 is the same as the row not being there."""
    rows, standardiser, z = standardised
    y, weights = labels("multi")[:, 0], (FOLDS != 1).astype(np.float64)
    weights[:50] *= 2
    (solution,) = solve(rows, standardiser, [Problem("logistic", y, 0.1, weights)], tolerance=1e-7)
    other = LogisticRegression(C=0.1, tol=1e-9, max_iter=5000).fit(z[FOLDS != 1], y[FOLDS != 1], weights[FOLDS != 1])
    assert np.allclose(solution.coef, other.coef_, atol=1e-3)


def test_problems_solved_together_equal_problems_solved_alone(standardised):
    """A problem doesn't know of the others in its scan."""
    rows, standardiser, _ = standardised
    problems = [Problem("logistic", labels("multi")[:, 0], c) for c in (0.01, 1.0)]
    together = solve(rows, standardiser, problems, tolerance=1e-8)
    for problem, one in zip(problems, together, strict=True):
        (alone,) = solve(rows, standardiser, [problem], tolerance=1e-8)
        assert np.allclose(alone.coef, one.coef, atol=1e-5)


def test_running_out_of_scans_is_told():
    """What was reached is returned, and that it isn't the end."""
    rows = ArrayRows(X)
    standardiser = Standardiser.fit(rows, standardize=True)
    (solution,) = solve(rows, standardiser, [Problem("logistic", labels("multi")[:, 0], 1.0)], max_scans=3)
    assert not solution.converged
    assert np.isfinite(solution.coef).all()


def test_an_unknown_loss_or_cost_is_refused():
    """By its name."""
    with pytest.raises(HeadError, match="unknown loss 'hinge'"):
        Problem("hinge", Y[:, 0], 1.0)
    with pytest.raises(HeadError, match="cost is 0"):
        Problem("logistic", Y[:, 0], 0)
