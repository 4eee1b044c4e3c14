"""What travels with a head so that a stranger can judge it: a model card and a data card, in Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from classify.output.leaderboard import boards, interval_text, metric_title, missing_intervals, standing_words
from classify.output.plots import best_part
from classify.runs import Run

__all__ = ["data_card_text", "model_card_text"]


def model_card_text(run: Run) -> str:
    """Return the model card of a run (after Mitchell et al. 2019): what it does, on what, how well, and its limits."""
    report, adjustment = run.report, run.adjustment
    part = best_part(report["metrics"])
    scale = f" on a scale from {report['range'][0]:g} to {report['range'][1]:g}" if report.get("range") else ""
    lines = [
        f"# Model card: {_plain(report['task'])} by {_plain(report['head'])}",
        f"Answers the task {_plain(report['task'])} for an image: {_KINDS[report['kind']]} "
        f"{', '.join(_plain(name) for name in report['classes'])}{scale}. Made {report['created']}.",
        "## What it is",
        f"A head of kind `{_plain(report['head'])}` with {_number(report.get('n_parameters'))} parameters over "
        f"{report['n_features']} features of frozen encoders, trained on {report['n_train']} images.",
        *[f"- {_block_line(name, passport)}" for name, passport in report["passports"].items()],
        f"## How well it does ({part} images: {report.get(f'n_{part}', 0)})",
        _table(
            ["metric", "this head", *report["baselines"]],
            [
                [
                    metric_title(name),
                    interval_text(found),
                    *(_beside(of, part, name) for of in report["baselines"].values()),
                ]
                for name, found in report["metrics"][part].items()
            ],
        ),
        f"Intervals: {report['intervals']['method']}, 95%, over {report['intervals']['resampled']}. "
        "A result that isn't beside its baseline says nothing.",
        *_verdict(run),
        "## Calibration and thresholds",
        _calibration(run),
    ]
    if adjustment.thresholds:
        given = ", ".join(
            f"{_plain(name)} {at:.3f}" for name, at in zip(report["classes"], adjustment.thresholds, strict=True)
        )
        lines.append(f"A class is given from this (uncalibrated) probability on, chosen on validation images: {given}.")
    lines += ["## Limits", *[f"- {text}" for text in _limits(report)]]
    return "\n\n".join(lines).replace("\n\n- ", "\n- ") + "\n"


_KINDS = {"single": "one of", "multi": "any of", "regression": "a value of"}


def _verdict(run: Run) -> list[str]:
    """Say what the head is shown to know, and why numbers have no interval."""
    (board,) = boards([run])
    words = standing_words(board.rows[0], board)
    return [" ".join([f"{words[:1].upper()}{words[1:]}.", *map(_plain, missing_intervals(board))])]


def _beside(baseline: Mapping[str, Any], part: str, name: str) -> str:
    found = baseline.get(part, {}).get(name)
    return interval_text(found) if found else "–"


def _block_line(name: str, passport: Mapping[str, Any]) -> str:
    weights = passport.get("weights") or {}
    digest = f", SHA-256 {weights['sha256']}" if weights.get("sha256") else ""
    source = f", weights {_plain(weights['source'])}{digest}" if weights.get("source") else ""
    return f"`{_plain(name)}`: {_plain(passport.get('architecture', passport.get('encoder', 'not recorded')))}{source}"


def _calibration(run: Run) -> str:
    found = run.adjustment.calibration
    if found is None:
        return f"Its probabilities are not calibrated: {_plain(run.adjustment.reason)}."
    how = f"a temperature of {found.temperature:.3f}" if found.temperature else "isotonic regression"
    return f"Its probabilities are calibrated by {how}, fitted on {found.n_images} validation images."


def _limits(report: Mapping[str, Any]) -> list[str]:
    limits = [
        "It was judged on images of its own corpus; on others it may do worse, and nobody has looked.",
        "It tells what people were said to feel or to see, on average; it doesn't know what a person feels.",
    ]
    return limits + [_plain(text) for text in report["warnings"]]


def data_card_text(run: Run) -> str:
    """Return the data card of a run: corpus, labels, counts by part and class, what is left out."""
    report = run.report
    reader = report.get("reader") or {}
    counts = report.get("counts", {})
    parts = list(counts)
    dropped = [
        f"{count} {part} images ({_plain(reason)})"
        for part, counts in report.get("dropped", {}).items()
        for reason, count in counts.items()
    ]
    options = json.dumps(reader.get("options") or {}, ensure_ascii=False)
    facts = [
        f"Corpus: {_plain(report.get('corpus', ''))}, read by {_plain(reader.get('name', 'not recorded'))}",
        f"Options of its reader: {_plain(options)}",
        f"Labels: {_plain(report.get('source') or 'source not recorded')}",
        f"Split: {_plain(report.get('split', ''))}; {report.get('unused', 0)} images unused",
        f"Left out: {'; '.join(dropped) or 'none'}",
        f"Index (SHA-256 over the ids): {report.get('index_digest', '')}",
        "No image and no vector is in this bundle.",
    ]
    rows = [["all", *(str(report[f"n_{part}"]) for part in parts)]]
    rows += [[_plain(name), *(_count(counts[part][name]) for part in parts)] for name in report["classes"]]
    title = f"# Data card: {_plain(report['task'])}"
    return "\n\n".join([title, "\n".join(f"- {fact}" for fact in facts), _table(["images", *parts], rows)]) + "\n"


def _count(found: Mapping[str, float]) -> str:
    return str(found["n"]) if "n" in found else f"{found['mean']:.3f} ± {found['std']:.3f}"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "an uncounted number of"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: Any) -> str:
    """Return text from a corpus on one line, without what Markdown or HTML would act on."""
    flat = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|#])", r"\\\1", flat)
