"""The mixture of experts: for each class two experts, and a gate that may also trust none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from classify.errors import HeadError
from classify.heads.network import NetworkHead, hidden_layers
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


class _MixtureHead(NetworkHead):
    """The options of a mixture of experts.

    Parameters
    ----------
    n_experts : int, default=2
        Experts for each class, beside the dummy.
    hidden : sequence of int, default=(200,)
        Units of the shared layers.

    The others are those of `classify.heads.network.NetworkHead`.
    """

    _mixture: type[_Mixture]

    def __init__(  # noqa: PLR0913 - scikit-learn reads an estimator's options from this flat signature
        self,
        *,
        n_experts: int = 2,
        hidden: Sequence[int] | int = (200,),
        dropout: float = 0.4,
        init: str = "glorot_uniform",
        optimizer: str = "adam",
        learning_rate: float = 3e-4,
        momentum: float = 0.9,
        decay: float = 0.0,
        weight_decay: float = 0.0,
        epochs: int = 60,
        batch_size: int = 64,
        halve_every: int | None = None,
        patience: int | None = 10,
        class_weight: Any = None,
        cost: Any = None,
        standardize: bool = True,
        project: str = "auto",
        keep_outside: bool = True,
        shuffle: str = "auto",
        verbose: bool = False,
        random_state: Any = None,
        order_seed: int | None = None,
    ) -> None:
        self.n_experts = n_experts
        super().__init__(
            hidden=hidden,
            dropout=dropout,
            init=init,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=momentum,
            decay=decay,
            weight_decay=weight_decay,
            epochs=epochs,
            batch_size=batch_size,
            halve_every=halve_every,
            patience=patience,
            class_weight=class_weight,
            cost=cost,
            standardize=standardize,
            project=project,
            keep_outside=keep_outside,
            shuffle=shuffle,
            verbose=verbose,
            random_state=random_state,
            order_seed=order_seed,
        )

    def _build(self, n_features: int, n_outputs: int) -> nn.Module:
        if not isinstance(self.n_experts, int) or self.n_experts < 1:
            message = f"n_experts is {self.n_experts!r}; it takes a whole number from 1"
            raise HeadError(message)
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

    Parameters are ``n_experts`` (default 2) and those of `classify.heads.network.NetworkHead`, with
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

    Parameters are ``n_experts`` (default 2) and those of `classify.heads.network.NetworkHead`, with
    ``hidden=(200,)``.
    """

    _mixture = _LinearMixture
