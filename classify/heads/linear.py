"""Linear heads: logistic regression and ridge, the plainest that look at the features."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from classify.data.rows import Rows, batches
from classify.data.span import Projection
from classify.data.standardizer import Standardizer, finite_batches
from classify.errors import HeadError
from classify.heads.base import ClassifierHead, Head, RegressorHead
from classify.heads.one_vs_rest import class_weights, constant_log_odds, probabilities
from classify.heads.options import choice, flag, number, weights_of_classes, whole

__all__ = ["LinearClassifier", "LinearRegressor", "ProductSums", "solve_ridge", "sum_products"]

_HELD_BYTES = 2**31
_WIDE = 4096  # up to so many features every product is float64
_CHUNK_BYTES = 64 * 2**20  # of float32 rows multiplied at once


@dataclass(kw_only=True, repr=False, eq=False)
class _LinearHead(Head):
    """Weights (n_outputs, n_features) over standardized features, and intercepts."""

    _learned: ClassVar[tuple[str, ...]] = ("standardizer_", "coef_", "intercept_")

    standardize: bool = flag(
        "bring each feature to mean 0 and variance 1 over n_features, measured on training rows", default=True
    )
    project: str = choice(
        "auto",
        "with fewer training rows than features, solve in the coordinates of their span: the same head, sooner",
        ("auto", "never"),
    )
    stream: str = choice(
        "auto",
        "solve by passes over the rows instead of holding them; auto: where they would take more than 2 GiB",
        ("always", "auto", "never"),
    )

    def _streams(self, rows: Rows) -> bool:
        """Decide whether the rows are too many to be held as a matrix."""
        if self.stream == "auto":
            return 8 * rows.shape[0] * rows.shape[1] > _HELD_BYTES
        return self.stream == "always"

    def _scaled(self, rows: Rows) -> Standardizer:
        """Measure the rows; the scale takes in the root of the number of features, see `_design`."""
        fitted = Standardizer.fit(rows, standardize=self.standardize)
        width = np.float32(math.sqrt(rows.shape[1]) if self.standardize else 1)
        return Standardizer(fitted.mean, fitted.scale * width)

    def _design(self, rows: Rows) -> np.ndarray:
        """Return the training rows, standardized and divided by the root of their number of features.

        So rows have squared length about 1 whatever their width, and the penalty means the same as blocks are
        added. With fewer rows than features they come in the coordinates of their span, which is exact: both
        solvers only ever take sums of rows.
        """
        self.standardizer_ = self._scaled(rows)
        design, self._projection = self.standardizer_.whole(rows), None
        if self.project == "auto" and rows.shape[0] < rows.shape[1]:
            self._projection = Projection.fit(design)
            return self._projection.coordinates
        return design.astype(np.float64)

    def _keep(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        coef, projection = np.atleast_2d(coef), self.__dict__.pop("_projection", None)
        self.coef_ = coef if projection is None else projection.lift(coef)
        self.intercept_ = np.atleast_1d(intercept)
        self.history_, self.n_parameters_ = [], self.coef_.size + self.intercept_.size

    def _values(self, X: Any) -> np.ndarray:
        """Return ``x @ coef.T + intercept``, float64 (n_images, n_outputs)."""
        batches = finite_batches(self._rows(X, reset=False))
        return np.concatenate(
            [self.standardizer_(x).astype(np.float64) @ self.coef_.T + self.intercept_ for _, x in batches]
        )


@dataclass(kw_only=True, repr=False, eq=False)
class LinearClassifier(ClassifierHead, _LinearHead):
    """Logistic regression: softmax over the classes, or one binary regression for each label.

    Attributes
    ----------
    n_iter_ : int
        Iterations taken; the most of any label.
    """

    _learned = (*_LinearHead._learned, "n_iter_")

    C: float = number(1.0, "inverse of the L2 penalty, for rows of squared length about 1", least=1e-9, most=1e9)
    class_weight: Any = weights_of_classes(
        "weight of the rows of each class; by class, for tasks with one label an image"
    )
    max_iter: int = whole(1000, "iterations of L-BFGS, at most", most=10**6)

    def fit(self, X: Any, y: Any, *, validation: object = None) -> LinearClassifier:
        """Fit by full-batch L-BFGS; *validation* is ignored.

        Parameters
        ----------
        y : array
            single-label: (n_images,) labels; multi-label: (n_images, n_labels) of 0 and 1.

        Returns
        -------
        self
        """
        rows, codes = self._training_rows(X, y)
        self.n_iter_ = 0
        weights = class_weights(codes, self.classes_, self.class_weight)
        if self._streams(rows):
            self._fit_streaming(rows, codes, weights)
            return self
        design = self._design(rows)
        if not self.multilabel_:
            self._keep(*self._solve(design, codes, weights[:, 0]))
            return self
        fits = [self._column(design, codes[:, k], weights[:, k]) for k in range(codes.shape[1])]
        self._keep(np.concatenate([coef for coef, _ in fits]), np.concatenate([b for _, b in fits]))
        return self

    def _fit_streaming(self, rows: Rows, codes: np.ndarray, weights: np.ndarray) -> None:
        """Solve for all outputs together by passes over the rows."""
        self.standardizer_ = self._scaled(rows)
        softmax = not self.multilabel_ and len(self.classes_) > 2
        columns = codes.reshape(len(codes), -1)
        n_outputs = len(self.classes_) if softmax else columns.shape[1]
        coef, intercept = np.zeros((n_outputs, rows.shape[1])), np.zeros(n_outputs)
        varied = np.arange(n_outputs)
        if softmax:  # a row weighs the same in every column
            weights = weights[:, :1]
        else:  # a label that never varies gets its share
            intercept = np.array([constant_log_odds(y) for y in columns.T])
            varied = np.flatnonzero(columns.min(axis=0) != columns.max(axis=0))
            columns, weights = columns[:, varied], weights[:, varied]
        if len(varied):
            problem = _Streamed(rows, self.standardizer_, columns, weights, self.C, softmax=softmax)
            tolerance = 1e-5 if rows.shape[1] > _WIDE else min(1e-5, self._tolerance())
            solved, self.n_iter_, converged = problem.solve(len(varied), tolerance, self.max_iter)
            coef[varied], intercept[varied] = solved[:-1].T, solved[-1]
            if not converged:
                text = (
                    f"the solver did not converge in {self.max_iter} passes over the rows; raise max_iter, or lower C"
                )
                warnings.warn(text, ConvergenceWarning, stacklevel=3)
        self._keep(coef, intercept)

    def _tolerance(self) -> float:
        """Return the gradient at which the solver stops, in units of the features as they are given.

        Rows that are divided by the root of their number of features have gradients as much smaller; and the weaker
        the penalty, the farther is the minimum from a point of the same gradient.
        """
        width = math.sqrt(self.n_features_in_) if self.standardize else 1.0
        return 1e-4 / (width * math.sqrt(max(self.C, 1.0)))

    def _column(self, design: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if y.min() == y.max():
            return np.zeros((1, design.shape[1])), np.array([constant_log_odds(y)])
        return self._solve(design, y, weights)

    def _solve(self, design: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        options = {"C": self.C, "max_iter": self.max_iter, "tol": self._tolerance()}
        model = LogisticRegression(**options).fit(design, y, sample_weight=weights)
        self.n_iter_ = max(self.n_iter_, int(model.n_iter_.max()))
        return model.coef_, model.intercept_

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 (n_images, n_classes); rows sum to 1 unless multi-label."""
        values = self._values(X)
        if self.multilabel_ or values.shape[1] == 1:
            return probabilities(values, multilabel=self.multilabel_)
        return softmax(values, axis=1)


@dataclass(kw_only=True, repr=False, eq=False)
class LinearRegressor(RegressorHead, _LinearHead):
    """Ridge regression, all outputs at once."""

    alpha: float = number(1.0, "L2 penalty, for rows of squared length about 1", least=1e-9, most=1e12)

    def fit(self, X: Any, y: Any, *, validation: object = None) -> LinearRegressor:
        """Solve for the weights; *validation* is ignored.

        Returns
        -------
        self
        """
        rows, targets = self._training_rows(X, y)
        if self.standardize and self._streams(rows):
            self._fit_streaming(rows, targets)
            return self
        design = self._design(rows)
        model = Ridge(alpha=self.alpha).fit(design, targets)
        self._keep(model.coef_, model.intercept_)
        return self

    def _fit_streaming(self, rows: Rows, targets: np.ndarray) -> None:
        """Solve from sums of products over one pass of the rows."""
        self.standardizer_ = self._scaled(rows)
        sums = sum_products(rows, self.standardizer_, targets)
        zz, zy = sums.centered()
        coef = solve_ridge(zz, zy, self.alpha)
        self._keep(coef, sums.y / sums.n - coef @ (sums.x / sums.n))

    def predict(self, X: Any) -> np.ndarray:
        """Return values in the units of y, float64 (n_images,) or (n_images, n_outputs)."""
        return self._shaped(self._values(X))


class _Streamed:
    """Logistic regression of all columns at once, evaluated by a pass over the rows.

    ``min |W|^2 / 2 + C * sum_i weight_i * loss(W z_i + b, y_i)``, each column (or the softmax as a whole) divided by C
    and its sum of weights, so that a gradient means the same whatever the number of rows.
    """

    def __init__(
        self,
        rows: Rows,
        standardizer: Standardizer,
        y: np.ndarray,
        weights: np.ndarray,
        C: float,
        *,
        softmax: bool,
    ) -> None:
        self.rows, self.standardizer, self.y, self.weights, self.C = rows, standardizer, y, weights, C
        self.softmax = softmax
        self.total = weights.sum(axis=0)  # (n_columns,); softmax: (1,)

    def solve(self, n_outputs: int, tolerance: float, max_iter: int) -> tuple[np.ndarray, int, bool]:
        """Return weights and intercepts (n_features + 1, n_outputs), the iterations, and whether they converged."""
        start = np.zeros((self.rows.shape[1] + 1) * n_outputs)
        options = {"gtol": tolerance, "ftol": 64 * np.finfo(float).eps, "maxiter": max_iter, "maxfun": max_iter}
        found = minimize(self.value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
        return found.x.reshape(-1, n_outputs), int(found.nit), bool(found.success)

    def value_and_gradient(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Read all rows once."""
        w = flat.reshape(self.rows.shape[1] + 1, -1)  # the last row holds the intercepts
        exact: Any = np.float64 if len(w) <= _WIDE else np.float32
        coef, loss, slope = w[:-1].astype(exact), 0.0, np.zeros_like(w)
        for positions, gathered in finite_batches(self.rows, size=_CHUNK_BYTES // (4 * len(w))):
            z = self.standardizer(gathered).astype(exact, copy=False)
            scores = (z @ coef).astype(np.float64) + w[-1]
            weights = self.weights[positions] / self.total
            losses, residual = (_softmax if self.softmax else _logistic)(scores, self.y[positions])
            loss += float((losses * weights).sum())
            residual *= weights
            slope[:-1] += z.T @ residual.astype(exact)
            slope[-1] += residual.sum(axis=0)
        penalty = w[:-1] / (self.C * self.total)
        slope[:-1] += penalty
        return loss + float((w[:-1] * penalty).sum()) / 2, slope.ravel()


def _logistic(scores: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``log(1 + exp(-y f))`` and its slope, both (n, n_columns)."""
    return np.logaddexp(0, np.where(y > 0, -scores, scores)), expit(scores) - y


def _softmax(scores: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cross-entropy (n, 1) and its slope (n, n_classes)."""
    log_p, truth = log_softmax(scores, axis=1), y == np.arange(scores.shape[1])
    return -log_p[truth][:, None], np.exp(log_p) - truth


@dataclass(frozen=True)
class ProductSums:
    """Sums over some rows of standardized features z and targets y: all that a ridge regression needs of them.

    Sums of disjoint rows add up, so those of the training rows of a fold are the sum over the other folds.
    """

    n: int
    x: np.ndarray  # (n_features,)
    y: np.ndarray  # (n_targets,)
    xx: np.ndarray  # (n_features, n_features), float32 beyond 4,096 features
    xy: np.ndarray  # (n_features, n_targets)

    def plus(self, other: ProductSums) -> ProductSums:
        """Return the sums of the rows of both."""
        mine, theirs = ((one.x, one.y, one.xx, one.xy) for one in (self, other))
        return ProductSums(self.n + other.n, *(a + b for a, b in zip(mine, theirs, strict=True)))

    def of_columns(self, columns: np.ndarray) -> ProductSums:
        """Return the sums of some features."""
        return ProductSums(self.n, self.x[columns], self.y, self.xx[np.ix_(columns, columns)], self.xy[columns])

    def centered(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums of products of features, and of features with targets, each less its mean."""
        root = (self.x / np.sqrt(self.n)).astype(self.xx.dtype)
        return self.xx - np.outer(root, root), self.xy - np.outer(self.x / self.n, self.y)


def sum_products(
    rows: Rows,
    standardizer: Standardizer,
    targets: np.ndarray,
    positions: np.ndarray | None = None,
    progress: Callable[[int], object] = lambda n: None,
) -> ProductSums:
    """Sum products over some rows, or all, in one pass.

    Shapes: targets (n_rows, n_targets); positions (n,).
    """
    n_features = rows.shape[1]
    exact: Any = np.float64 if n_features <= _WIDE else np.float32
    xx, xy = np.zeros((n_features, n_features), exact), np.zeros((n_features, targets.shape[1]))
    x, y, n = np.zeros(n_features), np.zeros(targets.shape[1]), 0
    for chosen, gathered in batches(rows, positions, max(64, _CHUNK_BYTES // (4 * n_features))):
        z = standardizer(gathered).astype(exact, copy=False)
        xx += z.T @ z
        xy += z.T @ targets[chosen].astype(exact)
        x += z.sum(axis=0, dtype=np.float64)
        y += targets[chosen].sum(axis=0)
        n += len(chosen)
        progress(len(chosen))
    return ProductSums(n, x, y, xx, xy)


def solve_ridge(zz: np.ndarray, zy: np.ndarray, alpha: float) -> np.ndarray:
    """Return the weights (n_targets, n_features) that minimize ``|Y - Z W|^2 + alpha |W|^2``.

    Float32 sums are solved in float32, and refined with residuals in float64.
    """
    shifted = zz.copy()
    shifted.flat[:: len(zz) + 1] += alpha
    try:
        factor = cho_factor(shifted, lower=True, overwrite_a=True)
    except LinAlgError as error:
        raise HeadError(f"alpha {alpha:g} is too weak for these features; take a larger one") from error
    w, residual, limit = np.zeros(zy.shape), zy, 1e-7 * np.linalg.norm(zy)
    for _ in range(5):
        w += cho_solve(factor, residual.astype(zz.dtype))
        product = np.concatenate([zz[i : i + 512].astype(np.float64) @ w for i in range(0, len(zz), 512)])
        residual = zy - product - alpha * w
        if np.linalg.norm(residual) <= limit:
            break
    return w.T
