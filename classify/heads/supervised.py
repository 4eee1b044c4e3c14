"""What a network is trained towards: labels, or values; the two estimators between a module and its heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from classify.heads.base import ClassifierHead, FittedState, RegressorHead
from classify.heads.checkpoint import Checkpoint
from classify.heads.losses import labels_loss, refuse_class_options, single_loss
from classify.heads.network import NetworkHead, Training
from classify.heads.training import Loss

__all__ = ["NetworkClassifier", "NetworkRegressor"]


class NetworkClassifier(ClassifierHead, NetworkHead):
    """Base of the trained classifiers; a subclass says how outputs become a loss and probabilities."""

    def _row_losses(self, outputs: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row with one label, (n,)."""
        raise NotImplementedError

    def _single_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _n_outputs(self) -> int:
        return len(self.classes_)

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation: tuple[Any, Any] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> NetworkClassifier:
        """Train on X and y.

        Parameters
        ----------
        y : array
            single-label: (n_images,) labels; multi-label: (n_images, n_labels) of 0 and 1.
        validation : (X, y), default=None
            Rows for early stopping and for the history; never trained on. Rows of a class that has no
            training row are left out of the validation loss.
        checkpoint : Checkpoint, default=None
            Where training is kept, gone on with, and told to stop in time.

        Returns
        -------
        self

        Raises
        ------
        HeadError
            When X or y can't be used, an option is out of range, or training diverges.
        """
        self._train(*self._training(X, y, validation), checkpoint)
        return self

    def _training(self, X: Any, y: Any, validation: tuple[Any, Any] | None) -> Training:
        """Check everything, and return what is trained: rows, targets, validation rows with theirs, and the loss."""
        rows = self._rows(X, reset=True)
        codes = self._encode(y)
        self._check_pair(rows, codes)
        found = None if validation is None else self._held_out(*validation)
        held_out = None if found is None else (found[0], self._tensor(found[1]))
        return rows, self._tensor(codes), held_out, self._loss(codes)

    def _loss(self, codes: np.ndarray) -> Loss:
        if self.multilabel_:
            return labels_loss(self, codes)
        return single_loss(self, codes, self._row_losses, self._single_probabilities)

    def _tensor(self, codes: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(codes.astype(np.float32 if self.multilabel_ else np.int64))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 (n_images, n_classes); rows sum to 1 unless multi-label."""
        return self._probabilities(self._outputs(X).double()).numpy()

    def traced(self, x: torch.Tensor) -> torch.Tensor:
        """Return what `predict_proba` says of a tensor (n_images, n_features), float64, so that gradients reach it."""
        mean, scale = (torch.from_numpy(one) for one in (self.standardizer_.mean, self.standardizer_.scale))
        return self._probabilities(self.module_.eval()((x - mean) / scale).double())

    def _probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(outputs) if self.multilabel_ else self._single_probabilities(outputs)


class NetworkRegressor(RegressorHead, NetworkHead):
    """Base of the trained regressors: mean squared error on targets brought to mean 0 and variance 1.

    The targets are scaled by the training rows' mean and deviation, and predictions scaled back, so that a
    learning rate means the same on a scale of -1..1 and of 1..9; the losses of ``history_`` are in units of
    the targets' variance. The output layer starts at 0 whatever ``init`` says, so that training starts from the
    mean and not from noise, which few images against thousands of features would not wash out.
    """

    def check_options(self) -> None:
        """Refuse an option that is not one of the values it takes, or that means nothing without classes."""
        super().check_options()
        refuse_class_options(self)

    def _initialised(self, module: nn.Module) -> nn.Module:
        module = super()._initialised(module)
        nn.init.zeros_(self._output_layer(module).weight)
        return module

    def _n_outputs(self) -> int:
        return len(self.target_mean_)

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation: tuple[Any, Any] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> NetworkRegressor:
        """Train on X and y.

        Parameters
        ----------
        validation : (X, y), default=None
            Rows for early stopping and for the history; never trained on.
        checkpoint : Checkpoint, default=None
            Where training is kept, gone on with, and told to stop in time.

        Returns
        -------
        self

        Raises
        ------
        HeadError
            When X or y can't be used, an option is out of range, or training diverges.
        """
        self._train(*self._training(X, y, validation), checkpoint)
        return self

    def _training(self, X: Any, y: Any, validation: tuple[Any, Any] | None) -> Training:
        """Check everything, and return what is trained: rows, targets, validation rows with theirs, and the loss."""
        rows = self._rows(X, reset=True)
        targets = self._targets(y)
        self._check_pair(rows, targets)
        deviation = targets.std(axis=0)
        self.target_mean_ = targets.mean(axis=0)
        self.target_scale_ = np.where(deviation > 0, deviation, 1.0)
        held_out = None
        if validation is not None:
            found = self._held_out(*validation)
            held_out = (found[0], self._tensor(found[1]))
        return rows, self._tensor(targets), held_out, nn.functional.mse_loss

    def _tensor(self, y: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(((y - self.target_mean_) / self.target_scale_).astype(np.float32))

    def predict(self, X: Any) -> np.ndarray:
        """Return values in the units of y, float64 (n_images,) or (n_images, n_outputs).

        Returns
        -------
        numpy.ndarray of float64
        """
        outputs = self._outputs(X).double().numpy()
        return self._shaped(outputs * self.target_scale_ + self.target_mean_)

    def traced(self, x: torch.Tensor) -> torch.Tensor:
        """Return the values for a tensor (n_images, n_features), (n_images, n_outputs), so that gradients reach it."""
        mean, scale = (torch.from_numpy(one) for one in (self.standardizer_.mean, self.standardizer_.scale))
        outputs = self.module_.eval()((x - mean) / scale).double()
        return outputs * torch.from_numpy(self.target_scale_) + torch.from_numpy(self.target_mean_)

    def fitted_state(self) -> FittedState:
        """Return the weights, the standardizer and the targets' scale."""
        state = super().fitted_state()
        state.arrays.update(target_mean=self.target_mean_, target_scale=self.target_scale_)
        return state

    def restore(self, state: FittedState) -> None:
        """Rebuild the module and the targets' scale."""
        self.target_mean_, self.target_scale_ = state.arrays["target_mean"], state.arrays["target_scale"]
        super().restore(state)
