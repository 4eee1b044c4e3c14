"""What the validation part teaches after the fit: a calibration of the probabilities, and thresholds for the labels.

Both are kept with the run (``adjustment.json``), so that a prediction on a new image can use them, and both are extra:
the run's own probabilities, and its metrics at one half, stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.tasks import Part
from classify.errors import ConfigError, RunError
from classify.evaluation.calibration import (
    METHODS,
    Calibration,
    calibration_error,
    expected_errors,
    fit_calibration,
    reliability,
)
from classify.evaluation.intervals import Interval, bootstrap
from classify.evaluation.metrics import metrics
from classify.evaluation.thresholds import at_thresholds, best_thresholds
from classify.json_file import read_json
from features_store.schema import Task

__all__ = ["ADJUSTMENT", "Adjustment", "adjust", "adjusted_report", "read_adjustment"]

ADJUSTMENT = "adjustment.json"
Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Adjustment:
    """What was learned from the validation part.

    Parameters
    ----------
    thresholds : tuple of float or None
        multi: for each class, the probability (not calibrated) from which on it is given.
    reason : str
        Why there is no calibration, where there is none.
    """

    calibration: Calibration | None = None
    thresholds: tuple[float, ...] | None = None
    reason: str = ""

    def calibrated(self, scores: NDArray[Any]) -> NDArray[np.float64] | None:
        """Return calibrated probabilities; None without a calibration."""
        return None if self.calibration is None else self.calibration.apply(scores)

    def as_json(self) -> dict[str, Any]:
        """Return plain values, which `from_json` takes back."""
        return {
            "calibration": None if self.calibration is None else self.calibration.as_json(),
            "thresholds": None if self.thresholds is None else list(self.thresholds),
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Adjustment:
        """Take back what `as_json` gave.

        Raises ConfigError.
        """
        try:
            found, at = values["calibration"], values["thresholds"]
            thresholds = None if at is None else tuple(float(one) for one in at)
            inside = thresholds is None or all(0 < one < 1 for one in thresholds)
            calibration = None if found is None else Calibration.from_json(found)
            if inside:
                return cls(calibration, thresholds, str(values["reason"]))
        except (KeyError, TypeError, ValueError) as error:
            message = f"these values aren't an adjustment: {error}"
            raise ConfigError(message) from error
        message = f"thresholds lie between 0 and 1; got {list(thresholds or ())}"
        raise ConfigError(message)

    def check(self, task: Task) -> Adjustment:
        """Return it if it fits a task, as one that was read may not.

        Raises ConfigError.
        """
        n, found = len(task.classes), self.calibration
        reason = ""
        if self.thresholds is not None and (task.kind != "multi" or len(self.thresholds) != n):
            reason = f"it has {len(self.thresholds)} thresholds"
        elif found is not None and found.kind != task.kind:
            reason = f"its calibration is of a task that is {found.kind}"
        elif found is not None and found.temperature is None and len(found.curves) != n:
            reason = f"its calibration has {len(found.curves)} curves"
        elif found is not None and not found.sound:
            reason = "its calibration has a temperature or a curve that no fit gives"
        if reason:
            message = f"the adjustment and the {n} classes of task {task.name!r} don't fit: {reason}"
            raise ConfigError(message)
        return self


def adjust(task: Task, parts: Mapping[str, Part], scores: Scores, *, method: str = "temperature") -> Adjustment:
    """Learn from the validation part what there is to learn."""
    if task.kind == "regression":
        return Adjustment(reason="a regression has no probabilities")
    if "validation" not in parts:
        return Adjustment(reason="there is no validation part to fit it on")
    part, said = parts["validation"], scores["validation"]
    thresholds = tuple(best_thresholds(task, part.y, said, part.groups)) if task.kind == "multi" else None
    if method not in METHODS:
        return Adjustment(None, thresholds, "the run was told not to")
    unseen = _unseen(task, parts["train"].y) if "train" in parts else ()
    found, reason = fit_calibration(task, part.y, said, method=method, groups=part.groups, unseen=unseen)
    return Adjustment(found, thresholds, reason)


def _unseen(task: Task, y: NDArray[Any]) -> tuple[int, ...]:
    """Return the classes that none of the training images has."""
    seen = np.bincount(y, minlength=len(task.classes)) if task.kind == "single" else np.asarray(y).sum(axis=0)
    return tuple(np.flatnonzero(seen == 0).tolist())


def adjusted_report(
    task: Task, parts: Mapping[str, Part], scores: Scores, adjustment: Adjustment, *, n_resamples: int, seed: int
) -> dict[str, Any]:
    """Put together what ``report.json`` says of calibration and thresholds, by part (the training part left out)."""
    if task.kind == "regression":
        return {"calibration": None, "thresholds": None}
    scored = {name: part for name, part in parts.items() if name != "train"}
    states: dict[str, dict[str, Any]] = {}
    for name, part in scored.items():
        after = adjustment.calibrated(scores[name])
        states[name] = {"before": _state(task, part.y, scores[name])}
        states[name]["after"] = None if after is None else _state(task, part.y, after)
    found = adjustment.calibration
    calibration = {
        "method": found.method if found else None,
        "temperature": found.temperature if found else None,
        "temperature_interval": list(found.interval) if found and found.interval else None,
        "fitted_on": "validation",
        "n_images": found.n_images if found else 0,
        "reason": adjustment.reason,
        "parts": states,
    }
    if adjustment.thresholds is None:
        return {"calibration": calibration, "thresholds": None}
    at = list(adjustment.thresholds)
    options: dict[str, Any] = {"n_resamples": n_resamples, "seed": seed}
    moved: dict[str, dict[str, Interval]] = {
        name: bootstrap(task, p.y, at_thresholds(scores[name], at), groups=p.groups, part=name, **options)
        for name, p in scored.items()
    }
    told = {name: {key: one.as_json() for key, one in intervals.items()} for name, intervals in moved.items()}
    thresholds = {"chosen_on": "validation", "values": dict(zip(task.classes, at, strict=True)), "metrics": told}
    return {"calibration": calibration, "thresholds": thresholds}


def _state(task: Task, y: NDArray[Any], scores: NDArray[np.float64]) -> dict[str, Any]:
    curve = reliability(task, y, scores)
    truth = np.eye(len(task.classes))[y] if task.kind == "single" else y
    mean, most = expected_errors(task, scores)
    state: dict[str, Any] = {
        "ece": calibration_error(curve),
        "ece_of_exact": mean,
        "ece_of_exact_95": most,
        "brier": float(((scores - truth) ** 2).sum(axis=1).mean()),
        "bins": curve,
    }
    if task.kind == "single":
        state["log_loss"] = metrics(task, y, scores)["log_loss"]
    return state


def read_adjustment(folder: Path) -> Adjustment:
    """Read the adjustment of a run; an empty one where the run has none.

    Raises RunError.
    """
    path = folder / ADJUSTMENT
    values = read_json(path)
    if values is None:
        return Adjustment(reason="the run has none")
    try:
        return Adjustment.from_json(values)
    except ConfigError as error:
        message = f"can't read {path}: {error}"
        raise RunError(message) from error
