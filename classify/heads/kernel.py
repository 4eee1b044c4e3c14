"""Support vector machines on a precomputed kernel, along a path of costs.

Each function takes the kernel of all rows, the positions to fit on and those to answer for, so that folds and subsets
share one matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["MAX_STEPS", "svm_path", "svr_path"]

MAX_STEPS = 10_000_000
"""Of one machine, as in LIBSVM itself: of a cost far too high for the data the last digits would take days."""


def svm_path(
    kernel: np.ndarray,
    columns: np.ndarray,
    train: np.ndarray,
    held: np.ndarray,
    *,
    costs: Sequence[float],
    weights: np.ndarray | None = None,
    tolerance: float = 1e-3,
) -> np.ndarray:
    """Decide by one binary machine for each column: a class against the rest, or a label."""
    inner, outer = _cut(kernel, train, held)
    decided = np.empty((len(costs), len(held), columns.shape[1]))
    for k, column in enumerate(columns.T):
        weight = np.ones(len(train)) if weights is None else weights[train, k]
        used = np.flatnonzero(weight > 0)  # a row without weight is as if it weren't there
        y = np.ascontiguousarray(column[train][used])
        if y.min() == y.max():
            decided[:, :, k] = 1.0 if y[0] else -1.0
            continue
        inside = inner if len(used) == len(train) else inner[np.ix_(used, used)]
        for i, machine in _path(inside, y, costs, np.ascontiguousarray(weight[used]), tolerance):
            decided[i, :, k] = machine.decision_function(outer[:, used])
    return decided


def _path(
    inner: np.ndarray, y: np.ndarray, costs: Sequence[float], weights: np.ndarray, tolerance: float
) -> Iterator[tuple[int, Any]]:
    """Yield a fitted machine for each cost, in ascending order.

    Where no dual coefficient has reached its bound, the bound holds nothing back: the same machine is the solution
    for every higher cost, and is not fitted again. With more features than rows that is soon the case.
    """
    from sklearn.svm import SVC

    machine: Any = None
    slack = False
    for i, cost in enumerate(costs):
        if not slack:
            machine = SVC(C=cost, kernel="precomputed", tol=tolerance, max_iter=MAX_STEPS).fit(
                inner, y, sample_weight=weights
            )
            bound = cost * weights[machine.support_]
            slack = bool((np.abs(machine.dual_coef_) < 0.999 * bound).all())
        yield i, machine


def svr_path(
    kernel: np.ndarray,
    targets: np.ndarray,
    train: np.ndarray,
    held: np.ndarray,
    *,
    costs: Sequence[float],
    epsilon: float = 0.1,
    tolerance: float = 1e-3,
) -> np.ndarray:
    """Answer by support vector regression, a machine for each output: (n_costs, n_held, n_outputs).

    Targets are brought to mean 0 and variance 1 on the training rows, as the svm head does, and answers back.
    """
    from sklearn.svm import SVR

    inner, outer = _cut(kernel, train, held)
    scaled, mean, deviation = _scaled(targets[train])
    said = np.empty((len(costs), len(held), targets.shape[1]))
    for k, y in enumerate(scaled.T):
        machine: Any = None
        slack = False
        for i, cost in enumerate(costs):
            if not slack:
                machine = SVR(C=cost, epsilon=epsilon, kernel="precomputed", tol=tolerance, max_iter=MAX_STEPS)
                machine.fit(inner, np.ascontiguousarray(y))
                slack = bool((np.abs(machine.dual_coef_) < 0.999 * cost).all())
            said[i, :, k] = machine.predict(outer)
    return said * deviation + mean


def _cut(kernel: np.ndarray, train: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return kernel[np.ix_(train, train)], kernel[np.ix_(held, train)]


def _scaled(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean, deviation = targets.mean(axis=0), targets.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    return (targets - mean) / deviation, mean, deviation
