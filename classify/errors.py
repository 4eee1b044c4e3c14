"""Every error that ``classify`` raises on purpose, in one tree.

::

    AffectoryError                      (features_store.errors)
    └── ClassifyError
        ├── ConfigError(ValueError)     a setting that does not exist, or has no such value
        ├── HeadError(ValueError)       a head that cannot do what it was asked
        ├── TaskError(ValueError)       labels, split and vectors that do not make a task
        ├── RunError(OSError)           a run folder that cannot be written or read
        ├── ModelError(ValueError)      a run or bundle that cannot answer for new images
        │   └── BundleError             a bundle that is not whole, or is not what it says
        └── SubmissionError(ValueError) a file of answers that must not be handed in

Each text says what failed, the value, what is valid and what to do.
"""

from features_store.errors import AffectoryError


class ClassifyError(AffectoryError):
    """Something that the user of ``classify`` can put right."""


class ConfigError(ClassifyError, ValueError):
    """A setting has an unknown name or a value it cannot have."""


class HeadError(ClassifyError, ValueError):
    """A head was asked for something it cannot do, or given data it cannot take."""


class OutdatedHeadError(HeadError):
    """A saved head is of an earlier version, whose heads are not read."""


class TaskError(ClassifyError, ValueError):
    """The labels, the split and the vectors do not make a task that can be run."""


class RunError(ClassifyError, OSError):
    """A run folder exists already, is incomplete, or cannot be read."""


class ModelError(ClassifyError, ValueError):
    """A run or a bundle cannot answer for new images: an encoder cannot be rebuilt, or would give other vectors."""


class BundleError(ModelError):
    """A bundle is not whole, is not what it says, or holds what no bundle holds."""


class SubmissionError(ClassifyError, ValueError):
    """A file of answers is not what the run said, or is not in the form that is asked for."""
