"""Train shallow heads on the vectors of a feature store, and show how good they are.

::

    run = classify.run("features/emoji", "polarity", "svm")
    classify.cross_validate("features/emoji", "polarity", "svm")
    classify.report(run, "report.html")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classify.api import CrossValidation, cross_validate, load, open_run, open_store, report, run

__all__ = ["CrossValidation", "cross_validate", "load", "open_run", "open_store", "report", "run"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: scikit-learn and torch take seconds."""
    if name in __all__:
        from features_store.console import wait_passively

        wait_passively()
        from classify import api

        return getattr(api, name)
    message = f"module 'classify' has no attribute {name!r}; it offers {', '.join(__all__)}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
