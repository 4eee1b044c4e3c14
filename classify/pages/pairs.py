"""Runs of one board, two by two: by how much they differ, and whether the difference stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.crossing import find_crossing
from classify.errors import RunError
from classify.evaluation.bootstrap import Interval, Spread
from classify.evaluation.comparison import McNemar, holm, less, mcnemar
from classify.evaluation.metrics import greater_is_better
from classify.pages.leaderboard import Board, clean_title, metric_title
from classify.runs.folder import Run

__all__ = ["LEVEL", "PairOfRuns", "p_text", "pairs", "pairs_as_json", "pairs_as_text"]

LEVEL = 0.05


@dataclass(frozen=True)
class PairOfRuns:
    """Two runs on the same images.

    Parameters
    ----------
    first, second : str
        Names, as the board has them; the first ranks higher.
    metric : str
        The one that ranks.
    difference : Interval
        First less second.
    p_holm : float
        Of the difference, corrected for all pairs of the board.
    mcnemar : McNemar or None
        Not corrected. None for a regression, and where images come in groups.
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


def pairs(board: Board, runs: Sequence[Run], *, n_resamples: int = 2000, seed: int = 0) -> list[PairOfRuns]:
    """Compare the runs of a board two by two, by the metric that ranks them.

    Images whose group mates were trained on, where the split parts groups, are left out, and so are baselines: a head's
    verdict says what it is worth beside them. The pairs that are left are one family of tests, corrected together.

    Raises RunError.
    """
    by_folder = {run.folder.as_posix(): run for run in runs}
    rows = [row for row in board.rows if row.standing != "baseline"]
    parts = {row.folder: by_folder[row.folder].part(board.part) for row in rows}
    if len(rows) < 2:
        return []
    task, metric = by_folder[rows[0].folder].task, board.shown[0]
    first = parts[rows[0].folder]
    for row in rows:
        if not np.array_equal(parts[row.folder].ids, first.ids):
            message = f"run {row.name} scored other images than the first of its board; run it again"
            raise RunError(message)
    clean = np.all([_clean(by_folder[row.folder], board.part) for row in rows], axis=0)
    if not clean.any():
        return []
    parts = {folder: replace(p, y_true=p.y_true[clean], y_score=p.y_score[clean]) for folder, p in parts.items()}
    first = replace(parts[rows[0].folder], groups=None if first.groups is None else first.groups[clean])
    spreads = {
        folder: Spread.of(task, p.y_true, p.y_score, first.groups, n_resamples=n_resamples, seed=seed)
        for folder, p in parts.items()
    }
    counted = task.kind != "regression" and not spreads[rows[0].folder].grouped
    both = list(combinations(rows, 2))
    differences = [less(spreads[one.folder], spreads[other.folder], metric) for one, other in both]
    tests = [
        mcnemar(task, first.y_true, (parts[one.folder].y_score, parts[other.folder].y_score)) if counted else None
        for one, other in both
    ]
    corrected = holm([difference.p for difference in differences])
    return [
        PairOfRuns(one.name, other.name, metric, difference, p, test)
        for (one, other), difference, p, test in zip(both, differences, corrected, tests, strict=True)
    ]


def _clean(run: Run, name: str) -> NDArray[np.bool_]:
    """Tell which images of a part have no group mate among the images that the head was fitted on or chosen by."""
    groups = {key: predictions.groups for key, predictions in run.predictions.items()}
    crossing = find_crossing(groups) if run.report.crossing else None
    return crossing.clean[name] if crossing else np.ones(len(run.part(name).ids), dtype=np.bool_)


def pairs_as_json(found: Sequence[PairOfRuns]) -> list[dict[str, Any]]:
    """Return pairs as plain values, None for NaN."""
    return [
        {
            "first": pair.first,
            "second": pair.second,
            "metric": pair.metric,
            "difference": pair.difference.as_json(),
            "p_holm": None if np.isnan(pair.p_holm) else pair.p_holm,
            "better": pair.better,
            "mcnemar": pair.mcnemar
            and {
                "only_first": pair.mcnemar.only_first,
                "only_second": pair.mcnemar.only_second,
                "p": pair.mcnemar.p,
            },
        }
        for pair in found
    ]


def p_text(p: float) -> str:
    """Write a p value; none is 0."""
    return "–" if np.isnan(p) else "< 0.001" if p < 0.0005 else f"{p:.3f}"


def pairs_as_text(board: Board, found: Sequence[PairOfRuns]) -> str:
    """Lay out the pairs of a board as lines of text."""
    if not found:
        return "  paired: there are no two heads to compare, or no image to compare them on; baselines are left out"
    header = ["pair", f"difference in {metric_title(board.shown[0])}", "p (Holm)", "McNemar", "p", "better"]
    table = [header]
    for pair in found:
        d, test = pair.difference, pair.mcnemar
        value = "–" if np.isnan(d.value) else f"{d.value:+.3f}"
        value += "" if np.isnan(d.low) else f" [{d.low:+.3f}, {d.high:+.3f}]"
        only = f"{test.only_first} : {test.only_second}" if test else "–"
        p, q = (p_text(one) for one in (pair.p_holm, test.p if test else float("nan")))
        table.append([f"{pair.first} – {pair.second}", value, p, only, q, pair.better or "not shown"])
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    crossing = next((row.crossing for row in board.rows if row.crossing), None)
    if crossing:
        lines.append(f"differences {clean_title(crossing)}")
    note = f"Student's t of the resampled difference, Holm over all {len(found)} pairs, baselines left out"
    if any(pair.mcnemar for pair in found):
        note += "; McNemar counts the images that only one of the two gets right, its p isn't corrected"
    return "\n".join(f"  {line}" for line in [*lines, note])
