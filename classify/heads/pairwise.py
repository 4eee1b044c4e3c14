"""Predictors that see rows only through inner products, which add over blocks: kernel machines, ridge, neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.svm import SVC, SVR

from classify.data.span import inner_products
from classify.heads.knn import neighbour_means
from classify.heads.svm import MAX_STEPS

Candidate = dict[str, Any]  # family, map and weight of each block, and numbers of the family: all of it is JSON
Fitted = tuple[np.ndarray, np.ndarray]  # coefficients of the training rows, intercepts
Blocks = Sequence[np.ndarray]  # (n, n_features) each
_EPSILON = 0.1  # of support vector regression, in deviations of the target


@dataclass
class Products:
    """Inner products of some rows with others, by feature map and block, and the squared lengths of both."""

    inner: dict[str, list[np.ndarray]]  # (n, m) a block
    left: dict[str, list[np.ndarray]]  # (n,)
    right: dict[str, list[np.ndarray]]  # (m,)
    widths: list[int]  # features of each block

    @classmethod
    def of(cls, left: Mapping[str, Blocks], right: Mapping[str, Blocks]) -> Products:
        """Multiply the rows of each block under each map."""
        inner = {name: [inner_products(a, b) for a, b in zip(left[name], right[name], strict=True)] for name in right}
        ours, theirs = (
            {m: [np.einsum("ij,ij->i", x, x, dtype=np.float64) for x in of[m]] for m in right} for of in (left, right)
        )
        return cls(inner, ours, theirs, [x.shape[1] for x in next(iter(right.values()))])

    def _used(self, one: Candidate) -> list[tuple[float, np.ndarray, np.ndarray, np.ndarray]]:
        """Return of each block that counts its weight, its products, and the squared lengths."""
        return [
            (weight, self.inner[name][k], self.left[name][k], self.right[name][k])
            for k, (name, weight) in enumerate(zip(one["maps"], one["weights"], strict=True))
            if weight
        ]

    def nothing(self, one: Candidate) -> np.ndarray:
        """Return zeros, for what looks at no image."""
        return np.zeros(self.inner[one["maps"][0]][0].shape)

    def linear(self, one: Candidate) -> np.ndarray:
        """Return the kernel of the concatenated, weighted blocks, over their weighted number of features."""
        return _sum([(weight, inner) for weight, inner, _, _ in self._used(one)]) / np.dot(one["weights"], self.widths)

    def rbf(self, one: Candidate) -> np.ndarray:
        """Return ``exp(-gamma * squared distance / number of features)``, blocks weighted."""
        squares = _sum([(weight, x[:, None] + y - 2 * inner) for weight, inner, x, y in self._used(one)])
        return np.exp(-one["gamma"] / np.dot(one["weights"], self.widths) * np.maximum(squares, 0, out=squares))

    def cosine(self, one: Candidate) -> np.ndarray:
        """Return the weighted mean of the blocks' cosines."""
        tiny = np.finfo(np.float32).tiny
        cosines = [(w, inner / np.sqrt(np.maximum(np.outer(x, y), tiny))) for w, inner, x, y in self._used(one)]
        return _sum(cosines) / sum(one["weights"])


def _sum(parts: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
    total = np.zeros(parts[0][1].shape)
    for weight, part in parts:
        total += weight * part
    return total


def kernel(one: Candidate, products: Products) -> np.ndarray:
    """Return what a candidate sees of each pair of rows: (n, m)."""
    kernels = {"svm": products.rbf, "ridge": products.linear, "knn": products.cosine, "mean": products.nothing}
    return kernels[one["family"]](one)


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
    if one["family"] == "knn":
        return neighbour_means(outer, targets, one["k"], one["sharpness"])[0]
    return outer @ fitted[0].T + fitted[1]
