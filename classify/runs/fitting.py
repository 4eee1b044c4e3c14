"""Fitting one head: on the training part, and if asked once more on training and validation together."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from classify.errors import ConfigError
from classify.runs.layout import Layout

if TYPE_CHECKING:
    from classify.runs.time_budget import Interruption

__all__ = ["Fitted", "fit_head"]


@dataclass(frozen=True)
class Fitted:
    """What fitting gave.

    Parameters
    ----------
    head : estimator
        The one that is kept, and that scores the test part.
    chosen_by : estimator
        The one fitted on the training part alone; it scores the training and validation parts. Mostly the same.
    noted : tuple of str
        What libraries warned of.
    refit : mapping or None
        How the head was fitted again, for the report.
    """

    head: Any
    chosen_by: Any
    noted: tuple[str, ...] = ()
    refit: dict[str, Any] | None = None

    def of_part(self, part: str) -> Any:
        """Return the head that scores a part."""
        return self.head if part == "test" else self.chosen_by


def fit_head(head: Any, layout: Layout, *, refit: bool = False, interruption: Interruption | None = None) -> Fitted:
    """Fit a head on the training part, with the validation part for early stopping where there is one.

    With *refit* a second head of the same options is fitted on training and validation images together, for as many
    epochs (rounds, of trees, label by label) as were best for the first where it stopped early, else for as many as
    were asked for.

    Raises ConfigError, UnfinishedError.
    """
    parts = layout.data.parts
    if refit and "validation" not in parts:
        message = f"refit is asked for, and the split has no validation images to add; it has {', '.join(parts)}"
        raise ConfigError(message)
    train = layout.to_train_on(parts["train"].rows)
    validation = (layout.matrices["validation"], parts["validation"].y) if "validation" in parts else None
    noted: list[str] = []
    _fit(head, (train, parts["train"].y), noted, validation=validation, stage="fit", interruption=interruption)
    if not refit:
        return Fitted(head, head, tuple(dict.fromkeys(noted)))
    again = clone(head).set_params(**(length := _length(head)))
    both = [parts["train"], parts["validation"]]
    x = layout.to_train_on(np.concatenate([part.rows for part in both]))
    y = np.concatenate([part.y for part in both])
    _fit(again, (x, y), noted, validation=None, stage="refit", interruption=interruption)
    record = {"parts": ["train", "validation"], "n": len(y), **length}
    return Fitted(again, head, tuple(dict.fromkeys(noted)), record)


def _fit(
    head: Any,
    pair: tuple[Any, Any],
    noted: list[str],
    *,
    validation: tuple[Any, Any] | None,
    stage: str,
    interruption: Interruption | None,
) -> None:
    """Fit, and add what libraries warn of to *noted*."""
    options: dict[str, Any] = {"validation": validation}
    checkpoint = None
    if interruption is not None:
        checkpoint = options["checkpoint"] = interruption.checkpoint(stage, head)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        head.fit(*pair, **options)
    noted += [" ".join(str(w.message).split()) for w in caught if issubclass(w.category, UserWarning)]
    if interruption is not None and checkpoint is not None and checkpoint.unfinished:
        raise interruption.unfinished()


def _length(head: Any) -> dict[str, int | list[int]]:
    """Return how long the second fit is: what was best, where the first one could stop early."""
    options = head.get_params(deep=False)
    if not options.get("patience"):
        return {}
    if "epochs" in options:
        losses = [record["validation_loss"] for record in head.history_ if "validation_loss" in record]
        return {"epochs": int(np.argmin(losses)) + 1} if losses else {}
    if "n_rounds" in options:
        known = [max(1, booster.current_iteration()) for booster in head.boosters_ if booster is not None]
        # A label that never varied in training has no rounds of its own: the median of the others'.
        typical = int(np.median(known)) if known else 0
        rounds = [max(1, one.current_iteration()) if one is not None else typical for one in head.boosters_]
        return {"n_rounds": rounds[0] if len(rounds) == 1 else rounds} if known else {}
    return {}
