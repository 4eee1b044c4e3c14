"""The convolutional head: class maps from the maps of a network, averaged, and a dense layer over the averages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from classify.data.rows import Rows
from classify.data.standardizer import Standardizer, finite_batches
from classify.errors import HeadError
from classify.heads.network import NetworkHead
from classify.heads.options import flag, map_shape, number, whole
from classify.heads.supervised import NetworkClassifier, NetworkRegressor

__all__ = ["ConvClassifier", "ConvRegressor"]


class _ClassMaps(nn.Module):
    """1x1 convolution to *n_maps* maps, ReLU, global average pooling, dropout, dense layer.

    Shape
    -----
    Input ``(batch, channels * height * width)``; `maps` gives ``(batch, n_maps, height, width)``.
    """

    def __init__(self, shape: tuple[int, int, int], n_maps: int, n_outputs: int, *, dropout: float) -> None:
        super().__init__()
        self.shape = shape
        self.convolution = nn.Conv2d(shape[0], n_maps, kernel_size=1)
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(n_maps, n_outputs)

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(x.view(-1, *self.shape)).relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.dropout(self.maps(x).mean(dim=(2, 3))))


@dataclass(kw_only=True, repr=False, eq=False)
class _ConvHead(NetworkHead):
    shape: Sequence[int] | None = map_shape(
        "channels, height and width of the maps that each row holds, flattened; none: every feature is a channel of "
        "one pixel; a run fills it in from its blocks"
    )
    maps_per_class: int = whole(4, "maps that the convolution gives for each class", most=1000)
    dropout: float = number(0.0, "fraction of averages dropped in training", least=0, below=1)
    learning_rate: float = number(1e-3, "at the start of training", above=0, most=1e3)
    batch_size: int = whole(32, "rows in a step")
    standardize: bool = flag("bring each channel to mean 0 and variance 1 over images and places", default=True)

    def _build(self, n_features: int, n_outputs: int) -> nn.Module:
        shape, n_maps = self._map_shape(n_features), int(self.maps_per_class) * n_outputs
        return _ClassMaps(shape, n_maps, n_outputs, dropout=self.dropout)

    def _map_shape(self, n_features: int) -> tuple[int, int, int]:
        shape = (n_features, 1, 1) if self.shape is None else tuple(self.shape)
        if math.prod(shape) != n_features:
            message = (
                f"shape is {list(shape)}, and a row has {n_features} values; give channels, height and width whose "
                "product that is"
            )
            raise HeadError(message)
        return (int(shape[0]), int(shape[1]), int(shape[2]))

    @staticmethod
    def _output_layer(module: nn.Module) -> nn.Linear:
        return module.dense  # type: ignore[return-value]

    def _standardizer(self, rows: Rows) -> Standardizer:
        """Pool the places of each channel: a place has no mean of its own, or a map could not be moved."""
        channels, *size = self._map_shape(rows.shape[1])
        by_place = Standardizer.fit(rows, standardize=self.standardize)
        if not self.standardize:
            return by_place
        lost = np.isinf(by_place.scale.reshape(channels, -1)).any(axis=1)
        mean = by_place.mean.reshape(channels, -1).astype(np.float64)
        spread = np.where(lost[:, None], 0, by_place.scale.reshape(channels, -1).astype(np.float64))
        variance = spread**2 + mean**2
        centre = mean.mean(axis=1)
        deviation = np.sqrt(np.maximum(variance.mean(axis=1) - centre**2, 0))
        deviation[deviation <= 10 * np.finfo(np.float32).eps * np.abs(centre)] = 1.0
        centre, deviation = np.where(lost, 0, centre), np.where(lost, np.inf, deviation)
        n_places = int(np.prod(size))
        return Standardizer(*(np.repeat(one, n_places).astype(np.float32) for one in (centre, deviation)))

    @torch.inference_mode()
    def activation_maps(self, X: Any) -> np.ndarray:
        """Return the class activation maps (Zhou et al. 2016): where in an image each output comes from.

        Returns
        -------
        numpy.ndarray of float32, shape (n_images, n_outputs, height, width)
            Each output before its softmax or sigmoid is the mean of its map, plus its bias.
        """
        rows = self._rows(X, reset=False)
        module: Any = self.module_.eval()
        weight = module.dense.weight  # (n_outputs, n_maps)
        found = [
            torch.einsum("om,bmhw->bohw", weight, module.maps(torch.from_numpy(self.standardizer_(x))))
            for _, x in finite_batches(rows)
        ]
        return torch.cat(found).numpy()


class ConvClassifier(NetworkClassifier, _ConvHead):
    """Convolutional head for one label or several labels an image.

    1x1 convolution to C * k maps (C classes, k = 4), ReLU, global average pooling, dense layer, softmax (or, for
    several labels, a sigmoid each): the head of a master's thesis of 2020 on ResNet-101 maps, and a linear relative of
    the class-activation networks (Zhou et al. 2016). `activation_maps` shows what it looked at.

    Parameters and attributes are those named in its bases, with ``classes_``.
    """

    def _row_losses(self, outputs: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, codes, reduction="none")

    def _single_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.softmax(dim=1)


class ConvRegressor(NetworkRegressor, _ConvHead):
    """Convolutional head for one or several real outputs, trained on the mean squared error.

    Parameters and attributes are those named in its bases.
    """
