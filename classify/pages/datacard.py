"""The card of a task: what its images are, how they are parted, what is left out, what leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classify.evaluation.bootstrap import bootstrap
from classify.evaluation.metrics import primary_metric
from classify.pages.leaderboard import Board
from classify.runs.folder import Run
from classify.runs.report_json import Report

__all__ = ["data_card", "without_duplicates"]

N_RESAMPLES = 500


def data_card(runs: Sequence[Run], board: Board, audit: Mapping[str, Any] | None) -> dict[str, Any]:
    """Put together the counts and facts of a task, from the report of a run on it."""
    report = runs[0].report
    counts = report.counts
    return {"parts": list(counts), "rows": _rows(report, counts), "facts": _facts(report, board, audit)}


def _rows(report: Report, counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "name": "all images",
            "total": True,
            "cells": [{"text": str(report.n_images(part)), "share": 0} for part in counts],
        }
    ]
    for name in report.classes:
        cells = []
        for part, found in counts.items():
            one = found[name]
            if "n" in one:
                share = one["n"] / max(report.n_images(part), 1)
                cells.append({"text": f"{one['n']} ({share:.0%})", "share": share})
            else:
                text = f"{one['mean']:.2f} ± {one['std']:.2f} ({one['min']:.2f} to {one['max']:.2f})"
                cells.append({"text": text, "share": 0})
        rows.append({"name": name, "total": False, "cells": cells})
    return rows


def _facts(report: Report, board: Board, audit: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    dropped = "; ".join(
        f"{count} {part} ({reason})" for part, counts in report.dropped.items() for reason, count in counts.items()
    )
    reader = report.reader or {}
    options = ", ".join(f"{key} {value}" for key, value in (reader.get("options") or {}).items())
    source = report.source
    resampled = report.intervals["resampled"]
    return [
        ("Corpus", f"{board.corpus}" + (f", read by {reader['name']}" if reader.get("name") else "")),
        ("Reader's options", options or "none"),
        ("Labels", source if source and source != "unknown" else "source not recorded"),
        ("Split", f"{board.split}; {report.get('unused', 0)} images unused"),
        ("Left out", dropped or "none"),
        ("Groups", "images that belong together stay together" if resampled == "groups" else "none recorded"),
        ("Leaks", _leaks(audit)),
        ("Doubtful labels", _doubts(audit)),
        ("Index", report.index_digest[:16]),
    ]


def _leaks(audit: Mapping[str, Any] | None) -> str:
    if not audit:
        return "not looked for: `classify audit` does"
    found = audit["duplicates"]
    said = [f"{across['n_images']} {where.replace(' in ', ' images in ')}" for where, across in found["across"].items()]
    known = "" if found["same_bytes_known"] else "; file hashes not recorded"
    return f"near-duplicates (cosine from {found['threshold']:g}): {', '.join(said) or 'nothing to look at'}{known}"


def _doubts(audit: Mapping[str, Any] | None) -> str:
    if not audit:
        return "not looked for: `classify audit` does"
    found = audit["label_errors"]
    if found.get("judge_knows") is False:
        return "none doubted: the judge isn't better than its own answers dealt to the images at random"
    expected = found.get("n_expected")
    none_wrong = "" if expected is None else f"; where none is wrong, about {expected} would be listed"
    return f"{found['n_images']} of {found['n_judged']} images, by {found['method']}{none_wrong}"


def without_duplicates(runs: Sequence[Run], board: Board, audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Score each run again without the test images that have a near-duplicate in the training part."""
    across = (audit or {}).get("duplicates", {}).get("across", {}).get(f"{board.part} in train")
    if not across or not across["n_images"]:
        return None
    by_folder = {run.folder.as_posix(): run for run in runs}
    metric, rows = primary_metric(runs[0].task), []
    kept = np.zeros(0, dtype=bool)
    for row in board.rows:
        part = by_folder[row.folder].part(board.part)
        kept = ~np.isin(part.ids, across["ids"])
        if not kept.any():
            return None
        groups = None if part.groups is None else part.groups[kept]
        options: dict[str, Any] = {"n_resamples": N_RESAMPLES, "seed": row.seed, "part": board.part}
        found = bootstrap(runs[0].task, part.y_true[kept], part.y_score[kept], groups=groups, **options)
        rows.append({"name": row.name, "all": row.metrics[metric], "left": found[metric].as_json()})
    return {"n_left": int(kept.sum()), "n_out": int((~kept).sum()), "metric": metric, "rows": rows}
