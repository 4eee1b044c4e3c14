"""How far a vector lies from the training images, block by block, in units of a calibrated threshold.

A block is standardized and seen in the first min(64, n/5) principal directions of its training rows. Two distances are
measured: the Mahalanobis distance within these directions, and the length of the residual beside them. Both have a
threshold above and one below: a grey picture may lie nearer to the mean than any training image does. Thresholds come
from held-out folds of the training rows, groups whole: the 99th percentile of each distance and the 1st, and all of
them moved outwards by one factor until 1% of the held-out rows lie beyond any. A copy of a training image is not unlike
it: no threshold lies further inwards than the 99th (1st) percentile of the training rows themselves, whose own
directions fit them better than new ones, above all in blocks of more columns than rows. So one image in a hundred that
is like the training images is flagged, or fewer, whatever the number of blocks; ``python -m tests.bench coverage``
prints it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from classify.data.folds import count_units, cuts, deal_strata
from classify.data.kinds import kind_of
from classify.data.rows import Rows
from classify.errors import ModelError, RunError
from classify.evaluation.bootstrap import LEAST_UNITS
from classify.json_file import choice, items, number, optional, parse_json, record, text, whole
from features_store.errors import first_line
from features_store.schema import Task

NOT_RECORDED = "novelty not recorded"
MAX_BYTES = 5_000_000
_RECORD, _ARRAYS = "novelty.json", "novelty.safetensors"
_HEADERS = 250_000  # bytes of the budget that are kept for names and headers
_QUANTILE = 0.99
_MAX_DIRECTIONS = 64
_MAX_ROWS, _MAX_JUDGED = 2_000, 10_000  # sampled from more: to fit on, to count flagged images of
_MAX_VALUES, _CHUNK_VALUES = 2**24, 2**21  # of one block held at once, in float32; widened to float64 at once
_MIN_ORDERED = 200  # held-out rows whose 99th percentile is an order statistic
_LARGEST = 1e100
_ROUNDING = 1e-5  # of a squared length
_LEAST = 1e-3  # of a standard deviation a column: what is nearer counts as rounding
_FLOAT32 = np.finfo(np.float32)

Floats = NDArray[np.float64]
Pair = tuple[float, float]


@dataclass(frozen=True)
class BlockNovelty:
    """One block: ``mean``, ``scale`` (n_features,), orthonormal ``directions`` (k, n_features), ``variances`` (k,)."""

    name: str
    mean: Floats
    scale: Floats
    directions: NDArray[np.float32]
    variances: Floats
    thresholds: Pair = (1.0, 1.0)  # of the distance within the directions, of the residual
    floors: Pair = (0.0, 0.0)  # below which each is too small; 0: nothing is

    def ratios(self, x: NDArray[Any]) -> tuple[Floats, Floats]:
        """Return how many times the distance is above its threshold, and below its floor: (n_rows,) each."""
        distances = self.distances(x)
        below = self.floors / np.maximum(distances, _least([len(self.mean)])[0])
        return (distances / self.thresholds).max(axis=1), below.max(axis=1)

    def distances(self, x: NDArray[Any]) -> Floats:
        """Return the distance within the directions and the residual of some rows, (n_rows, 2)."""
        found = np.empty((len(x), 2))
        step = max(1, _CHUNK_VALUES // max(len(self.mean), 1))
        for start in range(0, len(x), step):
            z = (x[start : start + step].astype(np.float64) - self.mean) / self.scale
            inside = z @ self.directions.T.astype(np.float64)
            whole = np.einsum("ij,ij->i", z, z)
            rest = whole - np.einsum("ij,ij->i", inside, inside)
            rest[rest <= _ROUNDING * whole] = 0  # directions are float32: of a block of few columns nothing is left
            found[start : start + step, 0] = np.sqrt((inside**2 / self.variances).sum(axis=1))
            found[start : start + step, 1] = np.sqrt(rest.clip(min=0))
        return found


@dataclass(frozen=True)
class Novelty:
    """Where the training images of a run lie, block by block."""

    widths: Mapping[str, int]  # features of each block, in the order in which they stand side by side
    blocks: tuple[BlockNovelty, ...] = ()  # those that are measured
    unmeasured: Mapping[str, str] | None = None  # by block, why it is not
    n_rows: int = 0  # training images it was fitted on
    expected: float | None = None  # share of images like them that is flagged; of few training images at most so many
    reason: str = ""  # why nothing is measured, where nothing is

    def ratios(self, x: NDArray[Any]) -> dict[str, Floats]:
        """Return by measured block how far each row lies beyond a threshold: (n_rows, n_features) to (n_rows,)."""
        return {name: np.maximum(*both) for name, both in self._both_ratios(x).items()}

    def _both_ratios(self, x: NDArray[Any]) -> dict[str, tuple[Floats, Floats]]:
        ends = dict(zip(self.widths, np.cumsum(list(self.widths.values())).tolist(), strict=True))
        return {one.name: one.ratios(x[:, ends[one.name] - len(one.mean) : ends[one.name]]) for one in self.blocks}

    def judge(self, vector: NDArray[Any]) -> tuple[float | None, str]:
        """Return the largest ratio of a vector, and a warning; an empty one where the ratio is at most 1."""
        both = {
            name: (float(above[0]), float(below[0])) for name, (above, below) in self._both_ratios(vector[None]).items()
        }
        if not both:
            return None, f"novelty not measured: {self.reason}"
        name = max(both, key=lambda key: max(both[key]))
        ratio, (above, below) = max(both[name]), both[name]
        if ratio <= 1:
            return ratio, ""
        what = "times the threshold" if above >= below else "times too near their mean"
        return ratio, f"unlike the training images in block {name!r} ({ratio:.3g} {what}); do not trust this prediction"

    def share(self, rows: Rows, *, seed: int = 0) -> dict[str, Any] | None:
        """Count the flagged among some rows, a sample where there are very many; None where nothing is measured."""
        if not self.blocks:
            return None
        flagged, positions = 0, _sample(rows.shape[0], _MAX_JUDGED, seed)
        step = max(1, _MAX_VALUES // rows.shape[1])
        for start in range(0, len(positions), step):
            ratios = self.ratios(rows.take(positions[start : start + step]))
            flagged += int((np.stack(list(ratios.values())).max(axis=0) > 1).sum())
        return {"n": len(positions), "flagged": flagged, "share": flagged / len(positions)}

    def as_json(self, parts: Mapping[str, Rows], *, seed: int = 0) -> dict[str, Any]:
        """Return what the report of a run says, with the share of flagged images of some parts."""
        shares = {name: self.share(rows, seed=seed) for name, rows in parts.items()}
        return {
            "n_train": self.n_rows,
            "expected": self.expected,
            "directions": {block.name: len(block.variances) for block in self.blocks},
            "unmeasured": dict(self.unmeasured or {}),
            "reason": self.reason,
            "parts": {name: share for name, share in shares.items() if share is not None},
        }

    def files(self) -> dict[str, bytes]:
        """Return the files that `read_novelty` takes, by name; at most 5 MB together."""
        from safetensors.numpy import save

        measured = {block.name: block for block in self.blocks}
        unmeasured = self.unmeasured or {}
        about = {
            "format": "affectory-novelty",
            "format_version": 1,
            "blocks": [
                {
                    "name": name,
                    "n_features": width,
                    "thresholds": list(measured[name].thresholds) if name in measured else None,
                    "floors": list(measured[name].floors) if name in measured else None,
                    "reason": unmeasured.get(name, ""),
                }
                for name, width in self.widths.items()
            ],
            "n_rows": self.n_rows,
            "expected": self.expected,
            "reason": self.reason,
        }
        arrays = {f"{i}.{key}": getattr(block, key) for i, block in enumerate(self.blocks) for key in _KEYS}
        made = {_RECORD: (json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()}
        return made | ({_ARRAYS: save(arrays)} if arrays else {})


_KEYS = {"mean": np.float64, "scale": np.float64, "directions": np.float32, "variances": np.float64}


def fit_novelty(
    blocks: Mapping[str, Rows], task: Task, y: NDArray[Any], groups: NDArray[np.int64] | None = None, *, seed: int = 0
) -> Novelty:
    """Measure the training images."""
    widths = {name: rows.shape[1] for name, rows in blocks.items()}
    rows = _sample(len(y), min(_MAX_ROWS, max(LEAST_UNITS, _MAX_VALUES // max(widths.values()))), seed)
    y, groups = y[rows], None if groups is None else groups[rows]
    units = count_units(y, groups)
    if units < LEAST_UNITS:
        what = "images" if groups is None else "groups of images"
        return Novelty(widths, n_rows=len(y), reason=f"{units} training {what}; at least {LEAST_UNITS} are needed")
    n_folds = min(units, 10 if len(y) < _MIN_ORDERED else 5)
    folds = cuts(deal_strata(kind_of(task).strata(y), groups=groups, n_folds=n_folds, seed=seed))
    sizes, unmeasured = _sizes(widths, len(y) // 5), {}
    found, held, own = [], [], []
    for name, width in widths.items():
        if name not in sizes:
            unmeasured[name] = f"{width} columns are too many to keep"
            continue
        x = blocks[name].take(rows)
        block = _directions(name, x, sizes[name], seed)
        if block is None:
            unmeasured[name] = "it is the same for all training images"
            continue
        distances = np.empty((len(x), 2))
        for train, held_out in folds:
            beside = _directions(name, x[train], sizes[name], seed)
            # A fold without the only image that differs has no directions: those of all images measure it.
            distances[held_out] = (beside or block).distances(x[held_out])
        found.append(block)
        held.append(distances)
        own.append(block.distances(x))
    if not found:
        return Novelty(widths, (), unmeasured, len(y), reason="; ".join(f"{k!r}: {v}" for k, v in unmeasured.items()))
    thresholds, floors, expected = _thresholds(held, own, [widths[block.name] for block in found])
    measured = tuple(
        replace(one, thresholds=above, floors=below)
        for one, above, below in zip(found, thresholds, floors, strict=True)
    )
    return Novelty(widths, measured, unmeasured, len(y), expected)


def _sample(n: int, most: int, seed: int) -> NDArray[np.int64]:
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def _sizes(widths: Mapping[str, int], most: int) -> dict[str, int]:
    """Return how many directions of each block fit into the file; a block too wide for one is left out."""
    kept = dict(sorted(widths.items(), key=lambda pair: pair[1]))
    budget = MAX_BYTES - _HEADERS
    while kept:
        for cap in range(max(1, min(_MAX_DIRECTIONS, most)), 0, -1):
            sizes = {name: min(cap, width) for name, width in kept.items()}
            if sum(kept[name] * (16 + 4 * k) + 8 * k for name, k in sizes.items()) <= budget:
                return sizes
        kept.popitem()  # the widest
    return {}


def _directions(name: str, x: NDArray[np.float32], n_directions: int, seed: int) -> BlockNovelty | None:
    """Return mean, scale and principal directions of some rows; None where they are all the same."""
    from sklearn.utils.extmath import randomized_svd

    mean, scale = _moments(x)
    if not scale.any():
        return None
    # A column that does not vary is measured by what the others vary, or by the rounding of its own values.
    constant = scale == 0
    scale[constant] = np.maximum(np.median(scale[~constant]), _rounding(mean[constant]))
    z = np.empty(x.shape, dtype=np.float32)
    for columns in _chunks(x):
        z[:, columns] = (x[:, columns].astype(np.float64) - mean[columns]) / scale[columns]
    k = min([n_directions, *z.shape])
    _, lengths, directions = randomized_svd(z, k, n_iter=2, power_iteration_normalizer="QR", random_state=seed)
    variances = lengths.astype(np.float64) ** 2 / (len(x) - 1)
    kept = variances > _LEAST**2 * x.shape[1]  # what is smaller is left to the residual
    return BlockNovelty(name, mean, scale, np.ascontiguousarray(directions[kept]), variances[kept])


def _moments(x: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of the columns, 0 where float32 shows no variation."""
    mean, deviation = np.empty(x.shape[1]), np.empty(x.shape[1])
    for columns in _chunks(x):
        wide = x[:, columns].astype(np.float64)
        mean[columns], deviation[columns] = wide.mean(axis=0), wide.std(axis=0)
    deviation[deviation <= _rounding(mean)] = 0
    return mean, deviation


def _rounding(mean: Floats) -> Floats:
    return np.maximum(10 * float(_FLOAT32.eps) * np.abs(mean), float(_FLOAT32.tiny))


def _chunks(x: NDArray[Any]) -> Iterator[slice]:
    step = max(1, _CHUNK_VALUES // len(x))
    return (slice(start, start + step) for start in range(0, x.shape[1], step))


def _least(widths: Sequence[int]) -> Floats:
    """Return the distances of each block that count as rounding: (n_blocks, 2)."""
    return np.array([(_LEAST, _LEAST * math.sqrt(width)) for width in widths])


def _thresholds(
    held: Sequence[Floats], own: Sequence[Floats], widths: Sequence[int]
) -> tuple[list[Pair], list[Pair], float]:
    """Return thresholds and floors of each block, and the share of such rows that lie beyond one of them.

    Of n held-out rows the k-th smallest is taken, k = 0.99 (n + 1) rounded up, and the k-th largest: a further row lies
    beyond either with probability 1 - k / (n + 1); then all are moved outwards by one factor, until the largest ratio
    of a further row is above 1 with that probability. Fewer than 200 rows have too few beyond: there the logarithms of
    the distances are taken as normal for the threshold, the cube roots of their squares for the floor (Wilson and
    Hilferty 1931), and the bound of one further row (Student's t) is shared by Bonferroni.
    """
    least = _least(widths)
    distances = np.maximum(np.stack(held, axis=1), least)  # (n, n_blocks, 2)
    n = len(distances)
    if n < _MIN_ORDERED:
        reach = t.ppf(1 - (1 - _QUANTILE) / (2 * least.size), n - 1) * math.sqrt(1 + 1 / n)
        logs, roots = np.log(distances), distances ** (2 / 3)
        above = np.exp(logs.mean(axis=0) + reach * logs.std(axis=0, ddof=1))
        below = (roots.mean(axis=0) - reach * roots.std(axis=0, ddof=1)).clip(min=0) ** 1.5
        share = 1 - _QUANTILE
    else:
        k = math.ceil(_QUANTILE * (n + 1))
        ordered, share = np.sort(distances, axis=0), 1 - k / (n + 1)
        above, below = ordered[k - 1], ordered[n - k]
        factor = np.sort(np.maximum(distances / above, below / distances).max(axis=(1, 2)))[k - 1]
        above, below = above * factor, below / factor
    near, far = np.quantile(np.stack(own, axis=1), (1 - _QUANTILE, _QUANTILE), axis=0)
    above, below = np.maximum(above, far), np.minimum(below, near)
    below[below <= 1.01 * least] = 0.0  # nothing lies nearer than rounding
    above, below = above.clip(max=_LARGEST), below.clip(max=_LARGEST)
    return [tuple(one) for one in above.tolist()], [tuple(one) for one in below.tolist()], round(share, 6)


_BLOCK = record(
    {
        "name": text,
        "n_features": whole(1, 10_000_000),
        "thresholds": optional(items(number(_LEAST**2), 2, 2)),
        "reason": text,
    },
    {"floors": (optional(items(number(0), 2, 2)), None)},
)
_ABOUT = record(
    {
        "format": choice("affectory-novelty"),
        "format_version": choice(1),
        "blocks": items(_BLOCK, 1, 1000),
        "n_rows": whole(),
        "expected": optional(number(0, 1)),
        "reason": text,
    }
)


def read_novelty(files: Mapping[str, bytes], blocks: Sequence[str], n_features: int) -> Novelty | None:
    """Take back what `Novelty.files` gave."""
    from safetensors.numpy import load

    there = [name for name in (_RECORD, _ARRAYS) if name in files]
    if not there:
        return None
    try:
        if _RECORD not in files or sum(len(files[name]) for name in there) > MAX_BYTES:
            raise ModelError(f"{_RECORD} is missing, or its files have more than {MAX_BYTES} bytes")
        about = _ABOUT(parse_json(files[_RECORD], _RECORD, clean=False), "the novelty")
        widths = {one["name"]: one["n_features"] for one in about["blocks"]}
        if list(widths) != list(blocks) or sum(widths.values()) != n_features:
            raise ModelError(
                f"it is of the blocks {widths}, and the head takes {n_features} features of {', '.join(blocks)}"
            )
        measured = [one for one in about["blocks"] if one["thresholds"] is not None]
        arrays = load(files[_ARRAYS]) if _ARRAYS in files else {}
        if set(arrays) != {f"{i}.{key}" for i in range(len(measured)) for key in _KEYS}:
            raise ModelError(f"its arrays are not those of {len(measured)} blocks")
        made = tuple(_block(i, one, arrays) for i, one in enumerate(measured))
    except (ModelError, RunError) as error:
        raise ModelError(f"the novelty of the model cannot be used: {error}; run `classify run` again") from error
    except Exception as error:  # whatever a damaged file provokes in safetensors
        raise ModelError(
            f"the novelty of the model is damaged ({type(error).__name__}: {first_line(error)})"
        ) from error
    unmeasured = {one["name"]: one["reason"] for one in about["blocks"] if one["thresholds"] is None and one["reason"]}
    return Novelty(widths, made, unmeasured, about["n_rows"], about["expected"], about["reason"])


def _block(i: int, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> BlockNovelty:
    """Make a block from its arrays, each of the type, size and range that a fit gives: distances stay finite."""
    mean, scale, directions, variances = (arrays[f"{i}.{key}"] for key in _KEYS)
    width, k = about["n_features"], len(variances.ravel())
    shapes = [one.shape for one in (mean, scale, directions, variances)]
    types = [one.dtype for one in (mean, scale, directions, variances)]
    fits = shapes == [(width,), (width,), (k, width), (k,)] and types == list(map(np.dtype, _KEYS.values()))
    sound = fits and (
        bool((np.abs(mean) <= _FLOAT32.max).all() and (np.abs(directions) <= 1.01).all())
        and bool(((scale >= _FLOAT32.tiny) & (scale <= 2 * float(_FLOAT32.max))).all())
        and bool(((variances >= _LEAST**2) & (variances <= float(_FLOAT32.max))).all())
    )
    if not sound:
        raise ModelError(f"its arrays of block {about['name']!r} have another size, type or range than a fit gives")
    thresholds, floors = about["thresholds"], about["floors"] or (0.0, 0.0)
    ends = [(float(one), float(other)) for one, other in (thresholds, floors)]
    return BlockNovelty(about["name"], mean, scale, directions, variances, *ends)
