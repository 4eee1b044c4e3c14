"""The multi-layer perceptron: hidden layers of ReLU and dropout over the concatenated vectors."""

from __future__ import annotations

import torch
from torch import nn

from classify.heads.network import LayeredHead, hidden_layers
from classify.heads.supervised import NetworkClassifier, NetworkRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]


class _Perceptron(LayeredHead):
    def _build(self, n_features: int, n_outputs: int) -> nn.Module:
        sizes = self._sizes()
        if not sizes:
            return nn.Sequential(nn.Dropout(self.dropout), nn.Linear(n_features, n_outputs))
        return nn.Sequential(*hidden_layers(n_features, sizes, self.dropout), nn.Linear(sizes[-1], n_outputs))

    @staticmethod
    def _output_layer(module: nn.Module) -> nn.Linear:
        return module[-1]  # type: ignore[index]


class MLPClassifier(NetworkClassifier, _Perceptron):
    """Multi-layer perceptron for one label or several labels an image.

    Each hidden layer is followed by ReLU and dropout. One label: softmax over the classes and categorical
    cross-entropy. Several: a sigmoid for each label and binary cross-entropy, averaged over the labels. The
    dense network of Pournaras et al. (MediaEval 2021, subtasks 2 and 3) is ``hidden=(1000, 200)``.

    Parameters and attributes are those of `classify.heads.network.LayeredHead`, with ``classes_``.
    """

    def _row_losses(self, outputs: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, codes, reduction="none")

    def _single_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.softmax(dim=1)


class MLPRegressor(NetworkRegressor, _Perceptron):
    """Multi-layer perceptron for one or several real outputs, trained on the mean squared error.

    Parameters and attributes are those of `classify.heads.network.LayeredHead`.
    """
