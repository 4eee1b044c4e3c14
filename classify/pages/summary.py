"""What the command line says at the end of a run, and of the heads that there are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from classify.pages.leaderboard import (
    boards,
    clean_title,
    distinct_metrics,
    interval_text,
    interval_words,
    metric_title,
    standing_words,
)
from classify.pages.run_section import run_notes
from classify.runs.folder import Run

if TYPE_CHECKING:
    from classify.heads.options import Option

__all__ = ["audit_summary", "curve_summary", "head_card", "head_list", "head_records", "run_summary"]


def run_summary(run: Run) -> str:
    """Sum up a run in a few lines: what was fitted, each metric beside the baseline, what to beware of."""
    report = run.report
    (board,) = boards([run])
    (row,) = board.rows
    counts = ", ".join(f"{report.n_images(part)} {part}" for part in report.metrics)
    lines = [
        f"{report.head} on {board.corpus} · {board.task} ({board.kind}): {counts} images, "
        f"{report.n_features} features from {', '.join(report.blocks)}",
        f"  {board.part:<24}  {report.head:<24}  majority baseline",
    ]
    for name in distinct_metrics(row.metrics, report.classes):
        interval = row.metrics[name]
        lines.append(
            f"  {metric_title(name):<24}  {interval_text(interval):<24}  {interval_text(board.baseline[name])}"
        )
    if clean := row.crossing:
        for name in distinct_metrics(board.shown, report.classes):
            ours, theirs = (interval_text(clean[key][name]) for key in ("metrics", "majority"))
            lines.append(f"  {metric_title(name) + ' *':<24}  {ours:<24}  {theirs}")
        lines.append(
            f"  *: {clean_title(clean)} between the parts, on the other {clean['n_images']} {board.part} images"
        )
    names = board.others.get("id-only", {}).get(board.shown[0])
    if names:
        lines.append(
            f"  file names alone reach {metric_title(board.shown[0])} {interval_text(names)} (id-only baseline)"
        )
    lines.append(f"  {standing_words(row, board)}")
    shown = distinct_metrics(row.metrics, report.classes)
    lines += [f"  {text}" for text in dict.fromkeys(interval_words(row.metrics[name]) for name in shown) if text]
    lines += [f"  {text}" for text in run_notes(report, board.part) if f"  {text}" not in lines]
    lines += [f"  ! {text}" for text in report.warnings]
    lines.append(f"wrote {run.folder} ({report.timings.get('fit', 0.0):.1f} s to fit)")
    return "\n".join(lines)


def audit_summary(found: Mapping[str, Any]) -> str:
    """Sum up an audit in a few lines."""
    lines = []
    for where, across in found["duplicates"]["across"].items():
        part, _, other = where.partition(" in ")
        first = across["pairs"][0] if across["pairs"] else None
        example = f", first {first['id']} and {first['other']} ({first['cosine']:.3f})" if first else ""
        narrow = across.get("threshold", 0) > found["duplicates"]["threshold"]
        from_ = f" (cosine from {across['threshold']:.4g}: the blocks have few columns)" if narrow else ""
        lines.append(f"{across['n_images']} {part} images have a near-duplicate in {other}{from_}{example}")
    doubted = found["label_errors"]
    if doubted.get("judge_knows") is False:
        judge = doubted["judge"]
        lines.append(f"no label is doubted: the judge ({judge}) isn't better than its answers dealt at random")
        return "\n".join(lines)
    expected = doubted.get("n_expected")
    none_wrong = "" if expected is None else f"; where none is wrong, about {expected} would be listed"
    judge = f"{metric_title(doubted['judge_metric'])} {doubted['judge_value']:.3f}"
    lines.append(
        f"{doubted['n_images']} of {doubted['n_judged']} images have a label that the judge ({judge}) disagrees with, "
        f"by {doubted['method']}{none_wrong}"
    )
    for one in doubted["images"][:5]:
        about = f"{one['output']}: " if "output" in one else ""
        lines.append(f"  {one['id']} ({one['part']}): {about}{one['given']}, rather {one['suggested']}")
    return "\n".join(lines)


def curve_summary(run: Run, learned: Mapping[str, Any]) -> str:
    """Lay out a learning curve as one line."""
    points = ", ".join(f"{point['n']}: {point['value']:.3f}" for point in learned["points"])
    notes = "".join(f"\n  ! {text}" for text in learned.get("warnings", ()))
    return f"{run.folder}: {metric_title(learned['metric'])} by training images {points}{notes}"


def head_records() -> list[dict[str, Any]]:
    """Return the table of heads as plain values, with the default of every option by kind of task."""
    from classify.heads import HEADS, head_options
    from classify.runs.record import plain

    return [
        {
            "name": head.name,
            "description": head.description,
            "kinds": list(head.kinds),
            "options": {kind: plain(head_options(head.name, kind)) for kind in head.kinds},
        }
        for head in HEADS.values()
    ]


def head_list() -> str:
    """Lay out the table of heads, a line for each; no head is imported for it."""
    from classify.heads import HEADS

    lines = [f"{head.name:<8} {head.description} ({', '.join(head.kinds)})" for head in HEADS.values()]
    return "\n".join([*lines, "", "`classify heads HEAD` lists the options of one."])


def head_card(name: str) -> str:
    """Lay out one head: what it is, and its options with defaults as ``--set`` takes them, meaning and range."""
    from classify.heads import HEADS, head_class, head_options
    from classify.heads.options import options_of

    kinds = HEADS[name].kinds if name in HEADS else ("single",)
    head_class(name, kinds[0])  # an unknown name is answered with the valid ones
    options: dict[str, Any] = {}
    declared: dict[str, Option] = {}
    for kind in reversed(kinds):
        options = {**head_options(name, kind), **options}
        declared = {**declared, **options_of(head_class(name, kind))}
    lines: list[str] = []
    for option, value in options.items():
        if option != "random_state":  # it is the seed of the run
            lines += [
                f"  {option}={_option(value)}",
                f"      {declared[option].help}",
                f"      {declared[option].takes}",
            ]
    return "\n".join([f"{name}: {HEADS[name].description} ({', '.join(kinds)})", *lines])


def _option(value: Any) -> str:
    """Write a default as ``--set`` takes it."""
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
