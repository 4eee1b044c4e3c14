"""The table of heads: what can be trained, and how each is made."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from typing import Any

from classify.data.kinds import KINDS as TASK_KINDS
from classify.errors import HeadError
from features_store.errors import unknown_name

__all__ = ["ALL_HEADS", "HEADS", "NONE", "Head", "head_class", "head_options", "make_head"]

KINDS = tuple(TASK_KINDS)


@dataclass(frozen=True)
class Head:
    """One line of the table.

    Parameters
    ----------
    name : str
        As on the command line.
    description : str
        One line for the menu.
    classifier, regressor : str or None
        ``"module:Class"``, imported when a head is made. None: there is none.
    kinds : tuple of str
        The kinds of task it takes.
    maps : bool
        It takes blocks of maps, (channels, height, width), and not of vectors.
    """

    name: str
    description: str
    classifier: str | None
    regressor: str | None
    kinds: tuple[str, ...] = KINDS
    maps: bool = False


def _table(*heads: Head) -> dict[str, Head]:
    table = {head.name: head for head in heads}
    if len(table) != len(heads):
        raise HeadError("two heads share a name")
    return table


HEADS: dict[str, Head] = _table(
    Head(
        "auto",
        "the best average of kernel machines, ridge and nearest neighbours that a bounded search finds",
        "classify.heads.auto:AutoClassifier",
        "classify.heads.auto:AutoRegressor",
    ),
    Head(
        "mlp",
        "multi-layer perceptron, ReLU and dropout",
        "classify.heads.modules:MLPClassifier",
        "classify.heads.modules:MLPRegressor",
    ),
    Head(
        "moe",
        "mixture of experts with a dummy gate",
        "classify.heads.modules:MoEClassifier",
        "classify.heads.modules:MoERegressor",
    ),
    Head(
        "svm",
        "support vector machine, RBF or linear kernel, calibrated",
        "classify.heads.svm:SVMClassifier",
        "classify.heads.svm:SVMRegressor",
    ),
    Head(
        "linear",
        "logistic regression, ridge",
        "classify.heads.linear:LinearClassifier",
        "classify.heads.linear:LinearRegressor",
    ),
    Head(
        "knn",
        "mean label of the nearest images, by cosine",
        "classify.heads.knn:KNNClassifier",
        "classify.heads.knn:KNNRegressor",
    ),
    Head(
        "gbm",
        "gradient-boosted trees (LightGBM)",
        "classify.heads.gbm:GBMClassifier",
        "classify.heads.gbm:GBMRegressor",
    ),
    Head(
        "conv",
        "1x1 convolution over maps, global average pooling, dense layer",
        "classify.heads.modules:ConvClassifier",
        "classify.heads.modules:ConvRegressor",
        maps=True,
    ),
    Head(
        "dummy",
        "majority class, mean: looks at no feature",
        "classify.heads.dummy:DummyClassifier",
        "classify.heads.dummy:DummyRegressor",
    ),
)


NONE = Head(
    "none",
    "nothing is fitted: the outputs of a network, a block of probabilities or values, are scored as they are",
    "classify.heads.passthrough:PassThroughClassifier",
    "classify.heads.passthrough:PassThroughRegressor",
)
ALL_HEADS = {**HEADS, NONE.name: NONE}
"""With the one that learns nothing."""


def head_class(name: str, kind: str) -> Any:
    """Import the estimator class of a head for a kind of task.

    Raises HeadError.
    """
    if name not in ALL_HEADS:
        raise HeadError(unknown_name("head", name, ALL_HEADS))
    head = ALL_HEADS[name]
    place = head.classifier if kind in TASK_KINDS and TASK_KINDS[kind].has_classes else head.regressor
    if kind not in head.kinds or place is None:
        raise HeadError(f"head {name!r} takes tasks of kind {', '.join(head.kinds)}; this one is {kind!r}")
    module, _, class_name = place.partition(":")
    return getattr(importlib.import_module(module), class_name)


def head_options(name: str, kind: str) -> dict[str, Any]:
    """Return a head's options with their defaults."""
    return {field.name: field.default for field in dataclasses.fields(head_class(name, kind))}


def make_head(name: str, kind: str, *, random_state: Any = 0, **params: Any) -> Any:
    """Make an unfitted head, its options checked.

    Raises HeadError.
    """
    made = head_class(name, kind)
    options = head_options(name, kind)
    for option in params:
        if option not in options:
            raise HeadError(unknown_name(f"option of head {name} ({kind})", option, options))
    if "random_state" in options:
        options["random_state"] = random_state
    head = made(**options | params)
    head.check_options()
    if TASK_KINDS[kind].independent:
        _check_labels(head)
    return head


def _check_labels(head: Any) -> None:
    """Refuse what has no meaning where an image has several labels."""
    weight = getattr(head, "class_weight", None)
    if getattr(head, "cost", None) is not None:
        raise HeadError("cost is for tasks with one label an image; with several, every label is its own decision")
    if weight is not None and weight != "balanced":
        raise HeadError(f'class_weight is {weight!r}; a multi-label task takes "balanced" or none')
