"""Runs side by side: one board per set of scored images, so that only comparable numbers share a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from classify.evidence.metrics import greater_is_better
from classify.evidence.verdict import Verdict, verdict
from classify.output.plots import best_part
from classify.runs import Run

__all__ = ["Board", "Row", "as_json", "as_text", "boards", "metric_title", "shown_metrics", "verdict_words"]

Interval = Mapping[str, float | None]

_SHOWN = {
    "single": ("weighted_f1", "macro_f1", "accuracy", "balanced_accuracy"),
    "multi": ("weighted_f1", "macro_f1", "micro_f1", "mean_average_precision"),
}
_TITLES = {
    "weighted_f1": "weighted F1",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "balanced_accuracy": "balanced accuracy",
    "log_loss": "log loss",
    "subset_accuracy": "subset accuracy",
    "hamming_loss": "Hamming loss",
    "mean_average_precision": "mAP",
    "rmse": "RMSE",
    "mae": "MAE",
    "cc": "Pearson r",
    "cc_pooled": "Pearson r, pooled",
    "sagr": "SAGR",
}
_UNDEFINED: Interval = {"value": None, "low": None, "high": None}


@dataclass(frozen=True)
class Row:
    """One run on a board: its name, its metrics with intervals, and how it stands beside its baseline."""

    name: str
    head: str
    folder: str
    metrics: Mapping[str, Interval]
    verdict: Verdict
    baseline: float | None
    n_features: int
    blocks: tuple[str, ...]
    seed: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """Runs that were scored on the same images of the same task, the best first.

    *shown* are the metrics that a table has room for; the first of them ranks.
    """

    corpus: str
    task: str
    kind: str
    split: str
    part: str
    n_images: int
    shown: tuple[str, ...]
    rows: tuple[Row, ...]
    baseline: Mapping[str, Interval]


def shown_metrics(kind: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics that a leaderboard of this kind of task shows, the one that ranks first."""
    if kind != "regression":
        return _SHOWN[kind]
    if len(classes) == 1:
        return ("rmse", f"cc/{classes[0]}", f"mae/{classes[0]}", "sagr")
    return ("rmse", *(f"cc/{name}" for name in classes), "sagr")


def metric_title(name: str) -> str:
    """Return a metric's name as people write it: ``cc/valence`` is "Pearson r, valence"."""
    base, _, output = name.partition("/")
    title = _TITLES.get(base, base.replace("_", " "))
    return f"{title}, {output}" if output else title


def verdict_words(row: Row, metric: str) -> str:
    """Say in one phrase what the interval of *row* allows one to say beside the majority baseline."""
    if row.head == "dummy":
        return "this is the baseline"
    if row.verdict == "undefined" or row.baseline is None:
        return "no comparison: a number is undefined"
    return {
        "better": f"better than the majority baseline ({row.baseline:.3f})",
        "worse": f"worse than the majority baseline ({row.baseline:.3f})",
        "unclear": f"not shown to beat the majority baseline: the interval covers its {row.baseline:.3f}",
    }[row.verdict]


def boards(runs: Iterable[Run]) -> list[Board]:
    """Sort runs onto boards.

    Two runs share a board only if corpus, task, split and the scored images with their labels are the same.

    Parameters
    ----------
    runs : iterable of Run

    Returns
    -------
    list of Board
        By corpus and task.
    """
    sets: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        report = run.report
        part = best_part(report["metrics"])
        scored = report.get("part_digests", {}).get(part, "")
        key = (report.get("corpus", ""), report["task"], report.get("split", ""), part, scored)
        sets.setdefault(key, []).append(run)
    return [_board(members) for _, members in sorted(sets.items())]


def _board(runs: Sequence[Run]) -> Board:
    report = runs[0].report
    part = best_part(report["metrics"])
    shown = shown_metrics(report["kind"], report["classes"])
    sign = -1 if greater_is_better(shown[0]) else 1
    rows = sorted(
        (_row(run, part, shown[0]) for run in runs),
        key=lambda row: (sign * (row.metrics[shown[0]]["value"] or 0.0), row.name),
    )
    return Board(
        corpus=report.get("corpus", ""),
        task=report["task"],
        kind=report["kind"],
        split=report.get("split", ""),
        part=part,
        n_images=int(report.get(f"n_{part}", 0)),
        shown=shown,
        rows=tuple(rows),
        baseline=report["baselines"]["majority"][part],
    )


def _row(run: Run, part: str, metric: str) -> Row:
    report = run.report
    ours = {name: report["metrics"][part].get(name, _UNDEFINED) for name in report["metrics"][part]}
    majority = report["baselines"]["majority"][part].get(metric, _UNDEFINED)
    head, name = report["head"], run.folder.resolve().name
    return Row(
        name=head if name == head else f"{name} ({head})",
        head=head,
        folder=run.folder.as_posix(),
        metrics=ours,
        verdict=verdict(metric, ours[metric], majority),
        baseline=majority["value"],
        n_features=int(report.get("n_features", 0)),
        blocks=tuple(report.get("blocks", ())),
        seed=int(report.get("seed", 0)),
        warnings=tuple(report.get("warnings", ())),
    )


def as_json(found: Iterable[Board]) -> list[dict[str, Any]]:
    """Return boards as plain values."""
    return [asdict(board) for board in found]


def as_text(board: Board) -> str:
    """Lay out one board as lines of text, the majority baseline as its last row.

    Parameters
    ----------
    board : Board

    Returns
    -------
    str
    """
    title = f"{board.corpus} · {board.task} ({board.kind}) · {board.n_images} {board.part} images, split {board.split}"
    table = [["run", *(metric_title(name) for name in board.shown), "beside the baseline"]]
    for row in board.rows:
        mark = " !" if row.warnings else ""
        cells = [interval_text(row.metrics.get(name, _UNDEFINED)) for name in board.shown]
        table.append([row.name + mark, *cells, _short(row)])
    table.append(["majority", *(interval_text(board.baseline.get(name, _UNDEFINED)) for name in board.shown), ""])
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    notes = dict.fromkeys(text for row in board.rows for text in row.warnings)
    return "\n".join([title, *(f"  {line}" for line in lines), *(f"  ! {note}" for note in notes)])


def interval_text(interval: Interval) -> str:
    """Write an interval: ``0.612 [0.540, 0.683]``; a dash where it is undefined."""
    value, low, high = interval["value"], interval["low"], interval["high"]
    if value is None:
        return "–"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _short(row: Row) -> str:
    if row.head == "dummy":
        return "is the baseline"
    words = {"better": "better", "worse": "worse", "unclear": "not shown to differ", "undefined": "undefined"}
    return words[row.verdict]
