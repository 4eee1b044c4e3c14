"""Support vector machines on one Gram matrix: every class, label, output and calibration fold reuses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from sklearn.svm import SVC, SVR
from sklearn.utils import check_random_state

from classify.data.folds import count_units, deal_strata, inner_cuts
from classify.data.rows import Rows
from classify.data.standardizer import Standardizer, finite_batches
from classify.errors import HeadError
from classify.heads.base import ClassifierHead, Head, RegressorHead
from classify.heads.one_vs_rest import (
    class_weights,
    constant_log_odds,
    fit_sigmoid,
    indicator_columns,
    log_loss,
    probabilities,
    stratified_folds,
)
from classify.heads.options import choice, flag, number, random_seed, weights_of_classes, whole

MAX_STEPS = 10_000_000
"""Of one machine, as in LIBSVM itself: with a C far too high for the data the last digits would take days."""


COSTS = (1.0, 0.3, 3.0, 10.0)
WIDTHS = (1.0, 0.5, 2.0)  # gamma, over 1 / n_features
SEARCHED = 2000  # rows by which C and gamma are chosen, at most
JUDGED = 50  # machines by which they are chosen, at most: those of the classes with the most rows


class _KernelHead(Head):
    """The kernel and the support vectors; a fitted head is ``kernel(x, support) @ dual.T + intercept``."""

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "C": ("log", 1e-3, 1e3),
        "kernel": ("choice", "rbf", "linear"),
    }
    _learned: ClassVar[tuple[str, ...]] = (
        *("standardizer_", "C_", "gamma_", "support_vectors_", "dual_", "intercept_", "search_"),
    )
    takes_groups = True

    C: float | str = number(
        "auto",
        "cost of a training row on the wrong side, or of an error beyond epsilon; auto: chosen by inner folds of the "
        "training rows, of 2,000 of them and 50 classes at most",
        least=1e-9,
        most=1e9,
        words=("auto",),
    )
    kernel: str = choice("rbf", "gamma * x.z, or exp(-gamma * |x - z|^2)", ("linear", "rbf"))
    gamma: float | str = number(
        "auto",
        "scale: 1 / n_features, in both kernels, so that C means the same as blocks are added; auto: for rbf half, "
        "once or twice that, chosen with C; where C is given, scale",
        least=1e-12,
        most=1e12,
        words=("auto", "scale"),
    )
    standardize: bool = flag("bring each feature to mean 0 and variance 1, measured on the training rows", default=True)
    max_rows: int = whole(20_000, "refuse more training rows: the Gram matrix has their square in float64", most=10**6)

    def _gram(
        self, rows: Rows, targets: np.ndarray, weights: np.ndarray, strata: np.ndarray, groups: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the standardized training rows and their Gram matrix, float64 (n, n), with C and gamma chosen for it.

        Shapes: targets, weights (n, n_machines).
        """
        if rows.shape[0] > self.max_rows:
            raise HeadError(
                f"{type(self).__name__} would need a Gram matrix of {rows.shape[0]} x {rows.shape[0]} training "
                f"rows; max_rows is {self.max_rows}. Raise it if the memory is there, or use the linear or mlp head"
            )
        self.standardizer_ = Standardizer.fit(rows, standardize=self.standardize)
        vectors = self.standardizer_.whole(rows)
        self.C_ = COSTS[0] if isinstance(self.C, str) else float(self.C)
        self.gamma_ = 1 / rows.shape[1] if isinstance(self.gamma, str) else float(self.gamma)
        self.search_, pairs = {}, self._pairs(vectors, vectors)
        if isinstance(self.C, str):
            self._choose(pairs, targets, weights, strata, groups)
        return vectors, self._kernel_values(pairs)

    def _pairs(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return what the kernel is a function of, for rows of *a* and of *b*: products, or squared distances."""
        a, b = (np.asarray(m, dtype=np.float64) for m in (a, b))
        products = a @ b.T
        if self.kernel == "linear":
            return products
        norms_a, norms_b = (np.einsum("ij,ij->i", m, m) for m in (a, b))
        squares = norms_a[:, None] + norms_b - 2 * products
        return np.maximum(squares, 0, out=squares)

    def _kernel_values(self, pairs: np.ndarray) -> np.ndarray:
        return pairs * self.gamma_ if self.kernel == "linear" else np.exp(-self.gamma_ * pairs)

    def _choose(
        self, pairs: np.ndarray, targets: np.ndarray, weights: np.ndarray, strata: np.ndarray, groups: Any
    ) -> None:
        """Set C, and gamma where it is free too, by machines that are fitted on inner folds."""
        if targets.shape[1] > JUDGED:
            judged = np.sort(np.argsort(-targets.sum(axis=0), kind="stable")[:JUDGED])
            targets, weights = targets[:, judged], weights[:, judged]
        n_parts = min(-(-len(pairs) // SEARCHED), count_units(strata, groups))
        if n_parts > 1:
            part = np.flatnonzero(deal_strata(strata, groups=groups, n_folds=n_parts) == 0)
            pairs, targets, weights, strata = pairs[np.ix_(part, part)], targets[part], weights[part], strata[part]
            groups = None if groups is None else groups[part]
        cuts = inner_cuts(strata, groups, 5, 0)
        free = self.kernel == "rbf" and self.gamma == "auto"
        gammas, tried = [self.gamma_ * width for width in (WIDTHS if free else (1.0,))], []
        for gamma in gammas if cuts else ():
            self.gamma_ = gamma
            gram = self._kernel_values(pairs)
            within = [(gram[np.ix_(train, train)], gram[np.ix_(held, train)]) for train, held in cuts]
            for cost in COSTS:
                self.C_, values = cost, np.empty(targets.shape)
                for (train, held), (inner, outer) in zip(cuts, within, strict=True):
                    for k in range(targets.shape[1]):
                        dual, intercept = self._dual(inner, targets[train, k], weights[train, k])
                        values[held, k] = outer @ dual + intercept
                tried.append((self._loss(values, targets, weights), cost, gamma))
        if tried:
            loss, self.C_, self.gamma_ = min(tried, key=lambda one: one[0])
            self.search_ = {"n_tried": len(tried), "inner_loss": loss, "C": self.C_, "gamma": self.gamma_}

    def _dual(self, gram: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
        """Return dual coefficients (n,) and intercept of one machine."""
        raise NotImplementedError

    def _loss(self, values: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
        """Judge held-out values (n, n_machines), of all machines or of some."""
        raise NotImplementedError

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
                kernel = self._kernel_values(self._pairs(wide, self.support_vectors_))
                found.append(kernel @ self.dual_.T + self.intercept_)
        return np.concatenate(found)


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
        "folds behind the sigmoid, fewer where a class has fewer rows; a class with one row cannot be calibrated, so "
        "every image gets its share of the training rows",
        least=2,
        most=1000,
    )
    random_state: Any = random_seed("deals the rows to the calibration folds")

    def fit(self, X: Any, y: Any, *, validation: object = None, groups: Any = None) -> SVMClassifier:
        """Fit and calibrate the machines; images of one group stay in one inner fold, *validation* is ignored."""
        rows, codes = self._training_rows(X, y)
        columns = indicator_columns(codes, len(self.classes_))  # (n, n_machines)
        weights = class_weights(codes, self.classes_, self.class_weight)
        strata = self._strata(codes)
        vectors, gram = self._gram(rows, columns, weights, strata, groups)
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
        used = np.flatnonzero(weights > 0)  # a row without weight is as if it were not there
        dual, intercept = self._dual(gram, y, weights)
        folds = min(self.calibration_folds, int(y[used].sum()), int((1 - y[used]).sum()))
        if folds < 2:
            return dual, intercept, np.array([0.0, constant_log_odds(y[used])])
        held_out, fold_of = np.empty(len(used)), stratified_folds(y[used], folds, random)
        for fold in range(folds):
            inside, outside = used[fold_of != fold], used[fold_of == fold]
            a, b = self._dual(gram[np.ix_(inside, inside)], y[inside], weights[inside])
            held_out[fold_of == fold] = gram[np.ix_(outside, inside)] @ a + b
        return dual, intercept, fit_sigmoid(held_out, y[used], weights[used])

    def _dual(self, gram: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
        dual, used = np.zeros(len(y)), np.flatnonzero(weights > 0)
        if len(used) < len(y):
            gram, y, weights = gram[np.ix_(used, used)], y[used], weights[used]
        if not len(y) or y.min() == y.max():
            return dual, 0.0
        machine = SVC(C=self.C_, kernel="precomputed", max_iter=MAX_STEPS).fit(gram, y, sample_weight=weights)
        dual[used[machine.support_]] = machine.dual_coef_[0]
        return dual, float(machine.intercept_[0])

    def _loss(self, values: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
        fitted = []
        for column, y, weight in zip(values.T, targets.T, weights.T, strict=True):
            both = y[weight > 0].min() < y[weight > 0].max()
            fitted.append(fit_sigmoid(column, y, weight) if both else np.array([0.0, constant_log_odds(y)]))
        slope, offset = np.stack(fitted, axis=1)
        apart = self.multilabel_ or targets.shape[1] not in (1, len(self.classes_))  # some classes sum to no 1
        p = probabilities(values * slope + offset, multilabel=apart)
        return log_loss(p, targets, multilabel=apart, weights=weights)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return calibrated probabilities, float64 (n_images, n_classes); rows sum to 1 unless multi-label."""
        log_odds = self._decision(X) * self.sigmoid_[:, 0] + self.sigmoid_[:, 1]
        return probabilities(log_odds, multilabel=self.multilabel_)


class SVMRegressor(RegressorHead, _KernelHead):
    """Support vector regression, one machine for each output, all on one precomputed Gram matrix.

    The targets are brought to mean 0 and variance 1, so that C and epsilon do not depend on their scale.
    """

    epsilon: float = number(0.1, "errors below it cost nothing, in deviations of the target", least=0, most=1e6)

    def fit(self, X: Any, y: Any, *, validation: object = None, groups: Any = None) -> SVMRegressor:
        """Fit a machine for each output; images of one group stay in one inner fold, *validation* is ignored."""
        rows, targets = self._training_rows(X, y)
        mean, deviation = targets.mean(axis=0), targets.std(axis=0)
        deviation = np.where(deviation > 0, deviation, 1.0)
        scaled, weights = (targets - mean) / deviation, np.ones(targets.shape)
        vectors, gram = self._gram(rows, scaled, weights, self._strata(targets), groups)
        machines = [self._dual(gram, *column) for column in zip(scaled.T, weights.T, strict=True)]
        dual, intercept = (np.stack(parts) for parts in zip(*machines, strict=True))
        self._keep(vectors, dual * deviation[:, None], intercept * deviation + mean)
        return self

    def _dual(self, gram: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
        dual = np.zeros(len(y))
        machine = SVR(C=self.C_, epsilon=self.epsilon, kernel="precomputed", max_iter=MAX_STEPS).fit(
            gram, np.ascontiguousarray(y)
        )
        dual[machine.support_] = machine.dual_coef_[0]
        return dual, float(machine.intercept_[0])

    def _loss(self, values: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
        return float(((values - targets) ** 2).mean())

    def predict(self, X: Any) -> np.ndarray:
        """Return values in the units of y, float64 (n_images,) or (n_images, n_outputs)."""
        return self._shaped(self._decision(X))
