"""Verdicts on a head: whether it knows anything of the images, and whether file names alone do as well.

A constant is no measure of knowing nothing: it scores below a blind guess by macro F1, and random scores beat it by
average precision. What a head scores when its own predictions are dealt to other images at random is that measure, for
every metric. Where a constant may win without knowing anything (accuracy, errors, log loss), a head has to beat the
majority as well. Where a split puts groups into several parts, a head is judged on the images of no such group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from classify.data.folds import units_of
from classify.data.tasks import Part, TaskRows
from classify.evaluation.bootstrap import SECONDS, Interval, Spread, intervals, too_few
from classify.evaluation.comparison import less
from classify.evaluation.metrics import dealt_metrics, metrics_of
from features_store.schema import Task

Verdict = Literal["better", "unclear", "worse", "undefined"]
Spreads = Mapping[str, Spread]  # by part
N_DEALS = 500
SHOWN = 0.025  # at or below this share of deals as good, a head is called better
LEAST_GROUPS = 10  # groups of one size; fewer stay where they are
_PLACES = 5_000_000  # places of dealt predictions held at once
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Judgement:
    """The verdict on a head by one metric.

    "better": than its own predictions dealt at random, and where a constant may win, than the majority. "worse": than
    the majority, by a metric by which a constant may win.
    """

    verdict: Verdict
    p: float  # share of deals at least as good, the real one among them; NaN where there is no verdict
    dealt: float  # mean of the deals
    over_majority: Interval | None = None  # the head less the majority, where a constant may win

    def as_json(self) -> dict[str, Any]:
        """Return the judgement as a report has it."""
        found: dict[str, Any] = {"verdict": self.verdict, "p": self.p, "dealt": self.dealt}
        return found if self.over_majority is None else {**found, "over_majority": self.over_majority.as_json()}


def _movable_groups(n_images: int, groups: NDArray[np.int64] | None) -> list[NDArray[np.int64]]:
    """Return the images of groups that may be exchanged: for each size of group, (n_groups, size)."""
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
    """Return the share of images whose predictions may be dealt to others."""
    return sum(members.size for members in _movable_groups(n_images, groups)) / n_images


def deals(
    n_images: int, groups: NDArray[np.int64] | None = None, *, n_deals: int = N_DEALS, seed: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Yield orders of the images, some at a time: whole groups exchanged among groups of equal size.

    Shapes: groups (n_images,) int64; yields (n, n_images) int64.
    """
    random, exchanged = np.random.default_rng(seed), _movable_groups(n_images, groups)
    step = max(1, min(_PLACES // n_images, -(-n_deals // 20)))
    with tqdm(total=n_deals, desc="dealing predictions", leave=False, disable=None, delay=SECONDS) as bar:
        for start in range(0, n_deals, step):
            found = np.tile(np.arange(n_images), (min(step, n_deals - start), 1))
            for row in found:
                for members in exchanged:
                    row[members] = members[random.permutation(len(members))]
            yield found
            bar.update(len(found))


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
    """Say by which metrics a head is shown to know something of the images; nothing where too few can be dealt."""
    if movable(len(y_true), groups) < 0.5:
        return {}
    drawn = deals(len(y_true), groups, n_deals=n_deals, seed=seed)
    chunks = [dealt_metrics(task, y_true, head.y_score, some) for some in drawn]
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


def _verdict(p: float, over: Interval | None, sign: int, majority: float) -> Verdict:
    if over is None or math.isnan(majority):
        return "better" if p <= SHOWN else "unclear"
    if math.isnan(over.low) or (over.p or 0.0) > 2 * SHOWN:
        return "unclear"
    if sign * over.value > 0:
        return "better" if p <= SHOWN else "unclear"
    return "worse"


def judge_head(
    data: TaskRows, spreads: Mapping[str, Spreads], *, seed: int, **resampling: int
) -> dict[str, dict[str, Any]]:
    """Judge a head on the part that it is read off: test, or validation where there is no test.

    *spreads* are by ``head``, ``majority`` and, where there is one, ``id-only``. Where a split puts groups into several
    parts, only the images of no such group are judged.
    """
    name = "test" if "test" in data.parts else "validation"
    part, of_part = data.parts[name], {key: of[name] for key, of in spreads.items()}
    if data.crossing is not None and not data.crossing.clean[name].all():
        clean = data.crossing.clean[name]
        if not clean.any():
            reason = f"No verdict: every {name} image has a group mate among the images that the head was fitted on."
            return {name: {"reason": reason, "head": {}, "id_only": {}, "over_id_only": {}}}
        part = part.some(clean)
        of_part = {
            key: Spread.of(data.task, part.y, spread.y_score[clean], part.groups, seed=seed, **resampling)
            for key, spread in of_part.items()
        }
    return {name: _judged(part, of_part["head"], of_part["majority"], of_part.get("id-only"), seed)}


def _judged(part: Part, head: Spread, majority: Spread, id_only: Spread | None, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {"reason": _no_verdict(part, head), "head": {}, "id_only": {}, "over_id_only": {}}
    judged = {"head": head} if id_only is None else {"head": head, "id_only": id_only}
    for key, spread in judged.items() if not found["reason"] else ():
        judgements = judge(head.task, part.y, spread, majority, part.groups, seed=seed)
        found[key] = {metric: judgement.as_json() for metric, judgement in judgements.items()}
    if id_only is not None:
        found["over_id_only"] = {metric: less(head, id_only, metric).as_json() for metric in head.values}
    return found


def _no_verdict(part: Part, spread: Spread) -> str:
    """Return why there is no verdict on these images; empty where there is one."""
    few = too_few(spread.n_units, grouped=spread.grouped, part=part.name)
    if few:
        return f"No verdict: {few}."
    share = movable(len(part.y), part.groups)
    if share < 0.5:
        return (
            f"No verdict: predictions are dealt to whole groups of equal size, and only {share:.0%} of the {part.name} "
            "images are in groups of a size that 10 groups have."
        )
    return ""


def clean_scores(data: TaskRows, spreads: Mapping[str, Spreads], **resampling: int) -> dict[str, Any] | None:
    """Return what crosses, and by part the metrics on the images that do not; None where groups are whole."""
    crossing = data.crossing
    if crossing is None:
        return None
    parts: dict[str, Any] = {}
    for name, clean in crossing.clean.items():
        if clean.all():
            continue
        parts[name] = {"n_images": int(clean.sum()), "n_left_out": int((~clean).sum()), "metrics": {}, "majority": {}}
        if not clean.any():
            continue
        part = data.parts[name].some(clean)
        for key, head in (("metrics", "head"), ("majority", "majority")):
            score = spreads[head][name].y_score[clean]
            spread = Spread.of(data.task, part.y, score, part.groups, **resampling)
            parts[name][key] = {metric: one.as_json() for metric, one in intervals(spread, part=name).items()}
    return {**crossing.as_json(), "parts": parts}
