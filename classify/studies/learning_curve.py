"""The learning curve of a run: its head fitted again on fewer training images."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.config import load_config
from classify.data.tasks import Part
from classify.errors import ConfigError, RunError
from classify.evaluation.curve import learning_curve
from classify.evaluation.metrics import primary_metric
from classify.runs.folder import CONFIG, Run
from classify.runs.identity import check_same_data
from classify.runs.layout import lay_out, unfitted_head
from classify.runs.train import fit_head, head_scores

__all__ = ["CURVE", "check_sizes", "fit_learning_curve"]

CURVE = "curve.json"


def check_sizes(n_points: int, n_repeats: int) -> None:
    """Refuse fewer than two sizes of the training part, and fewer than one order in which images are added."""
    for name, value, least in (("n_points", n_points, 2), ("n_repeats", n_repeats, 1)):
        if value < least:
            raise ConfigError(f"{name} is {value}; a learning curve takes at least {least}")


def fit_learning_curve(run: Run, *, n_points: int = 6, n_repeats: int = 3, seed: int = 0) -> dict[str, Any]:
    """Fit the head of a run again on growing parts of its training images.

    Raises ConfigError, RunError.
    """
    check_sizes(n_points, n_repeats)
    config = load_config(run.folder / CONFIG)
    if config.tested or run.report.transfer:
        raise RunError(f"{run.folder} tests a head that was fitted elsewhere, so it has no learning curve")
    layout = lay_out(replace(config, allow_split_groups=True))  # the run was scored on it already
    data = layout.data
    check_same_data(run, config, layout.store, layout.blocks, data)
    scored = "test" if "test" in data.parts else "validation"
    warnings: dict[str, None] = {}

    def fit(chosen: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
        train = data.parts["train"]
        groups = None if train.groups is None else train.groups[chosen]
        smaller = Part("train", train.rows[chosen], train.y[chosen], train.ids[chosen], groups)
        parts = {**data.parts, "train": smaller}
        fewer = replace(layout, data=replace(data, parts=parts))
        head = unfitted_head(replace(config, seed=config.seed + seed), fewer)
        heads, _, caught = fit_head(head, fewer, refit=config.refit)
        warnings.update(dict.fromkeys(f"with {len(chosen)} training images: {text}" for text in caught))
        return head_scores(heads[scored], data.task, layout.matrices[scored])

    points = learning_curve(data, fit, n_points=n_points, n_repeats=n_repeats, seed=seed)
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "metric": primary_metric(data.task),
        "part": scored,
        "n_repeats": n_repeats,
        "points": points,
        "warnings": [*([data.crossing.words()] if data.crossing else []), *warnings],
    }
