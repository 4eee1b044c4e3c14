"""Out-of-fold answers for many subsets of blocks: each image is answered for by a head that was fitted without it.

Three ways, by what the subsets can share: a support vector machine shares Gram matrices, ridge regression shares the
moments of one pass, any other head is fitted anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.data.rows import RowMatrix
from classify.errors import HeadError
from classify.heads import HEADS, make_head
from classify.heads.gram import block_grams
from classify.heads.kernel import svm_path, svr_path
from classify.heads.moments import accumulate, block_columns, ridge_path
from classify.heads.one_vs_rest import class_weights, indicator_columns, probabilities
from classify.runs.layout import class_options, task_head

if TYPE_CHECKING:
    from features_store import Store
    from features_store.schema import Task

__all__ = ["PATHS", "Images", "Plan", "answers", "path_answers"]

Subset = tuple[str, ...]
Answers = dict[Subset, np.ndarray]
Paths = dict[Subset, list[np.ndarray]]
Advance = Callable[[int], object]
_OPTIONS: dict[str, dict[str, Any]] = {
    "svm": {"C": 1.0, "kernel": "rbf", "gamma": "scale", "class_weight": None, "epsilon": 0.1},
    "ridge": {"alpha": 1.0},
}
PATHS = {"svm": "C", "ridge": "alpha"}
"""By head, the option that may have several values, which share all but the last step of a fit."""


@dataclass(frozen=True)
class Images:
    """Images of a task, dealt to folds.

    Parameters
    ----------
    y : numpy.ndarray
        As `classify.data.tasks.Part` has it.
    """

    store: Store
    task: Task
    rows: np.ndarray
    y: np.ndarray
    folds: np.ndarray

    @property
    def blank(self) -> np.ndarray:
        """Scores (n_images, n_outputs), all 0."""
        return np.zeros((len(self.rows), len(self.task.classes)))

    @property
    def cuts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Positions to fit on and to answer for, fold by fold."""
        found = np.unique(self.folds)
        return [(np.flatnonzero(self.folds != fold), np.flatnonzero(self.folds == fold)) for fold in found]


@dataclass(frozen=True)
class Plan:
    """What is fitted: a head of the table or ``ridge``, with its options."""

    head: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.head in HEADS and HEADS[self.head].maps:
            message = f"head {self.head!r} takes maps, and an ablation joins blocks of vectors; take another head"
            raise HeadError(message)

    @property
    def values(self) -> list[Any]:
        """The values of the option that has several, ascending; of one that has one, this one."""
        name = PATHS.get(self.head, "")
        given = self.options()[name] if name else None
        if not isinstance(given, list | tuple):
            return [given]
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in given)
        if not given or not numbers or len(set(given)) < len(given):
            message = f"{name} is {list(given)}; it takes a number, or a list of numbers, each once, like [0.1, 1, 10]"
            raise HeadError(message)
        return sorted(given)

    def at(self, value: Any) -> Plan:
        """Return the plan with one of the values."""
        name = PATHS.get(self.head, "")
        return replace(self, settings={**self.settings, name: value}) if name in self.settings else self

    def check(self, images: Images) -> None:
        """Refuse an option that is unknown or out of range, before anything is fitted."""
        for value in self.values:
            self.at(value)._check(images)

    def _check(self, images: Images) -> None:
        settings = dict(self.settings)
        if self.head in _OPTIONS:
            self.options()
        if self.head == "ridge":
            make_head("linear", "regression", **settings)
            return
        if self.head == "svm" and images.task.kind != "regression":
            make_head("svm", "regression", epsilon=settings.pop("epsilon", 0.1))
        elif self.head == "svm" and settings.pop("class_weight", None) is not None:
            message = "class_weight is given, and a regression has no classes; leave it out"
            raise HeadError(message)
        task_head(self.head, images.task, images.y, settings, seed=self.seed)

    def options(self) -> dict[str, Any]:
        """Return the options of a head that shares its work, those given over the defaults."""
        known = _OPTIONS[self.head]
        for name in self.settings:
            if name not in known:
                message = f"the {self.head} head of an ablation takes {', '.join(known)}; not {name!r}"
                raise HeadError(message)
        return {**known, **self.settings}


def answers(images: Images, subsets: Sequence[Subset], plan: Plan, *, advance: Advance = lambda n: None) -> Answers:
    """Answer for every image with every subset of blocks."""
    return {subset: said[0] for subset, said in path_answers(images, subsets, plan, advance=advance).items()}


def path_answers(images: Images, subsets: Sequence[Subset], plan: Plan, *, advance: Advance = lambda n: None) -> Paths:
    """Answer for every image with every subset of blocks, by each of the values of `Plan.values`.

    A path over costs shares the Gram matrices, and stops where no row is bound any more; one over strengths of a ridge
    shares the moments.
    """
    plan.check(images)
    ways = {"svm": _by_kernel, "ridge": _by_moments}
    return ways.get(plan.head, _by_head)(images, subsets, plan, advance)


def _by_kernel(images: Images, subsets: Sequence[Subset], plan: Plan, advance: Advance) -> Paths:
    options, blocks = {**plan.options(), "C": plan.values}, _union(subsets)
    said = {subset: [images.blank for _ in options["C"]] for subset in subsets}
    gamma = None if options["gamma"] == "scale" else float(options["gamma"])
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # libsvm works without the interpreter's lock
        for train, held in images.cuts:
            grams = block_grams(images.store, blocks, images.rows, train)

            def fit(subset: Subset, train: np.ndarray = train, held: np.ndarray = held, grams: Any = grams) -> None:
                kernel = grams.kernel(subset, options["kernel"], gamma=gamma)
                for scores, found in zip(said[subset], _machine(images, kernel, train, held, options), strict=True):
                    scores[held] = found
                advance(1)

            list(threads.map(fit, subsets))
    return said


def _machine(
    images: Images, kernel: np.ndarray, train: np.ndarray, held: np.ndarray, options: Mapping[str, Any]
) -> Sequence[np.ndarray]:
    costs = [float(cost) for cost in options["C"]]
    if images.task.kind == "regression":
        targets = images.y.reshape(len(images.y), -1)
        return list(svr_path(kernel, targets, train, held, costs=costs, epsilon=float(options["epsilon"])))
    classes = np.arange(len(images.task.classes))
    columns = indicator_columns(images.y.astype(np.int64), len(classes))
    weights = np.ones(columns.shape)
    if options["class_weight"] is not None:
        single = images.task.kind == "single"
        present = np.unique(images.y[train]) if single else classes
        codes = np.searchsorted(present, images.y[train]) if single else images.y[train]
        chosen = {**options, **class_options(options, images.task.classes, present.tolist())} if single else options
        found = class_weights(codes, present, chosen["class_weight"])
        weights[train] = found[:, :1] if single else found  # a row of one label weighs the same in every column
    multilabel = images.task.kind == "multi"
    path = svm_path(kernel, columns, train, held, costs=costs, weights=weights)
    return [probabilities(decided, multilabel=multilabel) for decided in path]


def _by_moments(images: Images, subsets: Sequence[Subset], plan: Plan, advance: Advance) -> Paths:
    """Ridge regression; of classes, on their indicators: least squares, a linear discriminant in all but name."""
    blocks, alphas = _union(subsets), [float(value) for value in plan.values]
    widths = {name: images.store.block(name).n_features for name in blocks}
    matrix = RowMatrix(images.store, blocks, images.rows)
    targets = _targets(images)
    sums = accumulate(matrix, targets, images.folds)
    said = {subset: [images.blank for _ in alphas] for subset in subsets}
    for fold in sums:
        rest = [other for name, other in sums.items() if name != fold]
        training = rest[0]
        for other in rest[1:]:
            training = training.plus(other)
        fitted = {}
        for subset in subsets:
            columns = block_columns(widths, subset)
            fitted[subset] = columns, ridge_path(training, columns, [alpha * len(columns) for alpha in alphas])
            advance(1)
        held = np.flatnonzero(images.folds == fold)
        for positions, x in matrix.batches(held):
            for subset, (columns, ridges) in fitted.items():
                for scores, ridge in zip(said[subset], ridges, strict=True):
                    scores[positions] = ridge.predict(x[:, columns])
    if images.task.kind == "regression":
        return said
    return {subset: [_bounded(values, images.task.kind) for values in path] for subset, path in said.items()}


def _targets(images: Images) -> np.ndarray:
    if images.task.kind == "single":
        return (images.y[:, None] == np.arange(len(images.task.classes))).astype(np.float64)
    return images.y.reshape(len(images.y), -1).astype(np.float64)


def _bounded(values: np.ndarray, kind: str) -> np.ndarray:
    """Bring least-squares answers into (0, 1); the largest stays the largest, and one half stays one half."""
    scores = 1 / (1 + np.exp(-4 * (values - 0.5)))
    return scores / scores.sum(axis=1, keepdims=True) if kind == "single" else scores


def _by_head(images: Images, subsets: Sequence[Subset], plan: Plan, advance: Advance) -> Paths:
    said = {subset: images.blank for subset in subsets}
    for subset in subsets:
        matrix = RowMatrix(images.store, subset, images.rows)
        for train, held in images.cuts:
            head = task_head(plan.head, images.task, images.y[train], plan.settings, seed=plan.seed)
            head.fit(matrix[train], images.y[train])
            if images.task.kind == "regression":
                said[subset][held] = head.predict(matrix[held]).reshape(len(held), -1)
            else:
                classes = head.classes_ if images.task.kind == "single" else np.arange(len(images.task.classes))
                said[subset][np.ix_(held, classes)] = head.predict_proba(matrix[held])
            advance(1)
    return {subset: [scores] for subset, scores in said.items()}


def _union(subsets: Iterable[Subset]) -> list[str]:
    return list(dict.fromkeys(name for subset in subsets for name in subset))
