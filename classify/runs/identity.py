"""The identity of a run, by aspect: two runs that agree in every aspect have the same numbers.

The place of the store, the place of the run and the name of a preset are no part of it: they decide no number. Vectors
count by the seal of their block, which covers every one of them; of a block that is still open, by the digests of the
rows that are used.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.config import RunConfig
from classify.errors import RunError
from classify.heads import head_options
from classify.runs.layout import Layout, lay_out

if TYPE_CHECKING:
    from classify.runs.folder import Run
    from features_store import Store

_WITHOUT_EFFECT = ("store", "out", "preset", "head", "settings", "tested", "class_map", "allow_split_groups")
_OF_SETTINGS = ("head", "run")  # aspects that follow from the settings, and not from the data


def run_identity(config: RunConfig, layout: Layout) -> dict[str, dict[str, Any]]:
    """Return the identity of a run as plain values: by aspect, then by name."""
    task, parts = layout.data.task, layout.data.parts
    known = {name: value for name, value in head_options(config.head, task.kind).items() if name != "random_state"}
    options = {**known, **config.settings}
    options.pop("verbose", None)
    settings = {name: value for name, value in vars(config).items() if name not in _WITHOUT_EFFECT}
    if settings["views"] == "all":  # younger than the first identities
        del settings["views"]
    used = np.concatenate([part.rows for part in parts.values()])
    return {
        "task": {
            "name": task.name,
            "kind": task.kind,
            "classes": [unicodedata.normalize("NFC", name) for name in task.classes],
            "range": None if task.range is None else [float(end) for end in task.range],
        },
        "labels": {name: part.digest for name, part in parts.items()},
        "groups": {name: _groups(part.groups) for name, part in parts.items()},
        "rows": {name: _hash(part.rows) for name, part in parts.items()},
        "vectors": {name: _vectors(layout.store, name, used) for name in layout.blocks},
        "head": {"name": config.head, **{name: _number(value) for name, value in options.items()}},
        "run": {**{name: _number(value) for name, value in settings.items()}, "blocks": list(layout.blocks)},
    }


def digest_of(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an identity, in hexadecimal."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()


def differing_aspects(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Name what differs between two identities, like ``labels of train`` or ``vectors of a.pool``."""
    left, right = (json.loads(json.dumps(each, default=str)) for each in (one, other))
    found = []
    for aspect in dict.fromkeys([*left, *right]):
        mine, theirs = left.get(aspect, {}), right.get(aspect, {})
        if list(mine) != list(theirs) and aspect == "vectors":
            found.append(f"blocks ({', '.join(mine)} / {', '.join(theirs)})")
            continue
        for name in dict.fromkeys([*mine, *theirs]):
            if mine.get(name) != theirs.get(name):
                found.append(f"{aspect} of {name}" if aspect in ("labels", "groups", "rows", "vectors") else name)
    return found


def lay_out_again(run: Run) -> tuple[RunConfig, Layout]:
    """Return the configuration of a run, and its data, which must be those that it was made from."""
    config = run.config
    if config.tested or run.report.transfer:
        raise RunError(f"{run.folder} tests a head that was fitted elsewhere; give the run of that head")
    layout = lay_out(replace(config, allow_split_groups=True))  # the run was scored on it already
    check_same_data(run, config, layout)
    return config, layout


def check_same_data(run: Run, config: RunConfig, layout: Layout) -> None:
    """Refuse a store that holds anything else now than a run was made from."""
    before, parts = run.report.part_digests or {}, layout.data.parts
    now = {name: part.digest for name, part in parts.items()}
    found = [f"labels of {name}" for name in before | now if before.get(name) != now.get(name)]
    found += ["classes"] if list(layout.data.task.classes) != list(run.report.classes) else []
    if len(run.report.identity) > 1:  # a report of an earlier version knows no more than the above
        each = (run.report.identity, run_identity(config, layout))
        found += differing_aspects(*({k: v for k, v in one.items() if k not in _OF_SETTINGS} for one in each))
    if found:
        found = list(dict.fromkeys(found))
        raise RunError(
            f"{config.store} holds other images or labels, or other vectors, than {run.folder} was made from "
            f"(different: {', '.join(found[:5])}); run it again first"
        )


def _groups(groups: np.ndarray | None) -> str | None:
    """Which images belong together, whatever their groups are called."""
    if groups is None or (groups < 0).all():
        return None
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return _hash(np.where(groups < 0, -1, first[inverse]))


def _vectors(store: Store, name: str, rows: np.ndarray) -> list[str]:
    block = store.block(name)
    if block.sealed:
        return [block.digest, block.stored_seal.hex()]
    digests = block.digests
    content = block.vectors[rows] if digests is None else digests[rows]
    return [block.digest, f"open {_hash(content)}"]


def _number(value: Any) -> Any:
    """Write 1.0 as 1, so that both mean the same."""
    if isinstance(value, list | tuple):
        return [_number(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _number(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
