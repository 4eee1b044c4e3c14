"""The learning curve of a run that lies on disk: its head fitted again on fewer training images."""

from __future__ import annotations

from dataclasses import dataclass, replace
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

__all__ = ["CURVE", "CurveConfig", "curve_of"]

CURVE = "curve.json"


@dataclass(frozen=True)
class CurveConfig:
    """How finely to look.

    Parameters
    ----------
    n_points : int
        Sizes of the training part, from 2 up.
    n_repeats : int
        Orders in which images are added, from 1 up.
    """

    n_points: int = 6
    n_repeats: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n_points", 2), ("n_repeats", 1)):
            if getattr(self, name) < least:
                message = f"{name} is {getattr(self, name)}; a learning curve takes at least {least}"
                raise ConfigError(message)


def curve_of(run: Run, config: CurveConfig | None = None) -> dict[str, Any]:
    """Fit the head of a run on growing parts of its training images.

    Raises RunError.
    """
    config = config or CurveConfig()
    asked = load_config(run.folder / CONFIG)
    if asked.tested or run.report.transfer:
        message = f"{run.folder} tests a head that was fitted elsewhere, so it has no learning curve"
        raise RunError(message)
    layout = lay_out(replace(asked, allow_split_groups=True))  # the run was scored on it already
    data = layout.data
    check_same_data(run, asked, layout.store, layout.blocks, data)
    scored = "test" if "test" in data.parts else "validation"

    def fit(chosen: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
        parts = {**data.parts, "train": _some(data.parts["train"], chosen)}
        fewer = replace(layout, data=replace(data, parts=parts))
        head = unfitted_head(replace(asked, seed=asked.seed + seed), fewer)
        heads, _, caught = fit_head(head, fewer, refit=asked.refit)
        noted.update(dict.fromkeys(f"with {len(chosen)} training images: {text}" for text in caught))
        return head_scores(heads[scored], data.task, layout.matrices[scored])

    noted: dict[str, None] = {}
    points = learning_curve(data, fit, n_points=config.n_points, n_repeats=config.n_repeats, seed=config.seed)
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "metric": primary_metric(data.task),
        "part": scored,
        "n_repeats": config.n_repeats,
        "points": points,
        "warnings": [*([data.crossing.words()] if data.crossing else []), *noted],
    }


def _some(part: Part, chosen: NDArray[np.int64]) -> Part:
    """The part with some of its images only."""
    groups = None if part.groups is None else part.groups[chosen]
    return Part(part.name, part.rows[chosen], part.y[chosen], part.ids[chosen], groups)
