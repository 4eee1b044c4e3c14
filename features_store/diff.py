"""What differs between two stores: ids, labels, splits, passports, rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store import passport
from features_store.align import BlockRows, Placed, gathered, locate, rows_that_differ
from features_store.console import progress_bar
from features_store.schema import Labels, Split, Status
from features_store.store import Block, Store

_SHOWN = 5


def diff(one: Store, other: Store) -> dict[str, Any]:
    """Compare two stores; how their files are laid out does not matter.

    Labels, splits and rows are compared for the images that both have.
    """
    rows = locate(other.raw_ids, one.raw_ids)
    left = Placed(one, np.flatnonzero(rows >= 0))
    right = Placed(other, rows[rows >= 0])
    found = {
        "ids": _ids(one, other, rows),
        "corpus": _values(dict(one.corpus), dict(other.corpus)),
        "groups": _columns(one.groups, other.groups, left, right),
        "content": _columns(one.content, other.content, left, right),
        "labels": _tables(one.labels, other.labels, left, right),
        "splits": _tables(one.splits, other.splits, left, right),
        "blocks": _blocks(left, right),
    }
    return {name: differs for name, differs in found.items() if differs}


def _ids(one: Store, other: Store, rows: NDArray[np.int64]) -> dict[str, Any]:
    if one.index_digest == other.index_digest:
        return {}
    only_left = one.raw_ids[rows < 0]
    only_right = other.raw_ids[locate(one.raw_ids, other.raw_ids) < 0]
    common = rows[rows >= 0]
    return {
        "common": len(common),
        "only_in_first": len(only_left),
        "only_in_second": len(only_right),
        "examples": [raw.decode() for raw in [*only_left[:_SHOWN].tolist(), *only_right[:_SHOWN].tolist()]],
        "same_order": bool((np.diff(common) > 0).all()),
    }


def _columns(one: NDArray[Any] | None, other: NDArray[Any] | None, left: Placed, right: Placed) -> dict[str, Any]:
    if one is None and other is None:
        return {}
    if one is None or other is None:
        return {"missing_in": "first" if one is None else "second"}
    differs = rows_that_differ(one[left.rows], other[right.rows])
    return _named_rows(np.flatnonzero(differs), left)


def _tables(
    one: Mapping[str, Labels] | Mapping[str, Split],
    other: Mapping[str, Labels] | Mapping[str, Split],
    left: Placed,
    right: Placed,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sorted({*one, *other}):
        if name not in one or name not in other:
            found[name] = {"missing_in": "second" if name in one else "first"}
            continue
        definition = _values(_definition(one[name]), _definition(other[name]))
        rows: dict[str, Any] = {}
        if one[name].values.shape[1:] == other[name].values.shape[1:]:
            rows = _columns(one[name].values, other[name].values, left, right)
        if definition or rows:
            found[name] = {**({"definition": definition} if definition else {}), **rows}
    return found


def _definition(item: Labels | Split) -> dict[str, Any]:
    if isinstance(item, Split):
        return {"kind": item.kind, **({"source": item.source} if item.source else {})}
    task = item.task
    ends = None if task.range is None else list(task.range)
    return {"kind": task.kind, "classes": list(task.classes), "range": ends, "source": task.source}


def _values(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [one.get(name), other.get(name)]
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name) or (name in one) != (name in other)
    }


def _named_rows(rows: NDArray[np.int64], left: Placed) -> dict[str, Any]:
    listed = left.store.raw_ids[left.rows[rows[:_SHOWN]]].tolist()
    return {"rows": len(rows), "examples": [raw.decode() for raw in listed]} if len(rows) else {}


# ---- blocks ---------------------------------------------------------------------------------------------------------


def _blocks(left: Placed, right: Placed) -> dict[str, Any]:
    one, other = left.store.blocks, right.store.blocks
    found: dict[str, Any] = {}
    for name in sorted({*one, *other}):
        if name not in one or name not in other:
            found[name] = {"missing_in": "second" if name in one else "first"}
            continue
        differs = _block(one[name], other[name], left, right)
        if differs:
            found[name] = differs
    return found


def _block(one: Block, other: Block, left: Placed, right: Placed) -> dict[str, Any]:
    found: dict[str, Any] = {}
    facts = [
        {"shape": list(at.item_shape), "views": at.shape[1], "dtype": at.dtype.name, "sealed": at.sealed}
        for at in (one, other)
    ]
    found |= {name: [a, facts[1][name]] for name, a in facts[0].items() if a != facts[1][name]}
    if one.names != other.names:
        found["names"] = True
    making = passport.differences(one.passport, other.passport)
    if making:
        found["passport"] = making
    sides = [{name: at[name] for name in passport.CIRCUMSTANCES if name in at} for at in (one.passport, other.passport)]
    circumstances = _values(*sides)
    if circumstances:
        found["circumstances"] = circumstances
    if one.shape[1:] == other.shape[1:] and len(left.rows):
        found.update(_rows(one, other, left, right))
    return found


def _rows(one: Block, other: Block, left: Placed, right: Placed) -> dict[str, Any]:
    status, others = one.status[left.rows], other.status[right.rows]
    found: dict[str, Any] = {}
    changed = np.flatnonzero((status != others).any(axis=1))
    if len(changed):
        pairs, counts = np.unique(
            np.stack([status[status != others], others[status != others]]), axis=1, return_counts=True
        )
        found["status"] = {
            **_named_rows(changed, left),
            "changes": {
                f"{_word(a)} -> {_word(b)}": int(n) for (a, b), n in zip(pairs.T.tolist(), counts.tolist(), strict=True)
            },
        }
    written = (status == Status.WRITTEN) & (others == Status.WRITTEN)
    vectors = _vectors(BlockRows(one, left.rows), BlockRows(other, right.rows), written, left)
    return {**found, **({"vectors": vectors} if vectors else {})}


def _word(status: int) -> str:
    return Status(status).reason if status in set(Status) else str(status)


def _vectors(one: BlockRows, other: BlockRows, written: NDArray[np.bool_], left: Placed) -> dict[str, Any]:
    """Compare the vectors that both have, a few MiB at a time."""
    n_rows, largest, lowest = np.zeros(len(written), dtype=bool), 0.0, 1.0
    with progress_bar(int(written.sum()), f"comparing {one.block.name}", unit="row") as advance:
        pieces = (gathered([one, other], np.flatnonzero(seen), view=view) for view, seen in enumerate(written.T))
        for piece, (a, b) in chain.from_iterable(pieces):
            differs = rows_that_differ(a.view(np.uint8), b.view(np.uint8))
            if differs.any():
                n_rows[piece[differs]] = True
                x, y = a[differs].astype(np.float64), b[differs].astype(np.float64)
                largest = max(largest, float(np.abs(x - y).max()))
                norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
                cosines = (x * y).sum(axis=1) / np.where(norms > 0, norms, 1.0)  # 0 for a zero vector
                lowest = min(lowest, float(cosines.min()))
            advance(len(piece))
    if not n_rows.any():
        return {}
    return {
        **_named_rows(np.flatnonzero(n_rows), left),
        "largest_difference": largest,
        "lowest_cosine": round(lowest, 8),
    }


def as_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Lay a difference out for people, one fact a line."""
    for section, content in found.items():
        if section in ("labels", "splits", "blocks"):
            for name, facts in content.items():
                for fact, value in facts.items():
                    yield f"{section[:-1] if section != 'labels' else 'task'} {name}: {_fact(fact, value)}"
        else:
            for fact, value in content.items():
                yield f"{section}: {_fact(fact, value)}"


def _fact(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    if isinstance(value, Mapping):
        return f"{words}: " + "; ".join(_fact(str(key), inner) for key, inner in value.items())
    if name == "passport":
        return f"{words} (first / second): " + "; ".join(value)
    if isinstance(value, list) and len(value) == 2 and name != "examples":
        return f"{words} {value[0]!r} / {value[1]!r}"
    if isinstance(value, list):
        return f"{words} {', '.join(map(str, value))}"
    return f"{words} {value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{words} {value}"
