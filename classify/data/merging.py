"""Near classes made one before anything is learned: anger with fear, say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from classify.data.kinds import kind_of
from classify.errors import TaskError
from features_store import Labels
from features_store.errors import unknown_name


def merge_classes(labels: Labels, merge: Mapping[str, Sequence[str]]) -> Labels:
    """Return the labels with some classes put together.

    A merged class stands where the first of its members stood. Of several labels an image, the merged one is there
    where any of its members is.
    """
    if not merge:
        return labels
    task = labels.task
    if not kind_of(task).has_classes:
        raise TaskError(f"task {task.name!r} is a regression; it has no classes to merge")
    new_of = {member: name for name, members in merge.items() for member in members}
    for member in new_of:
        if member not in task.classes:
            raise TaskError(unknown_name(f"class of task {task.name!r}", member, task.classes))
    if len(new_of) < sum(len(members) for members in merge.values()):
        raise TaskError(f"merge = {dict(merge)} names a class twice; each class goes into one merged class")
    taken = sorted(set(merge) & (set(task.classes) - set(new_of)))
    if taken:
        raise TaskError(
            f"merge makes a class {taken[0]!r}, and task {task.name!r} has one that is not merged; name it too"
        )
    classes = tuple(dict.fromkeys(new_of.get(name, name) for name in task.classes))
    if len(classes) < 2:
        raise TaskError(
            f"merge = {dict(merge)} leaves the one class {classes[0]!r} of task {task.name!r}; leave at least two"
        )
    place = np.array([classes.index(new_of.get(name, name)) for name in task.classes])
    merged = replace(task, classes=classes, source=f"{task.source}; classes merged".lstrip("; "))
    return Labels(merged, kind_of(task).mapped(labels.values, place, len(classes)))
