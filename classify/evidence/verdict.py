"""What an interval allows one to say of a head beside its baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from classify.evidence.metrics import greater_is_better

__all__ = ["Verdict", "verdict"]

Verdict = Literal["better", "unclear", "worse", "undefined"]
_ROUNDING = 1e-9  # a head that says what the baseline says must not win by a rounding error


def verdict(name: str, ours: Mapping[str, Any], baseline: Mapping[str, Any]) -> Verdict:
    """Place a metric's interval beside the baseline's value on the same images.

    Parameters
    ----------
    name : str
        Name of the metric.
    ours, baseline : mapping
        ``value``, ``low`` and ``high``, each a number or None where it isn't defined.

    Returns
    -------
    {"better", "unclear", "worse", "undefined"}
        "better" or "worse" only if the whole interval lies on that side of the baseline's value.
    """
    low, high, other = ours["low"], ours["high"], baseline["value"]
    if low is None or high is None or other is None:
        return "undefined"
    if low - _ROUNDING <= other <= high + _ROUNDING:
        return "unclear"
    return "better" if (low > other) == greater_is_better(name) else "worse"
