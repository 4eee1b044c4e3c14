"""What the page shows of one run beside its line on the leaderboard: figures, tables, errors, facts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from classify.data.kinds import kind_of
from classify.evaluation.wording import metric_title
from classify.figures.charts import (
    MAX_GRID,
    confusion_chart,
    learning_chart,
    loss_chart,
    plane_chart,
    reliability_chart,
    scatter_chart,
)
from classify.pages.pictures import Pictures, explained_images, surest_errors
from classify.preset import presets
from classify.runs.findings_json import CURVE, read_curve
from classify.runs.folder import Run
from classify.runs.report_json import UNDEFINED, Report
from classify.studies.reproduction import paper_numbers

IN_SAMPLE = "Calibration, thresholds and stopping saw these images; the right-hand column is no evidence."
Figures = list[tuple[str, str]]


def run_details(run: Run, shown_above: Sequence[str], pictures: Pictures, *, empty: int = 0) -> dict[str, Any]:
    """Put together everything about one run; the recall of a class without images is *empty*."""
    report = run.report
    part = report.judged_part
    classes = _classes(run, part, empty)
    return {
        "part": part,
        "warnings": [text for text in report.warnings if text not in shown_above],
        "parameters": json.dumps(report.parameters, indent=2, ensure_ascii=False),
        "passports": {
            name: json.dumps(passport, indent=2, ensure_ascii=False) for name, passport in report.passports.items()
        },
        "figures": [*_results(run, part), *_training(run), *_reliability(report, part)],
        "classes": classes,
        "averages": _averages(classes),
        "counted": kind_of(run.task).independent,
        "baselines": {name: found.get(part, {}) for name, found in report.baselines.items()},
        "calibration": _calibration_rows(report, part),
        "calibration_note": _calibration_note(report, part),
        "notes": run_notes(report, part),
        "paper": _beside_the_paper(run),
        "thresholds": _thresholds(report, part),
        "in_sample": IN_SAMPLE if part != "test" else "",
        "errors": surest_errors(run.task, run.part(part), pictures),
        "explanations": explained_images(run, pictures),
        "facts": _facts(report),
    }


def _beside_the_paper(run: Run) -> dict[str, Any] | None:
    """Return the numbers of the paper that a run follows, with ours, and what it leaves open; None of other runs."""
    report = run.report
    preset = presets().get(report.preset or "")
    if preset is None or report.transfer:
        return None
    paper = preset.paper
    metric, part = paper["metric"], paper["part"]
    ours = report.metrics.get(part, {}).get(metric, UNDEFINED)["value"]
    rows = {f"{metric_title(metric)} ({part})": {"paper": paper.get("value"), "ours": ours}}
    return {
        "citation": paper["citation"],
        "note": paper.get("note", ""),
        "rows": {**rows, **paper_numbers(preset, run)},
    }


def _classes(run: Run, part: str, empty: int) -> list[dict[str, Any]]:
    """Return the rows of the table by class; of a multi-label task with the confusion counts of each label."""
    rows, kind = [dict(row) for row in run.report.per_class.get(part, [])], kind_of(run.task)
    if kind.independent:
        predictions = run.part(part)
        truth, predicted = kind.indicators(predictions.y_true), kind.decided(predictions.y_score)
        for k, row in enumerate(rows):
            counts = {"found": truth[:, k] & predicted[:, k], "missed": truth[:, k] & ~predicted[:, k]}
            counts["false"] = ~truth[:, k] & predicted[:, k]
            row.update({name: int(which.sum()) for name, which in counts.items()})
    for row in rows:
        row.update({} if row["support"] else {"recall": float(empty)})
    return rows


def _averages(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Average the table by class over the classes, and over the classes by their images."""
    known = [row for row in rows if None not in (row["precision"], row["recall"], row["f1"])]
    weights = {"macro average": [1] * len(known), "weighted average": [row["support"] for row in known]}
    found = []
    for name, weight in weights.items():
        if sum(weight) and len(known) == len(rows):
            pairs = [(row, share / sum(weight)) for row, share in zip(known, weight, strict=True)]
            means = {key: sum(row[key] * share for row, share in pairs) for key in ("precision", "recall", "f1")}
            found.append({"class": name, "support": sum(row["support"] for row in known), **means})
    return found


def _results(run: Run, part: str) -> Figures:
    task, report = run.task, run.report
    if kind_of(task).exclusive:
        grid = len(task.classes) <= MAX_GRID
        caption = "Confusion: the share of each true class, and below it the count" if grid else "Strongest confusions"
        matrix = report.confusion.get(part)
        return [(caption, confusion_chart(matrix, task.classes))] if matrix else []
    if kind_of(task).has_classes:
        return []
    figures = []
    predictions = run.part(part)
    truth, predicted = (a.reshape(len(a), -1) for a in (predictions.y_true, predictions.y_score))
    if len(task.classes) == 2:
        figure = plane_chart(truth, predicted, names=(task.classes[0], task.classes[1]), span=task.range)
        figures.append(("The true place of each image, and the predicted one", figure))
    for i, name in enumerate(task.classes):
        figure = scatter_chart(truth[:, i], predicted[:, i], name=name, span=task.range)
        figures.append((f"{name} of each image; the slanted line is agreement", figure))
    return figures


def _training(run: Run) -> Figures:
    figures, report = [], run.report
    if len(report.history) > 1:
        figures.append(("Loss during training", loss_chart(report.history)))
        if any(row.get("accuracy") is not None for row in report.history):
            figures.append(("Accuracy during training", loss_chart(report.history, "accuracy")))
    learned = read_curve(run.folder / CURVE)
    if learned:
        majority = report.baselines["majority"].get(learned["part"], {}).get(learned["metric"], {}).get("value")
        figure = learning_chart(learned["points"], metric_title(learned["metric"]), majority)
        caption = (
            "More training images: mean of the repeats with their range, the last point a single fit; band: the 95% "
            "intervals of single fits over test images, averaged (no interval of the mean); dashed: majority"
        )
        figures.append((caption, figure))
    return figures


def _reliability(report: Report, part: str) -> Figures:
    state = _calibrated(report, part)
    if not state or not state["before"]["bins"]:
        return []
    after = state["after"]["bins"] if state["after"] else None
    caption = "Reliability: on the dotted line, the observed frequency equals the predicted probability"
    return [(caption, reliability_chart(state["before"]["bins"], after))]


def _calibrated(report: Report, part: str) -> dict[str, Any] | None:
    found = report.calibration
    return None if found is None else found["parts"].get(part)


def _calibration_rows(report: Report, part: str) -> list[dict[str, Any]]:
    state = _calibrated(report, part)
    if not state:
        return []
    names = {
        "ece": "expected calibration error",
        "ece_of_exact": "… of a perfect head, on average",
        "ece_of_exact_95": "… of a perfect head, at most in 95 of 100 parts",
        "brier": "Brier score",
        "log_loss": "log loss",
    }
    return [
        {"name": name, "before": state["before"][key], "after": (state["after"] or {}).get(key)}
        for key, name in names.items()
        if state["before"].get(key) is not None
    ]


def _calibration_note(report: Report, part: str) -> str:
    found = report.calibration
    if not found:
        return ""
    words = [f"Not calibrated: {found['reason']}."]
    if found["method"] is not None:
        how = "isotonic regression"
        if found["temperature"]:
            low, high = found.get("temperature_interval") or (None, None)
            how = f"temperature {found['temperature']:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low and high else "")
            if low and high:
                how += ": the head was too sure of itself" if low > 1 else ": the head was not sure enough"
        words = [f"Calibrated by {how}; fitted on the {found['n_images']} validation images."]
    before = (found.get("parts") or {}).get(part, {}).get("before") or {}
    if before.get("ece_of_exact_95") is not None:
        ece, most = before["ece"], before["ece_of_exact_95"]
        shown = "not shown to be miscalibrated" if ece <= most else "shown to be miscalibrated"
        n = report.n_images(part)
        words.append(f"ECE {ece:.3f}; a perfect head shows up to {most:.3f} on {n} images: {shown}.")
    return " ".join(words)


def run_notes(report: Report, part: str) -> list[str]:
    """Say beside the numbers of a run how it was chosen, and what its images have been used for."""
    notes, tried = [], int(report.n_tried or 1)
    if tried > 1:
        free = part == "test" and report.chosen_on != "test"
        rest = "only the test value is free of that choice" if free else "no value free of that choice was computed"
        notes.append(f"Best of {tried} on the images that chose it; {rest}.")
    notes += _search_notes(report)
    if part != "test":
        notes.append(f"Stopping, calibration and thresholds saw these {part} images.")
    share = (report.midpoint or {}).get(part)
    if share:
        notes.append(f"SAGR: {share:.0%} of labels lie on the midpoint and count as wrong.")
    reason = report.verdicts.get(part, {}).get("reason")
    return [*notes, reason] if reason else notes


def _search_notes(report: Report) -> list[str]:
    """Say what the head chose for itself, and what each block weighs in it."""
    found = report.search
    if not found:
        return []
    names = [name for name in ("C", "alpha", "gamma", "k", "sharpness") if found.get(name) is not None]
    chosen, best = ", ".join(f"{name} {found[name]:.3g}" for name in names), found.get("inner_loss_of_best")
    text = f"Best of {found['n_tried']} candidates by inner folds of the training images"
    text += f", loss {found['inner_loss']:.3f} there"
    text += (f" (best single one {best:.3f})" if best is not None else "") + (f": {chosen}" if chosen else "")
    weighed = ", ".join(
        f"{name} {one['weight']:.0%}" + (f" ({', '.join(one['maps'])})" if one["maps"] else "")
        for name, one in found.get("blocks", {}).items()
    )
    weighed += f", the mean label {found['mean']:.0%}" if weighed and found.get("mean") else ""
    return [f"{text}.", *([f"What each block weighs: {weighed}."] if weighed else [])]


def _thresholds(report: Report, part: str) -> dict[str, Any] | None:
    found = report.thresholds
    if not found or part not in found["metrics"]:
        return None
    names = ("weighted_f1", "macro_f1", "micro_f1", "subset_accuracy")
    at_half, moved = report.metrics[part], found["metrics"][part]
    rows = [
        {"name": name, "half": at_half[name], "moved": moved[name]}
        for name in names
        if name in moved and name in at_half
    ]
    return {"values": found["values"], "rows": rows}


def _facts(report: Report) -> list[tuple[str, str]]:
    interval = report.intervals
    parameters = report.n_parameters
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return [
        ("Features", f"{report.n_features} from {', '.join(report.blocks)}"),
        ("Parameters", f"{parameters:,}" if parameters is not None else "not counted"),
        ("Intervals", f"{interval['method']}, {interval['resamples']} resamples of {interval['resampled']}"),
        ("Seed", str(report.seed)),
        ("Time to fit", f"{report.timings['fit']:.1f} s" if "fit" in report.timings else "not recorded"),
        ("Made", f"{report.created} with {versions}"),
    ]
