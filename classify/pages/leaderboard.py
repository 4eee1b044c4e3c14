"""Runs side by side: one leaderboard for each set of scored images, so that only comparable numbers share a table."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from classify.evaluation.metrics import greater_is_better, shown_metrics
from classify.evaluation.verdict import Verdict
from classify.evaluation.wording import metric_title
from classify.runs.folder import Run

Interval = Mapping[str, Any]
Standing = Literal["better", "mixed", "unclear", "worse", "undefined", "baseline"]

STANDINGS: dict[Standing, str] = {
    "better": "better than dealt at random",
    "mixed": "better by some metrics",
    "unclear": "not shown to know anything",
    "worse": "worse than the majority",
    "undefined": "no verdict",
    "baseline": "is the baseline",
}


@dataclass(frozen=True)
class Row:
    """One run on a leaderboard: a name that no other run there has, and its standing by the metrics *shown*."""

    run: Run
    name: str
    part: str
    shown: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def metrics(self) -> Mapping[str, Interval]:
        """Metrics of the part that judges, with intervals."""
        return self.run.report.metrics[self.part]

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """What is shown of the head, by metric."""
        judged = self.run.report.verdicts.get(self.part, {}).get("head", {})
        return {name: judged.get(name, {}).get("verdict", "undefined") for name in self.metrics}

    @property
    def standing(self) -> Standing:
        """What the verdicts on the metrics shown amount to."""
        if self.run.report.head == "dummy":
            return "baseline"
        defined = {self.verdicts[name] for name in self.shown} - {"undefined"}
        if "better" in defined:
            return "better" if defined == {"better"} else "mixed"
        return "worse" if defined == {"worse"} else "unclear" if defined else "undefined"

    @property
    def reason(self) -> str:
        """Why there is no verdict; empty where there is one."""
        return str(self.run.report.verdicts.get(self.part, {}).get("reason", ""))

    @property
    def crossing(self) -> Mapping[str, Any] | None:
        """Scores without images whose group mates were trained on; None where the split keeps groups whole."""
        found: Mapping[str, Any] | None = (self.run.report.crossing or {}).get("parts", {}).get(self.part)
        return found


@dataclass(frozen=True)
class Leaderboard:
    """Runs that were scored on the same images of the same task, the best first.

    *shown* are the metrics that a table has room for; the first of them ranks. *baseline* is the majority's, *others*
    are those of chance and of the images' names. *n_tried* counts the runs of which these images chose the first.
    """

    corpus: str
    task: str
    kind: str
    split: str
    part: str
    n_images: int
    n_tried: int
    shown: tuple[str, ...]
    rows: tuple[Row, ...]
    baseline: Mapping[str, Interval]
    others: Mapping[str, Mapping[str, Interval]]

    @property
    def heads(self) -> list[Row]:
        """The rows that are no baseline."""
        return [row for row in self.rows if row.standing != "baseline"]


def leaderboards(runs: Iterable[Run]) -> list[Leaderboard]:
    """Sort runs onto leaderboards.

    Two runs share one if what was measured is the same: the task with its classes and range, and the scored images
    with their labels. Where runs were trained on other images, labels or vectors than the first, a warning says so.
    """
    sets: dict[tuple[str, ...], dict[Path, Run]] = {}
    for run in runs:
        report = run.report
        part = report.judged_part
        scored = report.part_digests.get(part, "")
        classes = unicodedata.normalize("NFC", repr((report.kind, report.classes, report.range)))
        place = "" if scored else report.corpus  # a report of an earlier version knows no better
        sets.setdefault((report.task, classes, part, scored, place), {})[run.folder.resolve()] = run
    found = [_leaderboard(list(members.values())) for members in sets.values()]
    return sorted(found, key=lambda board: (board.corpus, board.task, board.split, board.part))


def _leaderboard(runs: Sequence[Run]) -> Leaderboard:
    report = runs[0].report
    part, shown = report.judged_part, shown_metrics(report.kind, report.classes)
    sign = -1 if greater_is_better(shown[0]) else 1
    rows = [
        Row(run, name, part, shown, (*run.report.warnings, *_unlike(run, name, runs[0])))
        for run, name in zip(runs, distinct_names(runs), strict=True)
    ]
    rows.sort(key=lambda row: (sign * (row.metrics[shown[0]]["value"] or 0.0), row.name))
    return Leaderboard(
        corpus=report.corpus,
        task=report.task,
        kind=report.kind,
        split=report.split,
        part=part,
        n_images=report.n_images(part),
        n_tried=sum(row.standing != "baseline" for row in rows),
        shown=shown,
        rows=tuple(rows),
        baseline=report.baselines["majority"][part],
        others={n: found[part] for n, found in report.baselines.items() if n != "majority" and part in found},
    )


def distinct_names(runs: Sequence[Run]) -> list[str]:
    """Name runs by the shortest end of their paths that tells them apart, with head, and seed where that differs."""
    paths = [run.folder.resolve().parts for run in runs]
    names = []
    for run, path in zip(runs, paths, strict=True):
        alike = [other for other, there in zip(runs, paths, strict=True) if there[-1] == path[-1] and other is not run]
        others = [other.folder.resolve().parts for other in alike]
        depth = next((d for d in range(1, len(path)) if all(o[-d:] != path[-d:] for o in others)), len(path))
        name, head = "/".join(path[-depth:]), run.report.head
        seeds = any(other.report.seed != run.report.seed for other in alike)
        notes = [head] * (name != head) + [f"seed {run.report.seed}"] * seeds
        names.append(f"{name} ({', '.join(notes)})" if notes else name)
    return names


def _unlike(run: Run, name: str, first: Run) -> list[str]:
    """Say in what a run was trained on something else than the first of its leaderboard."""
    ours, theirs = run.report.part_digests, first.report.part_digests
    found = []
    if {"train", "validation"} & ours.keys() & theirs.keys():
        parts = [part for part in ("train", "validation") if ours.get(part) != theirs.get(part)]
        if parts:
            counts = [" + ".join(str(one.report.n_images(part)) for part in parts) for one in (run, first)]
            found.append(
                f"{name} was trained on other {' and '.join(parts)} images or labels than {first.folder.as_posix()} "
                f"({counts[0]} / {counts[1]} images)."
            )
    groups, before = (one.report.identity.get("groups") for one in (run, first))
    if isinstance(groups, Mapping) and isinstance(before, Mapping):
        regrouped = [part for part in before if part in groups and groups[part] != before[part]]
        if regrouped:
            found.append(f"{name} has other groups of {', '.join(regrouped)} images than {first.folder.as_posix()}.")
    vectors, others = (one.report.identity["vectors"] for one in (run, first))
    unlike = [block for block in vectors if block in others and vectors[block] != others[block]]
    if unlike:
        found.append(f"{name} rests on other vectors of {', '.join(unlike)} than {first.folder.as_posix()}.")
    return found


def clean_title(crossing: Mapping[str, Any]) -> str:
    """Name the images on which a run is scored again where its split puts groups into two parts."""
    return f"without {crossing['n_left_out']} that cross"


def standing_words(row: Row, board: Leaderboard) -> str:
    """Say what is shown of a run, metric by metric."""
    if row.standing == "baseline":
        return "this is the majority baseline"
    named: dict[str, list[str]] = {}
    for name in board.shown:
        named.setdefault(row.verdicts[name], []).append(metric_title(name))
    words = {
        "better": "better than its own answers dealt to the images at random by",
        "unclear": "not shown to know anything of the images by",
        "worse": "worse than the majority baseline by",
    }
    texts = [f"{text} {', '.join(named[key])}" for key, text in words.items() if key in named]
    return "; ".join(texts) or row.reason or "no verdict: the run holds none; run it again"


def choice_words(board: Leaderboard) -> str:
    """State that these images chose the first run of a leaderboard; empty where there was nothing to choose."""
    if board.n_tried < 2:
        return ""
    advice = "Choose on validation, read the test part once."
    if board.part != "test":
        advice = "No value here is free of that choice."
    return (
        f"First of {board.n_tried} runs by these very {board.part} images: expect it a few points lower on new ones. "
        f"{advice}"
    )


def missing_intervals(board: Leaderboard) -> list[str]:
    """Say once for all runs of a leaderboard why numbers of its table have no interval."""
    shown = [row.metrics[name] for row in board.rows for name in board.shown if name in row.metrics]
    return list(dict.fromkeys(str(one["reason"]) for one in shown if one.get("reason")))


def as_json(boards: Iterable[Leaderboard]) -> list[dict[str, Any]]:
    """Return leaderboards as plain values."""
    return [{**vars(board), "rows": [_row_as_json(row) for row in board.rows]} for board in boards]


def _row_as_json(row: Row) -> dict[str, Any]:
    report = row.run.report
    return {
        "name": row.name,
        "head": report.head,
        "folder": row.run.folder.as_posix(),
        "metrics": row.metrics,
        "verdicts": row.verdicts,
        "standing": row.standing,
        "reason": row.reason,
        "n_features": report.n_features,
        "blocks": report.blocks,
        "seed": report.seed,
        "warnings": row.warnings,
        "crossing": row.crossing,
    }
