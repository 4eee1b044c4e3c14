"""Runs of one leaderboard, pairwise: the difference of the metric that ranks, and whether it is shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.crossing import find_crossing
from classify.data.kinds import kind_of
from classify.errors import RunError
from classify.evaluation.bootstrap import Interval, Spread
from classify.evaluation.comparison import McNemar, holm, less, mcnemar
from classify.evaluation.metrics import greater_is_better
from classify.pages.leaderboard import Leaderboard
from classify.runs.folder import Run

__all__ = ["LEVEL", "PairOfRuns", "pairs"]

LEVEL = 0.05


@dataclass(frozen=True)
class PairOfRuns:
    """Two runs on the same images; *first* ranks higher, *difference* is first less second.

    *p_holm* is corrected for all pairs of the leaderboard, *mcnemar* is not; it is None for a regression, and where
    images come in groups.
    """

    first: str
    second: str
    metric: str
    difference: Interval
    p_holm: float
    mcnemar: McNemar | None

    @property
    def better(self) -> str | None:
        """Name of the run that is better after correction; None where no difference is shown."""
        if np.isnan(self.p_holm) or self.p_holm > LEVEL:
            return None
        return self.first if (self.difference.value > 0) == greater_is_better(self.metric) else self.second

    def as_json(self) -> dict[str, Any]:
        """Return plain values, None for NaN."""
        return {
            "first": self.first,
            "second": self.second,
            "metric": self.metric,
            "difference": self.difference.as_json(),
            "p_holm": None if np.isnan(self.p_holm) else self.p_holm,
            "better": self.better,
            "mcnemar": self.mcnemar and self.mcnemar._asdict(),
        }


def pairs(board: Leaderboard, *, n_resamples: int = 2000, seed: int = 0) -> list[PairOfRuns]:
    """Compare the runs of a leaderboard pairwise, by the metric that ranks them.

    Images whose group mates were trained on, where the split puts groups into two parts, are left out, and so are
    baselines: a head's verdict compares it with them. All pairs are one family of tests, corrected together.
    """
    rows = board.heads
    if len(rows) < 2:
        return []
    task, metric = rows[0].run.task, board.shown[0]
    parts = [row.run.part(board.part) for row in rows]
    for row, part in zip(rows, parts, strict=True):
        if not np.array_equal(part.ids, parts[0].ids):
            raise RunError(f"run {row.name} scored other images than the first of its leaderboard; run it again")
    clean = np.all([_clean(row.run, board.part) for row in rows], axis=0)
    if not clean.any():
        return []
    parts = [replace(part, y_true=part.y_true[clean], y_score=part.y_score[clean]) for part in parts]
    y_true, groups = parts[0].y_true, None if parts[0].groups is None else parts[0].groups[clean]
    spreads = [Spread.of(task, p.y_true, p.y_score, groups, n_resamples=n_resamples, seed=seed) for p in parts]
    counted = kind_of(task).has_classes and not spreads[0].grouped
    both = list(combinations(range(len(rows)), 2))
    differences = [less(spreads[i], spreads[j], metric) for i, j in both]
    corrected = holm([np.nan if one.p is None else one.p for one in differences])
    return [
        PairOfRuns(
            rows[i].name,
            rows[j].name,
            metric,
            difference,
            p,
            mcnemar(task, y_true, (parts[i].y_score, parts[j].y_score)) if counted else None,
        )
        for (i, j), difference, p in zip(both, differences, corrected, strict=True)
    ]


def _clean(run: Run, part: str) -> NDArray[np.bool_]:
    """Tell which images of a part have no group mate among the images that the head was fitted on or chosen by."""
    groups = {key: predictions.groups for key, predictions in run.predictions.items()}
    crossing = find_crossing(groups) if run.report.crossing else None
    return crossing.clean[part] if crossing else np.ones(len(run.part(part).ids), dtype=np.bool_)
