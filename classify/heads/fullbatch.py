"""Full-batch solvers that stream: logistic regression, many in one scan.

Every step reads the rows once, in batches, and serves all problems together: strengths, classes, labels and folds (as
weights of the rows) are columns of one product. The steps are those of L-BFGS (Nocedal 1980) with a backtracking line
search, each problem on its own; in one scan each of them tries one point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit, log_softmax

from classify.data.rows import Rows, batches
from classify.errors import HeadError
from classify.heads.base import Standardiser
from features_store.errors import unknown_name

__all__ = ["LOSSES", "WIDE", "Problem", "Solution", "solve"]

_CHUNK_BYTES = 64 * 2**20
WIDE = 4096  # up to so many features every product is float64
_MEMORY = 12  # pairs of steps and gradient changes that the inverse Hessian is estimated from
_ARMIJO = 1e-4
_SHORTEST = 1e-10


@dataclass(frozen=True)
class Problem:
    """One fit: ``min |W|^2 / 2 + cost * sum_i weight_i * loss(W z_i + b, y_i)``.

    Parameters
    ----------
    loss : {"logistic", "softmax"}
        logistic: ``log(1 + exp(-y f))``; softmax: cross-entropy of classes.
    y : numpy.ndarray of int, shape (n_rows,)
        0 or 1; for softmax codes from 0.
    weights : numpy.ndarray of float64, shape (n_rows,), default=None
        0 leaves a row out.
    """

    loss: str
    y: np.ndarray
    cost: float
    weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise HeadError(unknown_name("loss", self.loss, LOSSES))
        if not self.cost > 0:
            message = f"cost is {self.cost!r}; it takes a number above 0"
            raise HeadError(message)

    @property
    def n_columns(self) -> int:
        """Decision values of a row."""
        return int(self.y.max()) + 1 if self.loss == "softmax" else 1


@dataclass(frozen=True)
class Solution:
    """A solved problem: ``f(z) = coef @ z + intercept`` over standardised features.

    Parameters
    ----------
    converged : bool
        Whether the gradient's largest element fell below the tolerance.
    """

    coef: np.ndarray
    intercept: np.ndarray
    n_steps: int
    converged: bool


def solve(
    rows: Rows,
    standardiser: Standardiser,
    problems: Sequence[Problem],
    *,
    tolerance: float = 1e-5,
    max_scans: int = 500,
) -> list[Solution]:
    """Solve all problems over the same rows."""
    n_features = rows.shape[1]
    states = [_State(np.zeros((n_features + 1, problem.n_columns)), problem) for problem in problems]
    penalized = np.ones((n_features + 1, 1))
    penalized[-1] = 0  # not the intercept
    scale = np.array([p.cost * (rows.shape[0] if p.weights is None else p.weights.sum()) for p in problems])
    for _ in range(max_scans):
        open_ones = [state for state in states if not state.done]
        if not open_ones:
            break
        found = _scan(rows, standardiser, open_ones)
        for state, (loss, gradient) in zip(open_ones, found, strict=True):
            total = scale[states.index(state)]
            at = state.trial * penalized
            state.receive(
                float((at * state.trial).sum() / (2 * total) + loss * state.problem.cost / total),
                at / total + gradient * state.problem.cost / total,
                tolerance,
            )
    return [Solution(s.point[:-1].T.copy(), s.point[-1].copy(), s.n_steps, s.converged) for s in states]


@dataclass(eq=False)
class _State:
    """Where one problem stands between scans: the point reached, and the one to try next."""

    trial: np.ndarray
    problem: Problem
    done: bool = False
    converged: bool = False
    n_steps: int = 0
    length: float = 0.0
    value: float = np.inf
    pairs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.point, self.gradient = self.trial, np.zeros_like(self.trial)
        self.direction = np.zeros_like(self.trial)

    def receive(self, value: float, gradient: np.ndarray, tolerance: float) -> None:
        """Take the objective and gradient of the trial; accept the trial or shorten the step."""
        slope = float((self.gradient * self.direction).sum())
        if value > self.value + _ARMIJO * self.length * slope + 1e-13 * abs(self.value):
            # The parabola through both values and the slope has its lowest point here.
            curved = 2 * (value - self.value - self.length * slope)
            shorter = -slope * self.length**2 / curved if curved > 0 else self.length / 2
            self.length = float(np.clip(shorter, 0.1 * self.length, 0.5 * self.length))
            self.done = self.length < _SHORTEST
        else:
            self._accept(value, gradient)
            self.converged = self.done = bool(np.abs(gradient).max() <= tolerance)
        self.trial = self.point + self.length * self.direction

    def _accept(self, value: float, gradient: np.ndarray) -> None:
        step, change = self.trial - self.point, gradient - self.gradient
        if self.n_steps and float((step * change).sum()) > 1e-14 * float((change * change).sum()):
            self.pairs = [*self.pairs[-_MEMORY + 1 :], (step, change)]
        self.point, self.value, self.gradient = self.trial, value, gradient
        self.direction = -self._newton(gradient)
        if (self.direction * gradient).sum() >= 0:  # the estimate has gone bad: start again from the gradient
            self.pairs, self.direction = [], -gradient
        # Without an estimate the first step is as long as the gradient is short.
        self.length = 1.0 if self.pairs else 1.0 / max(1.0, float(np.abs(gradient).sum()))
        self.n_steps += 1

    def _newton(self, gradient: np.ndarray) -> np.ndarray:
        """Multiply by the estimated inverse Hessian: the two loops of L-BFGS."""
        out, shares = gradient.copy(), []
        for step, change in reversed(self.pairs):
            share = (step * out).sum() / (step * change).sum()
            out -= share * change
            shares.append(share)
        if self.pairs:
            step, change = self.pairs[-1]
            out *= (step * change).sum() / (change * change).sum()
        for (step, change), share in zip(self.pairs, reversed(shares), strict=True):
            out += step * (share - (change * out).sum() / (step * change).sum())
        return out


def _scan(rows: Rows, standardiser: Standardiser, states: Sequence[_State]) -> list[tuple[float, np.ndarray]]:
    """Read all rows once; return loss and gradient of each problem at its trial."""
    w = np.concatenate([state.trial for state in states], axis=1)
    exact: type = np.float64 if rows.shape[1] <= WIDE else np.float32
    weight: np.ndarray = w[:-1].astype(exact)
    bias = w[-1]
    edges = np.cumsum([0, *(state.trial.shape[1] for state in states)])
    losses, gradient = np.zeros(len(states)), np.zeros_like(w)
    factor = np.float32(1) / standardiser.scale
    for positions, gathered in batches(rows, size=max(64, _CHUNK_BYTES // (4 * rows.shape[1]))):
        x: np.ndarray = gathered.astype(exact, copy=False)
        x -= standardiser.mean
        x *= factor
        scores = (x @ weight).astype(np.float64) + bias
        residual = np.empty_like(scores)
        for i, state in enumerate(states):
            problem, columns = state.problem, slice(edges[i], edges[i + 1])
            values, slopes = LOSSES[problem.loss](scores[:, columns], problem.y[positions])
            if problem.weights is not None:
                values, slopes = values * problem.weights[positions], slopes * problem.weights[positions, None]
            losses[i] += values.sum()
            residual[:, columns] = slopes
        gradient[:-1] += x.T @ residual.astype(exact)
        gradient[-1] += residual.sum(axis=0)
    return [(losses[i], gradient[:, edges[i] : edges[i + 1]]) for i in range(len(states))]


def _logistic(f: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sign = 2.0 * y - 1
    return np.logaddexp(0, -sign * f[:, 0]), (expit(f[:, 0]) - y)[:, None]


def _softmax(f: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    log_p = log_softmax(f, axis=1)
    slopes = np.exp(log_p)
    at = np.arange(len(y))
    slopes[at, y] -= 1
    return -log_p[at, y], slopes


LOSSES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "logistic": _logistic,
    "softmax": _softmax,
}
