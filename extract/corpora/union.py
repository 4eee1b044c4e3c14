"""Several corpora as one: ``union:oasis,gaped,naps``, and jndataset, the union of seven that a study of 2018 used.

Ids get the name of their corpus as first folder; `extract.corpora.labels` has the rules by which tasks are joined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Corpus, Dataset, Option
from extract.corpora.labels import joined, parse_maps, scale_ends, translated
from extract.corpora.splits import draw_key, units_of
from extract.errors import CorpusError
from extract.inputs.files import Joined
from features_store import Index, Split
from features_store.errors import unknown_name

PREFIX = "union:"


def read(name: str, data: Mapping[str, Path], options: Mapping[str, Any], *, corpora: Sequence[Corpus]) -> Dataset:
    """Read all members and join them."""
    names = [one.name for one in corpora]
    for given in data:
        if given not in names:
            raise CorpusError(unknown_name(f"member of {name}", given, names))
    missing = [one.name for one in corpora if one.name not in data and not one.default_data]
    if missing:
        wanted = " ".join(f"--data {member}=PATH" for member in missing)
        raise CorpusError(f"corpus {name!r} needs a place for each member; missing: {wanted}")
    ends, maps = scale_ends(options["range"], f"option 'range' of corpus {name!r}"), parse_maps(options["map"], names)
    members: dict[str, Dataset] = {}
    recorded = {key: value for key, value in options.items() if "." not in key}
    for one in corpora:
        own = {key: options[f"{one.name}.{key}"] for key in one.options}
        members[one.name] = one.load(data.get(one.name), own)
        known = members[one.name].index.corpus.get("options", {})
        recorded |= {f"{one.name}.{key}": value for key, value in known.items()}
    left_out = {f"{member}: {why}": n for member, found in members.items() for why, n in found.left_out.items()}
    corpus = {"name": name, "options": recorded, **({"left_out": left_out} if left_out else {})}
    indexes = {member: found.index for member, found in members.items()}
    labels = {member: translated(member, index.labels, maps) for member, index in indexes.items()}
    sizes = {member: len(index) for member, index in indexes.items()}
    tasks = dict.fromkeys(task for found in labels.values() for task in found)
    found_labels = {task: joined(task, labels, sizes, ends) for task in tasks}
    index = Index(
        np.array([f"{member}/{image}" for member, one in indexes.items() for image in one.ids.tolist()]),
        {task: found for task, found in found_labels.items() if found is not None},
        {"default": _default_split(list(indexes.values()))},
        _groups(list(indexes.values())),
        corpus=corpus,
    )
    if "seed" in options:
        index = replace(index, splits={**index.splits, "thesis": _thesis_split(index, options["seed"])})
    notes = [f"{member}: {note}" for member, found in members.items() for note in found.notes]
    dropped = [task for task, found in found_labels.items() if found is None]
    notes += [f"task {task!r} means different things in its corpora and was left out" for task in dropped]
    return Dataset(index, Joined([found.files for found in members.values()]), tuple(notes), left_out)


def _default_split(members: Sequence[Index]) -> Split:
    """Join the parts of each member, unused where it has none; published if one is: such a split may part groups."""
    splits = [index.splits.get("default") for index in members]
    parts = [split if split is not None and split.has_parts else None for split in splits]
    values = [
        np.full(len(index), -1, dtype=np.int8) if split is None else split.values
        for index, split in zip(members, parts, strict=True)
    ]
    published = any(split is not None and split.source == "published" for split in parts)
    return Split("default", np.concatenate(values), source="published" if published else "made")


def _groups(members: Sequence[Index]) -> NDArray[np.int64] | None:
    """Number the groups of all members one after the other; None if no member has groups."""
    parts, above = [], 0
    for index in members:
        own = np.full(len(index), -1, dtype=np.int64) if index.groups is None else index.groups
        parts.append(np.where(own >= 0, own + above, -1))
        above += int(own.max(initial=-1)) + 1
    return None if all(index.groups is None for index in members) else np.concatenate(parts)


def _thesis_split(index: Index, seed: int) -> Split:
    """Hold out a tenth (test), then a quarter of the rest (validation), as the study of 2018 did; groups stay whole."""
    ids = index.ids.tolist()
    firsts, unit_of = units_of(np.full(len(ids), -1) if index.groups is None else index.groups)
    order = sorted(range(len(firsts)), key=lambda unit: draw_key(ids[firsts[unit]], seed))
    sizes = np.bincount(unit_of, minlength=len(firsts))[order]
    n_test = math.ceil(len(ids) / 10)
    n_validation = math.ceil((len(ids) - n_test) / 4)
    before = np.cumsum(sizes) - sizes  # images in the units that come first
    parts = np.empty(len(firsts), dtype=np.int8)
    parts[order] = np.where(before < n_test, 2, np.where(before < n_test + n_validation, 1, 0))
    return Split("thesis", parts[unit_of], source="made")


def union_corpus(names: Sequence[str], find: Callable[[str], Corpus]) -> Corpus:
    """Make the card of a union."""
    name = f"{PREFIX}{','.join(names)}"
    if len(names) < 2 or len(set(names)) < len(names):
        raise CorpusError(f"{name!r} is not a union: write union:A,B with two or more corpora, each once")
    corpora = [find(one) for one in names]
    if nested := [one for one in corpora if one.members]:
        raise CorpusError(f"{nested[0].name!r} is a union itself; write its members: {', '.join(nested[0].members)}")
    return Corpus(
        name=name,
        title=f"the union of {', '.join(names)}",
        obtain="; ".join(f"{one.name}: {one.obtain}" for one in corpora),
        licence="; ".join(f"{one.name}: {one.licence}" for one in corpora),
        citation="; ".join(one.citation for one in corpora if one.citation),
        reader=partial(read, corpora=corpora),
        tasks={task: text for one in reversed(corpora) for task, text in one.tasks.items()},
        splits={"default": "the split 'default' of each member"},
        defects=[f"{one.name}: {defect}" for one in corpora for defect in one.defects],
        options={
            "range": Option("1..9", "scale of valence and arousal after joining, LOW..HIGH"),
            "map": Option("", "comma-separated MEMBER.TASK=TASK, MEMBER.TASK:CLASS>CLASS|CLASS>CLASS"),
            **{f"{one.name}.{key}": option for one in corpora for key, option in one.options.items()},
        },
        members=tuple(names),
    )
