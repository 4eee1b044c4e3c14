"""Images of one index found in another, and the columns of several indexes brought onto one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from features_store.dump import overlaid_content
from features_store.errors import MismatchError
from features_store.passport import union
from features_store.schema import Index, Labels, Split, Status, Task
from features_store.store import Block, Store

PIECE_BYTES = 4 * 2**20  # of vectors, copied or compared at a time: memory does not grow with the dump
Item = TypeVar("Item", Labels, Split)


def locate(raw_ids: NDArray[np.bytes_], wanted: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Return the row of each wanted id, (n,) int64; -1 where there is none."""
    order = np.argsort(raw_ids)
    spots = np.minimum(np.searchsorted(raw_ids, wanted, sorter=order), len(raw_ids) - 1)
    rows = order[spots]
    return np.where(raw_ids[rows] == wanted, rows, -1).astype(np.int64)


@dataclass(frozen=True)
class Placed:
    """A store, and the row of each image of a new index in it: (n_images,) int64, -1 where it has none."""

    store: Store
    rows: NDArray[np.int64]

    def spread(self, values: NDArray[Any], empty: Any) -> NDArray[Any]:
        """Bring a column of the store onto the new index, `empty` where it has no row."""
        spread = values[self.rows]
        spread[self.rows < 0] = empty
        return spread


@dataclass(frozen=True)
class BlockRows:
    """A block, and the row of each image of a new index in it: (n_images,) int64, -1 where it has none."""

    block: Block
    rows: NDArray[np.int64]

    def status(self) -> NDArray[np.uint8]:
        """State of the new index's rows in this block, (n_images, n_views) uint8; absent rows are pending."""
        status = self.block.status[self.rows]
        status[self.rows < 0] = Status.PENDING
        return status


def gathered(
    sources: Sequence[BlockRows], rows: NDArray[np.int64], *, view: int
) -> Iterator[tuple[NDArray[np.int64], list[NDArray[np.floating]]]]:
    """Iterate over some rows of a new index, (n,) int64, with their vectors in each block, a few MiB at a time."""
    if not len(rows):
        return
    widest = max(source.block.n_features * source.block.dtype.itemsize for source in sources)
    step = max(1, PIECE_BYTES // widest)
    buffers = [
        np.empty((min(step, len(rows)), source.block.n_features), dtype=source.block.dtype) for source in sources
    ]
    for start in range(0, len(rows), step):
        piece = rows[start : start + step]
        for source, buffer in zip(sources, buffers, strict=True):
            source.block.gather(source.rows[piece], buffer[: len(piece)], view=view)
        yield piece, [buffer[: len(piece)] for buffer in buffers]


def combined_index(raw_ids: NDArray[np.bytes_], placed: Sequence[Placed], *, one_numbering: bool) -> Index:
    """Bring labels, splits, groups, content and corpus of several stores onto one index of ids, (n_images,)."""
    ids = np.array([raw.decode() for raw in raw_ids.tolist()], dtype=np.str_)
    tasks = {name: None for one in placed for name in one.store.labels}
    splits = {name: None for one in placed for name in one.store.splits}
    contents = [
        (one.store.paths[0], one.spread(one.store.content, 0)) for one in placed if one.store.content is not None
    ]
    return Index(
        ids,
        {name: _labels(name, [one for one in placed if name in one.store.labels], ids) for name in sorted(tasks)},
        {name: _split(name, [one for one in placed if name in one.store.splits], ids) for name in sorted(splits)},
        _groups(placed, len(ids), one_numbering=one_numbering),
        overlaid_content(contents, raw_ids),
        union([one.store.corpus for one in placed if one.store.corpus] or [{}]),
    )


def on_rows(item: Item, placed: Placed) -> Item:
    """Bring labels or a split onto a new index; an image that the store has not is unlabelled, or unused."""
    empty = -1 if isinstance(item, Split) else item.task.form.none
    return replace(item, values=placed.spread(item.values, empty))


def rows_that_differ(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell in which rows two columns differ: (n,) bool. Two NaN are equal."""
    differs: NDArray[np.bool_] = np.asarray(np.not_equal(one, other))
    if np.issubdtype(one.dtype, np.floating) and np.issubdtype(other.dtype, np.floating):
        differs &= ~(np.isnan(one) & np.isnan(other))
    return np.asarray(differs.reshape(len(one), math.prod(one.shape[1:])).any(axis=1), dtype=np.bool_)


def _labels(name: str, placed: Sequence[Placed], ids: NDArray[np.str_]) -> Labels:
    tasks = [one.store.labels[name].task for one in placed]
    for task in tasks[1:]:
        if replace(task, source="") != replace(tasks[0], source=""):
            raise MismatchError(
                f"task {name!r} is defined in two ways, {_definition(tasks[0])} and {_definition(task)}; keep one"
            )
    sources = sorted({source for task in tasks for source in task.source.split(" | ") if source})
    task = replace(tasks[0], source=" | ".join(sources))
    columns = [on_rows(one.store.labels[name], one).values for one in placed]
    return Labels(task, _overlaid(columns, placed, ids, f"task {name!r}", "the label"))


def _definition(task: Task) -> str:
    return f"{task.kind} of {list(task.classes)}{f' in {list(task.range)}' if task.range else ''}"


def _split(name: str, placed: Sequence[Placed], ids: NDArray[np.str_]) -> Split:
    kinds: list[Literal["parts", "folds"]] = sorted({one.store.splits[name].kind for one in placed})
    if len(kinds) > 1:
        raise MismatchError(f"split {name!r} holds parts in one dump and folds in another; keep one of them")
    sources = sorted({one.store.splits[name].source for one in placed} - {""})
    if len(sources) > 1:
        raise MismatchError(f"split {name!r} was published in one dump and made in another; keep one of them")
    columns = [on_rows(one.store.splits[name], one).values for one in placed]
    return Split(name, _overlaid(columns, placed, ids, f"split {name!r}", "the part"), kinds[0], *sources)


def _overlaid(
    columns: Sequence[NDArray[Any]], placed: Sequence[Placed], ids: NDArray[np.str_], what: str, value: str
) -> NDArray[Any]:
    """Lay columns over each other; where two stores have an image they must agree."""
    result, filled = columns[0].copy(), placed[0].rows >= 0
    for column, one in zip(columns[1:], placed[1:], strict=True):
        here = one.rows >= 0
        both = np.flatnonzero(here & filled)
        differs = both[rows_that_differ(result[both], column[both])]
        if len(differs):
            raise MismatchError(
                f"{what}: {one.store.paths[0]} contradicts the dumps before it about {value} of {len(differs)} images, "
                f"the first is {str(ids[differs[0]])!r}; leave one out, or choose one's with `features-store relabel`"
            )
        result[here] = column[here]
        filled |= here
    return result


def _groups(placed: Sequence[Placed], n_images: int, *, one_numbering: bool) -> NDArray[np.int64] | None:
    columns = [(one.spread(one.store.groups, -1), one.rows >= 0) for one in placed if one.store.groups is not None]
    if not columns:
        return None
    overlaid, filled = columns[0][0].copy(), columns[0][1].copy()
    agree = one_numbering or len(columns) == 1
    for column, here in columns[1:]:
        agree = agree and bool((overlaid[here & filled] == column[here & filled]).all())
        overlaid[here] = column[here]
        filled |= here
    return overlaid if agree else _connected([column for column, _ in columns], n_images)


def other_companions(index: Index, placed: Sequence[Placed]) -> NDArray[np.bool_]:
    """Tell which images, (n_images,) bool, are grouped with others than in one of the stores that have groups."""
    changed = np.zeros(len(index), dtype=np.bool_)
    for one in placed:
        if one.store.groups is not None and index.groups is not None:
            here = np.flatnonzero(one.rows >= 0)
            changed[here] |= _apart(index.groups[here], one.store.groups[one.rows[here]])
    return changed


def refuse_other_groups(stores: Sequence[Store]) -> None:
    """Refuse stores of one index that group images in different ways; numbers of groups do not matter."""
    having = [(store, store.groups) for store in stores if store.groups is not None]
    for (one, groups), (other, theirs) in itertools.combinations(having, 2):
        both = np.flatnonzero((groups >= 0) & (theirs >= 0))
        apart = both[_apart(groups[both], theirs[both])]
        if len(apart):
            raise MismatchError(
                f"{one.paths[0]} and {other.paths[0]} contradict each other about the group of {len(apart)} images, "
                f"the first is {one.raw_ids[apart[0]].decode()!r}; leave one out"
            )


def _apart(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which images have other companions in one column of groups than in another; -1 = none."""
    n = len(one)
    left, right = (
        np.unique(np.where(column >= 0, column, -1 - np.arange(n)), return_inverse=True)[1] for column in (one, other)
    )
    sizes = []
    for column in (left, right, left * n + right):
        _, numbers, counts = np.unique(column, return_inverse=True, return_counts=True)
        sizes.append(counts[numbers])
    return np.asarray((sizes[0] != sizes[2]) | (sizes[1] != sizes[2]))


def _connected(columns: Sequence[NDArray[np.int64]], n_images: int) -> NDArray[np.int64]:
    """Number the groups anew, so that images that any column keeps together stay together."""
    component = np.arange(n_images)
    before = None
    while before is None or not np.array_equal(before, component):
        before = component.copy()
        for column in columns:
            grouped = np.flatnonzero(column >= 0)
            names, numbers = np.unique(column[grouped], return_inverse=True)
            lowest = np.full(len(names), n_images)
            np.minimum.at(lowest, numbers, component[grouped])
            component[grouped] = lowest[numbers]
        component = component[component]  # the lowest image of a component is of the same one
    _, first, inverse, counts = np.unique(component, return_index=True, return_inverse=True, return_counts=True)
    together = counts[inverse] > 1
    # Numbered by first appearance, so that the result does not depend on the order in which dumps were given.
    _, numbers = np.unique(first[inverse][together], return_inverse=True)
    groups = np.full(n_images, -1, dtype=np.int64)
    groups[together] = numbers
    return groups
