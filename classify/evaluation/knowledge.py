"""Whether a head knows anything of the images: its answers beside the same answers dealt to the images at random.

An answer that is always the same is no measure of knowing nothing. It scores below a blind guess by macro F1, and
random scores beat it by average precision. What a head scores when its own answers go to images that they weren't given
for is that measure, for every metric. Where a constant may win without knowing anything (accuracy, errors, log loss), a
head has to beat the majority as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from classify.evaluation.comparison import Difference, less
from classify.evaluation.metrics import dealt_metrics, metrics_of
from classify.evaluation.resamples import Spread, units_of
from features_store.schema import Task

__all__ = ["N_DEALS", "Judgement", "Verdict", "deals", "judge", "mean_of_deals", "movable"]

Verdict = Literal["better", "unclear", "worse", "undefined"]
N_DEALS = 500
SHOWN = 0.025  # at or below this share of deals as good, a head is called better
LEAST_GROUPS = 10  # groups of one size; fewer stay where they are
_PLACES = 5_000_000  # places of dealt answers held at once
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Judgement:
    """What may be said of a head by one metric.

    Parameters
    ----------
    verdict : {"better", "unclear", "worse", "undefined"}
        "better": than its own answers dealt at random, and where a constant may win, than the majority. "worse": than
        the majority, by a metric by which a constant may win.
    p : float
        Share of deals at least as good, the real one among them; NaN where there is no verdict.
    dealt : float
        Mean of the deals.
    over_majority : Difference or None
        The head less the majority, where a constant may win.
    """

    verdict: Verdict
    p: float
    dealt: float
    over_majority: Difference | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain values, None for NaN."""
        numbers = {"p": self.p, "dealt": self.dealt}
        found: dict[str, Any] = {"verdict": self.verdict}
        found |= {name: number if math.isfinite(number) else None for name, number in numbers.items()}
        if self.over_majority is not None:
            found["over_majority"] = self.over_majority.as_json()
        return found


def _movable_groups(n_images: int, groups: NDArray[np.int64] | None) -> list[NDArray[np.int64]]:
    """The images of groups that may be exchanged: for each size of group, (n_groups, size)."""
    units = np.arange(n_images) if groups is None else units_of(groups)
    order = np.argsort(units, kind="stable")
    sizes = np.bincount(units)
    starts = np.cumsum(sizes) - sizes
    found = []
    for size in np.unique(sizes):
        of_size = np.flatnonzero(sizes == size)
        if len(of_size) >= LEAST_GROUPS:
            found.append(order[starts[of_size][:, None] + np.arange(size)])
    return found


def movable(n_images: int, groups: NDArray[np.int64] | None = None) -> float:
    """Return the share of images whose answers may be dealt to others."""
    return sum(members.size for members in _movable_groups(n_images, groups)) / n_images


def deals(
    n_images: int, groups: NDArray[np.int64] | None = None, *, n_deals: int = N_DEALS, seed: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Yield orders of the images, some at a time: whole groups exchanged among groups of equal size.

    Shapes: groups (n_images,) int64; yields (n, n_images) int64.
    """
    random, exchanged = np.random.default_rng(seed), _movable_groups(n_images, groups)
    step = max(1, _PLACES // n_images)
    for start in range(0, n_deals, step):
        found = np.tile(np.arange(n_images), (min(step, n_deals - start), 1))
        for row in found:
            for members in exchanged:
                row[members] = members[random.permutation(len(members))]
        yield found


def mean_of_deals(
    task: Task, y_true: NDArray[Any], scores: NDArray[Any], groups: NDArray[np.int64] | None = None, **options: int
) -> dict[str, float]:
    """Return what a head scores, on average, with its answers dealt at random."""
    chunks = [dealt_metrics(task, y_true, scores, some) for some in deals(len(y_true), groups, **options)]
    return {name: float(np.concatenate([one[name] for one in chunks]).mean()) for name in chunks[0]}


def judge(
    task: Task,
    y_true: NDArray[Any],
    head: Spread,
    majority: Spread,
    groups: NDArray[np.int64] | None = None,
    *,
    n_deals: int = N_DEALS,
    seed: int = 0,
) -> dict[str, Judgement]:
    """Say by which metrics a head is shown to know something of the images.

    Shapes: groups (n_images,) int64.
    """
    if movable(len(y_true), groups) < 0.5:
        return {}
    drawn = deals(len(y_true), groups, n_deals=n_deals, seed=seed)
    chunks = [dealt_metrics(task, y_true, head.answers, some) for some in drawn]
    found = {}
    for name, metric in metrics_of(task).items():
        dealt = np.concatenate([chunk[name] for chunk in chunks])
        sign, value = (1 if metric.greater_is_better else -1), head.values[name]
        over = less(head, majority, name) if metric.constant_may_win else None
        if math.isnan(value):
            found[name] = Judgement("undefined", math.nan, math.nan, over)
            continue
        as_good = int((~(sign * dealt < sign * value - _ROUNDING)).sum())  # an undefined deal counts against the head
        p = (1 + as_good) / (1 + n_deals)
        verdict = _verdict(p, over, sign, majority.values[name])
        found[name] = Judgement(verdict, p, float(dealt.mean()), over)
    return found


def _verdict(p: float, over: Difference | None, sign: int, majority: float) -> Verdict:
    if over is None or math.isnan(majority):
        return "better" if p <= SHOWN else "unclear"
    if math.isnan(over.low) or over.p > 2 * SHOWN:
        return "unclear"
    if sign * over.value > 0:
        return "better" if p <= SHOWN else "unclear"
    return "worse"
