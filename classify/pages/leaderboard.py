"""Runs side by side: one board per set of scored images, so that only comparable numbers share a table."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from classify.evaluation.metrics import METRICS, greater_is_better, shown_metrics
from classify.evaluation.verdict import Verdict
from classify.runs.folder import Run
from classify.runs.report_json import UNDEFINED

__all__ = [
    "STANDINGS",
    "Board",
    "Row",
    "as_json",
    "as_text",
    "boards",
    "clean_title",
    "distinct_metrics",
    "interval_text",
    "interval_words",
    "metric_title",
    "missing_intervals",
    "shown_metrics",
    "standing_words",
    "winners_words",
]

Interval = Mapping[str, Any]
Standing = Literal["better", "mixed", "unclear", "worse", "undefined", "baseline"]
"""What all metrics that its board shows allow one to say of a run."""

_TITLES = {metric.name: metric.title for metric in METRICS}
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
    """One run on a board: its name, its metrics with intervals, and how it stands beside its baseline.

    *crossing* is there where the split parts groups and scored images have mates in training: ``n_images``,
    ``n_left_out``, and ``metrics`` and ``majority`` without them.
    """

    name: str
    head: str
    folder: str
    metrics: Mapping[str, Interval]
    verdicts: Mapping[str, Verdict]
    standing: Standing
    reason: str
    n_features: int
    blocks: tuple[str, ...]
    seed: int
    warnings: tuple[str, ...]
    crossing: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Board:
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


def clean_title(crossing: Mapping[str, Any]) -> str:
    """Name the images on which a run is scored again where its split parts groups."""
    return f"without {crossing['n_left_out']} that cross"


def metric_title(name: str) -> str:
    """Return a metric's name as people write it: ``cc/valence`` is "Pearson r, valence"."""
    base, _, output = name.partition("/")
    title = _TITLES.get(base, base.replace("_", " "))
    return f"{title}, {output}" if output else title


def distinct_metrics(names: Iterable[str], classes: Sequence[str]) -> list[str]:
    """Leave out what says the same twice: with one output, a metric of it and the pooled one are equal."""
    if len(classes) > 1:
        return list(names)
    twice = {f"rmse/{classes[0]}", f"sagr/{classes[0]}", "cc_pooled"}
    return [name for name in names if name not in twice]


def standing_words(row: Row, board: Board) -> str:
    """Say what is shown of *row*, metric by metric."""
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
    said = [f"{text} {', '.join(named[key])}" for key, text in words.items() if key in named]
    return "; ".join(said) or row.reason or "no verdict: the run holds none; run it again"


def winners_words(board: Board) -> str:
    """Own up to the choice that a board makes of its first run; empty where there was none to make."""
    if board.n_tried < 2:
        return ""
    advice = "Choose on validation, read the test part once."
    if board.part != "test":
        advice = "No value here is free of that choice."
    return (
        f"First of {board.n_tried} runs by these very {board.part} images: expect it a few points lower on new ones. "
        f"{advice}"
    )


def interval_words(interval: Interval) -> str:
    """Say why there is no interval, and over which classes there is one; empty where there is nothing to say."""
    reason, over = str(interval.get("reason") or ""), interval.get("over")
    if not reason or not over:
        return reason
    return f"{reason} Over the other {over['n_classes']}: {over['value']:.3f} [{over['low']:.3f}, {over['high']:.3f}]."


def missing_intervals(board: Board) -> list[str]:
    """Say once of all runs of a board why numbers of its table have no interval."""
    shown = [row.metrics[name] for row in board.rows for name in board.shown if name in row.metrics]
    return list(dict.fromkeys(str(one["reason"]) for one in shown if one.get("reason")))


def boards(runs: Iterable[Run]) -> list[Board]:
    """Sort runs onto boards.

    Two runs share a board if what was measured is the same: the task with its classes and range, and the scored images
    with their labels. Where runs of a board were trained on other images, labels or vectors, a warning says so.
    """
    sets: dict[tuple[str, ...], dict[Path, Run]] = {}
    for run in runs:
        report = run.report
        part = report.judged_part
        scored = report.part_digests.get(part, "")
        classes = unicodedata.normalize("NFC", repr((report.kind, report.classes, report.range)))
        place = "" if scored else report.corpus  # a report of an earlier version knows no better
        sets.setdefault((report.task, classes, part, scored, place), {})[run.folder.resolve()] = run
    found = [_board(list(members.values())) for members in sets.values()]
    return sorted(found, key=lambda board: (board.corpus, board.task, board.split, board.part))


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


def _board(runs: Sequence[Run]) -> Board:
    report = runs[0].report
    part = report.judged_part
    shown = shown_metrics(report.kind, report.classes)
    sign = -1 if greater_is_better(shown[0]) else 1
    names = distinct_names(runs)
    rows = sorted(
        (_row(run, name, part, shown, _unlike(run, name, runs[0])) for run, name in zip(runs, names, strict=True)),
        key=lambda row: (sign * (row.metrics[shown[0]]["value"] or 0.0), row.name),
    )
    return Board(
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


def _standing(verdicts: Sequence[Verdict]) -> Standing:
    defined = [one for one in verdicts if one != "undefined"]
    if not defined:
        return "undefined"
    if "better" in defined:
        return "better" if set(defined) == {"better"} else "mixed"
    return "worse" if set(defined) == {"worse"} else "unclear"


def _unlike(run: Run, name: str, first: Run) -> list[str]:
    """Say in what a run was trained on something else than the first of its board."""
    ours, theirs = (one.report.part_digests for one in (run, first))
    found = []
    if {"train", "validation"} & ours.keys() & theirs.keys():
        parts = [part for part in ("train", "validation") if ours.get(part) != theirs.get(part)]
        if parts:
            counts = [" + ".join(str(one.report.n_images(part)) for part in parts) for one in (run, first)]
            where = first.folder.as_posix()
            found.append(
                f"{name} was trained on other {' and '.join(parts)} images or labels than {where} "
                f"({counts[0]} / {counts[1]} images)."
            )
    vectors, others = (one.report.identity["vectors"] for one in (run, first))
    unlike = [block for block in vectors if block in others and vectors[block] != others[block]]
    if unlike:
        found.append(f"{name} rests on other vectors of {', '.join(unlike)} than {first.folder.as_posix()}.")
    return found


def _row(run: Run, name: str, part: str, shown: Sequence[str], unlike: Sequence[str]) -> Row:
    report = run.report
    ours = report.metrics[part]
    judged = report.verdicts.get(part, {})
    of_head = judged.get("head", {})
    verdicts: dict[str, Verdict] = {key: of_head.get(key, {}).get("verdict", "undefined") for key in ours}
    head = report.head
    return Row(
        name=name,
        head=head,
        folder=run.folder.as_posix(),
        metrics=ours,
        verdicts=verdicts,
        standing="baseline" if head == "dummy" else _standing([verdicts[key] for key in shown]),
        reason=str(judged.get("reason", "")),
        n_features=report.n_features,
        blocks=tuple(report.blocks),
        seed=report.seed,
        warnings=(*report.warnings, *unlike),
        crossing=(report.crossing or {}).get("parts", {}).get(part),
    )


def as_json(found: Iterable[Board]) -> list[dict[str, Any]]:
    """Return boards as plain values."""
    return [asdict(board) for board in found]


def as_text(board: Board) -> str:
    """Lay out one board as lines of text, the baselines as its last rows."""
    title = f"{board.corpus} · {board.task} ({board.kind}) · {board.n_images} {board.part} images, split {board.split}"
    table = [["run", *(metric_title(name) for name in board.shown), "verdict"]]
    for row in board.rows:
        mark = " !" if row.warnings else ""
        cells = [interval_text(row.metrics.get(name, UNDEFINED)) for name in board.shown]
        table.append([row.name + mark, *cells, STANDINGS[row.standing]])
        if row.crossing:
            cells = [interval_text(row.crossing["metrics"][name]) for name in board.shown]
            table.append([f"  {clean_title(row.crossing)}", *cells, ""])
    table.append(["majority", *(interval_text(board.baseline.get(name, UNDEFINED)) for name in board.shown), ""])
    for other, found in board.others.items():
        table.append([other, *(interval_text(found.get(name, UNDEFINED)) for name in board.shown), ""])
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    notes = dict.fromkeys(text for row in board.rows for text in row.warnings)
    guessed = (
        "chance: brackets hold 95% of guesses on these images, not an interval" if "chance" in board.others else ""
    )
    said = [text for text in (guessed, winners_words(board), *missing_intervals(board), _no_verdict(board)) if text]
    return "\n".join([title, *(f"  {line}" for line in [*lines, *said]), *(f"  ! {note}" for note in notes)])


def _no_verdict(board: Board) -> str:
    return next((row.reason for row in board.rows if row.reason and row.standing == "undefined"), "")


def interval_text(interval: Interval) -> str:
    """Write an interval: ``0.612 [0.540, 0.683]``; a dash where it is undefined.

    Where only some classes have images enough, theirs stands beside: ``0.612 (8 classes: 0.680 [0.610, 0.743])``.
    """
    value, low, high, over = interval["value"], interval["low"], interval["high"], interval.get("over")
    if value is None:
        return "–"
    if over:
        return f"{value:.3f} ({over['n_classes']} classes: {over['value']:.3f} [{over['low']:.3f}, {over['high']:.3f}])"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
