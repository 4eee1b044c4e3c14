"""A fully connected layer over thousands of features, whose gradient is written into the same memory at each step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["WideLinear"]


class WideLinear(nn.Linear):
    """`torch.nn.Linear` with a gradient that keeps its memory from step to step.

    The weights of a first layer are tens of megabytes. torch takes fresh memory for their gradient at each step, which
    the system first has to find and to clear: a fifth of the whole step. Parameters, state and results are those of
    the base class; only training on inputs that need no gradient goes this way.
    """

    _gradient: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(batch, out_features)``."""
        if self.training and torch.is_grad_enabled() and self.weight.requires_grad and not x.requires_grad:
            product: torch.Tensor = _Product.apply(x, self.weight, self.bias, self)
            return product
        return super().forward(x)

    def release(self) -> None:
        """Give the memory of the gradient back."""
        self._gradient = self.weight.grad = None


class _Product(torch.autograd.Function):
    """``x W' + b``; puts the gradient of W in place by itself."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, layer: WideLinear) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.layer = layer
        return nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upper: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (rising,), layer = upper, ctx.layer
        x, weight = ctx.saved_tensors
        if weight.grad is not None:  # of another batch, to be added to
            return None, rising.T @ x, rising.sum(0), None
        if layer._gradient is None:
            layer._gradient = torch.empty_like(weight)
        weight.grad = torch.mm(rising.T, x, out=layer._gradient)
        return None, None, rising.sum(0), None
