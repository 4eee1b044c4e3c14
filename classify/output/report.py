"""The page: one self-contained HTML file about some runs, readable without a network, on a phone, in the dark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from classify.errors import RunError
from classify.evidence.metrics import greater_is_better
from classify.output.leaderboard import (
    STANDINGS,
    Board,
    boards,
    distinct_metrics,
    interval_text,
    metric_title,
    standing_words,
)
from classify.output.plots import best_part, confusion_plot, curve_plot, interval_plot, scatter_plot
from classify.runs import Run
from features_store.errors import AffectoryError, ExistsError
from features_store.whole import whole_file

__all__ = ["report_page", "write_report_page"]

_TEMPLATES = Path(__file__).parent / "templates"
_KINDS = {"single": "one class an image", "multi": "any number of classes an image", "regression": "values"}


def write_report_page(runs: Sequence[Run], path: Path, *, force: bool = False) -> None:
    """Write the page about *runs* to *path*, whole or not at all.

    Raises
    ------
    ExistsError
        The file is there and *force* isn't given.
    """
    if path.exists() and not force:
        message = f"{path} exists; replace it with --force, or choose another place with --out"
        raise ExistsError(message)
    text = report_page(runs)
    try:
        with whole_file(path, force=force) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except AffectoryError:
        raise
    except OSError as error:
        message = f"can't write the page {path}: {error.strerror or error}"
        raise RunError(message) from error


def report_page(runs: Sequence[Run]) -> str:
    """Return the page about *runs* as HTML; everything that comes from a corpus is escaped.

    Parameters
    ----------
    runs : sequence of Run

    Returns
    -------
    str
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["interval"] = interval_text
    environment.filters["metric"] = metric_title
    found = boards(runs)
    by_folder = {run.folder.as_posix(): run for run in runs}
    tasks = [(board.corpus, board.task) for board in found]
    sections = [
        _section(board, by_folder, anchor=f"board-{i}", repeated=tasks.count((board.corpus, board.task)) > 1)
        for i, board in enumerate(found, start=1)
    ]
    page = environment.get_template("report.html.j2")
    return page.render(
        sections=sections,
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        corpora=sorted({board.corpus for board in found}),
        n_tasks=len({(board.corpus, board.task) for board in found}),
        n_runs=len(runs),
    )


def _section(board: Board, runs: dict[str, Run], *, anchor: str, repeated: bool) -> dict[str, Any]:
    first = runs[board.rows[0].folder].report
    shared = _shared_warnings(board)
    span = _span(board)
    baseline = board.baseline[board.shown[0]]
    return {
        "board": board,
        "anchor": anchor,
        "label": f"{board.task} ({board.n_images} images)" if repeated else board.task,
        "repeated": repeated,
        "kind": _KINDS[board.kind] + ", " + ", ".join(first["classes"]),
        "source": "" if first.get("source") == "unknown" else first.get("source", ""),
        "lower": [name for name in board.shown if not greater_is_better(name)],
        "warnings": shared,
        "summary": _summary(board),
        "baseline_bar": interval_plot(baseline, baseline["value"], span),
        "rows": [
            {
                "row": row,
                "anchor": f"{anchor}-run-{i}",
                "mark": STANDINGS[row.standing],
                "metrics": {name: row.metrics[name] for name in distinct_metrics(row.metrics, first["classes"])},
                "bar": interval_plot(row.metrics[board.shown[0]], baseline["value"], span),
                "verdict": standing_words(row, board),
                "details": _details(runs[row.folder], shared),
            }
            for i, row in enumerate(board.rows, start=1)
        ],
    }


def _shared_warnings(board: Board) -> list[str]:
    """What every run of a board warns of: said once, above it."""
    return [text for text in board.rows[0].warnings if all(text in row.warnings for row in board.rows)]


def _span(board: Board) -> tuple[float, float]:
    """The common scale of a board's bars: all its intervals and baselines, with a little air."""
    intervals = [*(row.metrics[board.shown[0]] for row in board.rows), board.baseline[board.shown[0]]]
    ends = [end for interval in intervals for end in interval.values() if end is not None]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    air = 0.05 * (high - low) or 0.05
    return low - air, high + air


def _summary(board: Board) -> str:
    """The board in a few sentences, no better than its intervals."""
    metric, rows = board.shown[0], [row for row in board.rows if row.standing != "baseline"]
    if not rows:
        return "Only the baseline itself was run."
    best = rows[0]
    said = [f"{best.name} ranks first, {metric_title(metric)} {interval_text(best.metrics[metric])}: "]
    said.append(standing_words(best, board) + ". ")
    wholly = [row.name for row in rows if row.standing == "better"]
    if len(rows) > 1:
        count = len(wholly) or "None"
        said.append(f"{count} of {len(rows)} heads beat it by every metric of the table that allows a comparison. ")
    if board.kind == "multi" and board.baseline[metric]["value"] == 0:
        said.append(
            "The most common answer here is to give no class at all, which scores 0 by F1; "
            "mean average precision (mAP) is the stricter comparison. "
        )
    return "".join(said).strip()


def _details(run: Run, said_above: Sequence[str]) -> dict[str, Any]:
    """What the page shows of one run beside its line on the board."""
    report, task = run.report, run.task
    part = best_part(report["metrics"])
    figures: list[tuple[str, str]] = []
    if task.kind == "single":
        caption = "Confusion: the share of each true class, and below it the count"
        figures.append((caption, confusion_plot(report["confusion"][part], task.classes)))
    if task.kind == "regression":
        truth, said = (a.reshape(len(a), -1) for a in (run.predictions[part].y_true, run.predictions[part].y_score))
        for i, name in enumerate(task.classes):
            figure = scatter_plot(truth[:, i], said[:, i], name=name, span=task.range or (-1.0, 1.0))
            figures.append((f"Each image's {name}; the slanted line is agreement", figure))
    if len(report["history"]) > 1:
        figures.append(("Loss during training", curve_plot(report["history"])))
    return {
        "part": part,
        "warnings": [text for text in report["warnings"] if text not in said_above],
        "parameters": json.dumps(report["parameters"], indent=2, ensure_ascii=False),
        "passports": {
            name: json.dumps(passport, indent=2, ensure_ascii=False) for name, passport in report["passports"].items()
        },
        "figures": figures,
        "classes": report["per_class"].get(part, []),
        "majority": report["baselines"]["majority"][part],
        "facts": _facts(report),
    }


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    images = ", ".join(f"{report[f'n_{part}']} {part}" for part in report["metrics"])
    dropped = "; ".join(
        f"{count} {part} ({reason})" for part, counts in report["dropped"].items() for reason, count in counts.items()
    )
    interval = report["intervals"]
    parameters = report.get("n_parameters")
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return [
        ("Images", images),
        ("Left out", dropped or "none"),
        ("Features", f"{report['n_features']} from {', '.join(report['blocks'])}"),
        ("Parameters", f"{parameters:,}" if parameters is not None else "not counted"),
        ("Intervals", f"{interval['method']}, {interval['resamples']} resamples of {interval['resampled']}"),
        ("Seed", str(report["seed"])),
        ("Time to fit", f"{report['timings']['fit']:.1f} s"),
        ("Made", f"{report['created']} with {versions}"),
    ]
