"""The report of a run: everything that came out of it, and everything that it came out of, as one JSON object."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classify.config import RunConfig
from classify.data.tasks import TaskRows
from classify.evaluation.confusion import confusion, per_class
from classify.evaluation.intervals import LEVEL, Interval
from classify.evaluation.metrics import primary_metric
from classify.runs.identity import run_identity
from classify.runs.report_json import FORMAT_VERSION, Report, passport_weights
from features_store.schema import PART_NAMES, Task

if TYPE_CHECKING:
    from features_store import Store

__all__ = ["Outcome", "by_kind", "run_report"]

MAX_ALIKE = 5  # warnings of one kind that are said one by one
MIN_UNLIKE = 5  # images unlike the training images, and times their expected share, that are warned of

_LIBRARIES = ("affectory", "numpy", "h5py", "scikit-learn", "torch", "lightgbm")
Intervals = Mapping[str, Mapping[str, Interval]]


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Parameters
    ----------
    head : estimator
        Fitted.
    scores : mapping of str to ndarray
        By part: probabilities or values.
    metrics : mapping of str to mapping of str to Interval
        By part and metric.
    baselines : mapping of str to mapping
        By baseline, part and metric, on the same images.
    adjusted : mapping
        ``calibration`` and ``thresholds``, as `classify.evaluation.postprocessing.adjusted_report` gives them.
    noted : sequence of str
        What libraries warned of during the fit.
    timings : mapping of str to float
        Seconds by stage.
    refit : mapping or None
        How the kept head was fitted again on training and validation images together.
    verdicts : mapping
        By part, as `classify.evaluation.verdict.verdicts` gives them.
    n_tried : int
        Runs or trials that stood to choose, this one among them.
    crossing : mapping or None
        What crosses where the split parts groups, as `classify.evaluation.clean_scores.clean_scores` gives it.
    novelty : mapping or None
        As `classify.evaluation.novelty.Novelty.as_json` gives it.
    """

    head: Any
    scores: Mapping[str, NDArray[np.float64]]
    metrics: Intervals
    baselines: Mapping[str, Intervals]
    adjusted: Mapping[str, Any]
    noted: Sequence[str]
    timings: Mapping[str, float]
    refit: Mapping[str, Any] | None = None
    verdicts: Mapping[str, Any] = field(default_factory=dict)
    n_tried: int = 1
    crossing: Mapping[str, Any] | None = None
    novelty: Mapping[str, Any] | None = None


def run_report(config: RunConfig, *, store: Store, blocks: Sequence[str], data: TaskRows, outcome: Outcome) -> Report:
    """Put together what ``report.json`` holds."""
    task, parts = data.task, data.parts
    classified = task.kind != "regression"
    stamp = [data.crossing.words()] if data.crossing else []
    chosen_on = "validation" if "validation" in parts else "test"
    values = {
        "format_version": FORMAT_VERSION,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "corpus": config.corpus,
        "reader": _reader(store),
        "task": task.name,
        "kind": task.kind,
        "classes": list(task.classes),
        "range": list(task.range) if task.range else None,
        "source": task.source,
        "head": config.head,
        "parameters": plain(outcome.head.get_params(deep=False)),
        "n_parameters": plain(getattr(outcome.head, "n_parameters_", None)),
        "blocks": list(blocks),
        "n_features": store.n_features(blocks),
        "split": config.split,
        "counts": {name: _counts(task, part.y) for name, part in parts.items()},
        **{f"n_{name}": len(parts[name]) if name in parts else 0 for name in PART_NAMES},
        "seed": config.seed,
        "primary_metric": primary_metric(task),
        "metrics": _as_json(outcome.metrics),
        "baselines": {name: _as_json(found) for name, found in outcome.baselines.items()},
        "verdicts": plain(outcome.verdicts),
        "n_tried": outcome.n_tried,
        "chosen_on": chosen_on if outcome.n_tried > 1 else None,
        "midpoint": {} if classified else {name: _midpoint(task, part.y) for name, part in parts.items()},
        **outcome.adjusted,
        "intervals": {
            "method": "Student's t on the metric's scale with the deviation of bootstrap resamples; Wilson for shares",
            "level": LEVEL,
            "resamples": config.resamples,
            "resampled": "images" if store.groups is None else "groups",
        },
        "per_class": {n: per_class(task, p.y, outcome.scores[n]) for n, p in parts.items()} if classified else {},
        "confusion": _confusions(data, outcome.scores) if task.kind == "single" else {},
        "history": plain(getattr(outcome.head, "history_", [])),
        "dropped": {name: dict(counts) for name, counts in data.dropped.items()},
        "unused": data.unused,
        "crossing": plain(outcome.crossing),
        "refit": plain(outcome.refit),
        "preset": config.preset,
        "merge": plain(config.merge),
        "novelty": plain(outcome.novelty),
        "warnings": by_kind(
            [
                *stamp,
                *data.warnings,
                *_random_weights(store, blocks),
                *_refit_words(outcome),
                *_novelty_words(outcome),
                *outcome.noted,
            ]
        ),
        "timings": dict(outcome.timings),
        "index_digest": store.index_digest,
        "part_digests": {name: part.digest for name, part in parts.items()},
        "identity": plain(run_identity(config, store, blocks, data)),
        "passports": {name: plain(store.blocks[name].passport) for name in blocks},
        "versions": _versions(),
    }
    return Report(**values)


def _reader(store: Store) -> dict[str, Any]:
    """How the corpus was read, its options without places of this machine."""
    told: dict[str, Any] = plain(store.corpus)
    options = told.get("options")
    if isinstance(options, dict):
        places = {
            k: v for k, v in options.items() if isinstance(v, str) and (v.startswith("~") or Path(v).is_absolute())
        }
        told["options"] = options | {name: Path(value).name for name, value in places.items()}
    return told


def _counts(task: Task, y: NDArray[Any]) -> dict[str, dict[str, float]]:
    """What the labels of a part are: images of each class, or the spread of each output."""
    if task.kind == "regression":
        columns = zip(task.classes, np.asarray(y, dtype=np.float64).reshape(len(y), -1).T, strict=True)
        return {
            name: {"mean": float(v.mean()), "std": float(v.std()), "min": float(v.min()), "max": float(v.max())}
            for name, v in columns
        }
    single = task.kind == "single"
    found = np.bincount(y, minlength=len(task.classes)) if single else y.sum(axis=0)
    return {name: {"n": int(count)} for name, count in zip(task.classes, found, strict=True)}


def _midpoint(task: Task, y: NDArray[Any]) -> float:
    """Return the share of labels on the middle of the scale, which SAGR counts as wrong for any head not just there."""
    low, high = task.range or (-1.0, 1.0)
    return float((np.asarray(y, dtype=np.float64) == (low + high) / 2).mean())


def _as_json(intervals: Intervals) -> dict[str, dict[str, dict[str, Any]]]:
    return {part: {name: interval.as_json() for name, interval in found.items()} for part, found in intervals.items()}


def _confusions(data: TaskRows, scores: Mapping[str, NDArray[np.float64]]) -> dict[str, list[list[int]]]:
    return {name: confusion(data.task, part.y, scores[name]).tolist() for name, part in data.parts.items()}


def by_kind(texts: Sequence[str]) -> list[str]:
    """Say each kind of warning once: of those that differ in names and numbers only, the first and how many more."""
    kinds: dict[str, list[str]] = {}
    for text in texts:
        kinds.setdefault(re.sub(r"'[^']*'|\"[^\"]*\"|[0-9]+", "…", text), []).append(text)
    return [
        line
        for alike in kinds.values()
        for line in (alike if len(alike) <= MAX_ALIKE else [f"{alike[0]} ({len(alike) - 1} more of this kind)"])
    ]


def _random_weights(store: Store, blocks: Sequence[str]) -> list[str]:
    texts = []
    for name in blocks:
        source = str(passport_weights(store.blocks[name].passport).get("source", ""))
        if source.startswith("random"):
            texts.append(
                f"Block {name!r} was made with random weights ({source}): its vectors come from an untrained "
                "network, and numbers that rest on it are no result."
            )
    return texts


def _refit_words(outcome: Outcome) -> list[str]:
    if outcome.refit is None:
        return []
    text = f"The head was fitted again on the {outcome.refit['n']} images of training and validation together: only the"
    return [f"{text} test part is scored by it; the other parts, and calibration, are of the head before."]


def _novelty_words(outcome: Outcome) -> list[str]:
    """Say where far more images are unlike the training images than chance has it."""
    told = outcome.novelty or {"parts": {}}
    return [
        f"{found['flagged']} of {found['n']} {part} images are unlike the training images ({found['share']:.1%}; "
        f"{told['expected']:.1%} are expected)."
        for part, found in told["parts"].items()
        if found["flagged"] >= MIN_UNLIKE and found["share"] >= MIN_UNLIKE * told["expected"]
    ]


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # used from a checkout without being installed
    return versions


def plain(value: Any) -> Any:
    """Turn *value* into what JSON can hold: None for NaN and infinities, text for what has no form there."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
