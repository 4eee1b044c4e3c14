"""Several corpora as one: ``union:oasis,gaped,naps``, and jndataset, the union of seven that a study of 2018 used.

`features_store.union` has the rules by which they are joined; the option ``map`` translates tasks and classes before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.dataset import Corpus, Dataset, Option
from extract.corpora.labels import scale_ends
from extract.corpora.splits import draw_key, units_of
from extract.errors import CorpusError
from extract.inputs.disk import merged
from extract.inputs.files import Joined
from features_store import Index, Split
from features_store.errors import unknown_name
from features_store.union import parse_maps, translated, united_index

PREFIX = "union:"


def read(name: str, data: Mapping[str, Path], options: Mapping[str, Any], *, corpora: Sequence[Corpus]) -> Dataset:
    """Read all members and join them.

    Raises CorpusError.
    """
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
    left_out = merged((f"{member}: ", found.left_out) for member, found in members.items())
    corpus = {"name": name, "options": recorded, **({"left_out": left_out} if left_out else {})}
    indexes = {member: translated(member, found.index, maps) for member, found in members.items()}
    index, dropped = united_index(indexes, ends, corpus=corpus)
    if "seed" in options:
        index = replace(index, splits={**index.splits, "thesis": _thesis_split(index, options["seed"])})
    notes = [f"{member}: {note}" for member, found in members.items() for note in found.notes]
    notes += [f"task {task!r} means different things in its corpora and was left out" for task in dropped]
    return Dataset(index, Joined([found.files for found in members.values()]), tuple(notes), left_out)


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
    """Make the card of a union.

    Raises CorpusError.
    """
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
