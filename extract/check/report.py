"""What ``extract check`` finds: counts, unreadable images, duplicates, split groups, labels in file names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.check.duplicates import DISTANCE, find_clusters
from extract.check.hashes import fingerprint_files
from extract.corpora import Corpus, Dataset
from features_store import Index, Status
from features_store.leakage import Families, probe, traces_of_ids

SHOWN = 10  # ids that the text lists for each kind of finding
EVERYTHING = "everything"  # the probe on all families of columns together


def check(
    corpus: Corpus, dataset: Dataset, *, files: bool = True, distance: int = DISTANCE, progress: bool = True
) -> dict[str, Any]:
    """Check a corpus that was read; without `files` only its lists and labels. Returns a JSON object.

    `counts`, `published` and `differs` are by ``images``, ``SPLIT/PART`` and ``TASK/CLASS``; `failed` has the ids of
    unusable images by status, `reasons` why, by id; `groups_parted` counts by split the groups in more than one part,
    `all_zero` by task the rows of zeros; `shortcuts` is what a shallow tree reaches without pixels, by task and
    family of columns; `shortcuts_left_out` names the families that were not probed, because they name the classes.
    """
    index = dataset.index
    found, reasons = fingerprint_files(dataset.files, progress=progress) if files else (None, {})
    failed, duplicates = {}, []
    if found is not None:
        states = [value for value in np.unique(found["status"]).tolist() if value != Status.WRITTEN]
        failed = {Status(value).reason: index.ids[found["status"] == value].tolist() for value in states}
        columns = [found[name] for name in ("file_sha256", "phash", "has_phash")]
        duplicates = find_clusters(index, *columns, distance=distance)
    traces, left_out = _traces(index, found)
    counts = count_images(index)
    return {
        "corpus": corpus.name,
        "index_digest": index.digest,
        "counts": counts,
        "published": dict(corpus.published),
        "differs": {
            key: [counts.get(key, 0), wanted]
            for key, wanted in corpus.published.items()
            if counts.get(key, 0) != wanted
        },
        "files_read": files,
        "failed": failed,
        "reasons": {str(index.ids[row]): reason for row, reason in sorted(reasons.items())},
        "duplicates": duplicates,
        "groups_parted": {
            name: 0 if index.groups is None else len(np.unique(index.groups[split.crossed(index.groups)]))
            for name, split in index.splits.items()
        },
        "all_zero": {
            name: int((labels.values == 0).all(axis=1).sum())
            for name, labels in index.labels.items()
            if labels.task.form.has_classes and labels.values.ndim == 2
        },
        "shortcuts": [one for task in index.labels for one in _probe_task(index, task, traces)],
        "shortcuts_left_out": list(left_out),
        "notes": list(dataset.notes),
        "files_left_out": dict(index.corpus.get("left_out", {})),
    }


def count_images(index: Index) -> dict[str, int]:
    """Count images per part of each split and per class of each task."""
    counts = {"images": len(index)}
    for name, split in index.splits.items():
        counts |= {f"{name}/{part}": count for part, count in split.counts().items()}
    for name, labels in index.labels.items():
        by_class = labels.task.form.counts(labels.values, labels.task.classes)
        counts |= {f"{name}/{label}": count for label, count in by_class.items()}
        counts[f"{name}/without a label"] = int((~labels.known).sum())
    return counts


def _traces(index: Index, found: NDArray[Any] | None) -> tuple[Families, tuple[str, ...]]:
    """Return what images carry besides their pixels: ids, order, and size and age of the files if they were read."""
    classes = [one for labels in index.labels.values() if labels.task.form.has_classes for one in labels.task.classes]
    split = index.splits.get("default")
    parts = split.values if split is not None and split.has_parts else None
    families, left_out = traces_of_ids(index.ids, classes=classes, parts=parts)
    if found is not None:
        families |= {
            "file size": found["n_bytes"].reshape(-1, 1).astype(np.float64),
            "width and height": found["size"].astype(np.float64),
            "modification time": np.nan_to_num(found["modified"], nan=-1.0).reshape(-1, 1),
        }
    return families, left_out


def _probe_task(index: Index, task: str, traces: Families) -> list[dict[str, Any]]:
    """Probe a task with all columns, and with each family by itself, the most telling first."""
    columns = {EVERYTHING: np.concatenate([*traces.values()], axis=1), **traces}
    probes = {family: probe(values, index.labels[task], index.groups) for family, values in columns.items()}
    found: list[dict[str, Any]] = [
        {"task": task, "family": family, **one} for family, one in probes.items() if one is not None
    ]
    found.sort(key=lambda one: (one["family"] != EVERYTHING, -one["score"]))
    return [{**one, "accuracy": None if np.isnan(one["accuracy"]) else one["accuracy"]} for one in found]


def lines_of(record: Mapping[str, Any]) -> list[str]:
    """Return what was found as text."""
    counts, published, left_out = record["counts"], record["published"], record["files_left_out"]
    lines = [f"{record['corpus']}: {counts['images']} images", *(f"note: {note}" for note in record["notes"])]
    for key, count in counts.items():
        if key in published:
            same = "as published" if key not in record["differs"] else f"published: {published[key]}"
            lines.append(f"  {key}: {count} ({same})")
        elif key != "images":
            lines.append(f"  {key}: {count}")
    lines += [
        f"  {key}: 0 (published: {wanted})" for key, (_, wanted) in record["differs"].items() if key not in counts
    ]
    if not record["files_read"]:
        lines.append("files were not read: missing, damaged and equal images were not looked for")
    elif not record["failed"]:
        more = f"; {sum(left_out.values())} files were left out, as noted above" if left_out else ""
        lines.append(f"every image is there and decodes{more}")
    for reason, listed in record["failed"].items():
        words = [
            f"{name} ({record['reasons'][name]})" if name in record["reasons"] else name for name in listed[:SHOWN]
        ]
        lines.append(f"{reason}: {len(listed)} images: {_some([*words, *listed[SHOWN:]])}")
    lines += _duplicate_lines(record)
    lines += [f"groups split across parts by split {name!r}: {n}" for name, n in record["groups_parted"].items() if n]
    lines += [f"rows of zeros in task {name!r}: {n}" for name, n in record["all_zero"].items() if n]
    if record["shortcuts"]:
        lines.append(
            "shortcuts: a shallow tree without any pixel, 5-fold cross-validation (balanced accuracy; ratings: R2)"
        )
        if record["shortcuts_left_out"]:
            lines.append(f"  left out, because ids name the classes: {', '.join(record['shortcuts_left_out'])}")
    for one in record["shortcuts"]:
        exact = "" if one["accuracy"] is None else f", accuracy {one['accuracy']:.3f}"
        lines.append(f"  {one['task']}, {one['family']}: {one['score']:.3f} (chance {one['chance']:.3f}{exact})")
    return lines


def _duplicate_lines(record: Mapping[str, Any]) -> list[str]:
    lines = []
    for exact, words in ((True, "equal bytes"), (False, "near-duplicates (perceptual hash)")):
        clusters = [one for one in record["duplicates"] if one["exact"] == exact]
        if not clusters:
            continue
        lines.append(f"{words}: {len(clusters)} clusters of {sum(len(one['ids']) for one in clusters)} images")
        for name in record["groups_parted"]:
            if n_crossing := sum(name in one["crosses_splits"] for one in clusters):
                lines.append(f"  {n_crossing} cross the parts of split {name!r}")
        for task in dict.fromkeys(task for one in clusters for task in one["conflicting_tasks"]):
            clash = [" = ".join(one["ids"][:3]) for one in clusters if task in one["conflicting_tasks"]]
            lines.append(f"  {len(clash)} have different labels in task {task!r}: {_some(clash, 3)}")
    return lines


def _some(listed: list[str], shown: int = SHOWN) -> str:
    more = f" ... and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more
