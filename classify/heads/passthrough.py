"""The head that fits nothing: a block of probabilities or values, such as a network's outputs, scored as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from classify.errors import HeadError
from classify.heads.base import ClassifierHead, RegressorHead


def _refuse(n_found: int, wanted: str) -> None:
    raise HeadError(
        f"head none takes the outputs of a network as they are, a column each {wanted}; got {n_found} columns: name "
        "the block of outputs with --blocks"
    )


class PassThroughClassifier(ClassifierHead):
    """Give every image its features as probabilities, a column for each class of the task, in its order.

    The labels are codes of classes; a class that no training row has is left out.
    """

    _min_classes = 1

    def fit(self, X: Any, y: Any, *, validation: object = None) -> PassThroughClassifier:
        """Look at the classes; nothing is learned."""
        rows, _ = self._training_rows(X, y)
        if self.classes_.dtype.kind not in "iu" or not 0 <= self.classes_[0] <= self.classes_[-1] < rows.shape[1]:
            _refuse(rows.shape[1], f"of the classes {self.classes_.tolist()}")
        self.n_parameters_, self.history_ = 0, []
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the features, float64 (n_images, n_classes); of one label an image they sum to 1."""
        rows = self._rows(X, reset=False)
        found = rows.take(np.arange(rows.shape[0])).astype(np.float64)[:, self.classes_]
        if (found < 0).any() or (found > 1).any():
            raise HeadError("head none takes probabilities, from 0 to 1; name a block of outputs with --blocks")
        return found if self.multilabel_ else found / np.maximum(found.sum(axis=1, keepdims=True), 1e-12)


class PassThroughRegressor(RegressorHead):
    """Give every image its features as the values."""

    def fit(self, X: Any, y: Any, *, validation: object = None) -> PassThroughRegressor:
        """Look at the number of outputs; nothing is learned."""
        rows, targets = self._training_rows(X, y)
        if rows.shape[1] != targets.shape[1]:
            _refuse(rows.shape[1], f"of the {targets.shape[1]} outputs")
        self.n_parameters_, self.history_ = 0, []
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the features, float64 (n_images,) or (n_images, n_outputs)."""
        rows = self._rows(X, reset=False)
        return self._shaped(rows.take(np.arange(rows.shape[0])).astype(np.float64))
