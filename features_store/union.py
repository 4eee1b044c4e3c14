"""Rules by which the labels, splits and groups of several corpora become those of one.

Ids get the name of their corpus as first folder. Classes are one class if their names are equal. Valence and arousal
are rescaled linearly from each corpus' range to one: ((v - oldmin) (newmax - newmin) / (oldmax - oldmin)) + newmin.
Every other translation between two vocabularies is the user's: a map, applied before joining.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store.errors import MismatchError, unknown_name
from features_store.schema import Index, Labels, Split, Task

VALENCE_AROUSAL = ("valence", "arousal")
_POLARITY = ("negative", "neutral", "positive")  # classes of which all are polarities stay in this order
Maps = dict[tuple[str, str], tuple[str, dict[str, str]]]  # (member, task) -> new name of the task, and of its classes
_NONE = {"single": (-1, "i2"), "multi": (255, "u1"), "regression": (np.nan, "f4")}


def parse_maps(text: str, members: Sequence[str]) -> Maps:
    """Read comma-separated ``MEMBER.TASK=TASK`` and ``MEMBER.TASK:CLASS>CLASS|CLASS>CLASS``."""
    maps: Maps = {}
    for item in filter(None, (one.strip() for one in text.split(","))):
        head, colon, pairs = item.partition(":")
        place, equals, to = head.partition("=")
        member, dot, task = place.strip().partition(".")
        if member not in members or not dot or not (colon or equals):
            raise MismatchError(
                f"option 'map': {item!r} is neither MEMBER.TASK=TASK nor MEMBER.TASK:CLASS>CLASS|CLASS>CLASS; "
                f"members: {', '.join(members)}"
            )
        renamed, classes = maps.get((member, task), (task, {}))
        for pair in filter(None, pairs.split("|")):
            old, _, new = pair.partition(">")
            classes[old.strip()] = new.strip() or old.strip()
        maps[member, task] = (to.strip() if equals else renamed, classes)
    return maps


def translated(member: str, index: Index, maps: Maps) -> Index:
    """Return the index of a member with its tasks and classes renamed."""
    for owner, task in maps:
        if owner == member and task not in index.labels:
            raise MismatchError(unknown_name(f"task of {member} in option 'map'", task, index.labels))
    found: dict[str, Labels] = {}
    for task, labels in index.labels.items():
        name, classes = maps.get((member, task), (task, {}))
        if name in found:
            raise MismatchError(f"option 'map' gives {member} two tasks {name!r}; give one of them another name")
        for word in classes:
            if word not in labels.task.classes or labels.task.kind != "single":
                raise MismatchError(
                    unknown_name(f"class of {member}.{name} in option 'map'", word, labels.task.classes)
                )
        renamed, values = replace(labels.task, name=name), labels.values
        if classes:
            to = [classes.get(word, word) for word in labels.task.classes]
            source = f"{renamed.source}; {', '.join(f'{old} > {new}' for old, new in classes.items())}"
            renamed = replace(renamed, classes=tuple(dict.fromkeys(to)), source=source)
            values = _recoded(values, to, renamed.classes)
        found[name] = Labels(renamed, values)
    return replace(index, labels=found)


def _recoded(codes: NDArray[Any], words: Sequence[str], classes: Sequence[str]) -> NDArray[np.int16]:
    """Return codes that mean positions in `words` as positions in `classes`."""
    return np.asarray(np.array([*map(classes.index, words), -1], dtype=np.int16)[codes])  # the last entry is for -1


def united_index(
    members: Mapping[str, Index], scale: tuple[float, float], *, corpus: Mapping[str, Any]
) -> tuple[Index, list[str]]:
    """Join indexes; return also the tasks that were left out, for they mean different things in different members.

    The default split of the whole is that of each member; members without one are unused in it.
    """
    tasks = dict.fromkeys(task for index in members.values() for task in index.labels)
    labels = {task: united_labels(task, members, scale) for task in tasks}
    ids = np.array([f"{name}/{image}" for name, index in members.items() for image in index.ids.tolist()])
    joined = Index(
        ids,
        {task: found for task, found in labels.items() if found is not None},
        {"default": _united_split("default", list(members.values()))},
        _united_groups(list(members.values())),
        corpus=corpus,
    )
    return joined, [task for task, found in labels.items() if found is None]


def united_labels(task: str, members: Mapping[str, Index], scale: tuple[float, float]) -> Labels | None:
    """Join one task; None if its kind, its outputs or its range differ. `scale` is that of valence and arousal."""
    present = {name: index.labels[task] for name, index in members.items() if task in index.labels}
    first, *others = (labels.task for labels in present.values())
    if any(other.kind != first.kind for other in others):
        return None
    classes, ends = first.classes, first.range
    if first.kind == "single":
        words = dict.fromkeys(word for labels in present.values() for word in labels.task.classes)
        classes = tuple(word for word in _POLARITY if word in words) if {*words} <= {*_POLARITY} else tuple(words)
    elif any(other.classes != classes for other in others):
        return None
    if first.kind == "regression" and classes == VALENCE_AROUSAL:
        ends = scale
    elif any(other.range != ends for other in others):
        return None
    united = Task(
        task, first.kind, classes, ends, "; ".join(f"{name}: {one.task.source}" for name, one in present.items())
    )
    parts = [_values(present.get(name), united, len(index)) for name, index in members.items()]
    return Labels(united, np.concatenate(parts))


def _values(labels: Labels | None, united: Task, size: int) -> NDArray[Any]:
    """Return the labels of one member in the classes and on the scale of the whole."""
    if labels is None:
        empty, dtype = _NONE[united.kind]
        return np.full((size,) if united.kind == "single" else (size, len(united.classes)), empty, dtype=dtype)
    if united.kind == "single":
        return _recoded(labels.values, labels.task.classes, united.classes)
    if labels.task.range is not None and united.range is not None and labels.task.range != united.range:
        return rescaled(labels.values, labels.task.range, united.range)
    return labels.values


def rescaled(values: NDArray[Any], old: tuple[float, float], new: tuple[float, float]) -> NDArray[np.float32]:
    """Carry ratings from one scale to another, linearly."""
    wide = values.astype(np.float64)
    return ((wide - old[0]) * (new[1] - new[0]) / (old[1] - old[0]) + new[0]).astype(np.float32)


def _united_split(name: str, members: Sequence[Index]) -> Split:
    """Join the parts of each member: published if one of them is, for a published split may part groups."""
    splits = [index.splits.get(name) for index in members]
    parts = [split if split is not None and split.kind == "parts" else None for split in splits]
    values = [
        np.full(len(index), -1, dtype=np.int8) if split is None else split.values
        for index, split in zip(members, parts, strict=True)
    ]
    published = any(split is not None and split.source == "published" for split in parts)
    return Split(name, np.concatenate(values), source="published" if published else "made")


def _united_groups(members: Sequence[Index]) -> NDArray[np.int64] | None:
    """Number the groups of all members one after the other; None if no member has groups."""
    if all(index.groups is None for index in members):
        return None
    parts, above = [], 0
    for index in members:
        own = np.full(len(index), -1, dtype=np.int64) if index.groups is None else index.groups
        parts.append(np.where(own >= 0, own + above, -1))
        above += int(own.max(initial=-1)) + 1
    return np.concatenate(parts)
