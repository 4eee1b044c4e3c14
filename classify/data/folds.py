"""Folds within some images: groups stay together, classes are spread evenly."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import TaskError


def deal_strata(
    strata: NDArray[np.int64], *, groups: NDArray[np.int64] | None = None, n_folds: int = 5, seed: Any = 0
) -> NDArray[np.int64]:
    """Return the fold of each image, (n_images,): whole groups, equal shares of each stratum (`TaskKind.strata`)."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    units = count_units(strata, groups)
    if not 2 <= n_folds <= units:
        what = "images" if groups is None else "groups of images"
        raise TaskError(f"{n_folds} folds cannot be made of {units} {what}; take from 2 folds to {max(units, 2)}")
    if np.bincount(strata).max() < n_folds:
        strata = np.zeros_like(strata)  # no stratum reaches into every fold: too few images to spread evenly
    folds = np.zeros(len(strata), dtype=np.int64)
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer images than folds is spread as far as it goes
        split = splitter.split(strata, strata, None if groups is None else units_of(groups))
        for fold, (_, held_out) in enumerate(split):
            folds[held_out] = fold
    return folds


def cuts(folds: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return the positions to fit on and those held out, fold by fold."""
    return [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]


def units_of(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups from 0, (n_images,); an image that is alone is a group of its own."""
    groups = np.array(groups, dtype=np.int64)
    alone = groups < 0
    groups[alone] = groups.max(initial=-1) + 1 + np.arange(alone.sum())
    return np.unique(groups, return_inverse=True)[1]


def count_units(y: NDArray[Any], groups: NDArray[np.int64] | None) -> int:
    """Count the groups, or the images where there are none."""
    return len(y) if groups is None else len(np.unique(units_of(groups)))


def inner_cuts(
    strata: NDArray[np.int64], groups: NDArray[np.int64] | None, n_folds: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return what a head chooses its options by, see `cuts`; fewer folds of few units, none of a single one."""
    n_folds = min(n_folds, count_units(strata, groups))
    return cuts(deal_strata(strata, groups=groups, n_folds=n_folds, seed=seed)) if n_folds > 1 else []
