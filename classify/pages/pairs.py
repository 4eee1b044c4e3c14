"""Runs of one leaderboard, pairwise: the difference of the metric that ranks, and whether it is shown."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.crossing import find_crossing
from classify.data.kinds import kind_of
from classify.errors import RunError
from classify.evaluation.bootstrap import Spread
from classify.evaluation.comparison import holm, less, mcnemar
from classify.evaluation.metrics import greater_is_better
from classify.pages.leaderboard import Leaderboard
from classify.runs.folder import Run

LEVEL = 0.05


def pairs(board: Leaderboard, *, n_resamples: int = 2000) -> list[dict[str, Any]]:
    """Compare the runs of a leaderboard pairwise, by the metric that ranks them.

    Images whose group mates were trained on, where the split puts groups into two parts, are left out, and so are
    baselines: a head's verdict compares it with them. All pairs are one family of tests, corrected together. Of each
    the ``first`` ranks higher, ``difference`` is first less second, ``better`` the one that is better after correction;
    ``mcnemar``, which is not corrected, is None for a regression and where images come in groups.
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
    spreads = [Spread.of(task, p.y_true, p.y_score, groups, n_resamples=n_resamples, seed=0) for p in parts]
    counted = kind_of(task).has_classes and not spreads[0].grouped
    both = list(combinations(range(len(rows)), 2))
    differences = [less(spreads[i], spreads[j], metric) for i, j in both]
    corrected = holm([np.nan if one.p is None else one.p for one in differences])
    found = []
    for (i, j), difference, p in zip(both, differences, corrected, strict=True):
        better = i if (difference.value > 0) == greater_is_better(metric) else j
        counts = mcnemar(task, y_true, (parts[i].y_score, parts[j].y_score)) if counted else None
        found.append(
            {
                "first": rows[i].name,
                "second": rows[j].name,
                "metric": metric,
                "difference": difference.as_json(),
                "p_holm": None if np.isnan(p) else p,
                "better": rows[better].name if p <= LEVEL else None,
                "mcnemar": counts and counts._asdict(),
            }
        )
    return found


def _clean(run: Run, part: str) -> NDArray[np.bool_]:
    """Tell which images of a part have no group mate among the images that the head was fitted on or chosen by."""
    groups = {key: predictions.groups for key, predictions in run.predictions.items()}
    crossing = find_crossing(groups) if run.report.crossing else None
    return crossing.clean[part] if crossing else np.ones(len(run.part(part).ids), dtype=np.bool_)
