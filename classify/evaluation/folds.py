"""Folds to look within the training images: groups stay together, classes are dealt evenly."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.kinds import kind_of
from classify.errors import TaskError
from classify.evaluation.bootstrap import units_of
from features_store.schema import Task


def deal(
    task: Task, y: NDArray[Any], *, groups: NDArray[np.int64] | None = None, n_folds: int = 5, seed: int = 0
) -> NDArray[np.int64]:
    """Deal images into folds, groups whole.

    Stratified by class for a single-label task, by the rarest label that an image has for a multi-label one, by
    fifths of the (first) value for a regression.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    units = count_units(y, groups)
    if not 2 <= n_folds <= units:
        what = "images" if groups is None else "groups of images"
        raise TaskError(f"{n_folds} folds can't be made of {units} {what}; take from 2 folds to {max(units, 2)}")
    strata = kind_of(task).strata(np.asarray(y))
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


def count_units(y: NDArray[Any], groups: NDArray[np.int64] | None) -> int:
    """Return how many groups (images, where there are none) can be dealt to folds."""
    return len(y) if groups is None else len(np.unique(units_of(groups)))
