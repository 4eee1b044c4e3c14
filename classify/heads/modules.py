"""The networks: multi-layer perceptron, mixture of experts with a dummy gate, and convolutional head over maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from classify.data.rows import Rows
from classify.data.standardizer import Standardizer, finite_batches
from classify.errors import HeadError
from classify.heads.network import LayeredHead, NetworkClassifier, NetworkHead, NetworkRegressor, hidden_layers
from classify.heads.options import flag, layers, map_shape, number, whole


class _Perceptron(LayeredHead):
    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "hidden": ("layers", "128", "256", "1024", "256-64", "1000-200"),
        **NetworkHead.search_space,
    }

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


class MLPRegressor(NetworkRegressor, _Perceptron):
    """Multi-layer perceptron for one or several real outputs, trained on the mean squared error.

    Parameters and attributes are those of `classify.heads.network.LayeredHead`.
    """


class _Mixture(nn.Module):
    """Shared layers, then experts and gates of all classes as two fully connected layers.

    Shape
    -----
    Input ``(batch, n_features)``; `experts_and_gates` gives the experts' outputs ``(batch, n_outputs,
    n_experts)`` and the logarithms of the gates ``(batch, n_outputs, n_experts + 1)``, the dummy last.
    """

    def __init__(self, shared: list[nn.Module], n_shared: int, *, n_outputs: int, n_experts: int) -> None:
        super().__init__()
        self.n_outputs, self.n_experts = n_outputs, n_experts
        self.shared = nn.Sequential(*shared)
        self.experts = nn.Linear(n_shared, n_outputs * n_experts)
        self.gates = nn.Linear(n_shared, n_outputs * (n_experts + 1))

    def experts_and_gates(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shared = self.shared(x)  # (B, D) -> (B, H)
        experts = self.experts(shared).view(-1, self.n_outputs, self.n_experts)  # (B, C, E)
        gates = self.gates(shared).view(-1, self.n_outputs, self.n_experts + 1)  # (B, C, E + 1)
        return experts, gates.log_softmax(dim=2)


class _LogisticMixture(_Mixture):
    """Gives the log-odds of o_c, so that its sigmoid is o_c and no precision is lost near 0 and 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        experts, gates = self.experts_and_gates(x)
        trusted = gates[..., :-1]
        log_o = (nn.functional.logsigmoid(experts) + trusted).logsumexp(dim=2)  # (B, C)
        # 1 - o_c is the mass of the dummy and of each expert's "no": the gate sums to 1.
        doubted = torch.cat([nn.functional.logsigmoid(-experts) + trusted, gates[..., -1:]], dim=2)
        return log_o - doubted.logsumexp(dim=2)


class _LinearMixture(_Mixture):
    """Gives the gated sum of linear experts; the dummy adds nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        experts, gates = self.experts_and_gates(x)
        return (experts * gates[..., :-1].exp()).sum(dim=2)


class _MixtureHead(LayeredHead):
    n_experts: int = whole(2, "experts for each class, beside the dummy", most=1000)
    hidden: Sequence[int] | int = layers((200,), "units of the shared layers", least=1)

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "hidden": ("layers", "64", "200", "500"),
        "n_experts": ("int", 1, 4),
        **NetworkHead.search_space,
    }
    _mixture: ClassVar[type[_Mixture]]

    def _build(self, n_features: int, n_outputs: int) -> nn.Module:
        sizes = self._sizes()
        shared = hidden_layers(n_features, sizes, self.dropout)
        return self._mixture(shared, sizes[-1], n_outputs=n_outputs, n_experts=self.n_experts)

    @staticmethod
    def _output_layer(module: nn.Module) -> nn.Linear:
        return module.experts  # type: ignore[return-value]


class MoEClassifier(NetworkClassifier, _MixtureHead):
    r"""Mixture of experts of Pournaras et al. (MediaEval 2021, subtask 1), for one label or several.

    A fully connected layer with dropout and ReLU gives I. For each class c: two experts e_i^c, fully
    connected to one sigmoid unit, and a gate g^c, fully connected to three, with a softmax over them. The
    third, the dummy, stands for the rest of the world: it takes gate mass and gives nothing.

    .. math:: o_c(I) = \sum_{i=1,2} \sigma(e_i^c(I)) \, \mathrm{softmax}(g^c(I))_i \in [0, 1]

    The cross-entropy is formed for each class on its own, against the one-hot label y:
    ``-(y_c log o_c + (1 - y_c) log(1 - o_c))``, averaged over classes and images. That is how mixtures with a
    dummy expert were trained where they come from (YouTube-8M, Abu-El-Haija et al. 2016), and it is what
    gives the dummy its work: o_c is pushed down where class c is absent. With one label an image,
    ``predict_proba`` is ``o_c / sum_k o_k``; with several it is o_c itself, and the loss is the same.

    Parameters are ``n_experts`` (default 2) and those of `classify.heads.network.LayeredHead`, with
    ``hidden=(200,)``; attributes are those named there, with ``classes_``. All experts are one linear layer,
    and all gates another.
    """

    _mixture = _LogisticMixture

    def _row_losses(self, outputs: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        one_hot = nn.functional.one_hot(codes, outputs.shape[1]).to(outputs.dtype)
        return nn.functional.binary_cross_entropy_with_logits(outputs, one_hot, reduction="none").mean(dim=1)

    def _single_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.logsigmoid(outputs).softmax(dim=1)


class MoERegressor(NetworkRegressor, _MixtureHead):
    r"""Mixture of linear experts for one or several real outputs.

    As `MoEClassifier`, with the sigmoid of the experts left out: :math:`o_d(I) = \sum_i e_i^d(I) \,
    \mathrm{softmax}(g^d(I))_i`. Targets are centred on the training mean, so the dummy, which gives 0, draws
    a doubtful image to that mean. Trained on the mean squared error. The paper has no regression; this form
    is ours.

    Parameters are ``n_experts`` (default 2) and those of `classify.heads.network.LayeredHead`, with
    ``hidden=(200,)``.
    """

    _mixture = _LinearMixture


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

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "maps_per_class": ("int", 1, 8),
        **NetworkHead.search_space,
    }

    def _build(self, n_features: int, n_outputs: int) -> nn.Module:
        shape, n_maps = self._map_shape(n_features), int(self.maps_per_class) * n_outputs
        return _ClassMaps(shape, n_maps, n_outputs, dropout=self.dropout)

    def _map_shape(self, n_features: int) -> tuple[int, int, int]:
        shape = (n_features, 1, 1) if self.shape is None else tuple(self.shape)
        if math.prod(shape) != n_features:
            raise HeadError(
                f"shape is {list(shape)}, and a row has {n_features} values; give channels, height and width whose "
                "product that is"
            )
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
        """Return the class activation maps (Zhou et al. 2016), float32 (n_images, n_outputs, height, width).

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


class ConvRegressor(NetworkRegressor, _ConvHead):
    """Convolutional head for one or several real outputs, trained on the mean squared error.

    Parameters and attributes are those named in its bases.
    """
