"""What ``extract check`` finds: counts, unreadable images, duplicates, split groups, labels in file names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from extract.check.duplicates import DISTANCE, Cluster, find_clusters
from extract.check.hashes import Fingerprints, fingerprint_files
from extract.corpora import Corpus, Dataset
from features_store import Index, Status
from features_store.leakage import Families, probe, traces_of_ids
from features_store.schema import PART_NAMES

SHOWN = 10  # ids that the text lists for each kind of finding
EVERYTHING = "everything"  # the probe on all families of columns together


@dataclass(frozen=True)
class Check:
    """What was found.

    `counts` and `published` are by ``images``, ``SPLIT/PART`` and ``TASK/CLASS``; `failed` has the ids of unusable
    images by status, `reasons` why, by id; `shortcuts` what a shallow tree reaches without pixels, by task and family
    of columns; `left_out` the families that were not probed, because they name the classes.
    """

    corpus: str
    index: Index
    counts: Mapping[str, int]
    published: Mapping[str, int]
    failed: Mapping[Status, list[str]]
    reasons: Mapping[str, str]
    clusters: list[Cluster]
    groups_parted: Mapping[str, int]  # by split: groups whose images lie in more than one part
    all_zero: Mapping[str, int]  # by multi-label task: images with a label row of zeros
    shortcuts: list[dict[str, Any]]
    left_out: tuple[str, ...]
    files_read: bool  # False: only lists and labels were checked
    notes: tuple[str, ...]  # from the reader

    @property
    def n_failed(self) -> int:
        """Number of images that cannot be used."""
        return sum(map(len, self.failed.values()))

    @property
    def differs(self) -> dict[str, int]:
        """The published counts that are not those of this copy."""
        return {key: wanted for key, wanted in self.published.items() if self.counts.get(key, 0) != wanted}


def check(
    corpus: Corpus, dataset: Dataset, *, files: bool = True, distance: int = DISTANCE, progress: bool = True
) -> Check:
    """Check a corpus that was read."""
    index = dataset.index
    found = fingerprint_files(dataset.files, progress=progress) if files else None
    statuses = [] if found is None else [Status(value) for value in np.unique(found.status).tolist()]
    traces, left_out = traces_of(index, found)
    return Check(
        corpus=corpus.name,
        index=index,
        counts=count_images(index),
        published=corpus.published,
        failed={one: index.ids[found.status == one].tolist() for one in statuses if found and one != Status.WRITTEN},
        reasons={str(index.ids[row]): reason for row, reason in sorted(found.reasons.items())} if found else {},
        clusters=find_clusters(index, found.file_sha256, found.phash, found.has_phash, distance=distance)
        if found
        else [],
        groups_parted={name: _count_parted(index, name) for name in index.splits},
        all_zero={
            name: int((labels.values == 0).all(axis=1).sum())
            for name, labels in index.labels.items()
            if labels.task.kind == "multi"
        },
        shortcuts=[one for task in index.labels for one in probe_task(index, task, traces)],
        left_out=left_out,
        files_read=files,
        notes=dataset.notes,
    )


def count_images(index: Index) -> dict[str, int]:
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


def _count_parted(index: Index, split: str) -> int:
    return 0 if index.groups is None else len(np.unique(index.groups[index.splits[split].crossed(index.groups)]))


def traces_of(index: Index, found: Fingerprints | None) -> tuple[Families, tuple[str, ...]]:
    """Return what images carry besides their pixels: ids, order, and size and age of the files if they were read."""
    classes = [
        one for labels in index.labels.values() if labels.task.kind != "regression" for one in labels.task.classes
    ]
    split = index.splits.get("default")
    parts = split.values if split is not None and split.kind == "parts" else None
    families, left_out = traces_of_ids(index.ids, classes=classes, parts=parts)
    if found is None:
        return families, left_out
    families |= {
        "file size": found.n_bytes.reshape(-1, 1).astype(np.float64),
        "width and height": np.stack([found.width, found.height], axis=1).astype(np.float64),
        "modification time": np.nan_to_num(found.modified, nan=-1.0).reshape(-1, 1),
    }
    return families, left_out


def probe_task(index: Index, task: str, traces: Families) -> list[dict[str, Any]]:
    """Probe a task with all columns, and with each family by itself, the most telling first."""
    columns = {EVERYTHING: np.concatenate([*traces.values()], axis=1), **traces}
    probes = {family: probe(values, index.labels[task], index.groups) for family, values in columns.items()}
    found = [{"task": task, "family": family, **one} for family, one in probes.items() if one is not None]
    return sorted(found, key=lambda one: (one["family"] != EVERYTHING, -one["score"]))


def record_of(done: Check) -> dict[str, Any]:
    """Return everything as JSON."""
    ids = done.index.ids
    return {
        "corpus": done.corpus,
        "index_digest": done.index.digest,
        "counts": dict(done.counts),
        "published": dict(done.published),
        "differs": {key: [done.counts.get(key, 0), wanted] for key, wanted in done.differs.items()},
        "files_read": done.files_read,
        "failed": {status.reason: listed for status, listed in done.failed.items()},
        "reasons": dict(done.reasons),
        "duplicates": [
            {
                "ids": ids[list(one.rows)].tolist(),
                "exact": one.exact,
                "crosses_splits": list(one.crosses_splits),
                "conflicting_tasks": list(one.conflicting_tasks),
            }
            for one in done.clusters
        ],
        "groups_parted": dict(done.groups_parted),
        "all_zero": dict(done.all_zero),
        "shortcuts": [
            {**one, "accuracy": None if np.isnan(one["accuracy"]) else one["accuracy"]} for one in done.shortcuts
        ],
        "shortcuts_left_out": list(done.left_out),
        "notes": list(done.notes),
        "files_left_out": dict(done.index.corpus.get("left_out", {})),
    }


def lines_of(done: Check) -> list[str]:
    """Return everything as text."""
    lines = [f"{done.corpus}: {len(done.index)} images", *(f"note: {note}" for note in done.notes)]
    for key, count in done.counts.items():
        if key in done.published:
            same = "as published" if key not in done.differs else f"published: {done.published[key]}"
            lines.append(f"  {key}: {count} ({same})")
        elif key != "images":
            lines.append(f"  {key}: {count}")
    lines += [f"  {key}: 0 (published: {wanted})" for key, wanted in done.differs.items() if key not in done.counts]
    if not done.files_read:
        lines.append("files were not read: missing, damaged and equal images were not looked for")
    elif not done.failed:
        n_others = sum(done.index.corpus.get("left_out", {}).values())
        more = f"; {n_others} files were left out, as noted above" if n_others else ""
        lines.append(f"every image is there and decodes{more}")
    for status, listed in done.failed.items():
        shown = [f"{name} ({done.reasons[name]})" if name in done.reasons else name for name in listed[:SHOWN]]
        lines.append(f"{status.reason}: {len(listed)} images: {_some([*shown, *listed[SHOWN:]])}")
    lines += _duplicate_lines(done)
    lines += [f"groups split across parts by split {name!r}: {n}" for name, n in done.groups_parted.items() if n]
    lines += [f"rows of zeros in task {name!r}: {n}" for name, n in done.all_zero.items() if n]
    return lines + _shortcut_lines(done)


def _duplicate_lines(done: Check) -> list[str]:
    lines = []
    for exact, words in ((True, "equal bytes"), (False, "near-duplicates (perceptual hash)")):
        clusters = [one for one in done.clusters if one.exact == exact]
        if not clusters:
            continue
        lines.append(f"{words}: {len(clusters)} clusters of {sum(len(one.rows) for one in clusters)} images")
        for name in done.index.splits:
            if n_crossing := sum(name in one.crosses_splits for one in clusters):
                lines.append(f"  {n_crossing} cross the parts of split {name!r}")
        for task in done.index.labels:
            if clash := [one for one in clusters if task in one.conflicting_tasks]:
                shown = [" = ".join(done.index.ids[list(one.rows[:3])].tolist()) for one in clash]
                lines.append(f"  {len(clash)} have different labels in task {task!r}: {_some(shown, 3)}")
    return lines


def _shortcut_lines(done: Check) -> list[str]:
    if not done.shortcuts:
        return []
    lines = ["shortcuts: a shallow tree without any pixel, 5-fold cross-validation (balanced accuracy; ratings: R2)"]
    if done.left_out:
        lines.append(f"  left out, because ids name the classes: {', '.join(done.left_out)}")
    for one in done.shortcuts:
        exact = "" if np.isnan(one["accuracy"]) else f", accuracy {one['accuracy']:.3f}"
        lines.append(f"  {one['task']}, {one['family']}: {one['score']:.3f} (chance {one['chance']:.3f}{exact})")
    return lines


def _some(listed: list[str], shown: int = SHOWN) -> str:
    more = f" ... and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more
