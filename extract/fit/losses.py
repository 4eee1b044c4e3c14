"""What a wrong answer costs in training: by the kind of task, classes that weigh more, mistakes that are worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import EncoderError
from extract.fit.recipe import Recipe
from features_store import StoreError, Task
from features_store.errors import unknown_name
from features_store.polarity import polarity_costs

if TYPE_CHECKING:
    import torch

__all__ = ["make_loss"]

Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def make_loss(task: Task, targets: NDArray[Any], recipe: Recipe, device: str) -> Loss:
    """Return the loss of (outputs, targets), averaged over images: its weights are those of the training targets.

    One label an image: cross-entropy and, with a cost, the expected cost of the answer; several: binary cross-entropy;
    values: mean squared error.

    Raises EncoderError.
    """
    import torch
    from torch.nn import functional

    cost = _costs(task, recipe.cost)
    if recipe.class_weight is not None and task.kind == "regression":
        raise EncoderError("class_weight is for classes, and a regression has none; leave it out")
    if task.kind == "regression":
        return functional.mse_loss
    weights = None if recipe.class_weight is None else _weights(task, targets, recipe.class_weight)
    if task.kind == "multi":
        if weights is None:
            return functional.binary_cross_entropy_with_logits
        absent, present = torch.from_numpy(weights).to(device)

        def sides(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return functional.binary_cross_entropy_with_logits(outputs, y, weight=torch.where(y > 0, present, absent))

        return sides
    if weights is None and cost is None:
        return functional.cross_entropy
    by_class = torch.from_numpy(np.ones(len(task.classes), np.float32) if weights is None else weights).to(device)
    matrix = torch.from_numpy(np.zeros((len(task.classes),) * 2, np.float32) if cost is None else cost).to(device)

    def weighted(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        losses = functional.cross_entropy(outputs, y, reduction="none")
        return ((losses + (matrix[y] * outputs.softmax(dim=1)).sum(dim=1)) * by_class[y]).mean()

    return weighted


def _costs(task: Task, cost: Any) -> NDArray[np.float32] | None:
    if cost is None:
        return None
    n = len(task.classes)
    try:
        matrix = np.asarray(polarity_costs(task.classes) if cost == "polarity" else cost, dtype=np.float32)
    except StoreError as error:
        raise EncoderError(str(error)) from error
    except (TypeError, ValueError):
        matrix = np.zeros(0, np.float32)
    if task.kind != "single" or matrix.shape != (n, n) or not np.isfinite(matrix).all() or (matrix < 0).any():
        raise EncoderError(
            f'cost is {str(cost)[:80]!r}; for one label an image it is "polarity", or a row (the truth) and a column '
            f"(what is said) for each of {', '.join(task.classes)}, from 0 up"
        )
    return matrix


def _weights(task: Task, targets: NDArray[Any], given: Any) -> NDArray[np.float32]:
    """Return the weight of each class, (n_classes,), or of several labels of both sides of each, (2, n_classes)."""
    if task.kind == "multi":
        if given != "balanced":
            raise EncoderError(f'class_weight is {given!r}; several labels an image take "balanced" or none')
        present = targets.sum(axis=0)
        return (len(targets) / (2 * np.maximum([len(targets) - present, present], 1))).astype(np.float32)
    if isinstance(given, Mapping):
        for name, weight in given.items():
            if name not in task.classes:
                raise EncoderError(unknown_name("class in class_weight", str(name), task.classes))
            if not isinstance(weight, (int, float)) or not 0 <= weight <= 1e6:
                raise EncoderError(f"the weight of class {name!r} is {weight!r}; it is a number from 0 to 1e6")
        return np.array([given.get(name, 1.0) for name in task.classes], dtype=np.float32)
    if given != "balanced":
        raise EncoderError(f'class_weight is {given!r}; it is "balanced", none, or a weight for each class')
    counts = np.bincount(targets, minlength=len(task.classes))
    return (len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)
