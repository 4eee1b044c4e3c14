"""From a task and a split of a store to the rows and targets of each part, with every image accounted for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from classify.data.crossing import Crossing, find_crossing, refuse_crossing
from classify.data.kinds import kind_of
from classify.data.merging import merge_classes
from classify.data.seen import find_trained, refuse_trained
from classify.errors import TaskError
from features_store.errors import FailedRowsError
from features_store.schema import PART_NAMES, Status, Task

if TYPE_CHECKING:
    from features_store import Store


@dataclass(frozen=True)
class Part:
    """The images of one part of a split that have a label and all their vectors."""

    name: str
    rows: NDArray[np.int64]  # of the store, ascending
    # single: (n_images,) int64 codes; multi: (n_images, n_classes) uint8; regression: float64, (n_images,) for one
    # output, (n_images, n_outputs) for several
    y: NDArray[Any]
    ids: NDArray[np.str_]
    groups: NDArray[np.int64] | None = None  # images of one group belong together; -1 = alone. None = all alone

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def digest(self) -> str:
        """SHA-256 over ids and targets, in hexadecimal: runs that share it are scored on the same."""
        text = "\0".join(self.ids.tolist()).encode()
        return hashlib.sha256(text + b"\0\0" + np.ascontiguousarray(self.y).tobytes()).hexdigest()

    def some(self, chosen: NDArray[Any]) -> Part:
        """Return some of the images, by position or by a mask."""
        groups = None if self.groups is None else self.groups[chosen]
        return replace(self, rows=self.rows[chosen], y=self.y[chosen], ids=self.ids[chosen], groups=groups)


def joined(parts: Iterable[Part]) -> Part:
    """Return the images of several parts as one, in their order."""
    each = list(parts)
    rows, y, ids = (np.concatenate([getattr(part, what) for part in each]) for what in ("rows", "y", "ids"))
    known = [part.groups for part in each if part.groups is not None]
    return Part("+".join(part.name for part in each), rows, y, ids, np.concatenate(known) if known else None)


@dataclass(frozen=True)
class TaskRows:
    """A task laid out for a run."""

    task: Task
    parts: Mapping[str, Part]  # only those that hold images; ``train`` is always there
    dropped: Mapping[str, Mapping[str, int]]  # by part and reason, how many of its images are left out
    unused: int = 0  # images that the split leaves out
    warnings: tuple[str, ...] = ()  # for a reader of the results: classes without images, and the like
    split: str = ""
    split_source: str = ""  # published or made; "" = not stated

    @cached_property
    def crossing(self) -> Crossing | None:
        """The groups that lie in several parts; None where groups are whole."""
        groups = {name: part.groups for name, part in self.parts.items()}
        return find_crossing(groups, self.split, self.split_source)


def choose_blocks(store: Store, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the blocks to concatenate."""
    flat = sorted(name for name, block in store.blocks.items() if len(block.item_shape) == 1)
    for name in names:
        shape = store.block(name).item_shape
        if name not in flat:
            valid = ", ".join(flat) or "none"
            raise TaskError(f"block {name!r} holds maps of shape {shape}, not vectors; blocks with vectors: {valid}")
    if not names and not flat:
        raise TaskError("the store has no block of vectors; run `extract` on it first")
    return tuple(names) or tuple(flat)


def task_rows(
    store: Store,
    task: str,
    *,
    split: str,
    blocks: Sequence[str],
    on_failed: Literal["drop", "error"] = "drop",
    merge: Mapping[str, Sequence[str]] | None = None,
    allow_split_groups: bool = False,
) -> TaskRows:
    """Lay out a task: which rows and targets each part of the split has, and what is left out and why."""
    labels, chosen = merge_classes(store.task_labels(task), merge or {}), store.split(split)
    if not chosen.has_parts:
        raise TaskError(f"split {split!r} holds folds; a run needs one with train, validation and test parts")
    places, reasons = chosen.values, _failures(store, blocks)
    parts: dict[str, Part] = {}
    dropped: dict[str, dict[str, int]] = {}
    for code, name in enumerate(PART_NAMES):
        labelled = (places == code) & labels.known
        why, n_images = np.unique(reasons[labelled], return_counts=True)
        counts = {str(reason): int(n) for reason, n in zip(why, n_images, strict=True) if reason}
        if on_failed == "error" and counts:
            remedy = 'extract them, or leave them out with on_failed = "drop"'
            raise FailedRowsError(f"{_worded(counts)} of the {name} part lack a vector; {remedy}")
        if unlabelled := int(((places == code) & ~labels.known).sum()):
            counts = {"no label": unlabelled, **counts}
        if counts:
            dropped[name] = counts
        rows = np.flatnonzero(labelled & (reasons == ""))
        if len(rows):
            y = kind_of(labels.task).targets(labels.values[rows])
            groups = None if store.groups is None else np.asarray(store.groups)[rows]
            parts[name] = Part(name, rows, y, np.asarray(store.ids)[rows], groups)
    unused = int((places < 0).sum())
    trained, source = find_trained(store, blocks), chosen.source
    warnings = (*_gaps(labels.task, parts), *_flattered(trained, parts))
    laid_out = TaskRows(labels.task, parts, dropped, unused=unused, warnings=warnings, split=split, split_source=source)
    _check(laid_out, split)
    refuse_crossing(laid_out.crossing, allow=allow_split_groups)
    refuse_trained(store, trained, {name: part.rows for name, part in parts.items() if name != "train"})
    return laid_out


def _failures(store: Store, blocks: Sequence[str]) -> NDArray[np.str_]:
    """Why each image lacks a vector, in words, by the first block that lacks it; "" = it lacks none."""
    words = np.full(256, "of a status that this version does not know")
    words[list(Status)] = [status.reason for status in Status]
    words[[Status.WRITTEN, Status.PENDING]] = "", "not extracted yet"
    reasons = np.zeros(store.n_images, dtype=words.dtype)
    for name in blocks:
        status = np.asarray(store.block(name).status)[:, 0]
        reasons = np.where(reasons == "", words[status], reasons)
    return reasons


def _worded(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    images = "image" if total == 1 else "images"
    return f"{total} {images} ({', '.join(f'{reason}: {count}' for reason, count in counts.items())})"


def _gaps(task: Task, parts: Mapping[str, Part]) -> tuple[str, ...]:
    """Say which classes have no image in a part, and which labels or outputs never vary in training."""
    warnings = []
    for part in parts.values():
        for name, count in kind_of(task).class_counts(part.y).items():
            if not count:
                effect = "it cannot be learned" if part.name == "train" else "its row stays, empty"
                warnings.append(f"No image of the {part.name} part has the class {name!r}: {effect}.")
    if "train" in parts and not kind_of(task).exclusive:
        train = parts["train"].y.reshape(len(parts["train"]), -1)
        fixed = (train == train[0]).all(axis=0) & (train[0] != 0 if kind_of(task).has_classes else True)
        for name in np.array(task.classes)[fixed].tolist():
            shared = f"has the class {name!r}" if kind_of(task).has_classes else f"has the same {name!r}"
            warnings.append(f"Every image of the train part {shared}: it cannot be learned.")
    return tuple(warnings)


def _flattered(trained: Mapping[str, NDArray[np.bool_]], parts: Mapping[str, Part]) -> tuple[str, ...]:
    """Say which networks know the training images already."""
    names = [name for name, images in trained.items() if "train" in parts and images[parts["train"].rows].any()]
    text = f"Networks were trained on these training images ({', '.join(names)}): their vectors tell more of them than "
    return (text + "of other images, so whatever a head chooses by inner folds leans on these blocks.",) * bool(names)


def _check(laid_out: TaskRows, split: str) -> None:
    task, parts = laid_out.task, laid_out.parts
    lost = "; ".join(f"{part}: {_worded(counts)} left out" for part, counts in laid_out.dropped.items())
    because = f" ({lost})" if lost else ""
    if "train" not in parts:
        raise TaskError(f"task {task.name!r} has nothing to train on in split {split!r}{because}")
    if len(parts) == 1:
        neither = f"no validation and no test part{because}"
        raise TaskError(f"task {task.name!r} has nothing to score on in split {split!r}: {neither}")
    if kind_of(task).exclusive and len(np.unique(parts["train"].y)) < 2:
        only = task.classes[int(parts["train"].y[0])]
        images = f"all {len(parts['train'])} training images of task {task.name!r}"
        raise TaskError(f"{images} are {only!r}; a head needs two classes")


def sampled(data: TaskRows, limit: int | None, *, seed: int) -> TaskRows:
    """Return at most *limit* images of each part, drawn by *seed*; the first of each class is always among them."""
    if limit is None:
        return data
    parts = {}
    for name, part in data.parts.items():
        order = np.random.default_rng(seed).permutation(len(part))
        if kind_of(data.task).exclusive:
            _, first = np.unique(part.y[order], return_index=True)
            order = np.concatenate([order[first], np.delete(order, first)])
        parts[name] = part.some(np.sort(order[:limit]))
    text = f"At most {limit} images of each part were used: this shows that the run works, and is no result."
    return replace(data, parts=parts, warnings=(*data.warnings, text))
