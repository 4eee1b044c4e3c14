"""Linear heads: logistic regression and ridge, the plainest that look at the features."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from classify.data.rows import Rows
from classify.heads.base import ClassifierHead, FittedState, Head, RegressorHead, Standardiser, finite_batches
from classify.heads.one_vs_rest import class_weights, constant_log_odds, probabilities
from classify.heads.options import choice, flag, number, weights_of_classes, whole
from classify.heads.projection import Projection

__all__ = ["LinearClassifier", "LinearRegressor"]

_HELD_BYTES = 2**31


@dataclass(kw_only=True, repr=False, eq=False)
class _LinearHead(Head):
    """Weights (n_outputs, n_features) over standardised features, and intercepts."""

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

    def _scaled(self, rows: Rows) -> Standardiser:
        """Measure the rows; the scale takes in the root of the number of features, see `_design`."""
        fitted = Standardiser.fit(rows, standardize=self.standardize)
        width = np.float32(math.sqrt(rows.shape[1]) if self.standardize else 1)
        return Standardiser(fitted.mean, fitted.scale * width)

    def _design(self, rows: Rows) -> np.ndarray:
        """Return the training rows, standardised and divided by the root of their number of features.

        So rows have squared length about 1 whatever their width, and the penalty means the same as blocks are
        added. With fewer rows than features they come in the coordinates of their span, which is exact: both
        solvers only ever take sums of rows.
        """
        self.standardiser_ = self._scaled(rows)
        design, self._projection = self.standardiser_.whole(rows), None
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
            [self.standardiser_(x).astype(np.float64) @ self.coef_.T + self.intercept_ for _, x in batches]
        )

    def fitted_state(self) -> FittedState:
        """Return weights, intercepts and the standardiser."""
        arrays = {"coef": self.coef_, "intercept": self.intercept_}
        arrays |= {"mean": self.standardiser_.mean, "scale": self.standardiser_.scale}
        return FittedState(arrays=arrays)

    def restore(self, state: FittedState) -> None:
        """Take over what `fitted_state` returned."""
        arrays = state.arrays
        self.coef_, self.intercept_ = arrays["coef"], arrays["intercept"]
        self.standardiser_ = Standardiser(arrays["mean"], arrays["scale"])


@dataclass(kw_only=True, repr=False, eq=False)
class LinearClassifier(ClassifierHead, _LinearHead):
    """Logistic regression: softmax over the classes, or one binary regression for each label.

    Attributes
    ----------
    n_iter_ : int
        Iterations taken; the most of any label.
    """

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
        rows = self._rows(X, reset=True)
        codes = self._encode(y)
        self._check_pair(rows, codes)
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
        """Solve every label in the same passes, see `classify.heads.fullbatch`."""
        from classify.heads.fullbatch import WIDE, Problem, solve

        self.standardiser_ = self._scaled(rows)
        binary = self.multilabel_ or len(self.classes_) == 2
        columns = codes.reshape(len(codes), -1).T
        varies = [k for k, y in enumerate(columns) if y.min() != y.max()]
        problems = [
            Problem("logistic" if binary else "softmax", columns[k], self.C, weights[:, k] if binary else weights[:, 0])
            for k in varies
        ]
        n_outputs = len(columns) if binary else len(self.classes_)
        coef = np.zeros((n_outputs, rows.shape[1]))
        intercept = np.array([constant_log_odds(y) for y in columns]) if binary else np.zeros(n_outputs)
        tolerance = 1e-5 if rows.shape[1] > WIDE else min(1e-5, self._tolerance())
        solved = solve(rows, self.standardiser_, problems, tolerance=tolerance, max_scans=self.max_iter)
        if not all(found.converged for found in solved):
            text = f"the solver did not converge in {self.max_iter} passes over the rows; raise max_iter, or lower C"
            warnings.warn(text, ConvergenceWarning, stacklevel=3)
        for k, found in zip(varies, solved, strict=True):
            into = slice(k, k + 1) if binary else slice(None)
            coef[into], intercept[into] = found.coef, found.intercept
            self.n_iter_ = max(self.n_iter_, found.n_steps)
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
        rows = self._rows(X, reset=True)
        targets = self._targets(y)
        self._check_pair(rows, targets)
        if self.standardize and self._streams(rows):
            self._fit_streaming(rows, targets)
            return self
        design = self._design(rows)
        model = Ridge(alpha=self.alpha).fit(design, targets)
        self._keep(model.coef_, model.intercept_)
        return self

    def _fit_streaming(self, rows: Rows, targets: np.ndarray) -> None:
        """Solve from the moments of one pass, see `classify.heads.moments`."""
        from classify.heads.moments import accumulate, ridge_path

        n_features = rows.shape[1]
        moments = accumulate(rows, targets)[0]
        (found,) = ridge_path(moments, np.arange(n_features), [self.alpha * n_features])
        width = np.float32(math.sqrt(n_features))
        self.standardiser_ = Standardiser(found.standardiser.mean, found.standardiser.scale * width)
        self._keep(found.coef * width, found.intercept)

    def predict(self, X: Any) -> np.ndarray:
        """Return values in the units of y, float64 (n_images,) or (n_images, n_outputs)."""
        return self._shaped(self._values(X))
