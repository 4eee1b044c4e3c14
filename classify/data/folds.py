"""Folds to look within the training images: groups stay together, classes are dealt evenly."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.kinds import kind_of
from classify.errors import TaskError
from features_store.schema import Task

__all__ = ["count_units", "cuts", "deal", "deal_strata", "inner_cuts", "units_of"]


def deal(
    task: Task, y: NDArray[Any], *, groups: NDArray[np.int64] | None = None, n_folds: int = 5, seed: int = 0
) -> NDArray[np.int64]:
    """Deal images into folds, groups whole.

    Stratified by class for a single-label task, by the rarest label that an image has for a multi-label one, by
    fifths of the (first) value for a regression.

    Shapes: groups (n_images,) int64; returns (n_images,) int64.
    Raises TaskError.
    """
    return deal_strata(kind_of(task).strata(np.asarray(y)), groups=groups, n_folds=n_folds, seed=seed)


def deal_strata(
    strata: NDArray[np.int64], *, groups: NDArray[np.int64] | None = None, n_folds: int = 5, seed: int = 0
) -> NDArray[np.int64]:
    """Deal images into folds with equal shares of the codes of *strata*, (n_images,), groups whole.

    Raises TaskError.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    units = count_units(strata, groups)
    if not 2 <= n_folds <= units:
        what = "images" if groups is None else "groups of images"
        raise TaskError(f"{n_folds} folds can't be made of {units} {what}; take from 2 folds to {max(units, 2)}")
    if np.bincount(strata).max() < n_folds:
        strata = np.zeros_like(strata)  # no class reaches into every fold: too few images to deal evenly
    folds = np.zeros(len(strata), dtype=np.int64)
    if groups is None:
        splits = StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(strata, strata)
    else:
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        splits = splitter.split(strata, strata, units_of(groups))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer images than folds is dealt as far as it goes
        for fold, (_, held_out) in enumerate(splits):
            folds[held_out] = fold
    return folds


def cuts(folds: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return positions to fit on and to hold out, fold by fold."""
    return [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]


def inner_cuts(
    strata: NDArray[np.int64], groups: NDArray[np.int64] | None, n_folds: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return what a head chooses its options by, see `cuts`; fewer folds of few units, none of a single one."""
    n_folds = min(n_folds, count_units(strata, groups))
    return cuts(deal_strata(strata, groups=groups, n_folds=n_folds, seed=seed)) if n_folds > 1 else []


def count_units(y: NDArray[Any], groups: NDArray[np.int64] | None) -> int:
    """Return how many groups (images, where there are none) can be dealt to folds."""
    return len(y) if groups is None else len(np.unique(units_of(groups)))


def units_of(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups from 0; an image that is alone is a group of its own.

    Shapes: groups (n_images,) int64; returns (n_images,) int64.
    """
    groups = np.array(groups, dtype=np.int64)
    alone = groups < 0
    groups[alone] = groups.max(initial=-1) + 1 + np.arange(alone.sum())
    return np.unique(groups, return_inverse=True)[1]
