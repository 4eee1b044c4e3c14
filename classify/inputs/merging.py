"""Near classes made one before anything is learned: anger with fear, say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from classify.errors import TaskError
from features_store import Labels
from features_store.errors import unknown_name

__all__ = ["merge_classes"]


def merge_classes(labels: Labels, merge: Mapping[str, Sequence[str]]) -> Labels:
    """Return the labels with some classes put together.

    A merged class stands where the first of its members stood. Of several labels an image, the merged one is there
    where any of its members is.

    Raises TaskError.
    """
    if not merge:
        return labels
    task = labels.task
    if task.kind == "regression":
        message = f"task {task.name!r} is a regression; it has no classes to merge"
        raise TaskError(message)
    new_of = {member: name for name, members in merge.items() for member in members}
    for member in new_of:
        if member not in task.classes:
            raise TaskError(unknown_name(f"class of task {task.name!r}", member, task.classes))
    if len(new_of) < sum(len(members) for members in merge.values()):
        message = f"merge = {dict(merge)} names a class twice; each class goes into one merged class"
        raise TaskError(message)
    taken = sorted(set(merge) & (set(task.classes) - set(new_of)))
    if taken:
        message = f"merge makes a class {taken[0]!r}, and task {task.name!r} has one that isn't merged; name it too"
        raise TaskError(message)
    classes = tuple(dict.fromkeys(new_of.get(name, name) for name in task.classes))
    if len(classes) < 2:
        message = f"merge = {dict(merge)} leaves the one class {classes[0]!r} of task {task.name!r}; leave at least two"
        raise TaskError(message)
    place = np.array([classes.index(new_of.get(name, name)) for name in task.classes])
    merged = replace(task, classes=classes, source=f"{task.source}; classes merged".lstrip("; "))
    if task.kind == "single":
        codes = np.where(labels.values < 0, -1, place[labels.values.clip(min=0)])
        return Labels(merged, codes.astype(labels.values.dtype))
    # A row without a label is 255 throughout, and stays so.
    return Labels(merged, np.stack([labels.values[:, place == k].max(axis=1) for k in range(len(classes))], axis=1))
