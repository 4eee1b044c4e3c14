"""What a wrong prediction costs in training: classes that weigh more, and mistakes that are worse than others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from classify.errors import HeadError
from classify.heads.one_vs_rest import class_weights
from classify.heads.training import Loss


def single_loss(head: Any, codes: np.ndarray, row_losses: Loss, probabilities: Callable[..., torch.Tensor]) -> Loss:
    """Return the loss of a classifier for one label an image.

    ``mean over rows of w_y * (loss + sum over k of cost[y, k] * p_k)``: the weights are those of
    ``head.class_weight``, 1 on average over the training rows where "balanced"; the second term is the expected
    cost of the predictions, and vanishes without ``head.cost``.
    """
    cost = None if head.cost is None else torch.from_numpy(cost_matrix(head.cost, head.classes_))
    weights = None
    if head.class_weight is not None:
        of_rows = class_weights(codes, head.classes_, head.class_weight)[:, 0]
        _, first = np.unique(codes, return_index=True)
        weights = torch.from_numpy(of_rows[first].astype(np.float32))

    def loss(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        losses = row_losses(outputs, y)
        if cost is not None:
            losses = losses + (cost[y] * probabilities(outputs)).sum(dim=1)
        return (losses if weights is None else losses * weights[y]).mean()

    return loss


def labels_loss(head: Any, codes: np.ndarray) -> Loss:
    """Return the loss of a classifier for several labels an image: binary cross-entropy, averaged over labels.

    With ``head.class_weight="balanced"`` the two sides of each label weigh the same over the training rows.
    """
    if head.class_weight is None:
        return nn.functional.binary_cross_entropy_with_logits
    weights = class_weights(codes, head.classes_, head.class_weight)  # (n, K), of two values a column
    sides = [[weights[codes[:, k] == side, k].max(initial=0.0) for k in range(codes.shape[1])] for side in (0, 1)]
    absent, present = (torch.tensor(side, dtype=torch.float32) for side in sides)

    def loss(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(outputs, y, weight=torch.where(y > 0, present, absent))

    return loss


def cost_matrix(cost: Any, classes: np.ndarray) -> np.ndarray:
    """Check a matrix of costs and return it as float32 ``(n_classes, n_classes)``."""
    try:
        matrix = np.asarray(cost, dtype=np.float32)
    except (TypeError, ValueError):
        matrix = np.zeros(0, dtype=np.float32)
    n = len(classes)
    if matrix.shape != (n, n) or not np.isfinite(matrix).all() or (matrix < 0).any() or np.diag(matrix).any():
        raise HeadError(
            f"cost is {cost!r}; it takes a square matrix with a row (the truth) and a column (what is predicted) for "
            f"each of the {n} classes {classes.tolist()}, numbers from 0 up, and 0 on the diagonal"
        )
    return matrix
