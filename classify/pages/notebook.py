"""Results as a notebook shows them, and as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from classify.evaluation.bootstrap import Interval
from classify.pages.leaderboard import clean_title, interval_text, metric_title

if TYPE_CHECKING:
    from classify.runs.folder import Run

__all__ = ["metric_lines", "metric_table", "run_table"]

Columns = Mapping[str, Mapping[str, Interval]]


def metric_lines(title: str, columns: Columns) -> str:
    """Return a table of metrics as text; columns by name, rows by metric."""
    rows = _rows(columns)
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([title, *(f"  {line}" for line in lines)])


def metric_table(title: str, columns: Columns) -> str:
    """Return a table of metrics as HTML, every text escaped."""
    head, *body = _rows(columns)
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>" for row in body
    )
    caption = f"<caption>{escape(title)}</caption>"
    return f"<table>{caption}<thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"


def _rows(columns: Columns) -> list[list[str]]:
    names = list(dict.fromkeys(name for found in columns.values() for name in found))
    rows = [["metric", *columns]]
    for name in names:
        cells = [interval_text(found[name].as_json()) if name in found else "–" for found in columns.values()]
        rows.append([metric_title(name), *cells])
    return rows


def run_table(run: Run) -> str:
    """Return a run as HTML: its metrics on the part that judges it, beside the majority baseline."""

    report, part = run.report, run.report.judged_part
    found = {"this head": report.metrics[part], "majority": report.baselines["majority"].get(part, {})}
    if clean := (report.crossing or {}).get("parts", {}).get(part):
        found[clean_title(clean)] = clean["metrics"]
    columns = {name: {key: _interval(one) for key, one in of.items()} for name, of in found.items()}
    title = f"{report.head} on {report.task}: {report.n_images(part)} {part} images ({run.folder})"
    notes = "".join(f"<p>{escape(text)}</p>" for text in report.warnings)
    return metric_table(title, columns) + notes


def _interval(values: Mapping[str, Any]) -> Interval:
    value, low, high = (float("nan") if values[k] is None else float(values[k] or 0) for k in ("value", "low", "high"))
    return Interval(value, low, high, str(values.get("reason", "")), values.get("over"))
