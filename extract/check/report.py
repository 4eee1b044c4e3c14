"""Check a corpus: what is there, what is broken, what occurs twice, what leaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from extract.check.duplicates import DISTANCE, Cluster, clusters_of
from extract.check.hashes import Fingerprints, fingerprints_of
from extract.check.leakage import Shortcut, shortcuts_of, traces_of
from extract.corpora import Corpus, Reading
from extract.corpora.tweets import parted
from features_store import Index, Split, Status
from features_store.schema import PART_NAMES

SHOWN = 10  # ids that the text names of each kind of finding


@dataclass(frozen=True)
class Check:
    """What was found.

    Parameters
    ----------
    counts : mapping of str to int
        ``images``, ``SPLIT/PART``, ``TASK/CLASS``.
    published : mapping of str to int
        What the literature counts, by the same names.
    failed : mapping of Status to list of str
        Ids of images that cannot be used.
    reasons : mapping of str to str
        By id, why not.
    groups_parted : mapping of str to int
        By split: groups whose images lie in more than one part.
    all_zero : mapping of str to int
        By multi-label task: images with a label row of zeros.
    left_out : tuple of str
        Families of columns that the probes did not use, for they name the classes.
    files_read : bool
        False: only lists and labels were checked.
    notes : tuple of str
        From the reader.
    """

    corpus: str
    index: Index
    counts: Mapping[str, int]
    published: Mapping[str, int]
    failed: Mapping[Status, list[str]]
    reasons: Mapping[str, str]
    clusters: list[Cluster]
    groups_parted: Mapping[str, int]
    all_zero: Mapping[str, int]
    shortcuts: list[Shortcut]
    left_out: tuple[str, ...]
    files_read: bool
    notes: tuple[str, ...]

    @property
    def n_failed(self) -> int:
        """How many images cannot be used."""
        return sum(map(len, self.failed.values()))


def check(
    corpus: Corpus, reading: Reading, *, files: bool = True, distance: int = DISTANCE, progress: bool = True
) -> Check:
    """Check a corpus that was read."""
    index = reading.index
    found = fingerprints_of(reading.source, progress=progress) if files else None
    traces = traces_of(index, found)
    return Check(
        corpus=corpus.name,
        index=index,
        counts=counts_of(index),
        published=corpus.published,
        failed=_failed(index, found) if found else {},
        reasons={str(index.ids[row]): reason for row, reason in found.reasons.items()} if found else {},
        clusters=clusters_of(index, found.content, found.look, found.hashed, distance=distance) if found else [],
        groups_parted={name: _parted(index, split) for name, split in index.splits.items()},
        all_zero={
            name: int((labels.values == 0).all(axis=1).sum())
            for name, labels in index.labels.items()
            if labels.task.kind == "multi"
        },
        shortcuts=shortcuts_of(index, traces),
        left_out=traces.left_out,
        files_read=files,
        notes=reading.notes,
    )


def counts_of(index: Index) -> dict[str, int]:
    """Count images per part of each split and per class of each task."""
    counts = {"images": len(index)}
    for name, split in index.splits.items():
        for value in np.unique(split.values).tolist():
            part = "unused" if value < 0 else PART_NAMES[value] if split.kind == "parts" else f"fold {value}"
            counts[f"{name}/{part}"] = int((split.values == value).sum())
    for name, labels in index.labels.items():
        for at, label in enumerate(labels.task.classes):
            if labels.task.kind == "single":
                counts[f"{name}/{label}"] = int((labels.values == at).sum())
            elif labels.task.kind == "multi":
                counts[f"{name}/{label}"] = int((labels.values[:, at] == 1).sum())
        counts[f"{name}/without a label"] = int((~labels.known).sum())
    return counts


def _failed(index: Index, found: Fingerprints) -> dict[Status, list[str]]:
    kinds = [Status(value) for value in np.unique(found.status).tolist() if value != Status.WRITTEN]
    return {kind: index.ids[found.status == kind].tolist() for kind in kinds}


def _parted(index: Index, split: Split) -> int:
    return 0 if index.groups is None else parted(index.groups, split.values)


def record_of(done: Check) -> dict[str, Any]:
    """Return everything as JSON."""
    ids = done.index.ids
    return {
        "corpus": done.corpus,
        "index_digest": done.index.digest,
        "counts": dict(done.counts),
        "published": dict(done.published),
        "differs": {key: [done.counts.get(key, 0), want] for key, want in _differing(done).items()},
        "files_read": done.files_read,
        "failed": {kind.reason: listed for kind, listed in done.failed.items()},
        "reasons": dict(done.reasons),
        "duplicates": [
            {
                "ids": ids[list(one.rows)].tolist(),
                "exact": one.exact,
                "crosses_splits": list(one.crosses),
                "conflicting_tasks": list(one.conflicts),
            }
            for one in done.clusters
        ],
        "groups_parted": dict(done.groups_parted),
        "all_zero": dict(done.all_zero),
        "shortcuts": [one.record() for one in done.shortcuts],
        "shortcuts_left_out": list(done.left_out),
        "notes": list(done.notes),
        "files_left_out": dict(done.index.corpus.get("left_out", {})),
    }


def _differing(done: Check) -> dict[str, int]:
    return {key: want for key, want in done.published.items() if done.counts.get(key, 0) != want}


def lines_of(done: Check) -> list[str]:
    """Return everything as text."""
    lines = [f"{done.corpus}: {len(done.index)} images", *(f"note: {note}" for note in done.notes)]
    for key, count in done.counts.items():
        if key in done.published:
            same = "as published" if done.published[key] == count else f"published: {done.published[key]}"
            lines.append(f"  {key}: {count} ({same})")
        elif key != "images":
            lines.append(f"  {key}: {count}")
    lines += [f"  {key}: 0 (published: {want})" for key, want in _differing(done).items() if key not in done.counts]
    if not done.files_read:
        lines.append("files were not read: nothing is known of missing, damaged or equal images")
    elif not done.failed:
        others = sum(done.index.corpus.get("left_out", {}).values())
        more = f"; {others} files were left out, as noted above" if others else ""
        lines.append(f"every image is there and decodes{more}")
    for kind, listed in done.failed.items():
        shown = [f"{name} ({done.reasons[name]})" if name in done.reasons else name for name in listed[:SHOWN]]
        lines.append(f"{kind.reason}: {len(listed)} images: {_some([*shown, *listed[SHOWN:]])}")
    lines += _duplicate_lines(done)
    lines += [f"groups parted by split {name!r}: {count}" for name, count in done.groups_parted.items() if count]
    lines += [f"rows of zeros in task {name!r}: {count}" for name, count in done.all_zero.items() if count]
    return lines + _shortcut_lines(done)


def _duplicate_lines(done: Check) -> list[str]:
    lines = []
    for exact, words in ((True, "equal bytes"), (False, "near-duplicates (perceptual hash)")):
        some = [one for one in done.clusters if one.exact == exact]
        if not some:
            continue
        n_images = sum(len(one.rows) for one in some)
        lines.append(f"{words}: {len(some)} clusters of {n_images} images")
        for name in done.index.splits:
            if crossing := sum(name in one.crosses for one in some):
                lines.append(f"  {crossing} cross the parts of split {name!r}")
        for task in done.index.labels:
            if clash := [one for one in some if task in one.conflicts]:
                shown = [" = ".join(done.index.ids[list(one.rows[:3])].tolist()) for one in clash]
                lines.append(f"  {len(clash)} have different labels in task {task!r}: {_some(shown, 3)}")
    return lines


def _shortcut_lines(done: Check) -> list[str]:
    if not done.shortcuts:
        return []
    lines = ["shortcuts: a shallow tree without any pixel, 5-fold cross-validation (balanced accuracy; ratings: R2)"]
    if done.left_out:
        lines.append(f"  left out, for ids name the classes: {', '.join(done.left_out)}")
    for one in done.shortcuts:
        exact = "" if np.isnan(one.accuracy) else f", accuracy {one.accuracy:.3f}"
        lines.append(f"  {one.task}, {one.family}: {one.score:.3f} (chance {one.chance:.3f}{exact})")
    return lines


def _some(listed: list[str], shown: int = SHOWN) -> str:
    more = f" ... and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more
