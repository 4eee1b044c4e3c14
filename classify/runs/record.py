"""The report of a run, put together: its results, and everything that they follow from, as one JSON object."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classify.config import RunConfig
from classify.data.kinds import kind_of
from classify.evaluation.bootstrap import LEVEL
from classify.evaluation.metrics import confusion, per_class, primary_metric
from classify.heads.persistence import library_versions
from classify.runs.identity import run_identity
from classify.runs.report_json import FORMAT_VERSION, Report, random_sources
from features_store.schema import PART_NAMES

if TYPE_CHECKING:
    from classify.runs.layout import Layout
    from features_store import Store

MAX_ALIKE = 5  # warnings of one kind that are printed one by one
MIN_UNLIKE = 5  # images unlike the training images, and times their expected share, that are warned of

_LIBRARIES = ("affectory", "numpy", "h5py", "scikit-learn", "torch", "lightgbm")


def run_report(
    config: RunConfig,
    layout: Layout,
    *,
    head: Any,
    scores: Mapping[str, NDArray[np.float64]],
    warnings: Sequence[str] = (),
    **results: Any,
) -> Report:
    """Return the report of a fitted head and its scores by part; *results* are fields of `Report`."""
    store, blocks, data = layout.store, layout.blocks, layout.data
    task, parts, kind = data.task, data.parts, kind_of(data.task)
    refit, novelty, middle = results.get("refit"), results.get("novelty"), sum(task.range or (0.0,)) / 2
    passports = {name: store.blocks[name].passport for name in blocks}
    texts = [*([data.crossing.words()] if data.crossing else []), *data.warnings]
    texts += [
        f"Block {name!r} was made with random weights ({source}): its vectors come from an untrained network, and "
        "numbers that rest on it are no result."
        for name, source in random_sources(passports).items()
    ]
    if refit is not None:
        text = f"The head was fitted again on the {refit['n']} images of training and validation together: only the"
        texts.append(f"{text} test part is scored by it; the other parts, and calibration, are of the head before.")
    texts += _novelty_words(novelty)
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
        "parameters": head.get_params(deep=False),
        "n_parameters": getattr(head, "n_parameters_", None),
        "search": getattr(head, "search_", None) or None,
        "blocks": list(blocks),
        "n_features": store.n_features(blocks),
        "split": config.split,
        "counts": {name: kind.summary(part.y) for name, part in parts.items()},
        **{f"n_{name}": len(parts[name]) if name in parts else 0 for name in PART_NAMES},
        "seed": config.seed,
        "primary_metric": primary_metric(task),
        # The share of labels on the middle of the scale, which SAGR counts as wrong for any head not just there.
        "midpoint": {} if kind.has_classes else {n: np.mean(p.y == middle) for n, p in parts.items()},
        "intervals": {
            "method": "Student's t on the metric's scale with the deviation of bootstrap resamples; Wilson for shares",
            "level": LEVEL,
            "resamples": config.resamples,
            "resampled": "images" if store.groups is None else "groups",
        },
        "per_class": {n: per_class(task, p.y, scores[n]) for n, p in parts.items()} if kind.has_classes else {},
        "confusion": {n: confusion(task, p.y, scores[n]) for n, p in parts.items()} if kind.exclusive else {},
        "history": getattr(head, "history_", []),
        "dropped": data.dropped,
        "unused": data.unused,
        "preset": config.preset,
        "merge": config.merge,
        "warnings": by_kind([*texts, *warnings]),
        "index_digest": store.index_digest,
        "part_digests": {name: part.digest for name, part in parts.items()},
        "identity": run_identity(config, layout),
        "passports": passports,
        "versions": {"python": platform.python_version(), **library_versions(_LIBRARIES)},
    }
    return Report(**{name: plain(value) for name, value in (values | results).items()})


def _reader(store: Store) -> dict[str, Any]:
    """Return how the corpus was read, its options without places of this machine."""
    found: dict[str, Any] = plain(store.corpus)
    options = found.get("options")
    if isinstance(options, dict):
        places = {
            k: v for k, v in options.items() if isinstance(v, str) and (v.startswith("~") or Path(v).is_absolute())
        }
        found["options"] = options | {name: Path(value).name for name, value in places.items()}
    return found


def by_kind(texts: Sequence[str]) -> list[str]:
    """Print each kind of warning once: of those that differ in names and numbers only, the first and how many more."""
    kinds: dict[str, list[str]] = {}
    for text in texts:
        kinds.setdefault(re.sub(r"'[^']*'|\"[^\"]*\"|[0-9]+", "…", text), []).append(text)
    return [
        line
        for alike in kinds.values()
        for line in (alike if len(alike) <= MAX_ALIKE else [f"{alike[0]} ({len(alike) - 1} more of this kind)"])
    ]


def _novelty_words(novelty: Mapping[str, Any] | None) -> list[str]:
    """Warn where far more images are unlike the training images than chance has it."""
    expected = float((novelty or {}).get("expected") or 0.0)
    return [
        f"{found['flagged']} of {found['n']} {part} images are unlike the training images ({found['share']:.1%}; "
        f"{expected:.1%} are expected)."
        for part, found in (novelty or {"parts": {}})["parts"].items()
        if found["flagged"] >= MIN_UNLIKE and found["share"] >= MIN_UNLIKE * expected
    ]


def plain(value: Any) -> Any:
    """Turn *value* into what JSON can hold: None for NaN and infinities, text for what has no form there."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if hasattr(value, "as_json"):
        value = value.as_json()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
