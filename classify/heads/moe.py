"""The mixture of experts: for each class two experts, and a gate that may also trust none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from classify.heads.network import LayeredHead, hidden_layers
from classify.heads.options import layers, whole
from classify.heads.supervised import NetworkClassifier, NetworkRegressor

__all__ = ["MoEClassifier", "MoERegressor"]


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


@dataclass(kw_only=True, repr=False, eq=False)
class _MixtureHead(LayeredHead):
    n_experts: int = whole(2, "experts for each class, beside the dummy", most=1000)
    hidden: Sequence[int] | int = layers((200,), "units of the shared layers", least=1)

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
