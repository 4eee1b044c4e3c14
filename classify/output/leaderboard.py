"""Runs side by side: one board per set of scored images, so that only comparable numbers share a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from classify.evidence.metrics import greater_is_better
from classify.evidence.verdict import Verdict, verdict
from classify.output.plots import best_part
from classify.report_json import UNDEFINED, shown_metrics
from classify.runs import Run

__all__ = [
    "STANDINGS",
    "Board",
    "Row",
    "as_json",
    "as_text",
    "boards",
    "distinct_metrics",
    "interval_text",
    "metric_title",
    "shown_metrics",
    "standing_words",
]

Interval = Mapping[str, float | None]
Standing = Literal["better", "mixed", "unclear", "worse", "undefined", "baseline"]
"""How a run stands beside the majority baseline by all metrics that its board shows."""

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
STANDINGS: dict[Standing, str] = {
    "better": "better",
    "mixed": "better by some metrics",
    "unclear": "not shown to beat it",
    "worse": "worse",
    "undefined": "undefined",
    "baseline": "is the baseline",
}


@dataclass(frozen=True)
class Row:
    """One run on a board: its name, its metrics with intervals, and how it stands beside its baseline."""

    name: str
    head: str
    folder: str
    metrics: Mapping[str, Interval]
    verdicts: Mapping[str, Verdict]
    standing: Standing
    n_features: int
    blocks: tuple[str, ...]
    seed: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """Runs that were scored on the same images of the same task, the best first.

    *shown* are the metrics that a table has room for; the first of them ranks. *baseline* is the majority's, *others*
    are those of chance and of the images' names.
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
    others: Mapping[str, Mapping[str, Interval]]


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
    """Say what the intervals of *row* allow one to say beside the majority baseline, metric by metric."""
    if row.standing == "baseline":
        return "this is the majority baseline"
    named: dict[str, list[str]] = {}
    for name in board.shown:
        named.setdefault(row.verdicts[name], []).append(metric_title(name))
    words = {
        "better": "better than the majority baseline by",
        "unclear": "not shown to beat the majority baseline by",
        "worse": "worse than the majority baseline by",
    }
    said = [f"{text} {', '.join(named[key])}" for key, text in words.items() if key in named]
    return "; ".join(said) or "no comparison with the majority baseline: a number is undefined"


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
        scored = report["part_digests"].get(part, "")
        key = (report["corpus"], report["task"], report["kind"], report["split"], part, scored)
        sets.setdefault(key, []).append(run)
    return [_board(members) for _, members in sorted(sets.items())]


def _board(runs: Sequence[Run]) -> Board:
    report = runs[0].report
    part = best_part(report["metrics"])
    shown = shown_metrics(report["kind"], report["classes"])
    sign = -1 if greater_is_better(shown[0]) else 1
    rows = sorted(
        (_row(run, part, shown) for run in runs),
        key=lambda row: (sign * (row.metrics[shown[0]]["value"] or 0.0), row.name),
    )
    return Board(
        corpus=report["corpus"],
        task=report["task"],
        kind=report["kind"],
        split=report["split"],
        part=part,
        n_images=report[f"n_{part}"],
        shown=shown,
        rows=tuple(rows),
        baseline=report["baselines"]["majority"][part],
        others={n: found[part] for n, found in report["baselines"].items() if n != "majority" and part in found},
    )


def _standing(verdicts: Sequence[Verdict]) -> Standing:
    defined = [one for one in verdicts if one != "undefined"]
    if not defined:
        return "undefined"
    if "better" in defined:
        return "better" if set(defined) == {"better"} else "mixed"
    return "worse" if set(defined) == {"worse"} else "unclear"


def _row(run: Run, part: str, shown: Sequence[str]) -> Row:
    report = run.report
    ours = report["metrics"][part]
    majority = report["baselines"]["majority"][part]
    verdicts = {key: verdict(key, found, majority.get(key, UNDEFINED)) for key, found in ours.items()}
    head, name = report["head"], run.folder.resolve().name
    return Row(
        name=head if name == head else f"{name} ({head})",
        head=head,
        folder=run.folder.as_posix(),
        metrics=ours,
        verdicts=verdicts,
        standing="baseline" if head == "dummy" else _standing([verdicts[key] for key in shown]),
        n_features=report["n_features"],
        blocks=tuple(report["blocks"]),
        seed=report["seed"],
        warnings=tuple(report["warnings"]),
    )


def as_json(found: Iterable[Board]) -> list[dict[str, Any]]:
    """Return boards as plain values."""
    return [asdict(board) for board in found]


def as_text(board: Board) -> str:
    """Lay out one board as lines of text, the baselines as its last rows.

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
        cells = [interval_text(row.metrics.get(name, UNDEFINED)) for name in board.shown]
        table.append([row.name + mark, *cells, STANDINGS[row.standing]])
    table.append(["majority", *(interval_text(board.baseline.get(name, UNDEFINED)) for name in board.shown), ""])
    for other, found in board.others.items():
        table.append([other, *(interval_text(found.get(name, UNDEFINED)) for name in board.shown), ""])
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
