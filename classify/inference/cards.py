"""The model card and the data card of a bundle, in Markdown.

Every value of a card goes through `_card`, which escapes what Markdown or HTML would act on.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from classify.data.kinds import kind_of
from classify.evaluation.wording import interval_text, metric_title
from classify.pages.leaderboard import leaderboards, missing_intervals, standing_words
from classify.runs.folder import Run
from classify.runs.report_json import UNDEFINED, Report
from features_store.passport import weights as passport_weights


class _Markdown(str):
    """Text that is Markdown."""


class _Escaping(string.Formatter):
    """Writes each value into a template on one line, escaped."""

    def format_field(self, value: Any, spec: str) -> str:
        if isinstance(value, _Markdown):
            return str(value)
        flat = " ".join(format(value, spec).split())
        flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return re.sub(r"([\\`*\[\]|#])", r"\\\1", flat)


def _card(template: str, **values: Any) -> _Markdown:
    return _Markdown(_Escaping().vformat(template, (), values))


def _joined(values: Sequence[Any], between: str = ", ") -> _Markdown:
    return _Markdown(between.join(_card("{value}", value=value) for value in values))


def model_card_text(run: Run) -> str:
    """Return the model card of a run (after Mitchell et al. 2019): what it does, on what, how well, and its limits."""
    report, part, task = run.report, run.report.judged_part, run.task
    scale = "" if task.range is None else f" on a scale from {task.range[0]:g} to {task.range[1]:g}"
    about = {
        **{name: report[name] for name in ("task", "head", "created", "n_features", "n_train")},
        "kind": kind_of(task).predicted_as,
        "classes": _joined(task.classes),
        "scale": scale,
        "parameters": "an uncounted number of" if report.n_parameters is None else f"{report.n_parameters:,}",
    }
    rows = []
    for name, found in report.metrics[part].items():
        beside = (baseline.get(part, {}).get(name, UNDEFINED) for baseline in report.baselines.values())
        rows.append([metric_title(name), *map(interval_text, (found, *beside))])
    lines = [
        _card("# Model card: {task} by {head}", **about),
        _card("Predicts the task {task} for an image: {kind} {classes}{scale}. Made {created}.", **about),
        "## What it is",
        _card(
            "A head of kind `{head}` with {parameters} parameters over {n_features} features of frozen encoders, "
            "trained on {n_train} images.",
            **about,
        ),
        *[f"- {_block_line(name, passport)}" for name, passport in report.passports.items()],
        _card("## How well it does ({part} images: {n})", part=part, n=report.n_images(part)),
        _table(["metric", "this head", *report.baselines], rows),
        _card(
            "Intervals: {method}, 95%, over {resampled}. Read each value beside its baselines.",
            method=report.intervals["method"],
            resampled=report.intervals["resampled"],
        ),
        *_verdict(run),
        "## Calibration and thresholds",
        _calibration(run),
    ]
    if run.postprocessing.thresholds:
        pairs = zip(task.classes, run.postprocessing.thresholds, strict=True)
        given = _joined([f"{name} {at:.3f}" for name, at in pairs])
        lines.append(f"A class is given from this (uncalibrated) probability on, chosen on validation images: {given}.")
    lines += ["## Limits", *[f"- {text}" for text in _limits(report)]]
    return "\n\n".join(lines).replace("\n\n- ", "\n- ") + "\n"


def _verdict(run: Run) -> list[str]:
    """Return the verdict on the head, and why numbers have no interval."""
    (board,) = leaderboards([run])
    words = standing_words(board.rows[0], board)
    return [_card("{words}", words=" ".join([f"{words[:1].upper()}{words[1:]}.", *missing_intervals(board)]))]


def _block_line(name: str, passport: Mapping[str, Any]) -> str:
    weights = passport_weights(passport)
    network = passport.get("architecture", passport.get("encoder", "not recorded"))
    source = f", weights {weights['source']}" if weights.get("source") else ""
    source += f", SHA-256 {weights['sha256']}" if source and weights.get("sha256") else ""
    return _card("`{name}`: {network}{source}", name=name, network=str(network), source=source)


def _calibration(run: Run) -> str:
    found = run.postprocessing.calibration
    if found is None:
        return _card("Its probabilities are not calibrated: {reason}.", reason=run.postprocessing.reason)
    how = f"a temperature of {found.temperature:.3f}" if found.temperature else "isotonic regression"
    return f"Its probabilities are calibrated by {how}, fitted on {found.n_images} validation images."


def _limits(report: Report) -> list[str]:
    limits = [
        "It was evaluated on images of its own corpus only; on others it may do worse.",
        "It predicts the labels that annotators gave on average; it does not know what a person feels.",
    ]
    return [_card("{text}", text=text) for text in (*limits, *report.warnings)]


def data_card_text(run: Run) -> str:
    """Return the data card of a run: corpus, labels, counts by part and class, images left out."""
    report = run.report
    reader, counts = report.reader or {}, report.counts
    parts = list(counts)
    dropped = [
        f"{count} {part} images ({reason})"
        for part, by_reason in report.dropped.items()
        for reason, count in by_reason.items()
    ]
    options = json.dumps(reader.get("options") or {}, ensure_ascii=False)
    facts = {
        "Corpus": f"{report.corpus}, read by {reader.get('name') or 'not recorded'}",
        "Options of its reader": options,
        "Labels": report.source or "source not recorded",
        "Split": f"{report.split}; {report.unused} images unused",
        "Left out": "; ".join(dropped) or "none",
        "Index (SHA-256 over the ids)": report.index_digest,
    }
    listed = [_card("- {name}: {fact}", name=name, fact=fact) for name, fact in facts.items()]
    rows = [["all", *(str(report.n_images(part)) for part in parts)]]
    rows += [[name, *(_count(counts[part][name]) for part in parts)] for name in report.classes]
    title = _card("# Data card: {task}", task=report.task)
    facts_text = "\n".join([*listed, "- No image and no vector is in this bundle."])
    return "\n\n".join([title, facts_text, _table(["images", *parts], rows)]) + "\n"


def _count(found: Mapping[str, float]) -> str:
    return str(found["n"]) if "n" in found else f"{found['mean']:.3f} ± {found['std']:.3f}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {_joined(line, ' | ')} |" for line in (titles, *rows)]
    return "\n".join([lines[0], f"| {' | '.join(['---'] * len(titles))} |", *lines[1:]])
