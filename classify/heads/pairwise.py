"""Predictors that see rows only through inner products, which add over blocks: kernel machines, ridge, neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.svm import SVC, SVR

from classify.heads.svm import MAX_STEPS

__all__ = ["Candidate", "Products", "fit_member", "kernel", "member_scores"]

Candidate = dict[str, Any]  # family, map, weights of the blocks, and numbers of the family: all of it is JSON
Fitted = tuple[np.ndarray, np.ndarray]  # coefficients of the training rows, intercepts
_EPSILON = 0.1  # of support vector regression, in deviations of the target


@dataclass
class Products:
    """Inner products of some rows with others, block by block, and the squared lengths of both."""

    inner: list[np.ndarray]  # (n, m) a block
    left: list[np.ndarray]  # (n,)
    right: list[np.ndarray]  # (m,)
    widths: list[int]  # features of each block

    @classmethod
    def of(cls, left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> Products:
        """Multiply the rows of each block, (n, n_features) and (m, n_features)."""
        inner = [a @ b.T for a, b in zip(left, right, strict=True)]
        lengths = [[np.einsum("ij,ij->i", x, x) for x in side] for side in (left, right)]
        return cls(inner, *lengths, [x.shape[1] for x in right])

    def linear(self, weights: Sequence[float]) -> np.ndarray:
        """Return the kernel of the concatenated, weighted blocks, over their weighted number of features."""
        return _sum(self.inner, weights) / np.dot(weights, self.widths)

    def rbf(self, weights: Sequence[float], gamma: float) -> np.ndarray:
        """Return ``exp(-gamma * squared distance / number of features)``, blocks weighted."""
        squares = _sum(self.left, weights)[:, None] + _sum(self.right, weights) - 2 * _sum(self.inner, weights)
        return np.exp(-gamma / np.dot(weights, self.widths) * np.maximum(squares, 0, out=squares))

    def cosine(self, weights: Sequence[float]) -> np.ndarray:
        """Return the weighted mean of the blocks' cosines."""
        tiny = np.finfo(np.float32).tiny
        parts = [
            inner / np.sqrt(np.maximum(np.outer(left, right), tiny))
            for inner, left, right in zip(self.inner, self.left, self.right, strict=True)
        ]
        return _sum(parts, weights) / sum(weights)


def _sum(parts: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    total = np.zeros(parts[0].shape)
    for part, weight in zip(parts, weights, strict=True):
        if weight:
            total += weight * part
    return total


def kernel(one: Candidate, products: Products) -> np.ndarray:
    """Return what a candidate sees of each pair of rows: (n, m)."""
    if one["family"] == "svm":
        return products.rbf(one["weights"], one["gamma"])
    return products.linear(one["weights"]) if one["family"] == "ridge" else products.cosine(one["weights"])


def fit_member(one: Candidate, inner: np.ndarray, targets: np.ndarray, spectra: dict[Any, Any], key: Any) -> Fitted:
    """Fit a candidate on the kernel of the training rows, (n, n); return coefficients and intercepts.

    Targets (n, n_outputs): columns of 0 and 1 are classes, others are values. Coefficients (n_outputs, n). *spectra*
    keeps the eigenvectors of a kernel for other strengths of the ridge, under *key*.
    """
    dual, intercept = np.zeros(targets.T.shape), np.zeros(targets.shape[1])
    if one["family"] == "svm":
        for k, y in enumerate(targets.T):
            if y.min() == y.max():
                intercept[k] = y[0]
                continue
            options = {"C": one["C"], "kernel": "precomputed", "max_iter": MAX_STEPS}
            classes = bool(np.isin(y, (0, 1)).all())
            machine = SVC(**options) if classes else SVR(epsilon=_EPSILON, **options)
            machine.fit(inner, np.ascontiguousarray(y))
            dual[k, machine.support_] = machine.dual_coef_[0]
            intercept[k] = machine.intercept_[0]
    elif one["family"] == "ridge":
        means, mean = inner.mean(axis=0), targets.mean(axis=0)
        if key not in spectra:
            spectra[key] = np.linalg.eigh(inner - means - means[:, None] + means.mean())
        values, vectors = spectra[key]
        shrunk = (vectors.T @ (targets - mean)) / (np.maximum(values, 0) + one["alpha"] * len(targets))[:, None]
        dual = (vectors @ shrunk).T  # sums to 0 over the rows, so that centring the kernel only moves the intercept
        intercept = mean - dual @ means
    return dual, intercept


def member_scores(one: Candidate, outer: np.ndarray, fitted: Fitted, targets: np.ndarray) -> np.ndarray:
    """Return the scores of new rows, (n, n_outputs), from their kernel with the training rows, (n, n_train)."""
    if one["family"] != "neighbours":
        return outer @ fitted[0].T + fitted[1]
    k = min(one["k"], outer.shape[1])
    nearest = np.argpartition(-outer, k - 1, axis=1)[:, :k]
    weight = np.exp(one["sharpness"] * np.take_along_axis(outer, nearest, axis=1))
    return np.einsum("nk,nkq->nq", weight / weight.sum(axis=1, keepdims=True), targets[nearest])
