"""The schema of the report of a run: the one way in for ``report.json``.

A report that was read has every field of `Report`, each of its type, with finite numbers and sizes that agree, so
pages, tables and cards check nothing again. Names that this version does not know are left out. Reports of 0.1, which
have no ``format_version``, are read; what they lack is completed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from classify.data.kinds import KINDS, kind_of
from classify.errors import RunError
from classify.evaluation.metrics import shown_metrics
from classify.json_file import (
    Check,
    SchemaError,
    anything,
    choice,
    items,
    number,
    optional,
    parse_json,
    read_regular,
    record,
    table,
    text,
    whole,
    wrong,
)
from features_store.errors import FormatError
from features_store.passport import weights as passport_weights
from features_store.schema import PART_NAMES, SPLIT_SOURCES, Kind, Task

REPORT = "report.json"
FORMAT_VERSION = 2
UNDEFINED: Mapping[str, float | None] = {"value": None, "low": None, "high": None}
MAX_CLASSES = 32_767  # as many codes as a label has

ENDS = {"value": optional(number()), "low": optional(number()), "high": optional(number())}
_OVER = record({"n_classes": number(), "value": number(), "low": number(), "high": number()})
_interval = record(
    {"value": ENDS["value"]},
    {"low": (ENDS["low"], None), "high": (ENDS["high"], None)},
    {"reason": text, "over": optional(_OVER), "p": optional(number(0, 1))},
)


def interval(value: Any, where: str) -> dict[str, Any]:
    """Take a value between two ends; both ends are there, or none is."""
    made: dict[str, Any] = _interval(value, where)
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
_BIN = record({"n": whole(), "said": SHARE, "true": SHARE, "low": SHARE}, known={"high": SHARE})
_STATE = record(
    {"bins": items(_BIN, most=1000)},
    {
        **{name: (number(), 0.0) for name in ("ece", "ece_of_exact", "brier")},
        **{name: (optional(number()), None) for name in ("ece_of_exact_95", "log_loss")},
    },
)
_CALIBRATION = record(
    {"method": optional(text)},
    {
        "temperature": (optional(number(1e-6, 1e6)), None),
        "temperature_interval": (optional(items(number(), 2, 2)), None),
        "n_images": (whole(), 0),
        "reason": (text, ""),
        "parts": (_parts(record({"before": _STATE, "after": optional(_STATE)})), {}),
    },
    {"fitted_on": text},
)
_THRESHOLDS = record({"values": table(SHARE), "metrics": _parts(table(interval))}, known={"chosen_on": text})
_CLASS = record(
    {"class": text, "support": whole()}, dict.fromkeys(("precision", "recall", "f1"), (optional(SHARE), None))
)
_COUNT = record({}, {"n": (whole(), None), **{name: (number(), None) for name in ("mean", "std", "min", "max")}})
_CURVES = ("loss", "accuracy")
EPOCH = record(
    {"epoch": whole()},
    {name: (optional(number()), None) for name in (*_CURVES, *(f"validation_{name}" for name in _CURVES))},
    {"learning_rate": number()},
)
_INTERVALS = record(
    {},
    {"method": (text, "not recorded"), "resamples": (whole(), 0), "resampled": (text, "images")},
    {"level": SHARE},
)
_JUDGED = record(
    {"verdict": choice("better", "unclear", "worse", "undefined")},
    {"p": (optional(SHARE), None)},
    {"dealt": optional(number()), "over_majority": interval},
)
_OVER_NAMES = record({}, {"value": (optional(number()), None), "p": (optional(SHARE), None)}, ENDS)
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
_WEIGHED = record({"weight": SHARE}, {"maps": (items(text), [])})
_SEARCH = record(
    {"n_tried": whole(1), "inner_loss": optional(number())},
    {
        "inner_loss_of_best": (optional(number()), None),
        "mean": (optional(SHARE), None),
        "blocks": (table(_WEIGHED), {}),
        **dict.fromkeys(("C", "alpha", "gamma", "k", "sharpness"), (optional(number()), None)),
    },
)
_ASPECTS = dict.fromkeys(("run", "task", "labels", "groups", "rows", "head"), anything)
_IDENTITY = record({}, {"vectors": (table(anything), {})}, _ASPECTS)
_READER = record({}, {"name": (text, ""), "options": (optional(table(anything)), None)})


def _needed(check: Check) -> Any:
    return field(metadata={"check": check})


def _free(check: Check, default: Any) -> Any:
    return field(default_factory=lambda: copy(default), metadata={"check": check})


@dataclass(frozen=True, kw_only=True)
class Report(Mapping[str, Any]):
    """What ``report.json`` holds: each name with its type; also a mapping, as in ``report["metrics"]``."""

    task: str = _needed(text)
    kind: Kind = _needed(choice(*KINDS))
    classes: list[str] = _needed(items(text, 1, MAX_CLASSES))
    head: str = _needed(text)
    metrics: dict[str, dict[str, Any]] = _needed(_parts(table(interval)))  # by part and metric
    baselines: dict[str, dict[str, dict[str, Any]]] = _needed(table(_parts(table(interval))))
    format_version: int = _free(whole(1), 1)
    created: str = _free(text, "")
    corpus: str = _free(text, "")
    reader: dict[str, Any] | None = _free(optional(_READER), None)
    range: list[float] | None = _free(optional(items(number(), 2, 2)), None)
    source: str = _free(text, "")
    parameters: dict[str, Any] = _free(table(anything), {})
    n_parameters: int | None = _free(optional(whole()), None)
    search: dict[str, Any] | None = _free(optional(_SEARCH), None)  # of a head that chose by inner folds
    blocks: list[str] = _free(items(text), [])
    n_features: int = _free(whole(), 0)
    split: str = _free(text, "")
    counts: dict[str, dict[str, Any]] = _free(_parts(table(_COUNT)), {})
    n_train: int = _free(whole(), 0)
    n_validation: int = _free(whole(), 0)
    n_test: int = _free(whole(), 0)
    seed: int = _free(whole(), 0)
    primary_metric: str = _free(text, "")
    calibration: dict[str, Any] | None = _free(optional(_CALIBRATION), None)
    thresholds: dict[str, Any] | None = _free(optional(_THRESHOLDS), None)
    intervals: dict[str, Any] = _free(_INTERVALS, {"method": "not recorded", "resamples": 0, "resampled": "images"})
    per_class: dict[str, list[dict[str, Any]]] = _free(_parts(items(_CLASS, most=MAX_CLASSES)), {})
    confusion: dict[str, list[list[int]]] = _free(_parts(items(items(whole()))), {})
    history: list[dict[str, Any]] = _free(items(EPOCH), [])
    dropped: dict[str, dict[str, int]] = _free(table(table(whole())), {})
    unused: int = _free(whole(), 0)
    crossing: dict[str, Any] | None = _free(optional(_CROSSING), None)
    refit: dict[str, Any] | None = _free(optional(table(anything)), None)
    preset: str | None = _free(optional(text), None)
    merge: dict[str, Any] | None = _free(optional(table(anything)), None)
    novelty: dict[str, Any] | None = _free(optional(_NOVELTY), None)
    warnings: list[str] = _free(items(text), [])
    timings: dict[str, float] = _free(table(number()), {})
    index_digest: str = _free(text, "")
    part_digests: dict[str, str] = _free(_parts(text), {})
    passports: dict[str, dict[str, Any]] = _free(table(table(anything)), {})
    versions: dict[str, str] = _free(table(text), {})
    transfer: dict[str, Any] | None = _free(optional(table(anything)), None)
    identity: dict[str, Any] = _free(_IDENTITY, {"vectors": {}})
    verdicts: dict[str, dict[str, Any]] = _free(_parts(_VERDICT), {})
    n_tried: int = _free(whole(1), 1)
    chosen_on: str | None = _free(optional(choice(*PART_NAMES)), None)
    midpoint: dict[str, float] = _free(_parts(SHARE), {})

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Report:
        """Take the values of ``report.json``."""
        known = {one.name: one for one in fields(cls)}
        lacking = [name for name, one in known.items() if one.default_factory is MISSING and name not in values]
        if lacking:
            raise SchemaError(f"the report lacks {', '.join(lacking)}")
        taken = {
            name: one.metadata["check"](values[name], f"the report.{name}")
            for name, one in known.items()
            if name in values
        }
        return _agreeing(cls(**taken))

    @property
    def judged_part(self) -> str:
        """The part whose metrics count: test, or validation where there is no test part."""
        return "test" if "test" in self.metrics else "validation"

    def n_images(self, part: str) -> int:
        """Return how many images of a part were scored."""
        return int(getattr(self, f"n_{part}"))

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)


def read_report(folder: Path) -> Report:
    """Read the report of a run."""
    path = folder / REPORT
    try:
        values = parse_json(read_regular(path), path)
    except FileNotFoundError as error:
        words = f"is not a run: it has no {REPORT}" if folder.exists() else "is not there; give the folder of a run"
        raise RunError(f"{folder} {words}") from error
    if not isinstance(values, dict):
        raise RunError(f"{path} holds no JSON object; was it written by `classify run`?")
    version = values.get("format_version", 1)
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise RunError(
            f"{path} has format version {version}, this program reads up to {FORMAT_VERSION}; update affectory"
        )
    try:
        return Report.of(values)
    except (SchemaError, FormatError) as error:
        raise RunError(f"{path} cannot be used: {error}; was it written by `classify run`?") from error


def report_task(report: Report) -> Task:
    """Return the task that a report is of."""
    span = (float(report.range[0]), float(report.range[1])) if report.range else None
    return Task(report.task, report.kind, tuple(report.classes), span, report.source)


def _agreeing(report: Report) -> Report:
    """Hold the parts of a report against each other, and complete what a metric or a baseline lacks."""
    task = report_task(report)  # refuses names, classes and ranges that no task has
    metrics, baselines = report.metrics, report.baselines
    judged = next((part for part in ("test", "validation") if part in metrics), None)
    if judged is None:
        wrong("the report.metrics", sorted(metrics), "a test or a validation part")
    if "majority" not in baselines:
        raise SchemaError("the report.baselines lacks majority")
    for part, found in metrics.items():
        baselines["majority"].setdefault(part, {})
        for name in (*shown_metrics(task.kind, task.classes), *found):
            for one in (found, *(of[part] for of in baselines.values() if part in of)):
                one.setdefault(name, dict(UNDEFINED))
    for clean in report.crossing["parts"].values() if report.crossing else ():
        for name in shown_metrics(task.kind, task.classes):
            clean["metrics"].setdefault(name, dict(UNDEFINED))
            clean["majority"].setdefault(name, dict(UNDEFINED))
    _check_sizes(report, task)
    report = replace(report, primary_metric=report.primary_metric or shown_metrics(task.kind, task.classes)[0])
    if report.primary_metric not in metrics[judged]:
        wrong("the report.primary_metric", report.primary_metric, f"one of {', '.join(metrics[judged])}")
    return report


def _check_sizes(report: Report, task: Task) -> None:
    """Refuse counts, rates and confusions that are not of the task's classes."""
    n_classes = len(task.classes)
    for part, matrix in report.confusion.items():
        if len(matrix) != n_classes or any(len(row) != n_classes for row in matrix):
            wrong(f"the report.confusion.{part}", f"{len(matrix)} rows", f"{n_classes} rows of {n_classes}")
    for part, rows in report.per_class.items():
        if [row["class"] for row in rows] != list(task.classes):
            wrong(f"the report.per_class.{part}", [row["class"] for row in rows], "a row for each class, in order")
    wanted = kind_of(task).summary_keys
    for part, counts in report.counts.items():
        for name in task.classes:
            if name not in counts or any(counts[name][key] is None for key in wanted):
                wrong(f"the report.counts.{part}", sorted(counts)[:5], f"{', '.join(wanted)} of each class")
            counts[name] = {key: value for key, value in counts[name].items() if value is not None}


def random_sources(passports: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return by block of an untrained network how its weights were drawn."""
    sources = {name: str(passport_weights(passport).get("source", "")) for name, passport in passports.items()}
    return {name: source for name, source in sources.items() if source.startswith("random")}
