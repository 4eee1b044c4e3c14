"""Many networks in one scan: seeds, learning rates and tasks trained on the same batches, first layers as one product.

A batch is gathered and standardised once for all, and the first layers, which hold nearly all of the work, are one
matrix product. Each network keeps its own optimiser, random numbers, history and early stop, so it becomes what it
would have become alone. It pays where gathering costs: vectors that don't fit into memory, or many small networks.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from classify.errors import HeadError
from classify.heads.network import NetworkHead
from classify.heads.projected import first_linear
from classify.solvers.minibatch import Batches, Pair, Progress, Session, refuse_divergence

__all__ = ["fit_together"]


def fit_together(
    heads: Sequence[NetworkHead], X: Any, ys: Sequence[Any], *, validation: tuple[Any, Sequence[Any]] | None = None
) -> None:
    """Fit several networks on the same rows, in the same order of batches.

    Parameters
    ----------
    heads : sequence of NetworkHead
        Unfitted; with equal ``batch_size``, ``order_seed`` (a number), ``shuffle`` and ``standardize``, and
        ``project="never"``. Anything else may differ.
    X : array or RowMatrix of shape (n_images, n_features)
    ys : sequence of array
        The targets of each head, for all of the rows.
    validation : (X, ys), default=None
        Rows for early stopping, with the targets of each head.

    Raises
    ------
    HeadError
        The heads don't share what they must, or a head can't be trained.
    """
    _check(heads)
    with torch.random.fork_rng(devices=[]):
        members: list[_Member] = []
        measured = None  # mean and deviation are those of the rows, so the first head measures them for all
        for i, (head, y) in enumerate(zip(heads, ys, strict=True)):
            held_out = None if validation is None else (validation[0], validation[1][i])
            session = head._session(*head._training(X, y, held_out), measured)
            members.append(_Member(session, torch.get_rng_state()))
            measured = head.standardiser_
        shared = _Shared(members)
        while open_ones := [member for member in members if not member.done]:
            _epoch(shared, open_ones)
        shared.part()
    for head, member in zip(heads, members, strict=True):
        head._finish(member.session)


def _check(heads: Sequence[NetworkHead]) -> None:
    for name in ("batch_size", "order_seed", "shuffle", "standardize"):
        values = {getattr(head, name) for head in heads}
        if len(values) != 1:
            listed = ", ".join(sorted(map(str, values)))
            message = f"heads that train together need the same {name}; these have {listed}"
            raise HeadError(message)
    if heads[0].order_seed is None:
        message = "heads that train together need the same batches: give each the same order_seed, a whole number"
        raise HeadError(message)
    if any(head.project != "never" for head in heads):
        message = 'heads that train together take all features: give each project="never"'
        raise HeadError(message)


@dataclass
class _Member:
    """A network among others: its session, and its own stream of random numbers."""

    session: Session
    random: torch.Tensor
    done: bool = False
    rate: float = 0.0
    losses: dict[str, list[tuple[float, int]]] = field(default_factory=dict)

    def close_epoch(self) -> None:
        """Write the epoch into the history, and see whether it was the last."""
        plan, progress = self.session.plan, self.session.progress
        record = {"epoch": len(progress.history) + 1, "learning_rate": self.rate}
        for name, losses in self.losses.items():
            if losses:
                record[name] = sum(value * n for value, n in losses) / sum(n for _, n in losses)
        refuse_divergence(record)
        progress.note(record, self.session.module)
        self.done = len(progress.history) >= plan.epochs or progress.stalled(plan.patience)


class _FirstLayer(nn.Module):
    """Stands for a fully connected layer whose product is computed elsewhere: adds the bias.

    Its parameters have the names of the layer's own, so the states of the network stay interchangeable; the weight
    is a slice of one matrix that holds those of all networks.
    """

    def __init__(self, layer: nn.Linear, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = layer.bias

    def forward(self, product: torch.Tensor) -> torch.Tensor:
        return product + self.bias


class _Shared:
    """The first layers of all networks as one matrix, (sum of units, n_features)."""

    def __init__(self, members: Sequence[_Member]) -> None:
        shapes = {(m.session.train.rows.shape, m.session.held_out and m.session.held_out.rows.shape) for m in members}
        if len(shapes) != 1:
            message = (
                "heads that train together need the same rows; a class that only validation rows have removes some"
            )
            raise HeadError(message)
        found = [first_linear(m.session.module, m.session.train.rows.shape[1]) for m in members]
        if any(one is None for one in found):
            message = "heads that train together need a fully connected first layer"
            raise HeadError(message)
        self.layers = [one for one in found if one is not None]
        self.members = list(members)
        self.weight = torch.cat([layer.weight.detach() for _, layer in self.layers])
        self.gradient = torch.zeros_like(self.weight)
        self.train = _numbered(members[0].session.train)
        held_out = members[0].session.held_out
        self.held_out = None if held_out is None else _numbered(held_out)
        self.slices, start = [], 0
        for member, (name, layer) in zip(members, self.layers, strict=True):
            units = slice(start, start + layer.out_features)
            self.slices.append(units)
            start = units.stop
            member.session.module.set_submodule(name, _FirstLayer(layer, self.weight[units]))
            member.session.progress = Progress(member.session.plan.build_optimizer(member.session.module))

    def first(self, member: _Member) -> tuple[_FirstLayer, slice]:
        i = self.members.index(member)
        layer = member.session.module.get_submodule(self.layers[i][0])
        return layer, self.slices[i]  # type: ignore[return-value]

    def part(self) -> None:
        """Give each network its own first layer back."""
        for member, (name, layer) in zip(self.members, self.layers, strict=True):
            layer.weight = nn.Parameter(self.first(member)[0].weight.detach().clone())
            module, best = member.session.module, member.session.progress.best_weights
            module.set_submodule(name, layer)
            if best is not None:
                module.load_state_dict(best)
            module.eval()


def _numbered(batches: Batches) -> Batches:
    """Return the same batches with the rows' positions in the place of targets: each network looks up its own."""
    numbered = copy.copy(batches)
    numbered.targets = torch.arange(batches.rows.shape[0])
    return numbered


def _epoch(shared: _Shared, members: Sequence[_Member]) -> None:
    """Train every open member on one pass, score it, and close it if its plan says so."""
    for member in members:
        member.session.module.train()
        member.losses = {"loss": [], "validation_loss": []}
        progress = member.session.progress
        member.rate = member.session.plan.rate(epoch=len(progress.history), step=progress.step)
    for x, positions in shared.train:
        products, gradients = x @ shared.weight.T, torch.zeros(len(x), len(shared.weight))
        for member in members:
            y = member.session.train.targets[positions]
            units = shared.first(member)[1]
            loss = _backward(member, (products[:, units], y), gradients[:, units])
            member.losses["loss"].append((loss, len(x)))
        torch.mm(gradients.T, x, out=shared.gradient)
        for member in members:
            layer, units = shared.first(member)
            layer.weight.grad = shared.gradient[units]
            member.session.progress.optimizer.step()
            member.session.progress.step += 1
    _score(shared, members)
    for member in members:
        member.close_epoch()


def _backward(member: _Member, pair: Pair, gradient: torch.Tensor) -> float:
    """Run one network from its part of the product; write the gradient of that part, return the loss."""
    session = member.session
    for group in session.progress.optimizer.param_groups:
        group["lr"] = session.plan.rate(epoch=len(session.progress.history), step=session.progress.step)
    product = pair[0].detach().requires_grad_()
    torch.set_rng_state(member.random)
    value = session.loss(session.module(product), pair[1])
    member.random = torch.get_rng_state()
    session.progress.optimizer.zero_grad(set_to_none=True)
    value.backward()
    gradient.copy_(product.grad)  # type: ignore[arg-type]
    return float(value.detach().double())


@torch.no_grad()
def _score(shared: _Shared, members: Sequence[_Member]) -> None:
    """Add the validation loss of every member that has validation rows, which are the same for all."""
    for member in members:
        member.session.module.eval()
    for x, positions in shared.held_out or ():
        products = x @ shared.weight.T
        for member in members:
            session = member.session
            outputs = session.module(products[:, shared.first(member)[1]])
            value = session.loss(outputs, session.held_out.targets[positions])  # type: ignore[union-attr]
            member.losses["validation_loss"].append((float(value.double()), len(x)))
