"""A sweep as a table: what each cell chose, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from classify.evaluation.metrics import greater_is_better
from classify.pages.leaderboard import clean_title, interval_text, metric_title
from classify.runs.folder import read_run
from classify.studies.sweep import Cell

__all__ = ["sweep_as_json", "sweep_as_text"]


def sweep_as_json(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return one record for each cell: choices, folder, whether it is done, and its metrics if so.

    The score that ranks is of the validation part where there is one: a sweep chooses, and the test part is for
    afterwards.
    """
    return [_record(cell) for cell in cells]


def _record(cell: Cell) -> dict[str, Any]:
    record: dict[str, Any] = {
        "choices": dict(cell.choices),
        "task": cell.config.task,
        "head": cell.config.head,
        "folder": cell.config.folder.as_posix(),
        "digest": cell.digest,
        "done": cell.done,
        "problem": cell.problem,
    }
    if cell.done:
        report = read_run(cell.config.folder).report
        part = "validation" if "validation" in report.metrics else report.judged_part
        record |= {"part": part, "metric": report.primary_metric, "metrics": report.metrics[part]}
        record["n_tried"], record["crossing"] = report.n_tried, report.crossing
    return record


def sweep_as_text(cells: Sequence[Cell]) -> str:
    """Lay out a sweep: a table for each task, the best cell first, those to come last."""
    records = sweep_as_json(cells)
    tasks = list(dict.fromkeys(record["task"] for record in records))
    return "\n\n".join(_table([record for record in records if record["task"] == task]) for task in tasks)


def _table(records: Sequence[dict[str, Any]]) -> str:
    done = [record for record in records if record["done"]]
    names = list(dict.fromkeys(name for record in records for name in record["choices"] if name != "task"))
    title = f"{records[0]['task']}: {len(done)} of {len(records)} runs done"
    if done:
        metric, sign = done[0]["metric"], -1 if greater_is_better(done[0]["metric"]) else 1
        done.sort(key=lambda record: sign * (record["metrics"][metric]["value"] or 0.0))
        title += f", by {metric_title(metric)} of the {done[0]['part']} part"
    table = [[*(name.removeprefix("set.") for name in names), "score", "folder"]]
    for record in (*done, *(record for record in records if not record["done"])):
        score = _score(record) if record["done"] else "can't be run" if record["problem"] else "to do"
        cells = [_value(record["choices"].get(name, "")) for name in names]
        table.append([*cells, score, record["problem"] or record["folder"]])
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    if len(done) > 1:
        rest = "no value free of that choice was computed"
        if done[0]["part"] == "validation":
            rest = "only the test values of the runs are free of that choice"
        lines.append(f"best of {len(done)} on the images that chose it; {rest}")
    lines += dict.fromkeys(_stamp(record["crossing"]) for record in done if record["crossing"])
    return "\n".join([title, *(f"  {line}" for line in lines)])


def _score(record: dict[str, Any]) -> str:
    """Write the score of a cell, and what it is without images that the split parts from their group."""
    score = interval_text(record["metrics"][record["metric"]])
    clean = (record["crossing"] or {}).get("parts", {}).get(record["part"])
    return f"{score} ({clean_title(clean)}: {interval_text(clean['metrics'][record['metric']])})" if clean else score


def _stamp(crossing: dict[str, Any]) -> str:
    return f"! the split parts {crossing['n_groups']:,} groups of {crossing['n_images']:,} images"


def _value(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)
