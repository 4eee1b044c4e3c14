"""Several corpora as one: ``union:oasis,gaped,naps``, and jndataset, the union of seven that a study of 2018 used.

Ids get the name of their corpus as first folder. Valence and arousal are rescaled from each corpus' own range (its
option ``range``) to one, by ((v - oldmin) (newmax - newmin) / (oldmax - oldmin)) + newmin. Classes are one class if
their names are equal; every other map between two vocabularies is the user's, in the option ``map``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Corpus, Option, Reading, left_out_of
from extract.corpora.norms import ends_of
from extract.corpora.partition import order_of, units_of
from extract.corpora.vocabulary import POLARITY, VALENCE_AROUSAL
from extract.errors import CorpusError
from extract.inputs.disk import merged
from extract.inputs.files import Joined
from features_store import Index, Labels, Split, Task
from features_store.errors import unknown_name

PREFIX = "union:"
JNDATASET = ("ied", "dirti", "emomadrid", "gaped", "smid", "oasis", "naps")
_NONE = {"single": -1, "multi": 255, "regression": np.nan}


@dataclass(frozen=True)
class Member:
    """One corpus of a union, read."""

    name: str
    reading: Reading
    labels: Mapping[str, Labels]


def rescaled(values: NDArray[Any], old: tuple[float, float], new: tuple[float, float]) -> NDArray[np.float32]:
    """Carry ratings from one scale to another, linearly."""
    wide = values.astype(np.float64)
    return ((wide - old[0]) * (new[1] - new[0]) / (old[1] - old[0]) + new[0]).astype(np.float32)


def read(data: Mapping[str, Path], options: Mapping[str, Any], *, corpora: Sequence[Corpus], name: str) -> Reading:
    """Read all members and join them.

    Raises CorpusError.
    """
    names = [one.name for one in corpora]
    for given in data:
        if given not in names:
            raise CorpusError(unknown_name(f"member of {name}", given, names))
    missing = [one.name for one in corpora if one.name not in data and not one.default_data]
    if missing:
        msg = f"corpus {name!r} needs a place for each member; missing: " + " ".join(
            f"--data {m}=PATH" for m in missing
        )
        raise CorpusError(msg)
    ends, maps = ends_of(name, options["range"]), _maps(options["map"], names)
    members = [_member(one, data.get(one.name), options, maps) for one in corpora]
    sizes = [len(member.reading.index) for member in members]
    ids = np.array([f"{m.name}/{image}" for m in members for image in m.reading.index.ids.tolist()])
    tasks = dict.fromkeys(task for member in members for task in member.labels)
    joined = {task: _join(task, members, sizes, ends) for task in tasks}
    default = np.concatenate([_parts(member) for member in members])
    splits = {"default": Split("default", default, source=_source(members))}
    groups = _groups(members, sizes)
    if "seed" in options:
        splits["thesis"] = Split("thesis", _thesis(ids.tolist(), groups, options["seed"]), source="made")
    index = Index(
        ids,
        {task: labels for task, labels in joined.items() if labels is not None},
        splits,
        groups,
        corpus={"name": name, "options": _recorded(options, members)},
    )
    notes = [f"{member.name}: {note}" for member in members for note in member.reading.notes]
    notes += [
        f"task {task!r} does not mean the same in its corpora and was left out" for task in tasks if not joined[task]
    ]
    left_out = merged((f"{member.name}: ", left_out_of(member.reading)) for member in members)
    return Reading(index, Joined([member.reading.source for member in members]), tuple(notes), left_out)


def _recorded(options: Mapping[str, Any], members: Sequence[Member]) -> dict[str, Any]:
    """Return the options with which the union can be read again; those of the members as each records its own."""
    own = {key: value for key, value in options.items() if "." not in key}
    for member in members:
        recorded = member.reading.index.corpus.get("options", {})
        own |= {f"{member.name}.{key}": value for key, value in recorded.items()}
    return own


def _member(corpus: Corpus, place: Path | None, options: Mapping[str, Any], maps: _Maps) -> Member:
    own = {key: options[f"{corpus.name}.{key}"] for key in corpus.options}
    reading = corpus.reader(place or Path(corpus.default_data), own)
    labels: dict[str, Labels] = {}
    for task, found in reading.index.labels.items():
        name = maps.tasks.get((corpus.name, task), task)
        if name in labels:
            msg = f"option 'map' gives {corpus.name} two tasks {name!r}; give one of them another name"
            raise CorpusError(msg)
        labels[name] = _renamed(corpus.name, found, name, maps.classes.get((corpus.name, task), {}))
    for member, task in (*maps.tasks, *maps.classes):
        if member == corpus.name and task not in reading.index.labels:
            raise CorpusError(unknown_name(f"task of {member} in option 'map'", task, reading.index.labels))
    return Member(corpus.name, reading, labels)


def _renamed(member: str, labels: Labels, name: str, classes: Mapping[str, str]) -> Labels:
    task = replace(labels.task, name=name)
    if not classes:
        return Labels(task, labels.values)
    for one in classes:
        if one not in task.classes or task.kind != "single":
            raise CorpusError(unknown_name(f"class of {member}.{name} in option 'map'", one, task.classes))
    to = [classes.get(one, one) for one in task.classes]
    united = tuple(dict.fromkeys(to))
    table = np.array([*(united.index(one) for one in to), -1], dtype=np.int16)
    words = ", ".join(f"{old} > {new}" for old, new in classes.items())
    return Labels(Task(name, "single", united, source=f"{task.source}; {words}"), table[labels.values])


@dataclass(frozen=True)
class _Maps:
    tasks: Mapping[tuple[str, str], str]
    classes: Mapping[tuple[str, str], Mapping[str, str]]


def _maps(text: str, members: Sequence[str]) -> _Maps:
    """Read ``MEMBER.TASK=TASK`` and ``MEMBER.TASK:CLASS>CLASS|CLASS>CLASS``, parted by commas."""
    tasks: dict[tuple[str, str], str] = {}
    classes: dict[tuple[str, str], dict[str, str]] = {}
    for item in filter(None, (one.strip() for one in text.split(","))):
        head, colon, pairs = item.partition(":")
        place, equals, to = head.partition("=")
        member, dot, task = place.strip().partition(".")
        if member not in members or not dot or not (colon or equals):
            msg = (
                f"option 'map': {item!r} is neither MEMBER.TASK=TASK nor MEMBER.TASK:CLASS>CLASS|CLASS>CLASS; "
                f"members: {', '.join(members)}"
            )
            raise CorpusError(msg)
        if equals:
            tasks[member, task] = to.strip()
        for pair in filter(None, pairs.split("|")):
            old, _, new = pair.partition(">")
            classes.setdefault((member, task), {})[old.strip()] = new.strip() or old.strip()
    return _Maps(tasks, classes)


def _join(task: str, members: Sequence[Member], sizes: Sequence[int], ends: tuple[float, float]) -> Labels | None:
    """Join one task; None if it means different things in different corpora."""
    found = [member.labels.get(task) for member in members]
    present = [labels for labels in found if labels is not None]
    kinds = {labels.task.kind for labels in present}
    first = present[0].task
    if kinds == {"single"}:
        classes = _united([labels.task.classes for labels in present])
    elif len(kinds) > 1 or any(labels.task.classes != first.classes for labels in present):
        return None
    else:
        classes = first.classes
    scale = first.range
    if first.kind == "regression" and classes == VALENCE_AROUSAL:
        scale = ends
    elif any(labels.task.range != scale for labels in present):
        return None
    parts = [_values(labels, first.kind, classes, size, scale) for labels, size in zip(found, sizes, strict=True)]
    source = "; ".join(f"{m.name}: {m.labels[task].task.source}" for m in members if task in m.labels)
    return Labels(Task(task, first.kind, classes, scale, source), np.concatenate(parts))


def _values(
    labels: Labels | None, kind: str, classes: Sequence[str], size: int, scale: tuple[float, float] | None
) -> NDArray[Any]:
    if labels is None:
        shape = (size,) if kind == "single" else (size, len(classes))
        return np.full(shape, _NONE[kind], dtype=np.float32 if kind == "regression" else np.int16)
    if kind == "single":
        table = np.array([*(classes.index(one) for one in labels.task.classes), -1], dtype=np.int16)
        return np.asarray(table[labels.values])
    if labels.task.range is not None and scale is not None and labels.task.range != scale:
        return rescaled(labels.values, labels.task.range, scale)
    return labels.values


def _united(vocabularies: Sequence[Sequence[str]]) -> tuple[str, ...]:
    words = dict.fromkeys(word for one in vocabularies for word in one)
    return tuple(word for word in POLARITY if word in words) if set(words) <= set(POLARITY) else tuple(words)


def _parts(member: Member) -> NDArray[np.int8]:
    split = member.reading.index.splits.get("default")
    if split is None or split.kind != "parts":
        return np.full(len(member.reading.index), -1, dtype=np.int8)
    return split.values


def _source(members: Sequence[Member]) -> str:
    """Return who made the parts: one published split among them may part groups, and so may the whole."""
    given = [member.reading.index.splits["default"] for member in members if "default" in member.reading.index.splits]
    return "published" if any(one.source == "published" and one.kind == "parts" for one in given) else "made"


def _groups(members: Sequence[Member], sizes: Sequence[int]) -> NDArray[np.int64] | None:
    if all(member.reading.index.groups is None for member in members):
        return None
    parts, above = [], 0
    for member, size in zip(members, sizes, strict=True):
        groups = member.reading.index.groups
        own = np.full(size, -1, dtype=np.int64) if groups is None else groups
        parts.append(np.where(own >= 0, own + above, -1))
        above += int(own.max(initial=-1)) + 1
    return np.concatenate(parts)


def _thesis(ids: Sequence[str], groups: NDArray[np.int64] | None, seed: int) -> NDArray[np.int8]:
    """Hold out a tenth (test), then a quarter of the rest (validation), as the study of 2018 did; groups stay whole."""
    firsts, unit_of = units_of(np.full(len(ids), -1) if groups is None else groups)
    order = sorted(range(len(firsts)), key=lambda unit: order_of(ids[firsts[unit]], seed))
    sizes = np.bincount(unit_of, minlength=len(firsts))[order]
    n_held = math.ceil(len(ids) / 10)
    n_second = math.ceil((len(ids) - n_held) / 4)
    before = np.cumsum(sizes) - sizes  # images in the units that come first
    part = np.where(before < n_held, 2, np.where(before < n_held + n_second, 1, 0)).astype(np.int8)
    parts = np.empty(len(firsts), dtype=np.int8)
    parts[order] = part
    return parts[unit_of]


def union_of(name: str, find: Callable[[str], Corpus]) -> Corpus:
    """Make the record of ``union:A,B,...``.

    Raises CorpusError.
    """
    names = [one.strip() for one in name.removeprefix(PREFIX).split(",") if one.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        msg = f"{name!r} is no union: write union:A,B with two or more corpora, each once"
        raise CorpusError(msg)
    corpora = [find(one) for one in names]
    if nested := [one.name for one in corpora if one.members]:
        msg = f"{nested[0]!r} is a union itself; write its members: {', '.join(find(nested[0]).members)}"
        raise CorpusError(msg)
    return _record(f"{PREFIX}{','.join(names)}", corpora)


def _record(name: str, corpora: Sequence[Corpus]) -> Corpus:
    options = {
        "range": Option("1..9", "scale of valence and arousal after joining, LOW..HIGH"),
        "map": Option("", "MEMBER.TASK=TASK, MEMBER.TASK:CLASS>CLASS|CLASS>CLASS, parted by commas"),
        **{f"{one.name}.{key}": option for one in corpora for key, option in one.options.items()},
    }
    return Corpus(
        name=name,
        title=f"the union of {', '.join(one.name for one in corpora)}",
        obtain="; ".join(f"{one.name}: {one.obtain}" for one in corpora),
        licence="; ".join(f"{one.name}: {one.licence}" for one in corpora),
        citation="; ".join(one.citation for one in corpora if one.citation),
        reader=partial(read, corpora=tuple(corpora), name=name),
        tasks={task: text for one in reversed(corpora) for task, text in one.tasks.items()},
        splits={"default": "the split 'default' of each member"},
        defects=tuple(f"{one.name}: {defect}" for one in corpora for defect in one.defects),
        options=options,
        members=tuple(one.name for one in corpora),
    )


def jndataset(find: Callable[[str], Corpus]) -> Corpus:
    """Make the record of jndataset: seven corpora of ratings, rescaled to 1..9."""
    record = _record("jndataset", [find(one) for one in JNDATASET])
    own = "give OASIS the range 1..9 to do as the study did: --option oasis.range=1..9"
    return replace(
        record,
        title="jndataset: seven corpora of valence and arousal, rescaled to 1..9",
        citation=f"the union is of Noguera 2018; {record.citation}",
        tasks={"valence_arousal": "regression: means, rescaled to 1 to 9", **record.tasks},
        splits={
            "default": "the split 'default' of each member",
            "thesis": "test: a tenth, held out; validation: a quarter of the rest; train: what is left; seeded",
        },
        defects=(
            f"the study took the ratings of OASIS for a scale from 1 to 9; they are on 1 to 7 ({own})",
            *record.defects,
        ),
        options={**record.options, "seed": Option(0, "seed of the split 'thesis'", minimum=0)},
        published={"images": 17_810, "thesis/test": 1_781, "thesis/validation": 4_008, "thesis/train": 12_021},
    )
