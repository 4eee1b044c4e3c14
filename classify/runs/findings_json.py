"""The schema of what lies in and beside a run's folder: audit, ablation, learning curve, explanations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classify.data.kinds import KINDS
from classify.errors import RunError
from classify.json_file import (
    Check,
    SchemaError,
    anything,
    choice,
    flag,
    items,
    number,
    optional,
    read_json,
    record,
    table,
    text,
    whole,
    wrong,
)
from classify.runs.report_json import ENDS, SHARE, UNDEFINED, interval

_PAIR = record({"id": text, "other": text, "cosine": number(-1.01, 1.01)}, {"same_bytes": (flag, False)})
_ACROSS = record(
    {"n_images": whole(), "ids": items(text), "pairs": items(_PAIR)},
    known={"threshold": number(), "n_same_bytes": whole()},
)
_DUPLICATES = record(
    {"across": table(_ACROSS)}, {"threshold": (number(), 0.0), "same_bytes_known": (flag, False), "method": (text, "")}
)
_DOUBT_IN_WORDS = record(
    {"id": text, "part": text, "given": text, "suggested": text},
    {"p_given": (SHARE, 0.0), "p_suggested": (SHARE, 0.0)},
)
_DOUBT_IN_NUMBERS = record({"id": text, "part": text, "output": text, "given": number(), "suggested": number()})


def _doubt(value: Any, where: str) -> Any:
    numbers = isinstance(value, Mapping) and "output" in value
    return (_DOUBT_IN_NUMBERS if numbers else _DOUBT_IN_WORDS)(value, where)


_LABEL_ERRORS = record(
    {"images": items(_doubt), "n_images": whole(), "n_judged": whole()},
    {
        "method": (text, ""),
        "judge": (text, ""),
        "judge_metric": (text, ""),
        "judge_value": (optional(number()), None),
    },
    {"judge_knows": flag, "n_expected": optional(number()), "n_doubted": whole()},
)
_AUDIT = record(
    {"duplicates": _DUPLICATES, "label_errors": _LABEL_ERRORS}, {"part_digests": (table(text), {}), "task": (text, "")}
)

_GAINS = table(optional(interval))
_SUBSET = record({"blocks": items(text), "metrics": table(interval)}, {"chosen": (table(number()), {})})
_PATH = record({"option": text, "values": items(number(), 1)})
_PAIR_OF_BLOCKS = record({"to": text, "added": text, **ENDS})
_CROSSING = record({"words": text, "n_groups": whole(1), "n_images": whole(1)})
_ABLATION = record(
    {"task": text, "metric": text, "subsets": items(_SUBSET, 1)},
    {
        "corpus": (text, ""),
        "kind": (choice(*KINDS), "single"),
        "classes": (items(text, 1), [""]),
        "head": (text, ""),
        "folds": (optional(whole()), None),
        "n_images": (optional(whole()), None),
        "split": (text, ""),
        "crossing": (optional(_CROSSING), None),
        "path": (optional(_PATH), None),
        "n_tried": (optional(whole(1)), None),
        "blocks": (table(whole()), {}),
        "baseline": (table(interval), {}),
        "gains": (table(_GAINS), {}),
        "pairs": (items(_PAIR_OF_BLOCKS), []),
    },
)

_POINT_ENDS = ("value", "low", "high", "lowest", "highest")
_POINT = record({"n": whole(1), **{name: number() for name in _POINT_ENDS}})
_CURVE = record({"metric": text, "part": text, "points": items(_POINT, 1)})


def _words(value: Any, where: str) -> list[str]:
    """Take a text, a number, or a list of them, as texts."""
    found = value if isinstance(value, list) else [] if value is None else [value]
    for one in found:
        if not isinstance(one, str | int | float):
            wrong(where, one, "texts")
    return [str(one) for one in found]


_EXPLAINED = record(
    {"file": text},
    {
        "id": (optional(text), None),
        "truth": (_words, []),
        "predicted": (_words, []),
        "method": (text, ""),
        "blocks": (optional(table(number())), None),
        "concepts": (_words, []),
    },
)


def _deletion(value: Any, where: str) -> Any:
    found = table(anything)(value, where)
    for name, one in found.items():
        if not isinstance(one, str):
            number()(one, f"{where}.{name!a}")
    return found


EXPLANATIONS = "explanations"  # folder within that of a run
CURVE, SEEDS = "curve.json", "seeds.json"
_EXPLANATIONS = record({}, {"images": (items(_EXPLAINED), []), "deletion": (optional(_deletion), None)})


def _read(path: Path, check: Check, what: str) -> dict[str, Any] | None:
    values = read_json(path)
    if values is None:
        return None
    try:
        return dict(check(values, what))
    except SchemaError as error:
        raise RunError(f"{path} cannot be used: {error}; make it again, or take it away") from error


def read_audit(path: Path) -> dict[str, Any] | None:
    """Read what `classify audit` wrote; None where there is no such file."""
    return _read(path, _AUDIT, "the audit")


def read_ablation(path: Path) -> dict[str, Any] | None:
    """Read what `classify ablate` wrote; None where there is no such file."""
    found = _read(path, _ABLATION, "the ablation")
    if found is not None:
        for metrics in (*(subset["metrics"] for subset in found["subsets"]), found["baseline"]):
            metrics.setdefault(found["metric"], dict(UNDEFINED))
    return found


def read_curve(path: Path) -> dict[str, Any] | None:
    """Read what `classify learning-curve` wrote; None where there is no such file."""
    return _read(path, _CURVE, "the learning curve")


def read_explanations(path: Path) -> dict[str, Any] | None:
    """Read what `classify explain` wrote; None where there is no such file."""
    if path.parent.is_symlink():
        raise RunError(f"{path.parent} is a symbolic link; the explanations of a run lie in it")
    return _read(path, _EXPLANATIONS, "the explanations")
