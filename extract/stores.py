"""The index of a folder store: written once, compared ever after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store import Index, MismatchError, Store, open_store, write_index
from features_store.align import rows_that_differ
from features_store.schema import INDEX_FILE

_SHOWN = 200  # characters of a value in a message


def check_or_write_index(store: Path, index: Index) -> None:
    """Write ``index.h5`` if the store has none; else see that it is of the same images, and means the same.

    Raises MismatchError.
    """
    path = store / INDEX_FILE
    if not path.exists():
        store.mkdir(parents=True, exist_ok=True)
        write_index(path, index)
        return
    there = open_store(path)
    if there.index_digest != index.digest:
        msg = (
            f"{path} lists other images than the corpus: {_ids_difference(there, index)}; "
            "choose another --store, or the options and data that it was made with"
        )
        raise MismatchError(msg)
    differing = _differing(there, index)
    if differing:
        msg = (
            f"{path} has the images of the corpus, but other {', '.join(differing)}: "
            f"{'; '.join(detail for details in differing.values() for detail in details)} (there / here); choose the "
            "data and options that it was made with, or move index.h5 away and run again: the vectors stay valid, and "
            "none is extracted anew"
        )
        raise MismatchError(msg)


def _ids_difference(there: Store, index: Index) -> str:
    ours, theirs = set(index.ids.tolist()), set(map(str, there.ids))
    parts = [f"{len(theirs)} there, {len(ours)} here"]
    for words, names in (("only there", theirs - ours), ("only here", ours - theirs)):
        if names:
            parts.append(f"{len(names)} {words} such as {min(names)!r}")
    if len(parts) == 1:
        parts.append("the same images in another order")
    if dict(there.corpus) != dict(index.corpus):
        parts.append(f"made as {dict(there.corpus)}, now {dict(index.corpus)}")
    return "; ".join(parts)


def _differing(there: Store, index: Index) -> dict[str, list[str]]:
    """Name each part of what a store means that differs, with both sides."""
    found: dict[str, list[str]] = {}
    for name in sorted(there.labels.keys() | index.labels.keys()):
        one, other = there.labels.get(name), index.labels.get(name)
        if one is None or other is None:
            found[f"labels {name!r}"] = [_absent(one, other)]
            continue
        found[f"labels {name!r}"] = [
            f"{field} {_short(getattr(one.task, field))} / {_short(getattr(other.task, field))}"
            for field in ("kind", "classes", "range")
            if getattr(one.task, field) != getattr(other.task, field)
        ] + _values_differ(one.values, other.values, index.ids)
    for name in sorted(there.splits.keys() | index.splits.keys()):
        left, right = there.splits.get(name), index.splits.get(name)
        if left is None or right is None:
            found[f"split {name!r}"] = [_absent(left, right)]
            continue
        kinds = [f"kind {left.kind} / {right.kind}"] if left.kind != right.kind else []
        if left.source and right.source and left.source != right.source:
            kinds.append(f"source {left.source} / {right.source}")
        found[f"split {name!r}"] = kinds + _values_differ(left.values, right.values, index.ids)
    if there.groups is not None and index.groups is not None:
        found["groups"] = _values_differ(there.groups, index.groups, index.ids)
    elif there.groups is not index.groups:
        found["groups"] = [_absent(there.groups, index.groups)]
    found["options"] = _options_differ(there.corpus, index.corpus)
    return {part: details for part, details in found.items() if details}


def _absent(there: object, here: object) -> str:
    return "not there, but here" if there is None else "there, but not here"


def _short(value: object) -> str:
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"


def _values_differ(one: NDArray[Any], other: NDArray[Any], ids: NDArray[np.str_]) -> list[str]:
    if one.shape != other.shape:
        return [f"shape {one.shape} / {other.shape}"]
    rows = np.flatnonzero(rows_that_differ(one, other))
    if not len(rows):
        return []
    first = rows[0]
    return [f"values of {len(rows)} images, the first is {str(ids[first])!r}: {one[first]} / {other[first]}"]


def _options_differ(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Compare name and options of the reader; an option that one side does not know is none of its differences."""
    found = [f"name {there['name']!r} / {here['name']!r}"] if _other(there, here, "name") else []
    one, other = there.get("options"), here.get("options")
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        found += [f"{key} {one[key]!r} / {other[key]!r}" for key in sorted(one) if _other(one, other, key)]
    return found


def _other(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    if key not in one or key not in other:
        return False
    values = [json.loads(json.dumps(side[key], default=str)) for side in (one, other)]
    paths = all(isinstance(value, str) and any(mark in value for mark in ("/", "\\")) for value in values)
    return values[0] != values[1] and not paths  # where a table lies says nothing about what is in it
