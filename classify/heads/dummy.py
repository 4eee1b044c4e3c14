"""The baseline that looks at no feature: the majority class, or the mean."""

from __future__ import annotations

from typing import Any

import numpy as np

from classify.heads.base import ClassifierHead, RegressorHead


class DummyClassifier(ClassifierHead):
    """Give every image the training rows' shares of the classes; the most frequent class is predicted.

    Attributes
    ----------
    shares_ : numpy.ndarray of float64, shape (n_classes,)
        Share of the training rows that have each class.
    """

    _min_classes = 1
    _learned = ("shares_",)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags

    def fit(self, X: Any, y: Any, *, validation: object = None) -> DummyClassifier:
        """Count the labels; *validation* is ignored."""
        _, codes = self._training_rows(X, y)
        counts = codes.sum(axis=0) if self.multilabel_ else np.bincount(codes)
        self.shares_ = counts / len(codes)
        self.n_parameters_, self.history_ = len(self.shares_), []
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the same shares for each row, float64 (n_images, n_classes)."""
        n_images = self._rows(X, reset=False).shape[0]
        return np.tile(self.shares_, (n_images, 1))


class DummyRegressor(RegressorHead):
    """Give every image the mean of the training rows."""

    _learned = ("mean_",)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        return tags

    def fit(self, X: Any, y: Any, *, validation: object = None) -> DummyRegressor:
        """Average the targets; *validation* is ignored."""
        _, targets = self._training_rows(X, y)
        self.mean_ = targets.mean(axis=0)
        self.n_parameters_, self.history_ = len(self.mean_), []
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the mean for each row, float64 (n_images,) or (n_images, n_outputs)."""
        n_images = self._rows(X, reset=False).shape[0]
        return self._shaped(np.tile(self.mean_, (n_images, 1)))
