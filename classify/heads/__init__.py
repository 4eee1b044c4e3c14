"""The table of heads: what can be trained, and how each is made."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from classify.data.kinds import KINDS
from classify.errors import HeadError
from classify.heads.options import options_of, refuse_one_label_options
from features_store.errors import unknown_name


@dataclass(frozen=True)
class Head:
    """One line of the table."""

    name: str  # as on the command line
    description: str
    place: str  # "module:Stem", of StemClassifier and StemRegressor, imported when a head is made
    kinds: tuple[str, ...] = tuple(KINDS)  # of task that it takes
    maps: bool = False  # it takes blocks of maps, (channels, height, width), and not of vectors

    def class_name(self, *, has_classes: bool) -> str:
        """Return the place of its classifier or of its regressor, as ``module:Class``."""
        return f"classify.heads.{self.place}{'Classifier' if has_classes else 'Regressor'}"


HEADS: dict[str, Head] = {
    head.name: head
    for head in (
        Head(
            "auto",
            "the best average of kernel machines, ridge and nearest neighbours that a bounded search finds",
            "auto:Auto",
        ),
        Head("mlp", "multi-layer perceptron, ReLU and dropout", "modules:MLP"),
        Head("moe", "mixture of experts with a dummy gate", "modules:MoE"),
        Head("svm", "support vector machine, RBF or linear kernel, calibrated", "svm:SVM"),
        Head("linear", "logistic regression, ridge", "linear:Linear"),
        Head("knn", "mean label of the nearest images, by cosine", "knn:KNN"),
        Head("gbm", "gradient-boosted trees (LightGBM)", "gbm:GBM"),
        Head("conv", "1x1 convolution over maps, global average pooling, dense layer", "modules:Conv", maps=True),
        Head("dummy", "majority class, mean: looks at no feature", "dummy:Dummy"),
    )
}


NONE = Head(
    "none",
    "nothing is fitted: the outputs of a network, a block of probabilities or values, are scored as they are",
    "passthrough:PassThrough",
)
ALL_HEADS = {**HEADS, NONE.name: NONE}
"""With the one that learns nothing."""


def head_class(name: str, kind: str) -> Any:
    """Import the estimator class of a head for a kind of task."""
    if name not in ALL_HEADS:
        raise HeadError(unknown_name("head", name, ALL_HEADS))
    head, task_kind = ALL_HEADS[name], KINDS.get(kind)
    if not task_kind or task_kind.names().isdisjoint(head.kinds):
        raise HeadError(f"head {name!r} takes tasks of kind {', '.join(head.kinds)}; this one is {kind!r}")
    module, _, class_name = head.class_name(has_classes=task_kind.has_classes).partition(":")
    return getattr(importlib.import_module(module), class_name)


def head_options(name: str, kind: str) -> dict[str, Any]:
    """Return a head's options with their defaults."""
    head = head_class(name, kind)
    return {option: getattr(head, option) for option in options_of(head)}


def make_head(name: str, kind: str, *, random_state: Any = 0, **params: Any) -> Any:
    """Make an unfitted head, its options checked."""
    made = head_class(name, kind)
    options = head_options(name, kind)
    for option in params:
        if option not in options:
            raise HeadError(unknown_name(f"option of head {name} ({kind})", option, options))
    if "random_state" in options:
        options["random_state"] = random_state
    head = made(**options | params)
    head.check_options()
    if KINDS[kind].independent:
        refuse_one_label_options(head)
    return head
