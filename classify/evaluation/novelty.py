"""How far a vector lies from the training images, block by block, in units of a calibrated threshold.

A block is standardised and seen in the first min(64, n/5) principal directions of its training rows. Two distances are
measured: the Mahalanobis distance within these directions, and the length of the residual beside them. Thresholds come
from held-out folds of the training rows, groups whole: the 99th percentile of each distance, and all of them raised by
one factor until 1% of the held-out rows lie beyond any. So one image in a hundred that is like the training images is
flagged, whatever the number of blocks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from classify.data.rows import Rows
from classify.errors import ModelError, RunError
from classify.evaluation.bootstrap import LEAST_UNITS
from classify.evaluation.folds import count_units, deal
from classify.json_file import parse_json
from classify.json_schema import choice, items, number, optional, record, text, whole
from features_store.errors import first_line
from features_store.schema import Task

__all__ = ["NOT_RECORDED", "BlockNovelty", "Novelty", "fit_novelty", "read_novelty"]

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
_LEAST = 1e-3  # of a standard deviation a column: what is nearer counts as rounding
_FLOAT32 = np.finfo(np.float32)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BlockNovelty:
    """One block: ``mean``, ``scale`` (n_features,), orthonormal ``directions`` (k, n_features), ``variances`` (k,)."""

    name: str
    mean: Floats
    scale: Floats
    directions: NDArray[np.float32]
    variances: Floats
    thresholds: tuple[float, float] = (1.0, 1.0)  # of the distance within the directions, of the residual

    def distances(self, x: NDArray[Any]) -> Floats:
        """Return the distance within the directions and the residual of some rows, (n_rows, 2)."""
        found = np.empty((len(x), 2))
        step = max(1, _CHUNK_VALUES // max(len(self.mean), 1))
        for start in range(0, len(x), step):
            z = (x[start : start + step].astype(np.float64) - self.mean) / self.scale
            inside = z @ self.directions.T.astype(np.float64)
            rest = np.einsum("ij,ij->i", z, z) - np.einsum("ij,ij->i", inside, inside)
            found[start : start + step, 0] = np.sqrt((inside**2 / self.variances).sum(axis=1))
            found[start : start + step, 1] = np.sqrt(rest.clip(min=0))
        return found


@dataclass(frozen=True)
class Novelty:
    """What a run knows of the place of its training images.

    Parameters
    ----------
    widths : mapping of str to int
        Features of each block, in the order in which they stand side by side.
    blocks : tuple of BlockNovelty
        Those that are measured.
    unmeasured : mapping of str to str
        By block, why it is not.
    n_rows : int
        Training images it was fitted on.
    expected : float or None
        The share of images like the training images that is flagged; under 200 training images at most so many.
    reason : str
        Why nothing is measured, where nothing is.
    """

    widths: Mapping[str, int]
    blocks: tuple[BlockNovelty, ...] = ()
    unmeasured: Mapping[str, str] | None = None
    n_rows: int = 0
    expected: float | None = None
    reason: str = ""

    def ratios(self, x: NDArray[Any]) -> dict[str, Floats]:
        """Return by measured block the distance of each row over its threshold: (n_rows, n_features) to (n_rows,)."""
        found, start = {}, 0
        measured = {block.name: block for block in self.blocks}
        for name, width in self.widths.items():
            if name in measured:
                block = measured[name]
                distances = block.distances(x[:, start : start + width])
                found[name] = (distances / block.thresholds).max(axis=1)
            start += width
        return found

    def judge(self, vector: NDArray[Any]) -> tuple[float | None, str]:
        """Return the largest ratio of a vector, and what is to be said of it; nothing where it is below 1."""
        ratios = {name: float(found[0]) for name, found in self.ratios(vector[None]).items()}
        if not ratios:
            return None, f"novelty not measured: {self.reason}"
        name = max(ratios, key=lambda key: ratios[key])
        if ratios[name] <= 1:
            return ratios[name], ""
        words = f"unlike the training images in block {name!r} ({ratios[name]:.3g} times the threshold)"
        return ratios[name], f"{words}; do not trust this answer"

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

        thresholds = {block.name: list(block.thresholds) for block in self.blocks}
        unmeasured = self.unmeasured or {}
        about = {
            "format": "affectory-novelty",
            "format_version": 1,
            "blocks": [
                {
                    "name": name,
                    "n_features": width,
                    "thresholds": thresholds.get(name),
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
    """Measure the training images.

    Shapes: groups (n_images,) int64.
    """
    widths = {name: rows.shape[1] for name, rows in blocks.items()}
    rows = _sample(len(y), min(_MAX_ROWS, max(LEAST_UNITS, _MAX_VALUES // max(widths.values()))), seed)
    y, groups = y[rows], None if groups is None else groups[rows]
    units = count_units(y, groups)
    if units < LEAST_UNITS:
        what = "images" if groups is None else "groups of images"
        return Novelty(widths, n_rows=len(y), reason=f"{units} training {what}; at least {LEAST_UNITS} are needed")
    folds = deal(task, y, groups=groups, n_folds=min(units, 10 if len(y) < _MIN_ORDERED else 5), seed=seed)
    sizes, unmeasured = _sizes(widths, len(y) // 5), {}
    found, held = [], []
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
        for fold in np.unique(folds):
            beside = _directions(name, x[folds != fold], sizes[name], seed)
            # A fold without the only image that differs has no directions: those of all images measure it.
            distances[folds == fold] = (beside or block).distances(x[folds == fold])
        found.append(block)
        held.append(distances)
    if not found:
        return Novelty(widths, (), unmeasured, len(y), reason="; ".join(f"{k!r}: {v}" for k, v in unmeasured.items()))
    thresholds, expected = _thresholds(held, [widths[block.name] for block in found])
    measured = tuple(
        BlockNovelty(one.name, one.mean, one.scale, one.directions, one.variances, at)
        for one, at in zip(found, thresholds, strict=True)
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


def _thresholds(held: Sequence[Floats], widths: Sequence[int]) -> tuple[list[tuple[float, float]], float]:
    """Return the thresholds of each block, and the share of such rows that one of them flags.

    Of n held-out rows the k-th smallest is taken, k = 0.99 (n + 1) rounded up: a further row lies beyond it with
    probability 1 - k / (n + 1). Fewer than 200 rows have too few beyond it: there the logarithms of the distances are
    taken as normal, and the bound of one further row (Student's t) is shared among the distances by Bonferroni.
    """
    least = np.array([(_LEAST, _LEAST * math.sqrt(width)) for width in widths])
    distances = np.maximum(np.stack(held, axis=1), least)  # (n, n_blocks, 2)
    n = len(distances)
    if n < _MIN_ORDERED:
        logs, level = np.log(distances), 1 - (1 - _QUANTILE) / least.size
        reach = t.ppf(level, n - 1) * math.sqrt(1 + 1 / n)
        found, share = np.exp(logs.mean(axis=0) + reach * logs.std(axis=0, ddof=1)), 1 - _QUANTILE
    else:
        k = math.ceil(_QUANTILE * (n + 1))
        found, share = np.sort(distances, axis=0)[k - 1], 1 - k / (n + 1)
        found = found * np.sort((distances / found).max(axis=(1, 2)))[k - 1]
    return [(float(one), float(other)) for one, other in found.clip(max=_LARGEST)], round(share, 6)


_BLOCK = record(
    {
        "name": text,
        "n_features": whole(1, 10_000_000),
        "thresholds": optional(items(number(_LEAST**2), 2, 2)),
        "reason": text,
    }
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
    """Take back what `Novelty.files` gave.

    Raises ModelError.
    """
    from safetensors.numpy import load

    there = [name for name in (_RECORD, _ARRAYS) if name in files]
    if not there:
        return None
    try:
        if _RECORD not in files or sum(len(files[name]) for name in there) > MAX_BYTES:
            message = f"{_RECORD} is missing, or its files have more than {MAX_BYTES} bytes"
            raise ModelError(message)
        about = _ABOUT(parse_json(files[_RECORD], _RECORD, clean=False), "the novelty")
        widths = {one["name"]: one["n_features"] for one in about["blocks"]}
        if list(widths) != list(blocks) or sum(widths.values()) != n_features:
            message = f"it is of the blocks {widths}, and the head takes {n_features} features of {', '.join(blocks)}"
            raise ModelError(message)
        measured = [one for one in about["blocks"] if one["thresholds"] is not None]
        arrays = load(files[_ARRAYS]) if _ARRAYS in files else {}
        if set(arrays) != {f"{i}.{key}" for i in range(len(measured)) for key in _KEYS}:
            message = f"its arrays aren't those of {len(measured)} blocks"
            raise ModelError(message)
        made = tuple(_block(i, one, arrays) for i, one in enumerate(measured))
    except (ModelError, RunError) as error:
        message = f"the novelty of the model can't be used: {error}; run `classify run` again"
        raise ModelError(message) from error
    except Exception as error:  # whatever a damaged file provokes in safetensors
        message = f"the novelty of the model is damaged ({type(error).__name__}: {first_line(error)})"
        raise ModelError(message) from error
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
        message = f"its arrays of block {about['name']!r} have another size, type or range than a fit gives"
        raise ModelError(message)
    low, high = about["thresholds"]
    return BlockNovelty(about["name"], mean, scale, directions, variances, (float(low), float(high)))
