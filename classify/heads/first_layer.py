"""The first layer of a network over thousands of features, trained in the coordinates of the training rows' span.

The weights of such a layer are tens of megabytes, and most of a training step is spent on them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from classify.data.rows import ArrayRows, Rows, ViewedRows
from classify.data.span import Projection
from classify.data.standardizer import Standardizer, finite_batches

PROJECTIONS = ("always", "auto", "never")


def first_linear(module: nn.Module, n_features: int) -> tuple[str, nn.Linear] | None:
    """Return name and layer where a fully connected layer takes the features, None where another, or dropout, does."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Dropout) and layer.p > 0:
            return None  # dropping features is not the same as dropping coordinates of their span
        if next(layer.parameters(recurse=False), None) is not None:
            return (name, layer) if isinstance(layer, nn.Linear) and layer.in_features == n_features else None
    return None


def projects(choice: str, module: nn.Module, rows: Rows, optimizer: str) -> bool:
    """Decide whether a network is trained in the training rows' span: it must have fewer rows than features."""
    n_rows, n_features = rows.shape
    if isinstance(rows, ViewedRows):
        return False  # each pass has other rows, of another span
    wanted = choice == "always" or (choice == "auto" and optimizer == "sgd")
    return wanted and n_rows < n_features and first_linear(module, n_features) is not None


def project_first(
    module: nn.Module, rows: Rows, standardizer: Standardizer, *, keep_outside: bool, decays: bool
) -> tuple[ProjectedLinear, Rows]:
    """Put a `ProjectedLinear` in the place of *module*'s first layer; return it with the projected training rows."""
    found = first_linear(module, rows.shape[1])
    assert found is not None  # see `projects`
    name, first = found
    projection = Projection.fit(standardizer.whole(rows))
    layer = ProjectedLinear(first, projection, keep_outside=keep_outside, decays=decays)
    module.set_submodule(name, layer)
    return layer, ArrayRows(projection.coordinates.astype(np.float32))


def lifted(module: nn.Module) -> nn.Module:
    """Return *module* with its projected layer, if it has one, over all features again."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, ProjectedLinear):
            module.set_submodule(name, layer.lifted())
    return module.eval()


class ProjectedLinear(nn.Module):
    """A linear layer over coordinates of the training rows' span, equal to the layer over all features.

    With V the basis of the span, ``W = W V V' + W (I - V V')``. A gradient step moves the first part only: each
    gradient is a sum of training rows. The second part stays as it was drawn and acts on unseen rows as a fixed
    random map; under weight decay it shrinks by a factor that follows from the optimiser alone, and is trained
    here as one number with gradient 0. Without *keep_outside* it is dropped, which regularises. *decays* says whether
    the optimiser decays weights.

    Input: ``(batch, rank)`` for training rows, ``(batch, rank + out_features)`` for others, from `rows`.
    """

    def __init__(self, layer: nn.Linear, projection: Projection, *, keep_outside: bool, decays: bool) -> None:
        super().__init__()
        initial = layer.weight.detach().numpy()
        inside = projection.project(initial)
        self.projection = projection
        self.rest = (initial - projection.lift(inside)).astype(np.float32) if keep_outside else None
        self.weight = nn.Parameter(torch.from_numpy(inside.astype(np.float32)))
        self.bias = layer.bias
        if decays and keep_outside:
            self.outside = nn.Parameter(torch.ones(()))
        else:
            self.register_buffer("outside", torch.ones(()))

    def rows(self, rows: Rows, standardizer: Standardizer) -> Rows:
        """Return unseen rows as this layer takes them: float32 (n, rank [+ out_features])."""
        found = []
        for _, x in finite_batches(rows):
            z = standardizer(x)
            outside = [] if self.rest is None else [z @ self.rest.T]
            found.append(np.concatenate([self.projection.project(z).astype(np.float32), *outside], axis=1))
        return ArrayRows(np.concatenate(found))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(batch, out_features)``."""
        rank = self.weight.shape[1]
        out = nn.functional.linear(x[:, :rank], self.weight, self.bias)
        if x.shape[1] > rank:
            return out + self.outside * x[:, rank:]
        return out + 0 * self.outside if self.outside.requires_grad else out

    def lifted(self) -> nn.Linear:
        """Return the trained layer over all features."""
        weight = self.projection.lift(self.weight.detach().numpy())
        if self.rest is not None:
            weight += self.outside.item() * self.rest
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=self.bias is not None)
        layer.weight = nn.Parameter(torch.from_numpy(weight.astype(np.float32)))
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.detach().clone())
        return layer
