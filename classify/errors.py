"""Every error that ``classify`` raises on purpose, in one tree.

::

    AffectoryError                      (features_store.errors)
    └── ClassifyError
        ├── ConfigError(ValueError)     a setting that doesn't exist, or has no such value
        ├── HeadError(ValueError)       a head that can't do what it was asked
        ├── TaskError(ValueError)       labels, split and vectors that don't make a task
        ├── RunError(OSError)           a run folder that can't be written or read
        ├── ModelError(ValueError)      a run or bundle that can't answer for new images
        │   └── BundleError             a bundle that isn't whole, or isn't what it says
        └── SubmissionError(ValueError) a file of answers that must not be handed in

Each text says what failed, the value, what is valid and what to do.
"""

from features_store.errors import AffectoryError


class ClassifyError(AffectoryError):
    """Something that the user of ``classify`` can put right."""


class ConfigError(ClassifyError, ValueError):
    """A setting has an unknown name or a value it can't have."""


class HeadError(ClassifyError, ValueError):
    """A head was asked for something it can't do, or given data it can't take."""


class OutdatedHeadError(HeadError):
    """A saved head is of an earlier version, whose heads are not read."""


class TaskError(ClassifyError, ValueError):
    """The labels, the split and the vectors don't make a task that can be run."""


class RunError(ClassifyError, OSError):
    """A run folder exists already, is incomplete, or can't be read."""


class ModelError(ClassifyError, ValueError):
    """A run or a bundle can't answer for new images: an encoder can't be rebuilt, or would give other vectors."""


class BundleError(ModelError):
    """A bundle isn't whole, isn't what it says, or holds what no bundle holds."""


class SubmissionError(ClassifyError, ValueError):
    """A file of answers isn't what the run said, or isn't in the form that is asked for."""
