"""Tasks as binary columns, one for each class against the rest: how they are weighed, dealt out and calibrated."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit
from sklearn.utils import compute_class_weight

from classify.errors import HeadError


def indicator_columns(codes: np.ndarray, n_classes: int) -> np.ndarray:
    """Return codes (n,) or 0/1 (n, K) as binary columns; two exclusive classes are one column, of the second."""
    if codes.ndim == 2:
        return codes
    return codes[:, None] if n_classes == 2 else (codes[:, None] == np.arange(n_classes)).astype(np.int64)


def probabilities(log_odds: np.ndarray, *, multilabel: bool) -> np.ndarray:
    """Turn the columns' log-odds (n, n_columns) into probabilities (n, n_classes); rows sum to 1 unless multi-label."""
    if multilabel:
        return expit(log_odds)
    if log_odds.shape[1] == 1:
        return expit(np.concatenate([-log_odds, log_odds], axis=1))
    log_p = log_expit(log_odds)
    p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def class_weights(codes: np.ndarray, classes: np.ndarray, class_weight: Any) -> np.ndarray:
    """Return the weight of each row in each binary column, float64 (n, n_columns).

    One label an image: a row weighs as its class does, in every column. Several labels: the
    two sides of each column weigh the same ("balanced").
    """
    columns = indicator_columns(codes, len(classes))
    if class_weight is None:
        return np.ones(columns.shape)
    if codes.ndim == 1:
        try:
            by_class = compute_class_weight(class_weight, classes=classes, y=classes[codes])
        except ValueError as error:
            raise HeadError(str(error)) from error
        if np.count_nonzero(by_class[np.unique(codes)] > 0) < 2:
            raise HeadError(
                f"class_weight is {class_weight!r}; at least two classes of the training rows need a weight above 0"
            )
        return np.repeat(by_class[codes][:, None], columns.shape[1], axis=1)
    share = columns.mean(axis=0).clip(0.5 / len(columns), 1 - 0.5 / len(columns))
    return np.where(columns == 1, 0.5 / share, 0.5 / (1 - share))


def constant_log_odds(y: np.ndarray) -> float:
    """Return the log-odds of a column that cannot be learned: its share, with one row of each side added."""
    return float(logit((y.sum() + 1) / (len(y) + 2)))


def log_loss(p: np.ndarray, columns: np.ndarray, *, multilabel: bool, weights: np.ndarray | None = None) -> float:
    """Return the mean log loss of probabilities (n, n_classes) for binary columns; of several labels, over these too.

    Shapes: columns, weights (n, n_columns), see `indicator_columns`.
    """
    p, weights = np.clip(p, 1e-9, 1 - 1e-9), np.ones(columns.shape) if weights is None else weights
    if multilabel:
        losses = -(columns * np.log(p) + (1 - columns) * np.log1p(-p))
    else:
        truth = np.concatenate([1 - columns, columns], axis=1) if columns.shape[1] == 1 else columns
        losses, weights = -(truth * np.log(p)).sum(axis=1), weights[:, 0]
    return float((losses * weights).sum() / weights.sum())


def stratified_folds(y: np.ndarray, n_folds: int, random: np.random.RandomState) -> np.ndarray:
    """Deal the rows of each side of a binary column evenly to folds: int64 (n,), each fold has both sides."""
    fold_of = np.empty(len(y), dtype=np.int64)
    for side in (0, 1):
        members = random.permutation(np.flatnonzero(y == side))
        fold_of[members] = np.arange(len(members)) % n_folds
    return fold_of


def fit_sigmoid(decision: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit ``P(y = 1) = sigmoid(a * decision + b)`` and return ``[a, b]``.

    Platt (1999), with the targets drawn off 0 and 1 as if each side had one row more. The slope is constrained
    to be non-negative: if held-out scores are anti-correlated with the labels, the output is constant, not an inverted
    ranking.
    """
    n_positive, n_negative = y.sum(), len(y) - y.sum()
    target = np.where(y == 1, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    scale = max(float(np.abs(decision).max()), 1e-12)
    scaled, weights = decision / scale, weights / weights.sum()

    def loss(ab: np.ndarray) -> tuple[float, np.ndarray]:
        z = ab[0] * scaled + ab[1]
        value = weights @ (np.logaddexp(0, z) - target * z)
        slope = weights * (expit(z) - target)
        return float(value), np.array([slope @ scaled, slope.sum()])

    start = np.array([1.0, float(logit(weights @ target))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    return found.x / [scale, 1.0]
