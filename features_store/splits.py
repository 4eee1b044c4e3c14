"""Making splits: stratified by a task, groups kept whole, the same for the same seed.

Single-label tasks are stratified by scikit-learn (``StratifiedKFold``, ``StratifiedGroupKFold``,
``train_test_split``), multi-label tasks and regressions (by quantile) by iterative stratification (Sechidis, Tsoumakas
& Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011). Without a task numpy alone is needed, and the
result is the one that scikit-learn gives for a single class.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from features_store.errors import MismatchError, StoreError, check_seed
from features_store.schema import Labels, Split

_SMALL_FOLDS = 20  # from which parts are put together where groups must stay whole


def make_split(
    name: str,
    n_images: int,
    *,
    labels: Labels | None = None,
    groups: NDArray[np.int64] | None = None,
    folds: int | None = None,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> Split:
    """Assign images to folds, or to train, validation and test; groups, (n_images,), stay whole."""
    check_seed(seed)
    used = np.arange(n_images) if labels is None else np.flatnonzero(labels.known)
    shares = np.full(folds, 1 / folds) if folds and folds > 1 else np.array(fractions, dtype=float)
    if folds is None and (len(shares) != 3 or not (shares.min() >= 0 and abs(shares.sum() - 1) <= 1e-6)):
        raise MismatchError(
            f"fractions of train, validation and test must be three numbers that add up to 1; got {list(fractions)}"
        )
    if folds is not None and not 2 <= folds <= 127:
        raise MismatchError(f"a split has 2 to 127 folds; got {folds}")
    of_group, n_groups = _numbered(None if groups is None else groups[used], len(used))
    if n_groups < np.count_nonzero(shares):
        raise MismatchError(f"{n_groups} groups of images cannot be dealt out into {np.count_nonzero(shares)} parts")
    strata = None if labels is None else labels.task.form.strata(labels.values[used])
    grouped = n_groups < len(used)
    with _plain_errors(name):
        if strata is not None and strata.ndim == 2:
            dealt = _multi_label_parts(_by_group(strata, of_group, n_groups), shares, seed)[of_group]
        elif folds is not None:
            dealt = _folds(strata, of_group, folds, seed, grouped=grouped)
        elif grouped:
            dealt = _parts_of_groups(strata, of_group, shares, seed)
        else:
            dealt = _parts(strata, shares, len(used), seed)
    counts = np.bincount(dealt, minlength=len(shares))
    if (counts[shares > 0] == 0).any():
        raise MismatchError(
            f"split {name!r} cannot be made: {n_groups:,} groups of {len(used):,} images were dealt out as "
            f"{', '.join(map(str, counts.tolist()))}, and no part may be empty; ask for fewer or larger parts"
        )
    values = np.full(n_images, -1, dtype=np.int8)
    values[used] = dealt
    return Split(name, values, "parts" if folds is None else "folds", "made")


def parts_of_folds(split: Split) -> list[Split]:
    """Return for each fold a split in which it is the test part, the next one validation, and the rest train.

    They are named ``NAME.0``, ``NAME.1`` and so on. Of two folds only, each is once train and once test.
    """
    n_folds = int(split.values.max()) + 1
    made = []
    for fold in range(n_folds):
        after = (split.values.astype(np.int64) - fold) % n_folds
        parts = np.where(after == 0, 2, np.where((after == 1) & (n_folds > 2), 1, 0))
        made.append(Split(f"{split.name}.{fold}", np.where(split.values < 0, -1, parts), "parts", split.source))
    return made


def _numbered(groups: NDArray[np.int64] | None, n: int) -> tuple[NDArray[np.int64], int]:
    """Number the groups from 0, an image that is alone being a group."""
    if groups is None:
        return np.arange(n), n
    lone = groups < 0
    named = np.where(lone, groups.max(initial=0) + 1 + np.arange(n), groups)
    unique, numbers = np.unique(named, return_inverse=True)
    return numbers.astype(np.int64), len(unique)


def _by_group(strata: NDArray[np.bool_], of_group: NDArray[np.int64], n_groups: int) -> NDArray[np.bool_]:
    """Return the strata that each group touches, and its size as further strata, so that large groups are spread."""
    together = np.zeros((n_groups, strata.shape[1]), dtype=bool)
    np.logical_or.at(together, of_group, strata)
    size = np.log2(np.bincount(of_group, minlength=n_groups)).round()
    return np.column_stack([together, size[:, None] == np.unique(size)]) if n_groups < len(of_group) else together


def _multi_label_parts(strata: NDArray[np.bool_], shares: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Deal rows out by iterative stratification."""
    from iterstrat.ml_stratifiers import IterativeStratification

    rng = np.random.RandomState(seed)
    order = rng.permutation(len(strata))
    present = strata[order][:, strata.any(axis=0)]
    dealt = np.empty(len(strata), dtype=np.int64)
    dealt[order] = np.flatnonzero(shares)[IterativeStratification(present, shares[shares > 0].copy(), rng)]
    return dealt


def _folds(
    strata: NDArray[np.int64] | None, of_group: NDArray[np.int64], folds: int, seed: int, *, grouped: bool
) -> NDArray[np.int64]:
    if strata is None:
        return _plain_group_folds(of_group, folds, seed) if grouped else _plain_folds(len(of_group), folds, seed)
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    dealt = np.empty(len(strata), dtype=np.int64)
    for fold, (_, tested) in enumerate(splitter.split(strata, _pooled(strata, folds), of_group if grouped else None)):
        dealt[tested] = fold
    return dealt


def _plain_folds(n: int, folds: int, seed: int) -> NDArray[np.int64]:
    dealt = np.sort(np.arange(n) % folds)
    np.random.RandomState(seed).shuffle(dealt)
    return dealt


def _plain_group_folds(of_group: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Give each group, in random order, to the fold that leaves the sizes most even."""
    sizes = np.bincount(of_group)
    order = np.arange(len(sizes))
    np.random.RandomState(seed).shuffle(order)
    filled, fold_of = np.zeros((folds, 1)), np.empty(len(sizes), dtype=np.int64)
    for group in order:
        best, evenness = 0, np.inf
        for fold in range(folds):
            filled[fold] += sizes[group]
            spread = float(np.std(filled / len(of_group), axis=0)[0])
            filled[fold] -= sizes[group]
            if spread < evenness or (np.isclose(spread, evenness) and filled[fold] < filled[best]):
                best, evenness = fold, spread
        fold_of[group] = best
        filled[best] += sizes[group]
    return fold_of[of_group]


def _parts(
    strata: NDArray[np.int64] | None, shares: NDArray[np.float64], n_images: int, seed: int
) -> NDArray[np.int64]:
    dealt = np.zeros(n_images, dtype=np.int64)
    rest = np.arange(n_images)
    for part in (2, 1):
        n = round(shares[part] * n_images)
        if n and n < len(rest):
            rest, taken = _two_parts(rest, n, None if strata is None else strata[rest], seed)
            dealt[taken] = part
        elif n:
            dealt[rest] = part
    return dealt


def _two_parts(
    rows: NDArray[np.int64], n: int, strata: NDArray[np.int64] | None, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if strata is None:
        rng = np.random.RandomState(seed)
        order = rng.permutation(len(rows))
        return rows[rng.permutation(order[: len(rows) - n])], rows[order[len(rows) - n :]]
    from sklearn.model_selection import train_test_split

    rest, taken = train_test_split(rows, test_size=n, random_state=seed, stratify=_pooled(strata, 2))
    return rest, taken


def _parts_of_groups(
    strata: NDArray[np.int64] | None, of_group: NDArray[np.int64], shares: NDArray[np.float64], seed: int
) -> NDArray[np.int64]:
    """Put parts together from many small folds, the largest fold to the part that lacks most."""
    n_folds = min(_SMALL_FOLDS, int(of_group.max()) + 1)
    folds = _folds(strata, of_group, n_folds, seed, grouped=True)
    sizes = np.bincount(folds, minlength=n_folds)
    lacking = shares * len(of_group)
    part_of = np.zeros(n_folds, dtype=np.int64)
    for fold in np.argsort(-sizes, kind="stable"):
        part_of[fold] = np.argmax(lacking)
        lacking[part_of[fold]] -= sizes[fold]
    return part_of[folds]


def _pooled(strata: NDArray[np.int64], fewest: int) -> NDArray[np.int64]:
    """Join classes too rare to be in every part into one stratum, and that into the largest class if it is too rare."""
    _, numbers, counts = np.unique(strata, return_inverse=True, return_counts=True)
    rare = counts < fewest
    if not rare.any():
        return numbers
    target = len(counts) if counts[rare].sum() >= fewest else int(np.argmax(counts))
    return np.where(rare[numbers], target, numbers)


@contextmanager
def _plain_errors(name: str) -> Iterator[None]:
    """Turn an error of the libraries, or their absence, into a sentence of this package."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
            yield
    except ModuleNotFoundError as error:
        raise StoreError(
            "stratified splits need a package that is not installed: pip install 'affectory[classify]'"
        ) from error
    except ValueError as error:
        raise MismatchError(
            f"split {name!r} cannot be made: {error}; ask for fewer or larger parts, or leave --task away"
        ) from error
