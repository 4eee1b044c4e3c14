"""The head ``knn``: the mean label of the training images that are nearest by the cosine of their vectors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state

from classify.data.folds import inner_cuts
from classify.data.rows import Rows
from classify.data.span import inner_products
from classify.data.standardizer import Standardizer, finite_batches
from classify.errors import HeadError
from classify.heads.base import ClassifierHead, Head, RegressorHead
from classify.heads.one_vs_rest import indicator_columns, log_loss
from classify.heads.options import flag, number, random_seed, whole

NEIGHBOURS = (15, 1, 3, 5, 7, 10, 20, 30, 50, 80)
SHARPNESS = (0.0, 4.0, 8.0, 16.0)


def neighbour_means(
    similarity: np.ndarray, targets: np.ndarray, k: int, sharpness: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean target of the *k* most similar rows, (n, n_outputs), and how many rows it rests on, (n, 1).

    A row weighs ``exp(sharpness * similarity)``; unequal weights rest on fewer rows (Kish's effective number).

    Shapes: similarity (n, n_train); targets (n_train, n_outputs).
    """
    k = min(k, similarity.shape[1])
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    near = np.take_along_axis(similarity, nearest, axis=1)
    weight = np.exp(sharpness * (near - near.max(axis=1, keepdims=True)))
    weight /= weight.sum(axis=1, keepdims=True)
    return np.einsum("nk,nkq->nq", weight, targets[nearest]), 1 / (weight**2).sum(axis=1, keepdims=True)


class _NearestHead(Head):
    """The training rows at length 1, their targets, and the choice of k and sharpness."""

    k: int | None = whole(None, "neighbours that are averaged", none="chosen by inner folds")
    sharpness: float | str = number(
        "auto",
        "a neighbour weighs exp(sharpness * cosine), so that 0 is a plain mean; auto: chosen by inner folds",
        least=0,
        most=1000,
        words=("auto",),
    )
    standardize: bool = flag("bring each feature to mean 0 and variance 1, measured on the training rows", default=True)
    folds: int = whole(5, "inner folds of the training rows", least=2, most=100)
    max_rows: int = whole(50_000, "refuse more training rows: every image is compared with each", most=10**7)
    random_state: Any = random_seed("deals the rows to the inner folds")
    takes_groups = True
    _learned: ClassVar[tuple[str, ...]] = ("standardizer_", "vectors_", "targets_", "k_", "sharpness_", "search_")

    def _remember(self, rows: Rows, targets: np.ndarray, strata: np.ndarray, groups: Any) -> None:
        """Keep the rows with their *targets*, (n, n_outputs), and choose how many count."""
        if rows.shape[0] > self.max_rows:
            raise HeadError(
                f"knn keeps {rows.shape[0]} training rows, and max_rows is {self.max_rows}; raise it if the time is "
                "there, or use the linear, mlp or gbm head"
            )
        self.standardizer_ = Standardizer.fit(rows, standardize=self.standardize)
        self.vectors_, self.targets_ = _unit(self.standardizer_.whole(rows)), targets
        options = list(
            itertools.product(
                NEIGHBOURS if self.k is None else (self.k,),
                SHARPNESS if isinstance(self.sharpness, str) else (float(self.sharpness),),
            )
        )
        folds, losses = [], [0.0]
        if len(options) > 1:
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            folds = inner_cuts(strata, groups, self.folds, seed)
        if folds:
            losses = [0.0] * len(options)
            for train, held in folds:
                similarity = inner_products(self.vectors_[held], self.vectors_[train])
                for i, option in enumerate(options):
                    answers = self._answers(*neighbour_means(similarity, targets[train], *option), targets[train])
                    losses[i] += len(held) / len(targets) * self._loss(answers, targets[held])
        best = int(np.argmin(losses))
        self.k_, self.sharpness_ = options[best]
        chosen = {"k": self.k_, "sharpness": self.sharpness_}
        self.search_ = {"n_tried": len(options), "inner_loss": losses[best], **chosen} if folds else {}
        self.history_, self.n_parameters_ = [], int(self.vectors_.size)

    def _near(self, X: Any) -> Iterator[np.ndarray]:
        """Yield answers, some rows at a time."""
        rows = self._rows(X, reset=False)
        for _, x in finite_batches(rows):
            similarity = inner_products(_unit(self.standardizer_(x)), self.vectors_)
            found = neighbour_means(similarity, self.targets_, self.k_, self.sharpness_)
            yield self._answers(*found, self.targets_)

    def gradient(self, x: np.ndarray, output: int) -> None:
        """Return None: the answer jumps where another image becomes a neighbour."""
        return

    def _answers(self, means: np.ndarray, n: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return what a mean over *n* neighbours, (n_rows, 1), says."""
        raise NotImplementedError

    def _loss(self, answers: np.ndarray, targets: np.ndarray) -> float:
        raise NotImplementedError


def _unit(z: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.einsum("ij,ij->i", z, z, dtype=np.float64))
    return (z / np.where(length > 0, length, 1.0)[:, None]).astype(np.float32)


class KNNClassifier(ClassifierHead, _NearestHead):
    """The shares of the labels among the nearest images, as if one more had the shares of all training images.

    Attributes
    ----------
    k_, sharpness_ : int, float
        As given, or of the lowest log loss on the inner folds.
    """

    def fit(self, X: Any, y: Any, *, validation: object = None, groups: Any = None) -> KNNClassifier:
        """Keep the rows; images of one group stay in one inner fold, *validation* is ignored."""
        rows, codes = self._training_rows(X, y)
        columns = indicator_columns(codes, len(self.classes_)).astype(np.float64)
        self._remember(rows, columns, self._strata(codes), groups)
        return self

    def _answers(self, means: np.ndarray, n: np.ndarray, targets: np.ndarray) -> np.ndarray:
        shares = (n * means + targets.mean(axis=0)) / (n + 1)
        return shares if self.multilabel_ or len(self.classes_) > 2 else np.concatenate([1 - shares, shares], axis=1)

    def _loss(self, answers: np.ndarray, targets: np.ndarray) -> float:
        return log_loss(answers, targets, multilabel=self.multilabel_)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 (n_images, n_classes); rows sum to 1 unless multi-label."""
        return np.concatenate(list(self._near(X)))


class KNNRegressor(RegressorHead, _NearestHead):
    """The mean value of the nearest images.

    Attributes
    ----------
    k_, sharpness_ : int, float
        As given, or of the lowest squared error on the inner folds, in deviations of the target.
    """

    def fit(self, X: Any, y: Any, *, validation: object = None, groups: Any = None) -> KNNRegressor:
        """Keep the rows; images of one group stay in one inner fold, *validation* is ignored."""
        rows, targets = self._training_rows(X, y)
        self._remember(rows, targets, self._strata(targets), groups)
        return self

    def _answers(self, means: np.ndarray, n: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return means

    def _loss(self, answers: np.ndarray, targets: np.ndarray) -> float:
        variance = self.targets_.var(axis=0)
        return float((((answers - targets) ** 2).mean(axis=0) / np.where(variance > 0, variance, 1.0)).mean())

    def predict(self, X: Any) -> np.ndarray:
        """Return values in the units of y, float64 (n_images,) or (n_images, n_outputs)."""
        return self._shaped(np.concatenate(list(self._near(X))))
