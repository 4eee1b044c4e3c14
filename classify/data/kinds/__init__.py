"""The kinds of task: a file here and a line in ``KINDS`` for each; nothing else compares ``task.kind``."""

from classify.data.kinds.base import TaskKind
from classify.data.kinds.multi import Multi
from classify.data.kinds.regression import Regression
from classify.data.kinds.single import Single
from features_store import Task

KINDS: dict[str, type[TaskKind]] = {
    kind.name: kind
    for kind in (
        Single,
        Multi,
        Regression,
    )
}
"""Every kind of task, by the name that a store gives it."""


def kind_of(task: Task) -> TaskKind:
    """Return a task, seen by its kind."""
    return KINDS[task.kind](task)
