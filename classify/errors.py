"""Every error that ``classify`` raises on purpose, in one tree.

::

    AffectoryError                      (features_store.errors)
    └── ClassifyError
        ├── ConfigError(ValueError)     a setting that doesn't exist, or has no such value
        ├── HeadError(ValueError)       a head that can't do what it was asked
        ├── TaskError(ValueError)       labels, split and vectors that don't make a task
        └── RunError(OSError)           a run folder that can't be written or read

Each text says what failed, the value, what is valid and what to do.
"""

from features_store.errors import AffectoryError

__all__ = ["ClassifyError", "ConfigError", "HeadError", "RunError", "TaskError"]


class ClassifyError(AffectoryError):
    """Something that the user of ``classify`` can put right."""


class ConfigError(ClassifyError, ValueError):
    """A setting has an unknown name or a value it can't have."""


class HeadError(ClassifyError, ValueError):
    """A head was asked for something it can't do, or given data it can't take."""


class TaskError(ClassifyError, ValueError):
    """The labels, the split and the vectors don't make a task that can be run."""


class RunError(ClassifyError, OSError):
    """A run folder exists already, is incomplete, or can't be read."""
