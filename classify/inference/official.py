"""The columns of a file of answers: those of MediaEval 2021 for its subtasks, else named plainly."""

from __future__ import annotations

from features_store.schema import Task

__all__ = ["SUBTASKS", "columns_of"]

SUBTASKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "subtask1": (("negative", "neutral", "positive"), ("T1",)),
    "subtask2": (
        ("joy", "sadness", "fear", "disgust", "anger", "surprise", "neutral"),
        (
            *("T2.1: Joy", "T2.2: Sadness", "T2.3: Fear", "T2.4: Disgust"),
            *("T2.5: Anger", "T2.6: Surprise", "T2.7: Neutral"),
        ),
    ),
    "subtask3": (
        ("anger", "anxiety", "craving", "empathic pain", "fear", "horror", "joy", "relief", "sadness", "surprise"),
        (
            *("T3.1: Anger", "T3.2: Anxiety", "T3.3: Craving", "T3.4: Emphatic pain", "T3.5: Fear"),
            *("T3.6: Horror", "T3.7: Joy", "T3.8: Relief", "T3.9: Sadness", "T3.10:surprise"),
        ),
    ),
}
"""By subtask: its classes in the official order, and its titles in the official spelling, slips included."""


def columns_of(task: Task) -> tuple[str, ...]:
    """Return the titles of a task's columns, in the order of its classes.

    A single-label task has one column of class names; a multi-label task a column of 0 and 1 for each class; a
    regression a column of values for each output.
    """
    classes, titles = SUBTASKS.get(task.name, ((), ()))
    if classes == task.classes:
        return titles
    return (task.name,) if task.kind == "single" else tuple(f"{task.name}: {name}" for name in task.classes)
