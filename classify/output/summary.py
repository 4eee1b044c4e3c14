"""What the command line says at the end of a run, and of the heads that there are."""

from __future__ import annotations

from typing import Any

from classify.output.leaderboard import boards, distinct_metrics, interval_text, metric_title, standing_words
from classify.runs import Run

__all__ = ["head_list", "head_records", "run_summary"]


def run_summary(run: Run) -> str:
    """Sum up a run in a few lines: what was fitted, each metric beside the baseline, what to beware of.

    Parameters
    ----------
    run : Run

    Returns
    -------
    str
    """
    report = run.report
    (board,) = boards([run])
    (row,) = board.rows
    counts = ", ".join(f"{report[f'n_{part}']} {part}" for part in report["metrics"])
    lines = [
        f"{report['head']} on {board.corpus} · {board.task} ({board.kind}): {counts} images, "
        f"{report['n_features']} features from {', '.join(report['blocks'])}",
        f"  {board.part:<24}  {report['head']:<24}  majority baseline",
    ]
    for name in distinct_metrics(row.metrics, report["classes"]):
        interval = row.metrics[name]
        lines.append(
            f"  {metric_title(name):<24}  {interval_text(interval):<24}  {interval_text(board.baseline[name])}"
        )
    lines.append(f"  {standing_words(row, board)}")
    lines += [f"  ! {text}" for text in report.get("warnings", ())]
    lines.append(f"wrote {run.folder} ({report['timings']['fit']:.1f} s to fit)")
    return "\n".join(lines)


def head_records() -> list[dict[str, Any]]:
    """Return the table of heads as plain values."""
    from classify.heads import HEADS
    from classify.record import plain

    return [
        {
            "name": head.name,
            "description": head.description,
            "kinds": list(head.kinds),
            "defaults": plain(head.defaults),
        }
        for head in HEADS.values()
    ]


def head_list() -> str:
    """Lay out the table of heads as lines of text, with the options that differ from an estimator's own."""
    lines = []
    for head in head_records():
        lines.append(f"{head['name']:<8} {head['description']}")
        options = ", ".join(f"{key}={value!r}" for key, value in head["defaults"].items())
        lines.append(f"{'':<8} {', '.join(head['kinds'])}" + (f" · {options}" if options else ""))
    return "\n".join(lines)
