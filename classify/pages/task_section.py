"""What the page shows of one board: a summary in words, the leaderboard, pairs, the data, and each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from classify.evaluation.baselines import BASELINES
from classify.evaluation.comparison import holm
from classify.evaluation.metrics import greater_is_better
from classify.pages.ablation import tried_words
from classify.pages.datacard import data_card, without_duplicates
from classify.pages.diagrams import ablation_plot
from classify.pages.findings import ablations_of, audit_of
from classify.pages.gallery import doubtful_labels, duplicate_pairs
from classify.pages.leaderboard import (
    STANDINGS,
    Board,
    clean_title,
    distinct_metrics,
    interval_text,
    metric_title,
    missing_intervals,
    standing_words,
    winners_words,
)
from classify.pages.pairs import LEVEL, pairs
from classify.pages.pictures import Pictures
from classify.pages.plots import interval_plot
from classify.pages.run_section import run_details
from classify.runs.folder import Run
from classify.runs.report_json import UNDEFINED

__all__ = ["board_section"]

_KINDS = {"single": "one class an image", "multi": "any number of classes an image", "regression": "values"}
MAX_CLASSES = 50  # that are named in a title
MAX_SUBSETS = 20  # of an ablation, in its figure


def board_section(
    board: Board, runs: Mapping[str, Run], *, anchor: str, repeated: bool, pictures: Pictures
) -> dict[str, Any]:
    """Put together everything about one board."""
    ours = [runs[row.folder] for row in board.rows]
    first, shared, span = ours[0].report, _shared_warnings(board), _span(board)
    baseline, audit = board.baseline[board.shown[0]], audit_of(ours)
    return {
        "board": board,
        "anchor": anchor,
        "label": f"{board.task} ({board.n_images} images)" if repeated else board.task,
        "repeated": repeated,
        "kind": _KINDS[board.kind] + ", " + _listed(first["classes"]),
        "source": "" if first["source"] == "unknown" else first["source"],
        "lower": [name for name in board.shown if not greater_is_better(name)],
        "warnings": shared,
        "summary": _summary(board),
        "cautions": _cautions(board, _first(board, ours), audit),
        "notes": missing_intervals(board),
        "bar": interval_plot(board.rows[0].metrics[board.shown[0]], baseline["value"], span),
        "baselines": _baselines(board, span),
        "pairs": pairs(board, ours, n_resamples=1000) if len(ours) > 1 else [],
        "card": data_card(ours, board, audit),
        "clean": without_duplicates(ours, board, audit),
        "audit": audit,
        "doubted": doubtful_labels(audit, pictures),
        "duplicates": duplicate_pairs(audit, pictures),
        "ablations": [_ablation(found) for found in ablations_of(ours)],
        "rows": [
            {
                "row": row,
                "clean": clean_title(row.crossing) if row.crossing else "",
                "anchor": f"{anchor}-run-{i}",
                "mark": STANDINGS[row.standing],
                "metrics": {name: row.metrics[name] for name in distinct_metrics(row.metrics, first["classes"])},
                "bar": interval_plot(row.metrics[board.shown[0]], baseline["value"], span),
                "verdict": standing_words(row, board),
                "details": run_details(runs[row.folder], shared, pictures),
            }
            for i, row in enumerate(board.rows, start=1)
        ],
    }


def _listed(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - MAX_CLASSES} more" if len(classes) > MAX_CLASSES else ""
    return ", ".join(classes[:MAX_CLASSES]) + more


def _shared_warnings(board: Board) -> list[str]:
    """What every run of a board warns of: said once, above it."""
    return [text for text in board.rows[0].warnings if all(text in row.warnings for row in board.rows)]


def _span(board: Board) -> tuple[float, float]:
    """The common scale of a board's bars: all its intervals and baselines, with a little air."""
    metric = board.shown[0]
    found = [*(row.metrics for row in board.rows), board.baseline, *board.others.values()]
    ends = [end for one in found for key in UNDEFINED if (end := one.get(metric, UNDEFINED).get(key)) is not None]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    air = 0.05 * (high - low) or 0.05
    return low - air, high + air


def _baselines(board: Board, span: tuple[float, float]) -> list[dict[str, Any]]:
    metric = board.shown[0]
    majority = board.baseline[metric]["value"]
    return [
        {
            "name": name,
            "what": BASELINES.get(name, ""),
            "metrics": found,
            "bar": interval_plot(found[metric], majority, span) if metric in found else "",
        }
        for name, found in {"majority": board.baseline, **board.others}.items()
    ]


def _first(board: Board, runs: Sequence[Run]) -> Run:
    """The first run of a board that is no baseline, or the first of all."""
    heads = [run for row, run in zip(board.rows, runs, strict=True) if row.standing != "baseline"]
    return (heads or list(runs))[0]


def _summary(board: Board) -> str:
    """The board in a few sentences, no better than its verdicts."""
    metric, rows = board.shown[0], [row for row in board.rows if row.standing != "baseline"]
    if not rows:
        return "Only the baseline itself was run."
    best = rows[0]
    said = [f"{best.name} ranks first, {metric_title(metric)} {interval_text(best.metrics[metric])}: "]
    said.append(standing_words(best, board) + ". ")
    wholly = [row.name for row in rows if row.standing == "better"]
    if len(rows) > 1:
        count = len(wholly) or "None"
        said.append(f"{count} of {len(rows)} heads are shown to know something of the images by every metric shown. ")
    said.append(winners_words(board))
    return "".join(said).strip()


def _cautions(board: Board, run: Run, audit: Mapping[str, Any] | None) -> list[str]:
    """What stands between a number and belief in it; *run* is the first of the board that is no baseline."""
    texts = []
    names, metric = board.others.get("id-only", {}), board.shown[0]
    judged = run.report.verdicts.get(board.part, {})
    heads = [row for row in board.rows if row.standing != "baseline"]
    if heads and names.get(metric, {}).get("value") is not None and judged.get("over_id_only"):
        said = f"A tree that sees only file names and their order reaches {metric_title(metric)} "
        said += interval_text(names[metric])
        if not _above(judged["over_id_only"], board.shown):
            texts.append(f"{said}; {heads[0].name} isn't shown to be better than that by any metric of the table.")
        elif judged["id_only"].get(metric, {}).get("verdict") == "better":
            texts.append(
                f"{said}, better than its own answers dealt at random: the way in which the corpus was gathered tells "
                "of its labels."
            )
    if audit:
        across = audit["duplicates"]["across"].get(f"{board.part} in train", {"n_images": 0})
        if across["n_images"]:
            n = across["n_images"]
            have = "image has a near-duplicate" if n == 1 else "images have a near-duplicate"
            texts.append(f"{n} of {board.n_images} {board.part} {have} among the training images.")
    return texts


def _above(over: Mapping[str, Mapping[str, float | None]], shown: Sequence[str]) -> list[str]:
    """The metrics by which a head is better than file names alone, corrected for their number."""
    known = [name for name in shown if over.get(name, {}).get("p") is not None]
    corrected = holm([float(over[name]["p"] or 0.0) for name in known])
    return [
        name
        for name, p in zip(known, corrected, strict=True)
        if p <= LEVEL and (float(over[name]["value"] or 0.0) > 0) == greater_is_better(name)
    ]


def _ablation(found: Mapping[str, Any]) -> dict[str, Any]:
    metric = found["metric"]
    rows = [{"blocks": subset["blocks"], **subset["metrics"][metric]} for subset in found["subsets"][:MAX_SUBSETS]]
    blocks = list(dict.fromkeys(name for subset in found["subsets"] for name in subset["blocks"]))
    gains = [{"block": block, **gain} for block, gain in found["gains"].items()]
    return {
        "figure": ablation_plot(rows, sorted(blocks), metric_title(metric)),
        "metric": metric,
        "head": found["head"],
        "folds": found["folds"],
        "n_images": found["n_images"],
        "n_subsets": len(found["subsets"]),
        "tried": tried_words(found),
        "n_shown": len(rows),
        "crossing": found["crossing"]["words"] if found["crossing"] else "",
        "gains": gains,
    }
