"""Metrics, intervals and p-values as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from classify.evaluation.metrics import METRICS

_TITLES = {metric.name: metric.title for metric in METRICS}


def metric_title(name: str) -> str:
    """Return a metric's name as people write it: ``cc/valence`` is "Pearson r, valence"."""
    base, _, output = name.partition("/")
    title = _TITLES.get(base, base.replace("_", " "))
    return f"{title}, {output}" if output else title


def distinct_metrics(names: Iterable[str], classes: Sequence[str]) -> list[str]:
    """Leave out what says the same twice: with one output, a metric of it and the pooled one are equal."""
    if len(classes) > 1:
        return list(names)
    twice = {f"rmse/{classes[0]}", f"sagr/{classes[0]}", "cc_pooled"}
    return [name for name in names if name not in twice]


def interval_text(interval: Mapping[str, Any]) -> str:
    """Write an interval: ``0.612 [0.540, 0.683]``; a dash where it is undefined.

    Where only some classes have enough images, theirs is added: ``0.612 (8 classes: 0.680 [0.610, 0.743])``.
    """
    value, low, high, over = interval["value"], interval["low"], interval["high"], interval.get("over")
    if value is None:
        return "–"
    if over:
        return f"{value:.3f} ({over['n_classes']} classes: {over['value']:.3f} [{over['low']:.3f}, {over['high']:.3f}])"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def interval_words(interval: Mapping[str, Any]) -> str:
    """Say why there is no interval, and over which classes there is one; empty where there is nothing to say."""
    reason, over = str(interval.get("reason") or ""), interval.get("over")
    if not reason or not over:
        return reason
    return f"{reason} Over the other {over['n_classes']}: {over['value']:.3f} [{over['low']:.3f}, {over['high']:.3f}]."


def p_text(p: float | None) -> str:
    """Write a p-value; none is 0."""
    return "–" if p is None or math.isnan(p) else "< 0.001" if p < 0.0005 else f"{p:.3f}"
