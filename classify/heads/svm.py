"""Support vector machines on one Gram matrix: every class, label, output and calibration fold reuses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.svm import SVC, SVR
from sklearn.utils import check_random_state

from classify.data.rows import Rows
from classify.data.standardizer import Standardizer, finite_batches
from classify.errors import HeadError
from classify.heads.base import ClassifierHead, Head, RegressorHead
from classify.heads.one_vs_rest import (
    class_weights,
    constant_log_odds,
    fit_sigmoid,
    indicator_columns,
    probabilities,
    stratified_folds,
)
from classify.heads.options import choice, flag, number, random_seed, weights_of_classes, whole

__all__ = ["MAX_STEPS", "SVMClassifier", "SVMRegressor"]

MAX_STEPS = 10_000_000
"""Of one machine, as in LIBSVM itself: with a C far too high for the data the last digits would take days."""


@dataclass(kw_only=True, repr=False, eq=False)
class _KernelHead(Head):
    """The kernel and the support vectors; a fitted head is ``kernel(x, support) @ dual.T + intercept``."""

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "C": ("log", 1e-3, 1e3),
        "kernel": ("choice", "rbf", "linear"),
    }
    _learned: ClassVar[tuple[str, ...]] = ("standardizer_", "gamma_", "support_vectors_", "dual_", "intercept_")

    C: float = number(
        1.0, "cost of a training row on the wrong side, or of an error beyond epsilon", least=1e-9, most=1e9
    )
    kernel: str = choice("rbf", "gamma * x.z, or exp(-gamma * |x - z|^2)", ("linear", "rbf"))
    gamma: float | str = number(
        "scale",
        "scale: 1 / n_features, in both kernels, so that C means the same as blocks are added",
        least=1e-12,
        most=1e12,
        words=("scale",),
    )
    standardize: bool = flag("bring each feature to mean 0 and variance 1, measured on the training rows", default=True)
    max_rows: int = whole(20_000, "refuse more training rows: the Gram matrix has their square in float64", most=10**6)

    def _gram(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Return the standardized training rows and their Gram matrix, float64 (n, n)."""
        if rows.shape[0] > self.max_rows:
            raise HeadError(
                f"{type(self).__name__} would need a Gram matrix of {rows.shape[0]} x {rows.shape[0]} training "
                f"rows; max_rows is {self.max_rows}. Raise it if the memory is there, or use the linear or mlp head"
            )
        self.standardizer_ = Standardizer.fit(rows, standardize=self.standardize)
        self.gamma_ = 1 / rows.shape[1] if self.gamma == "scale" else float(self.gamma)
        vectors = self.standardizer_.whole(rows)
        return vectors, self._kernel_values(vectors, vectors)

    def _kernel_values(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the kernel between rows of *a* and of *b*, float64 (n_a, n_b)."""
        a, b = (np.asarray(m, dtype=np.float64) for m in (a, b))
        products = a @ b.T
        if self.kernel == "linear":
            return products * self.gamma_
        norms_a, norms_b = (np.einsum("ij,ij->i", m, m) for m in (a, b))
        squares = norms_a[:, None] + norms_b - 2 * products
        return np.exp(-self.gamma_ * np.maximum(squares, 0, out=squares))

    def _keep(self, vectors: np.ndarray, dual: np.ndarray, intercept: np.ndarray) -> None:
        """Keep the rows that any machine leans on; a linear kernel folds them into one weight a feature."""
        if self.kernel == "linear":
            self.support_vectors_ = (self.gamma_ * (dual @ vectors)).astype(np.float64)
            self.dual_ = np.eye(len(dual))
        else:
            used = dual.any(axis=0)
            self.support_vectors_, self.dual_ = vectors[used].astype(np.float64), dual[:, used]
        self.intercept_ = intercept
        self.history_, self.n_parameters_ = [], int(self.support_vectors_.size + dual.shape[0])

    def _decision(self, X: Any) -> np.ndarray:
        """Return the decision values, float64 (n_images, n_machines)."""
        rows, found = self._rows(X, reset=False), []
        for _, x in finite_batches(rows):
            wide = self.standardizer_(x).astype(np.float64)
            if self.kernel == "linear":
                found.append(wide @ self.support_vectors_.T + self.intercept_)
            else:
                found.append(self._kernel_values(wide, self.support_vectors_) @ self.dual_.T + self.intercept_)
        return np.concatenate(found)


@dataclass(kw_only=True, repr=False, eq=False)
class SVMClassifier(ClassifierHead, _KernelHead):
    """Support vector machines, one against the rest, with calibrated probabilities.

    One binary machine for each class (two classes: one machine for both) or label, all on one precomputed
    Gram matrix. Each machine's decision value becomes a probability by a sigmoid (Platt 1999), fitted on
    values from cross-validation within the training rows; with one label an image the probabilities are then
    brought to sum 1.

    Attributes
    ----------
    sigmoid_ : numpy.ndarray of float64, shape (n_machines, 2)
        Slope and offset of each machine's sigmoid.
    """

    _learned = (*_KernelHead._learned, "sigmoid_")

    class_weight: Any = weights_of_classes(
        "weight of the rows of each class, in the machines and in the calibration, so that probabilities are those "
        "under the weighted shares; by class, for tasks with one label an image"
    )
    calibration_folds: int = whole(
        5,
        "folds behind the sigmoid, fewer where a class has fewer rows; a class with one row can't be calibrated: every "
        "image gets its share of the training rows",
        least=2,
        most=1000,
    )
    random_state: Any = random_seed("deals the rows to the calibration folds")

    def fit(self, X: Any, y: Any, *, validation: object = None) -> SVMClassifier:
        """Fit and calibrate the machines; *validation* is ignored.

        Parameters
        ----------
        y : array
            single-label: (n_images,) labels; multi-label: (n_images, n_labels) of 0 and 1.

        Returns
        -------
        self
        """
        rows, codes = self._training_rows(X, y)
        vectors, gram = self._gram(rows)
        columns = indicator_columns(codes, len(self.classes_))  # (n, n_machines)
        weights = class_weights(codes, self.classes_, self.class_weight)
        random = check_random_state(self.random_state)
        pairs = zip(columns.T.copy(), weights.T.copy(), strict=True)  # contiguous, as libsvm wants them
        machines = [self._machine(gram, column, weight, random) for column, weight in pairs]
        dual, intercept, sigmoid = (np.stack(parts) for parts in zip(*machines, strict=True))
        self._keep(vectors, dual, intercept)
        self.sigmoid_ = sigmoid
        return self

    def _machine(
        self, gram: np.ndarray, y: np.ndarray, weights: np.ndarray, random: np.random.RandomState
    ) -> tuple[np.ndarray, float, np.ndarray]:
        """Return dual coefficients (n,), intercept and sigmoid (2,) of one binary machine."""
        dual, used = np.zeros(len(y)), np.flatnonzero(weights > 0)
        if len(used) < len(y):  # a row without weight is as if it weren't there
            gram, y, weights = gram[np.ix_(used, used)], y[used], weights[used]
        dual[used], intercept, sigmoid = self._fitted(gram, y, weights, random)
        return dual, intercept, sigmoid

    def _fitted(
        self, gram: np.ndarray, y: np.ndarray, weights: np.ndarray, random: np.random.RandomState
    ) -> tuple[np.ndarray, float, np.ndarray]:
        """Do the same for rows that all weigh something."""
        rarer = int(min(y.sum(), len(y) - y.sum()))
        if rarer == 0:
            return np.zeros(len(y)), 0.0, np.array([0.0, constant_log_odds(y)])
        dual, intercept = self._solve(gram, y, weights)
        folds = min(self.calibration_folds, rarer)
        if folds < 2:
            return dual, intercept, np.array([0.0, constant_log_odds(y)])
        held_out = np.empty(len(y))
        fold_of = stratified_folds(y, folds, random)
        for fold in range(folds):
            inside = np.flatnonzero(fold_of != fold)
            a, b = self._solve(gram[np.ix_(inside, inside)], y[inside], weights[inside])
            held_out[fold_of == fold] = gram[np.ix_(fold_of == fold, inside)] @ a + b
        return dual, intercept, fit_sigmoid(held_out, y, weights)

    def _solve(self, gram: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
        machine = SVC(C=self.C, kernel="precomputed", max_iter=MAX_STEPS).fit(gram, y, sample_weight=weights)
        dual = np.zeros(len(y))
        dual[machine.support_] = machine.dual_coef_[0]
        return dual, float(machine.intercept_[0])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return calibrated probabilities, float64 (n_images, n_classes); rows sum to 1 unless multi-label."""
        log_odds = self._decision(X) * self.sigmoid_[:, 0] + self.sigmoid_[:, 1]
        return probabilities(log_odds, multilabel=self.multilabel_)


@dataclass(kw_only=True, repr=False, eq=False)
class SVMRegressor(RegressorHead, _KernelHead):
    """Support vector regression, one machine for each output, all on one precomputed Gram matrix.

    The targets are brought to mean 0 and variance 1, so that C and epsilon don't depend on their scale.
    """

    epsilon: float = number(0.1, "errors below it cost nothing, in deviations of the target", least=0, most=1e6)

    def fit(self, X: Any, y: Any, *, validation: object = None) -> SVMRegressor:
        """Fit a machine for each output; *validation* is ignored.

        Returns
        -------
        self
        """
        rows, targets = self._training_rows(X, y)
        vectors, gram = self._gram(rows)
        mean, deviation = targets.mean(axis=0), targets.std(axis=0)
        deviation = np.where(deviation > 0, deviation, 1.0)
        dual = np.zeros(targets.T.shape)
        intercept = np.zeros(len(mean))
        for d, column in enumerate(((targets - mean) / deviation).T):
            machine = SVR(C=self.C, epsilon=self.epsilon, kernel="precomputed", max_iter=MAX_STEPS).fit(gram, column)
            dual[d, machine.support_] = machine.dual_coef_[0]
            intercept[d] = machine.intercept_[0]
        self._keep(vectors, dual * deviation[:, None], intercept * deviation + mean)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return values in the units of y, float64 (n_images,) or (n_images, n_outputs)."""
        return self._shaped(self._decision(X))
