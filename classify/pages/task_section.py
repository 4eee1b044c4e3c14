"""What the page shows of one leaderboard: a summary in words, the table, pairs, the data, ablations, and each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classify.data.kinds import kind_of
from classify.evaluation.baselines import BASELINES
from classify.evaluation.bootstrap import bootstrap
from classify.evaluation.comparison import holm
from classify.evaluation.metrics import greater_is_better, primary_metric
from classify.evaluation.wording import distinct_metrics, interval_text, metric_title
from classify.figures.charts import MAX_SUBSETS, ablation_chart, interval_chart
from classify.figures.svg import padded
from classify.pages.leaderboard import (
    STANDINGS,
    Leaderboard,
    Row,
    choice_words,
    clean_title,
    missing_intervals,
    standing_words,
)
from classify.pages.pairs import LEVEL, pairs
from classify.pages.pictures import Pictures, doubtful_labels, duplicate_pairs
from classify.pages.run_section import run_details
from classify.pages.tables import tried_words
from classify.runs.findings_json import read_ablation, read_audit
from classify.runs.folder import Run
from classify.runs.report_json import UNDEFINED, Report
from classify.studies.audit import AUDIT

_KINDS = {"single": "one class an image", "multi": "any number of classes an image", "regression": "values"}
MAX_CLASSES = 50  # that are named in a title
N_RESAMPLES = 500  # of scores without near-duplicates


def task_section(
    board: Leaderboard, *, anchor: str, repeated: bool, pictures: Pictures, empty: int = 0
) -> dict[str, Any]:
    """Put together everything about one leaderboard."""
    runs = [row.run for row in board.rows]
    report, metric, span, audit = runs[0].report, board.shown[0], _span(board), _audit(runs)
    shared = [text for text in board.rows[0].warnings if all(text in row.warnings for row in board.rows)]
    baseline, n_more = board.baseline[metric], len(report.classes) - MAX_CLASSES
    return {
        "board": board,
        "anchor": anchor,
        "label": f"{board.task} ({board.n_images} images)" if repeated else board.task,
        "repeated": repeated,
        "unit": "Class" if kind_of(runs[0].task).has_classes else "Output",
        "kind": f"{_KINDS[board.kind]}, {', '.join(report.classes[:MAX_CLASSES])}"
        + (f" and {n_more} more" if n_more > 0 else ""),
        "source": "" if report.source == "unknown" else report.source,
        "lower": [name for name in board.shown if not greater_is_better(name)],
        "warnings": shared,
        "summary": _summary(board),
        "cautions": _cautions(board, audit),
        "notes": missing_intervals(board),
        "bar": interval_chart(board.rows[0].metrics[metric], baseline["value"], span),
        "baselines": [
            {
                "name": name,
                "what": BASELINES.get(name, ""),
                "metrics": found,
                "bar": interval_chart(found[metric], baseline["value"], span) if metric in found else "",
            }
            for name, found in {"majority": board.baseline, **board.others}.items()
        ],
        "pairs": pairs(board, n_resamples=1000),
        "counts": _counts(report),
        "facts": _facts(report, board, audit),
        "clean": _without_duplicates(board, audit),
        "audit": audit,
        "doubted": doubtful_labels(audit, pictures),
        "duplicates": duplicate_pairs(audit, pictures),
        "ablations": [_ablation(found) for found in _ablations(runs)],
        "rows": [
            {
                "row": row,
                "clean": clean_title(row.crossing) if row.crossing else "",
                "anchor": f"{anchor}-run-{i}",
                "mark": STANDINGS[row.standing],
                "metrics": {name: row.metrics[name] for name in distinct_metrics(row.metrics, report.classes)},
                "bar": interval_chart(row.metrics[metric], baseline["value"], span),
                "verdict": standing_words(row, board),
                "details": run_details(row.run, shared, pictures, empty=empty),
            }
            for i, row in enumerate(board.rows, start=1)
        ],
    }


def _audit(runs: Sequence[Run]) -> Mapping[str, Any] | None:
    """Return the audit that lies beside some runs; None where there is none, or it looked at other images."""
    for folder in dict.fromkeys(run.folder.parent for run in runs):
        found = read_audit(folder / AUDIT)
        if found and found["part_digests"] == runs[0].report.part_digests:
            return found
    return None


def _ablations(runs: Sequence[Run]) -> list[Mapping[str, Any]]:
    """Return the ablations of the task that lie beside some runs."""
    folders = dict.fromkeys(run.folder.parent for run in runs)
    found = [read_ablation(path) for folder in folders for path in sorted(folder.glob("ablation*.json"))]
    return [one for one in found if one and one["task"] == runs[0].report.task]


def _span(board: Leaderboard) -> tuple[float, float]:
    """Return the common scale of a leaderboard's bars: all its intervals and baselines, with some room."""
    found = [*(row.metrics for row in board.rows), board.baseline, *board.others.values()]
    values = [one.get(board.shown[0], UNDEFINED).get(key) for one in found for key in UNDEFINED]
    return padded([value for value in values if value is not None] or [0.0, 1.0], 0.05)


def _summary(board: Leaderboard) -> str:
    """Sum up a leaderboard in a few sentences, no better than its verdicts."""
    if not board.heads:
        return "Only the baseline itself was run."
    metric, best = board.shown[0], board.heads[0]
    texts = [f"{best.name} ranks first, {metric_title(metric)} {interval_text(best.metrics[metric])}: "]
    texts.append(standing_words(best, board) + ". ")
    if len(board.heads) > 1:
        count = sum(row.standing == "better" for row in board.heads) or "None"
        texts.append(
            f"{count} of {len(board.heads)} heads are shown to know something of the images by every metric shown. "
        )
    return "".join([*texts, choice_words(board)]).strip()


def _cautions(board: Leaderboard, audit: Mapping[str, Any] | None) -> list[str]:
    """Say what speaks against trusting a number: labels that file names predict, duplicates in training."""
    texts, metric = [], board.shown[0]
    names = board.others.get("id-only", {}).get(metric, UNDEFINED)
    judged = board.heads[0].run.report.verdicts.get(board.part, {}) if board.heads else {}
    if names["value"] is not None and judged.get("over_id_only"):
        reached = f"A tree that sees only file names and their order reaches {metric_title(metric)} "
        reached += interval_text(names)
        if not _above(judged["over_id_only"], board.shown):
            texts.append(
                f"{reached}; {board.heads[0].name} is not shown to be better than that by any metric of the table."
            )
        elif judged["id_only"].get(metric, {}).get("verdict") == "better":
            texts.append(
                f"{reached}, better than its own answers dealt at random: the way in which the corpus was gathered "
                "predicts its labels."
            )
    n = audit["duplicates"]["across"].get(f"{board.part} in train", {"n_images": 0})["n_images"] if audit else 0
    if n:
        have = "image has a near-duplicate" if n == 1 else "images have a near-duplicate"
        texts.append(f"{n} of {board.n_images} {board.part} {have} among the training images.")
    return texts


def _above(over: Mapping[str, Mapping[str, float | None]], shown: Sequence[str]) -> list[str]:
    """Return the metrics by which a head is better than file names alone, corrected for their number."""
    known = [name for name in shown if over.get(name, {}).get("p") is not None]
    corrected = holm([float(over[name]["p"] or 0.0) for name in known])
    return [
        name
        for name, p in zip(known, corrected, strict=True)
        if p <= LEVEL and (float(over[name]["value"] or 0.0) > 0) == greater_is_better(name)
    ]


def _ablation(found: Mapping[str, Any]) -> dict[str, Any]:
    n_subsets = len(found["subsets"])
    return {
        **found,
        "figure": ablation_chart(found),
        "tried": tried_words(found),
        "n_subsets": n_subsets,
        "n_shown": min(n_subsets, MAX_SUBSETS),
        "crossing": found["crossing"]["words"] if found["crossing"] else "",
        "gains": [{"block": block, **gain} for block, gain in found["gains"].items()],
    }


def _counts(report: Report) -> list[dict[str, Any]]:
    """Return the rows of the table of images by class and part."""
    rows = [{"name": "all images", "total": True, "cells": [str(report.n_images(part)) for part in report.counts]}]
    for name in report.classes:
        cells = []
        for part, found in report.counts.items():
            one = found[name]
            if "n" in one:
                cells.append(f"{one['n']} ({one['n'] / max(report.n_images(part), 1):.0%})")
            else:
                cells.append(f"{one['mean']:.2f} ± {one['std']:.2f} ({one['min']:.2f} to {one['max']:.2f})")
        rows.append({"name": name, "total": False, "cells": cells})
    return rows


def _facts(report: Report, board: Leaderboard, audit: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    dropped = "; ".join(
        f"{count} {part} ({reason})" for part, counts in report.dropped.items() for reason, count in counts.items()
    )
    reader = report.reader or {}
    options = ", ".join(f"{key} {value}" for key, value in (reader.get("options") or {}).items())
    grouped = report.intervals["resampled"] == "groups"
    leaks = doubts = "not looked for: `classify audit` does"
    if audit:
        leaks, doubts = _leaks(audit["duplicates"]), _doubts(audit["label_errors"])
    return [
        ("Corpus", f"{board.corpus}" + (f", read by {reader['name']}" if reader.get("name") else "")),
        ("Reader's options", options or "none"),
        ("Labels", "source not recorded" if report.source in ("", "unknown") else report.source),
        ("Split", f"{board.split}; {report.unused} images unused"),
        ("Left out", dropped or "none"),
        ("Groups", "images that belong together stay together" if grouped else "none recorded"),
        ("Leaks", leaks),
        ("Doubtful labels", doubts),
        ("Index", report.index_digest[:16]),
    ]


def _leaks(found: Mapping[str, Any]) -> str:
    counts = [
        f"{across['n_images']} {where.replace(' in ', ' images in ')}" for where, across in found["across"].items()
    ]
    known = "" if found["same_bytes_known"] else "; file hashes not recorded"
    return f"near-duplicates (cosine from {found['threshold']:g}): {', '.join(counts) or 'nothing to look at'}{known}"


def _doubts(found: Mapping[str, Any]) -> str:
    if found.get("judge_knows") is False:
        return "none doubted: the judge is not better than its own answers dealt to the images at random"
    expected = found.get("n_expected")
    none_wrong = "" if expected is None else f"; where none is wrong, about {expected} would be listed"
    return f"{found['n_images']} of {found['n_judged']} images, by {found['method']}{none_wrong}"


def _without_duplicates(board: Leaderboard, audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Score each run again without the images that have a near-duplicate in the training part."""
    across = (audit or {}).get("duplicates", {}).get("across", {}).get(f"{board.part} in train")
    if not across or not across["n_images"]:
        return None

    def scored(row: Row) -> dict[str, Any]:
        part = row.run.part(board.part)
        kept = ~np.isin(part.ids, across["ids"])
        groups = None if part.groups is None else part.groups[kept]
        options: dict[str, Any] = {"n_resamples": N_RESAMPLES, "seed": row.run.report.seed, "part": board.part}
        found = bootstrap(row.run.task, part.y_true[kept], part.y_score[kept], groups=groups, **options)
        return {"name": row.name, "all": row.metrics[metric], "left": found[metric].as_json()}

    metric, ids = primary_metric(board.rows[0].run.task), board.rows[0].run.part(board.part).ids
    n_out = int(np.isin(ids, across["ids"]).sum())
    if n_out == len(ids):
        return None
    return {"n_left": len(ids) - n_out, "n_out": n_out, "metric": metric, "rows": [scored(row) for row in board.rows]}
