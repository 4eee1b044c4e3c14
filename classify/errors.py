"""Every error that ``classify`` raises on purpose: what failed, the value, what is valid and what to do.

`ClassifyError` is an `AffectoryError` of `features_store.errors`, and the base of all others.
"""

from features_store.errors import AffectoryError


class ClassifyError(AffectoryError):
    """Something that the user of ``classify`` can put right."""


class ConfigError(ClassifyError, ValueError):
    """A setting has an unknown name or a value that it does not take."""


class HeadError(ClassifyError, ValueError):
    """A head has an option or data that it does not take."""


class OutdatedHeadError(HeadError):
    """A saved head is of an earlier version, whose heads are not read."""


class TaskError(ClassifyError, ValueError):
    """The labels, the split and the vectors do not make a task that can be run."""


class RunError(ClassifyError, OSError):
    """A run folder exists already, is incomplete, or cannot be read or written."""


class ModelError(ClassifyError, ValueError):
    """A run or a bundle cannot predict new images: an encoder cannot be rebuilt, or would give other vectors."""


class BundleError(ModelError):
    """A bundle is not whole, or holds what no bundle holds."""


class SubmissionError(ClassifyError, ValueError):
    """A file of predictions is not that of the run, or not in the required form."""
