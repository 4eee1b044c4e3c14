"""Linear heads: logistic regression and ridge, the plainest that look at the features."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from classify.data.folds import count_units, inner_cuts, units_of
from classify.data.rows import Rows
from classify.data.span import Projection
from classify.data.standardizer import Standardizer, finite_batches
from classify.heads.base import ClassifierHead, Head, RegressorHead
from classify.heads.one_vs_rest import class_weights, constant_log_odds, probabilities
from classify.heads.options import choice, flag, number, weights_of_classes, whole
from classify.heads.product_sums import CHUNK_BYTES, WIDE, solve_ridge, sum_products

COSTS = tuple(10.0 ** np.arange(-4, 4.1, 0.5))
ALPHAS = 10.0 ** np.linspace(-6, 5, 45)  # for rows of squared length 1
N_FOLDS = 3
_HELD_BYTES = 2**31


class _LinearHead(Head):
    """Weights (n_outputs, n_features) over standardized features, and intercepts."""

    _learned: ClassVar[tuple[str, ...]] = ("standardizer_", "coef_", "intercept_", "search_")
    takes_groups = True

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


class LinearClassifier(ClassifierHead, _LinearHead):
    """Logistic regression: softmax over the classes, or one binary regression for each label.

    Attributes
    ----------
    n_iter_ : int
        Iterations taken; the most of any label.
    C_ : float
        As given, or chosen.
    """

    _learned = (*_LinearHead._learned, "n_iter_", "C_")

    C: float | str = number(
        "auto",
        "inverse of the L2 penalty, for rows of squared length about 1; auto: chosen by the log loss of inner folds of "
        "the training rows, and 1 where rows are streamed",
        least=1e-9,
        most=1e9,
        words=("auto",),
    )
    class_weight: Any = weights_of_classes(
        "weight of the rows of each class; by class, for tasks with one label an image"
    )
    max_iter: int = whole(1000, "iterations of L-BFGS, at most", most=10**6)

    def fit(self, X: Any, y: Any, *, validation: object = None, groups: Any = None) -> LinearClassifier:
        """Fit by full-batch L-BFGS; images of one group stay in one inner fold, *validation* is ignored."""
        rows, codes = self._training_rows(X, y)
        self.n_iter_, self.search_ = 0, {}
        self.C_ = 1.0 if isinstance(self.C, str) else float(self.C)
        weights = class_weights(codes, self.classes_, self.class_weight)
        if self._streams(rows):
            self._fit_streaming(rows, codes, weights)
            return self
        design = self._design(rows)
        if isinstance(self.C, str):
            self._choose(design, codes, weights, groups)
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
            problem = _Streamed(rows, self.standardizer_, columns, weights, self.C_, softmax=softmax)
            tolerance = 1e-5 if rows.shape[1] > WIDE else min(1e-5, self._tolerance())
            solved, self.n_iter_, converged = problem.solve(len(varied), tolerance, self.max_iter)
            coef[varied], intercept[varied] = solved[:-1].T, solved[-1]
            if not converged:
                text = (
                    f"the solver did not converge in {self.max_iter} passes over the rows; raise max_iter, or lower C"
                )
                warnings.warn(text, ConvergenceWarning, stacklevel=3)
        self._keep(coef, intercept)

    def _choose(self, design: np.ndarray, codes: np.ndarray, weights: np.ndarray, groups: Any) -> None:
        """Choose C by inner folds: from 1 upwards as long as their log loss falls, or else downwards.

        Each fold's regression goes on from the one at the C before.
        """
        columns = codes.reshape(len(codes), -1)
        problems = []
        for train, held in inner_cuts(self._strata(codes), groups, N_FOLDS, 0):
            for k, y in enumerate(columns.T):
                known = held[np.isin(y[held], y[train])]  # where a group is a class of its own, there are none
                if len(known) and y[train].min() < y[train].max():
                    problems.append((LogisticRegression(max_iter=100, warm_start=True), y, weights[:, k], train, known))

        def loss(at: int) -> float:
            total, tolerance = 0.0, 10 * self._tolerance()
            for model, y, weight, train, known in problems:
                model.set_params(C=COSTS[at], tol=tolerance).fit(design[train], y[train], sample_weight=weight[train])
                p = model.predict_proba(design[known])[np.arange(len(known)), np.searchsorted(model.classes_, y[known])]
                total -= float(weight[known] @ np.log(np.clip(p, 1e-9, None)))
            return total / float(weights.sum())

        if not problems:
            return
        start = best = COSTS.index(1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            losses = {start: loss(start)}
            for step in (1, -1):
                if best > start:
                    break
                while 0 <= (at := best + step) < len(COSTS):
                    losses[at] = loss(at)
                    if losses[at] >= losses[best]:
                        break
                    best = at
        self.C_, self.search_ = COSTS[best], {"n_tried": len(losses), "inner_loss": losses[best], "C": COSTS[best]}

    def _tolerance(self) -> float:
        """Return the gradient at which the solver stops, in units of the features as they are given.

        Rows that are divided by the root of their number of features have gradients as much smaller; and the weaker
        the penalty, the farther is the minimum from a point of the same gradient.
        """
        width = math.sqrt(self.n_features_in_) if self.standardize else 1.0
        return 1e-4 / (width * math.sqrt(max(self.C_, 1.0)))

    def _column(self, design: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if y.min() == y.max():
            return np.zeros((1, design.shape[1])), np.array([constant_log_odds(y)])
        return self._solve(design, y, weights)

    def _solve(self, design: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        options = {"C": self.C_, "max_iter": self.max_iter, "tol": self._tolerance()}
        model = LogisticRegression(**options).fit(design, y, sample_weight=weights)
        self.n_iter_ = max(self.n_iter_, int(model.n_iter_.max()))
        return model.coef_, model.intercept_

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 (n_images, n_classes); rows sum to 1 unless multi-label."""
        values = self._values(X)
        if self.multilabel_ or values.shape[1] == 1:
            return probabilities(values, multilabel=self.multilabel_)
        return softmax(values, axis=1)


class LinearRegressor(RegressorHead, _LinearHead):
    """Ridge regression, all outputs at once.

    Attributes
    ----------
    alpha_ : float
        As given, or chosen.
    """

    _learned = (*_LinearHead._learned, "alpha_")

    alpha: float | str = number(
        "auto",
        "L2 penalty, for rows of squared length about 1; auto: the best of 45 in predicting each row, or group, by the "
        "others, and 1 where rows are streamed",
        least=1e-9,
        most=1e12,
        words=("auto",),
    )

    def fit(self, X: Any, y: Any, *, validation: object = None, groups: Any = None) -> LinearRegressor:
        """Solve for the weights; images of one group are left out together, *validation* is ignored."""
        rows, targets = self._training_rows(X, y)
        self.search_, self.alpha_ = {}, 1.0 if isinstance(self.alpha, str) else float(self.alpha)
        if self.standardize and self._streams(rows):
            self._fit_streaming(rows, targets)
            return self
        design = self._design(rows)
        if isinstance(self.alpha, str) and count_units(targets, groups) > 2:
            self._leave_out(design, targets, groups)
            return self
        model = Ridge(alpha=self.alpha_).fit(design, targets)
        self._keep(model.coef_, model.intercept_)
        return self

    def _leave_out(self, design: np.ndarray, targets: np.ndarray, groups: Any) -> None:
        """Choose alpha by leaving out each row, or group, and solve, from one decomposition.

        What a row left out misses its target by is ``(I - H)^-1 r``, with the residuals r and the block H of the hat
        matrix that belong to the rows of its unit.
        """
        units = np.arange(len(targets)) if groups is None else units_of(groups)
        center, mean = design.mean(axis=0), targets.mean(axis=0)
        x, y = design - center, targets - mean
        wide = len(x) < x.shape[1]
        values, basis = eigh(x @ x.T if wide else x.T @ x, driver="evd")
        kept = values > 1e-10 * max(values[-1], np.finfo(np.float64).tiny)
        values, basis = values[kept], basis[:, kept]
        if wide:
            basis = (x.T @ basis) / np.sqrt(values)
        x = x @ basis  # (n, rank): the rows in the directions of the decomposition
        alphas = ALPHAS * (values.sum() / len(x) or 1.0)
        inverse = 1 / (values[:, None] + alphas)  # (rank, n_alphas)
        along = x.T @ y  # (rank, n_outputs)
        variance = y.var(axis=0)
        errors, sizes = np.zeros(len(alphas)), np.bincount(units)
        alone = np.flatnonzero(sizes[units] == 1)
        together = [np.flatnonzero(units == unit) for unit in np.flatnonzero(sizes > 1)]
        for part in [*np.array_split(alone, len(alone) // 4096 + 1), *together]:
            b = x[part]
            missed = y[part][:, :, None] - np.tensordot(b, along[:, :, None] * inverse[:, None], 1)  # (n, q, n_alphas)
            if sizes[units[part[:1]]].max(initial=1) == 1:
                missed = missed / (1 - 1 / len(x) - b**2 @ inverse)[:, None]
            else:
                hat = (b * inverse.T[:, None]) @ b.T + 1 / len(x)  # (n_alphas, n, n)
                missed = np.linalg.solve(np.eye(len(b)) - hat, missed.transpose(2, 0, 1)).transpose(1, 2, 0)
            errors += (missed**2).sum(axis=0).T @ (1 / np.where(variance > 0, variance, np.inf))
        best = int(np.argmin(errors))
        self.alpha_ = float(alphas[best])
        loss = float(errors[best]) / (len(x) * y.shape[1])
        self.search_ = {"n_tried": len(alphas), "inner_loss": loss, "alpha": self.alpha_}
        coef = (basis @ (along * inverse[:, best, None])).T
        self._keep(coef, mean - coef @ center)

    def _fit_streaming(self, rows: Rows, targets: np.ndarray) -> None:
        """Solve from sums of products over one pass of the rows."""
        self.standardizer_ = self._scaled(rows)
        sums = sum_products(rows, self.standardizer_, targets)
        zz, zy = sums.centered()
        coef = solve_ridge(zz, zy, self.alpha_)
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
        exact: Any = np.float64 if len(w) <= WIDE else np.float32
        coef, loss, slope = w[:-1].astype(exact), 0.0, np.zeros_like(w)
        for positions, gathered in finite_batches(self.rows, size=CHUNK_BYTES // (4 * len(w))):
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
