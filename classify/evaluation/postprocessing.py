"""Post-processing fitted on the validation part: calibration, and a decision threshold for each label.

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

from classify.data.kinds import kind_of
from classify.data.tasks import Part
from classify.errors import ConfigError, RunError, TaskError
from classify.evaluation.bootstrap import bootstrap
from classify.evaluation.calibration import (
    METHODS,
    Calibration,
    calibration_error,
    expected_errors,
    fit_calibration,
    reliability,
)
from classify.evaluation.metrics import metrics
from classify.evaluation.verdict import SHOWN, deals, movable
from classify.json_file import read_json
from features_store.schema import Task

POSTPROCESSING = "adjustment.json"
MIN_POSITIVES = 10  # a label with fewer validation images (or as few without it) keeps one half
SHRINKAGE = 20  # images at which a threshold goes half of the way from one half
N_DEALS = 200

Floats = NDArray[np.float64]
Scores = Mapping[str, Floats]


@dataclass(frozen=True)
class Postprocessing:
    """What was fitted on the validation part."""

    calibration: Calibration | None = None
    thresholds: tuple[float, ...] | None = None  # of independent labels: the (not calibrated) probability of each
    reason: str = ""  # why there is no calibration, where there is none

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
    def from_json(cls, values: Mapping[str, Any]) -> Postprocessing:
        """Take back what `as_json` gave."""
        try:
            found, at = values["calibration"], values["thresholds"]
            thresholds = None if at is None else tuple(float(threshold) for threshold in at)
            calibration, reason = None if found is None else Calibration.from_json(found), str(values["reason"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"these values are not a calibration and thresholds: {error}") from error
        if not all(0 < threshold < 1 for threshold in thresholds or ()):
            raise ConfigError(f"thresholds lie between 0 and 1; got {list(thresholds or ())}")
        return cls(calibration, thresholds, reason)

    def check(self, task: Task) -> Postprocessing:
        """Return it if it fits a task, as one that was read may not."""
        n, found, at = len(task.classes), self.calibration, self.thresholds
        reason = ""
        if at is not None and (not kind_of(task).independent or len(at) != n):
            reason = f"it has {len(at)} thresholds"
        elif found is not None and found.kind != task.kind:
            reason = f"its calibration is of a task that is {found.kind}"
        elif found is not None and found.temperature is None and len(found.curves) != n:
            reason = f"its calibration has {len(found.curves)} curves"
        elif found is not None and not found.sound:
            reason = "its calibration has a temperature or a curve that no fit gives"
        if reason:
            raise ConfigError(f"the postprocessing and the {n} classes of task {task.name!r} do not fit: {reason}")
        return self


def fit_postprocessing(
    task: Task, parts: Mapping[str, Part], scores: Scores, *, method: str = "temperature"
) -> Postprocessing:
    """Fit a calibration, and thresholds where each label is decided by itself, on the validation part."""
    kind = kind_of(task)
    if not kind.has_classes:
        return Postprocessing(reason="a regression has no probabilities")
    if "validation" not in parts:
        return Postprocessing(reason="there is no validation part to fit it on")
    part, y_score = parts["validation"], scores["validation"]
    thresholds = tuple(best_thresholds(task, part.y, y_score, part.groups)) if kind.independent else None
    if method not in METHODS:
        return Postprocessing(None, thresholds, "it was switched off")
    counts = kind.class_counts(parts["train"].y).values() if "train" in parts else ()
    unseen = [k for k, count in enumerate(counts) if not count]
    found, reason = fit_calibration(task, part.y, y_score, method=method, groups=part.groups, unseen=unseen)
    return Postprocessing(found, thresholds, reason)


def postprocessed_report(
    task: Task, parts: Mapping[str, Part], scores: Scores, fitted: Postprocessing, *, n_resamples: int, seed: int
) -> dict[str, Any]:
    """Return ``calibration`` and ``thresholds`` of ``report.json``, by part (the training part left out)."""
    if not kind_of(task).has_classes:
        return {"calibration": None, "thresholds": None}
    scored = {name: part for name, part in parts.items() if name != "train"}
    states: dict[str, dict[str, Any]] = {}
    for name, part in scored.items():
        after = fitted.calibrated(scores[name])
        states[name] = {"before": _state(task, part.y, scores[name])}
        states[name]["after"] = None if after is None else _state(task, part.y, after)
    found = fitted.calibration
    calibration = {
        "method": found.method if found else None,
        "temperature": found.temperature if found else None,
        "temperature_interval": list(found.interval) if found and found.interval else None,
        "fitted_on": "validation",
        "n_images": found.n_images if found else 0,
        "reason": fitted.reason,
        "parts": states,
    }
    if fitted.thresholds is None:
        return {"calibration": calibration, "thresholds": None}
    at = list(fitted.thresholds)
    options: dict[str, Any] = {"n_resamples": n_resamples, "seed": seed}
    moved = {}
    for name, part in scored.items():
        found_at = bootstrap(task, part.y, at_thresholds(scores[name], at), groups=part.groups, part=name, **options)
        moved[name] = {metric: interval.as_json() for metric, interval in found_at.items()}
    thresholds = {"chosen_on": "validation", "values": dict(zip(task.classes, at, strict=True)), "metrics": moved}
    return {"calibration": calibration, "thresholds": thresholds}


def _state(task: Task, y: NDArray[Any], scores: NDArray[np.float64]) -> dict[str, Any]:
    curve, kind = reliability(task, y, scores), kind_of(task)
    mean, most = expected_errors(task, scores)
    state: dict[str, Any] = {
        "ece": calibration_error(curve),
        "ece_of_exact": mean,
        "ece_of_exact_95": most,
        "brier": float(((scores - kind.indicators(y)) ** 2).sum(axis=1).mean()),
        "bins": curve,
    }
    if kind.exclusive:
        state["log_loss"] = metrics(task, y, scores)["log_loss"]
    return state


def read_postprocessing(folder: Path) -> Postprocessing:
    """Read the postprocessing of a run; an empty one where the run has none."""
    path = folder / POSTPROCESSING
    values = read_json(path)
    if values is None:
        return Postprocessing(reason="the run has none")
    try:
        return Postprocessing.from_json(values)
    except ConfigError as error:
        raise RunError(f"cannot read {path}: {error}") from error


def best_thresholds(
    task: Task,
    y_true: NDArray[Any],
    scores: NDArray[Any],
    groups: NDArray[np.int64] | None = None,
    *,
    shrinkage: float = SHRINKAGE,
) -> list[float]:
    """Choose for each label a threshold of high F1 on the validation part.

    Among thresholds of equal F1 the one nearest to one half is taken: it lies in the middle of a gap between two
    scores, so that it does not depend on a single image. A head that knows nothing of a label reaches the highest F1 by
    giving it to every image; so a label whose scores rank the validation images no better than the same scores dealt to
    them at random keeps one half. The others are drawn towards one half on the scale of log-odds, by a half of the way
    at *shrinkage* images with the label (or without it, where those are fewer).

    Shapes: y_true, scores (n_images, n_classes); groups (n_images,) int64.
    """
    if not kind_of(task).independent:
        raise TaskError(f"task {task.name!r} is {task.kind}; thresholds are for multi-label tasks")
    truth, scores = np.asarray(y_true).astype(bool), np.asarray(scores, dtype=np.float64)
    known = known_labels(truth, scores, groups)
    return [_shrunk(truth[:, k], scores[:, k], shrinkage) if known[k] else 0.5 for k in range(truth.shape[1])]


def known_labels(
    truth: NDArray[np.bool_], scores: Floats, groups: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Tell for each label whether its scores rank images better than the same scores dealt at random, p <= 0.025.

    Shapes: truth, scores (n_images, n_labels); groups (n_images,) int64; returns (n_labels,) bool.
    """
    from scipy.stats import rankdata

    if movable(len(truth), groups) < 0.5:
        return np.zeros(truth.shape[1], dtype=bool)
    ranks = rankdata(scores, axis=0)
    reached = (ranks * truth).sum(axis=0)
    as_good = np.ones(truth.shape[1])
    for some in deals(len(truth), groups, n_deals=N_DEALS):
        for k in range(truth.shape[1]):
            as_good[k] += (ranks[some, k] @ truth[:, k] >= reached[k] - 1e-9).sum()
    known: NDArray[np.bool_] = as_good / (1 + N_DEALS) <= SHOWN
    return known


def _shrunk(truth: NDArray[np.bool_], score: Floats, shrinkage: float) -> float:
    fewest = min(int(truth.sum()), int((~truth).sum()))
    if fewest < MIN_POSITIVES:
        return 0.5
    best = _best(truth, score)
    odds = np.log(best / (1 - best)) * fewest / (fewest + shrinkage)
    return float(np.clip(1 / (1 + np.exp(-odds)), 1e-6, 1 - 1e-6))


def _best(truth: NDArray[np.bool_], score: Floats) -> float:
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.flatnonzero(np.append(np.diff(ranked) < 0, True))
    hits, found = np.cumsum(truth[order])[last], last + 1
    f1 = 2 * hits / (found + truth.sum())
    below = np.append(ranked[last[1:]], 0.0)
    middle = (ranked[last] + below) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    chosen = best[np.argmin(np.abs(middle[best] - 0.5))]
    low, high = float(below[chosen]), float(ranked[last[chosen]])
    threshold = 0.5 if low < 0.5 <= high else float(middle[chosen])
    return float(np.clip(threshold, 1e-6, 1 - 1e-6))


def at_thresholds(scores: NDArray[Any], thresholds: list[float]) -> Floats:
    """Bend probabilities so that each label's threshold comes to lie at one half, keeping their order.

    Everything that decides at one half then decides at the thresholds; what only looks at the order of the scores
    (the average precision) is left as it was.

    Shapes: scores (n_images, n_classes).
    """
    given, at = np.asarray(scores, dtype=np.float64), np.asarray(thresholds, dtype=np.float64)
    above = 0.5 + 0.5 * (given - at) / (1 - at)
    bent: Floats = np.where(given >= at, above, np.minimum(0.5 * given / at, np.nextafter(0.5, 0)))
    return bent
