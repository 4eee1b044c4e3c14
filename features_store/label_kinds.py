"""What depends on the kind of a task: a class for each of single-label tasks, multi-label tasks and regressions.

Values are those of a dump, (n_images, ...); names are the classes of a task, or the outputs of a regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_QUANTILES = 4  # strata of each output of a regression

__all__ = ["LABEL_KINDS", "LabelKind"]


class LabelKind:
    """How the labels of one kind lie in a dump, and what they amount to."""

    dtype: str
    none: Any  # the value of an image without a label
    has_classes = True  # the names are classes; else outputs, which have a scale

    def shape(self, n_images: int, n_names: int) -> tuple[int, ...]:
        """Return the shape of the values."""
        return n_images, n_names

    def known(self, values: NDArray[Any]) -> NDArray[Any]:
        """Tell which images carry a label: (n_images,) bool."""
        raise NotImplementedError

    def problem(self, values: NDArray[Any], n_names: int) -> str:
        """Return what is wrong with the values, as the end of a sentence; "" = nothing."""
        raise NotImplementedError

    def counts(self, values: NDArray[Any], names: Sequence[str]) -> dict[str, int]:
        """Count the images of each class; outputs have none."""
        return dict(zip(names, (values == 1).sum(axis=0).tolist(), strict=True))

    def words(self, value: Any, names: Sequence[str]) -> str:
        """Word the label of one image."""
        return ", ".join(name for name, has in zip(names, value.tolist(), strict=True) if has) or "none"

    def columns(self, title: str, values: NDArray[Any], names: Sequence[str]) -> dict[str, list[Any]]:
        """Lay the values out as columns of a table, None where there is no label."""
        known = self.known(values)
        return {
            f"{title}:{name}": [value if there else None for value, there in zip(column.tolist(), known, strict=True)]
            for name, column in zip(names, values.T, strict=True)
        }

    def strata(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return what a split spreads: the class of each image, (n_images,), or its strata, (n_images, n) bool."""
        raise NotImplementedError


class _Single(LabelKind):
    """One class per image: positions, -1 = none."""

    dtype, none = "<i2", -1

    def shape(self, n_images: int, n_names: int) -> tuple[int, ...]:
        return (n_images,)

    def known(self, values: NDArray[Any]) -> NDArray[Any]:
        return values >= 0

    def problem(self, values: NDArray[Any], n_names: int) -> str:
        if values.size and not (values.min() >= -1 and values.max() < n_names):
            return f"run from {values.min()} to {values.max()}; valid: -1 to {n_names - 1}"
        return ""

    def counts(self, values: NDArray[Any], names: Sequence[str]) -> dict[str, int]:
        return dict(zip(names, np.bincount(values[values >= 0], minlength=len(names)).tolist(), strict=True))

    def words(self, value: Any, names: Sequence[str]) -> str:
        return names[int(value)]

    def columns(self, title: str, values: NDArray[Any], names: Sequence[str]) -> dict[str, list[Any]]:
        return {title: [names[value] if value >= 0 else None for value in values.tolist()]}

    def strata(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.astype(np.int64)


class _Multi(LabelKind):
    """Any number of classes per image: 0 and 1, or 255 in the whole row = none."""

    dtype, none = "|u1", 255

    def known(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(values[:, 0] != self.none)

    def problem(self, values: NDArray[Any], n_names: int) -> str:
        none = values == self.none
        if np.any(values[~none] > 1) or np.any(none.any(axis=1) != none.all(axis=1)):
            return "must be 0 or 1, or 255 in the whole row"
        return ""

    def strata(self, values: NDArray[Any]) -> NDArray[Any]:
        # An image of no class is a stratum of its own, so that these are spread too.
        return np.column_stack([values == 1, ~(values == 1).any(axis=1)])


class _Regression(LabelKind):
    """Real values: NaN = none."""

    dtype, none, has_classes = "<f4", np.nan, False

    def known(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(~np.isnan(values).any(axis=1))

    def problem(self, values: NDArray[Any], n_names: int) -> str:
        return "hold infinite values; use NaN where there is no label" if np.isinf(values).any() else ""

    def counts(self, values: NDArray[Any], names: Sequence[str]) -> dict[str, int]:
        return {}

    def words(self, value: Any, names: Sequence[str]) -> str:
        return ", ".join(f"{one:.2f}" for one in value.tolist())

    def strata(self, values: NDArray[Any]) -> NDArray[Any]:
        edges = [np.quantile(column, np.arange(1, _QUANTILES) / _QUANTILES) for column in values.T]
        bins = [np.digitize(column, inner) for column, inner in zip(values.T, edges, strict=True)]
        return np.concatenate([one[:, None] == np.arange(_QUANTILES) for one in bins], axis=1)


LABEL_KINDS: dict[str, LabelKind] = {"single": _Single(), "multi": _Multi(), "regression": _Regression()}
