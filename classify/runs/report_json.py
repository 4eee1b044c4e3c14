"""The schema of the report of a run: the one way in for ``report.json``.

What comes out has every name that this program looks up, each of its type, with finite numbers and sizes that agree:
the pages, tables and cards index it without asking again. Names that this version doesn't know pass as they are.
Reports of 0.1, which have no ``format_version``, are read; what they lack is completed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classify.errors import RunError
from classify.evaluation.metrics import shown_metrics
from classify.json_file import parse_json, read_regular
from classify.json_schema import (
    Check,
    SchemaError,
    anything,
    choice,
    items,
    number,
    optional,
    record,
    table,
    text,
    whole,
    wrong,
)
from features_store.errors import FormatError
from features_store.schema import KINDS, PART_NAMES, SPLIT_SOURCES, Task

__all__ = [
    "ENDS",
    "FORMAT_VERSION",
    "REPORT",
    "SHARE",
    "UNDEFINED",
    "interval",
    "passport_weights",
    "read_report",
    "report_task",
]

REPORT = "report.json"
FORMAT_VERSION = 2
UNDEFINED: Mapping[str, float | None] = {"value": None, "low": None, "high": None}
MAX_CLASSES = 32_767  # as many codes as a label has

ENDS = {"value": optional(number()), "low": optional(number()), "high": optional(number())}
_OVER = record({"n_classes": number(), "value": number(), "low": number(), "high": number()})
_interval = record(
    {"value": ENDS["value"]},
    {
        "low": (ENDS["low"], None),
        "high": (ENDS["high"], None),
    },
)
_REMARKS: Mapping[str, Check] = {"reason": text, "over": optional(_OVER)}


def interval(value: Any, where: str) -> dict[str, Any]:
    """Take a value between two ends; both ends are there, or none is."""
    made: dict[str, Any] = _interval(value, where)
    for name in _REMARKS.keys() & made.keys():
        made[name] = _REMARKS[name](made[name], f"{where}.{name}")
    if made["value"] is None or made["low"] is None or made["high"] is None:
        made["low"] = made["high"] = None
    return made


def _parts(inner: Check) -> Check:
    whole_table = table(inner)

    def check(value: Any, where: str) -> Any:
        found = whole_table(value, where)
        for name in found:
            choice(*PART_NAMES)(name, f"a part of {where}")
        return found

    return check


SHARE = number(0, 1)
_BIN = record({"n": whole(), "said": SHARE, "true": SHARE, "low": SHARE})
_STATE = record({"bins": items(_BIN, most=1000)}, {name: (number(), 0.0) for name in ("ece", "ece_of_exact", "brier")})
_CALIBRATION = record(
    {"method": optional(text)},
    {
        "temperature": (optional(number(1e-6, 1e6)), None),
        "n_images": (whole(), 0),
        "reason": (text, ""),
        "parts": (_parts(record({"before": _STATE, "after": optional(_STATE)})), {}),
    },
)
_THRESHOLDS = record({"values": table(SHARE), "metrics": _parts(table(interval))})
_CLASS = record(
    {"class": text, "support": whole()}, dict.fromkeys(("precision", "recall", "f1"), (optional(SHARE), None))
)
_COUNT = record({}, {"n": (whole(), None), **{name: (number(), None) for name in ("mean", "std", "min", "max")}})
_EPOCH = record({"epoch": whole()}, {name: (optional(number()), None) for name in ("loss", "validation_loss")})
_INTERVALS = record({}, {"method": (text, "not recorded"), "resamples": (whole(), 0), "resampled": (text, "images")})
_JUDGED = record({"verdict": choice("better", "unclear", "worse", "undefined")}, {"p": (optional(SHARE), None)})
_OVER_NAMES = record({}, {"value": (optional(number()), None), "p": (optional(SHARE), None)})
_VERDICT = record(
    {},
    {
        "reason": (text, ""),
        "head": (table(_JUDGED), {}),
        "id_only": (table(_JUDGED), {}),
        "over_id_only": (table(_OVER_NAMES), {}),
    },
)
_CLEAN = record(
    {"n_images": whole(), "n_left_out": whole(1)}, {"metrics": (table(interval), {}), "majority": (table(interval), {})}
)
_CROSSING = record(
    {"n_groups": whole(1), "n_images": whole(1)},
    {"source": (choice(*SPLIT_SOURCES), ""), "parts": (_parts(_CLEAN), {})},
)
_UNLIKE = record({"n": whole(1), "flagged": whole(), "share": SHARE})
_NOVELTY = record(
    {},
    {
        "n_train": (whole(), 0),
        "expected": (optional(SHARE), None),
        "directions": (table(whole()), {}),
        "unmeasured": (table(text), {}),
        "reason": (text, ""),
        "parts": (_parts(_UNLIKE), {}),
    },
)
_IDENTITY = record({}, {"vectors": (table(anything), {})})
_READER = record({}, {"name": (text, ""), "options": (optional(table(anything)), None)})

_NEEDED: dict[str, Check] = {
    "task": text,
    "kind": choice(*KINDS),
    "classes": items(text, 1, MAX_CLASSES),
    "head": text,
    "metrics": _parts(table(interval)),
    "baselines": table(_parts(table(interval))),
}
_FREE: dict[str, tuple[Check, Any]] = {
    "format_version": (whole(1), 1),
    "created": (text, ""),
    "corpus": (text, ""),
    "reader": (optional(_READER), None),
    "range": (optional(items(number(), 2, 2)), None),
    "source": (text, ""),
    "parameters": (table(anything), {}),
    "n_parameters": (optional(whole()), None),
    "blocks": (items(text), []),
    "n_features": (whole(), 0),
    "split": (text, ""),
    "counts": (_parts(table(_COUNT)), {}),
    **{f"n_{part}": (whole(), 0) for part in PART_NAMES},
    "seed": (whole(), 0),
    "primary_metric": (text, ""),
    "calibration": (optional(_CALIBRATION), None),
    "thresholds": (optional(_THRESHOLDS), None),
    "intervals": (_INTERVALS, {"method": "not recorded", "resamples": 0, "resampled": "images"}),
    "per_class": (_parts(items(_CLASS, most=MAX_CLASSES)), {}),
    "confusion": (_parts(items(items(whole()))), {}),
    "history": (items(_EPOCH), []),
    "dropped": (table(table(whole())), {}),
    "unused": (whole(), 0),
    "crossing": (optional(_CROSSING), None),
    "refit": (optional(table(anything)), None),
    "preset": (optional(text), None),
    "merge": (optional(table(anything)), None),
    "novelty": (optional(_NOVELTY), None),
    "warnings": (items(text), []),
    "timings": (table(number()), {}),
    "index_digest": (text, ""),
    "part_digests": (_parts(text), {}),
    "passports": (table(table(anything)), {}),
    "versions": (table(text), {}),
    "transfer": (optional(table(anything)), None),
    "identity": (_IDENTITY, {"vectors": {}}),
    "verdicts": (_parts(_VERDICT), {}),
    "n_tried": (whole(1), 1),
    "chosen_on": (optional(choice(*PART_NAMES)), None),
    "midpoint": (_parts(SHARE), {}),
}
_REPORT = record(_NEEDED, _FREE)


def read_report(folder: Path) -> dict[str, Any]:
    """Read the report of a run.

    Raises RunError.
    """
    path = folder / REPORT
    try:
        values = parse_json(read_regular(path), path)
    except FileNotFoundError as error:
        message = f"{folder} isn't a run: it has no {REPORT}"
        raise RunError(message) from error
    if not isinstance(values, dict):
        message = f"{path} holds no JSON object; was it written by `classify run`?"
        raise RunError(message)
    version = values.get("format_version", 1)
    if isinstance(version, int) and version > FORMAT_VERSION:
        message = f"{path} has format version {version}, this program reads up to {FORMAT_VERSION}; update affectory"
        raise RunError(message)
    try:
        return _agreeing(_REPORT(values, "the report"))
    except (SchemaError, FormatError) as error:
        message = f"{path} can't be used: {error}; was it written by `classify run`?"
        raise RunError(message) from error


def report_task(report: Mapping[str, Any]) -> Task:
    """Return the task that a report is of."""
    span = (float(report["range"][0]), float(report["range"][1])) if report.get("range") else None
    return Task(report["task"], report["kind"], tuple(report["classes"]), span, report.get("source", ""))


def _agreeing(report: dict[str, Any]) -> dict[str, Any]:
    """Hold the parts of a report against each other, and complete what a metric or a baseline lacks."""
    task = report_task(report)  # refuses names, classes and ranges that no task has
    metrics, baselines = report["metrics"], report["baselines"]
    judged = next((part for part in ("test", "validation") if part in metrics), None)
    if judged is None:
        wrong("the report.metrics", sorted(metrics), "a test or a validation part")
    if "majority" not in baselines:
        message = "the report.baselines lacks majority"
        raise SchemaError(message)
    for part, found in metrics.items():
        baselines["majority"].setdefault(part, {})
        for name in (*shown_metrics(task.kind, task.classes), *found):
            for one in (found, *(of[part] for of in baselines.values() if part in of)):
                one.setdefault(name, dict(UNDEFINED))
    for clean in report["crossing"]["parts"].values() if report["crossing"] else ():
        for name in shown_metrics(task.kind, task.classes):
            clean["metrics"].setdefault(name, dict(UNDEFINED))
            clean["majority"].setdefault(name, dict(UNDEFINED))
    _check_sizes(report, task)
    report["primary_metric"] = report["primary_metric"] or shown_metrics(task.kind, task.classes)[0]
    if report["primary_metric"] not in metrics[judged]:
        wrong("the report.primary_metric", report["primary_metric"], f"one of {', '.join(metrics[judged])}")
    return report


def _check_sizes(report: dict[str, Any], task: Task) -> None:
    """Refuse counts, rates and confusions that aren't of the task's classes."""
    n_classes = len(task.classes)
    for part, matrix in report["confusion"].items():
        if len(matrix) != n_classes or any(len(row) != n_classes for row in matrix):
            wrong(f"the report.confusion.{part}", f"{len(matrix)} rows", f"{n_classes} rows of {n_classes}")
    for part, rows in report["per_class"].items():
        if [row["class"] for row in rows] != list(task.classes):
            wrong(f"the report.per_class.{part}", [row["class"] for row in rows], "a row for each class, in order")
    wanted = ("mean", "std", "min", "max") if task.kind == "regression" else ("n",)
    for part, counts in report["counts"].items():
        for name in task.classes:
            if name not in counts or any(counts[name][key] is None for key in wanted):
                wrong(f"the report.counts.{part}", sorted(counts)[:5], f"{', '.join(wanted)} of each class")
            counts[name] = {key: value for key, value in counts[name].items() if value is not None}


def passport_weights(passport: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a passport says of the weights; empty where it says nothing, or nothing of this form."""
    weights = passport.get("weights")
    return weights if isinstance(weights, Mapping) else {}
