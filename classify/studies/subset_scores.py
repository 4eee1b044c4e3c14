"""Out-of-fold scores for many subsets of blocks: each image is scored by a head that was fitted without it.

Subsets share what they can. The linear kernel of concatenated blocks is the sum of the blocks' own,
``x.z = sum_b x_b.z_b``, and a squared distance follows from three inner products: support vector machines share one
Gram matrix a block. Ridge regression needs sums of products only, and those of a fold's training rows are the sum
over the other folds. Any other head is fitted anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.svm import SVC, SVR

from classify.config import RunConfig
from classify.data.folds import cuts
from classify.data.kinds import TaskKind, kind_of
from classify.data.rows import RowMatrix, batches
from classify.data.standardizer import Standardizer
from classify.errors import HeadError
from classify.heads import HEADS, make_head
from classify.heads.one_vs_rest import class_weights, indicator_columns, probabilities
from classify.heads.product_sums import ProductSums, solve_ridge, sum_products
from classify.heads.svm import MAX_STEPS
from classify.runs.layout import class_options, task_head

if TYPE_CHECKING:
    from features_store import Store
    from features_store.schema import Task

MAX_ROWS = 20_000  # a Gram matrix of 1.6 GB
Subset = tuple[str, ...]
Paths = dict[Subset, list[np.ndarray]]
Advance = Callable[[], object]
_OPTIONS: dict[str, dict[str, Any]] = {
    "svm": {"C": 1.0, "kernel": "rbf", "gamma": "scale", "class_weight": None, "epsilon": 0.1},
    "ridge": {"alpha": 1.0},
}
PATHS = {"svm": "C", "ridge": "alpha"}
"""By head, the option that may have several values, which share all but the last step of a fit."""


@dataclass(frozen=True)
class Images:
    """Images of a task, assigned to folds."""

    store: Store
    task: Task
    rows: np.ndarray
    y: np.ndarray  # as `classify.data.tasks.Part` has it
    folds: np.ndarray
    groups: np.ndarray | None = None

    @property
    def kind(self) -> TaskKind:
        """The task, seen by its kind."""
        return kind_of(self.task)

    @property
    def blank(self) -> np.ndarray:
        """Scores (n_images, n_outputs), all 0."""
        return np.zeros((len(self.rows), len(self.task.classes)))

    @property
    def cuts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Positions to fit on and to score, fold by fold."""
        return cuts(self.folds)


def path_values(config: RunConfig) -> list[Any]:
    """Return the values of the option that has several, ascending; of one that has one, this one."""
    name = PATHS.get(config.head, "")
    given = _shared_options(config)[name] if name else None
    if not isinstance(given, list | tuple):
        return [given]
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in given)
    if not given or not numbers or len(set(given)) < len(given):
        raise HeadError(
            f"{name} is {list(given)}; it takes a number, or a list of numbers, each once, like [0.1, 1, 10]"
        )
    return sorted(given)


def _shared_options(config: RunConfig) -> dict[str, Any]:
    """Return the options of a head that shares its work between subsets, those given over the defaults."""
    known = _OPTIONS[config.head]
    for name in config.settings:
        if name not in known:
            raise HeadError(f"the {config.head} head of an ablation takes {', '.join(known)}; not {name!r}")
    return {**known, **config.settings}


def _check_options(config: RunConfig, images: Images) -> None:
    """Refuse an option that is unknown or out of range, before anything is fitted."""
    if config.head in HEADS and HEADS[config.head].maps:
        raise HeadError(f"head {config.head!r} takes maps, and an ablation joins blocks of vectors; take another head")
    path = PATHS.get(config.head, "")
    for value in path_values(config):
        settings = {**config.settings, path: value} if path in config.settings else dict(config.settings)
        if config.head == "ridge":
            make_head("linear", "regression", **settings)
            continue
        if config.head == "svm" and images.kind.has_classes:
            make_head("svm", "regression", epsilon=settings.pop("epsilon", 0.1))
        elif config.head == "svm" and settings.pop("class_weight", None) is not None:
            raise HeadError("class_weight is given, and a regression has no classes; leave it out")
        task_head(config.head, images.task, images.y, settings, seed=config.seed)


def path_scores(
    images: Images, subsets: Sequence[Subset], config: RunConfig, *, advance: Advance = lambda: None
) -> Paths:
    """Score every image with every subset of blocks, by each of the `path_values`; *advance* is called after a fit."""
    _check_options(config, images)
    ways = {"svm": _by_kernel, "ridge": _by_sums}
    return ways.get(config.head, _by_head)(images, subsets, config, advance)


def _by_kernel(images: Images, subsets: Sequence[Subset], config: RunConfig, advance: Advance) -> Paths:
    if len(images.rows) > MAX_ROWS:
        n = len(images.rows)
        raise HeadError(f"a Gram matrix of {n} x {n} rows is too large; at most {MAX_ROWS} (use the ridge head)")
    options, costs = _shared_options(config), [float(cost) for cost in path_values(config)]
    scores = {subset: [images.blank for _ in costs] for subset in subsets}
    widths = {name: images.store.block(name).n_features for subset in subsets for name in subset}
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # libsvm works without the interpreter's lock
        for train, held in images.cuts:
            products = {name: _gram(RowMatrix(images.store, [name], images.rows), train) for name in widths}

            def fit(
                subset: Subset,
                train: np.ndarray = train,
                held: np.ndarray = held,
                products: Mapping[str, np.ndarray] = products,
            ) -> None:
                given = options["gamma"]
                gamma = 1 / sum(widths[name] for name in subset) if given == "scale" else float(given)
                kernel = subset_kernel([products[name] for name in subset], options["kernel"], gamma)
                for into, found in zip(
                    scores[subset], _machines(images, kernel, train, held, costs, options), strict=True
                ):
                    into[held] = found
                advance()

            list(threads.map(fit, subsets))
    return scores


def _gram(rows: RowMatrix, fit: np.ndarray) -> np.ndarray:
    """Return the products of rows with each other, standardized on some of them, float32."""
    z = Standardizer.fit(rows[fit]).whole(rows)
    return z @ z.T  # numpy computes one half of it and mirrors it


def subset_kernel(products: Sequence[np.ndarray], kernel: str, gamma: float) -> np.ndarray:
    """Return the kernel of concatenated blocks from the products of each."""
    total = products[0].astype(np.float64)
    for product in products[1:]:
        total += product
    if kernel == "linear":
        return np.multiply(total, gamma, out=total)
    norms = total.diagonal().copy()
    total *= -2
    total += norms[:, None]
    total += norms
    np.maximum(total, 0, out=total)
    total *= -gamma
    return np.exp(total, out=total)


def _machines(
    images: Images,
    kernel: np.ndarray,
    train: np.ndarray,
    held: np.ndarray,
    costs: Sequence[float],
    options: Mapping[str, Any],
) -> Sequence[np.ndarray]:
    """Fit binary or regression machines on a kernel and return the scores of the held-out rows for each cost."""
    inner, outer = kernel[np.ix_(train, train)], kernel[np.ix_(held, train)]
    if not images.kind.has_classes:
        targets = images.y.reshape(len(images.y), -1)[train]
        mean, deviation = targets.mean(axis=0), targets.std(axis=0)
        deviation = np.where(deviation > 0, deviation, 1.0)
        machine = SVR(epsilon=float(options["epsilon"]), kernel="precomputed", max_iter=MAX_STEPS)
        columns = [svm_path(machine, inner, outer, y, costs) for y in ((targets - mean) / deviation).T]
        return [values * deviation + mean for values in np.stack(columns, axis=2)]
    y = indicator_columns(images.y.astype(np.int64), len(images.task.classes))[train]
    weights = _weights(images, train, y.shape[1], options)
    machine = SVC(kernel="precomputed", max_iter=MAX_STEPS)
    columns = [svm_path(machine, inner, outer, y[:, k], costs, weights[:, k]) for k in range(y.shape[1])]
    decided = np.stack(columns, axis=2)
    return [probabilities(values, multilabel=images.kind.independent) for values in decided]


def _weights(images: Images, train: np.ndarray, n_columns: int, options: Mapping[str, Any]) -> np.ndarray:
    """Return the weight of each training row in each binary column."""
    if options["class_weight"] is None:
        return np.ones((len(train), n_columns))
    if images.kind.independent:
        return class_weights(images.y[train], np.arange(n_columns), options["class_weight"])
    present, codes = np.unique(images.y[train], return_inverse=True)
    chosen = {**options, **class_options(options, images.task.classes, present.tolist())}["class_weight"]
    return np.repeat(class_weights(codes, present, chosen)[:, :1], n_columns, axis=1)


def svm_path(
    machine: Any,
    inner: np.ndarray,
    outer: np.ndarray,
    y: np.ndarray,
    costs: Sequence[float],
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Return the held-out values (n_costs, n_held) of a machine of one column, for costs in ascending order.

    Where no dual coefficient has reached its bound, the bound holds nothing back: the same machine is the solution
    for every higher cost, and is not fitted again. With more features than rows that is soon the case.

    Shapes: inner (n_train, n_train), outer (n_held, n_train) of the kernel; y, weights (n_train,).
    """
    weights = np.ones(len(y)) if weights is None else weights
    used = np.flatnonzero(weights > 0)  # a row without weight is as if it were not there
    y, weights, outer = np.ascontiguousarray(y[used]), np.ascontiguousarray(weights[used]), outer[:, used]
    if isinstance(machine, SVC) and y.min() == y.max():
        return np.full((len(costs), len(outer)), 1.0 if y[0] else -1.0)
    inner = inner if len(used) == len(inner) else inner[np.ix_(used, used)]
    values, slack = np.empty((len(costs), len(outer))), False
    for i, cost in enumerate(costs):
        if not slack:
            machine.set_params(C=cost).fit(inner, y, sample_weight=weights)
            slack = bool((np.abs(machine.dual_coef_) < 0.999 * cost * weights[machine.support_]).all())
            found = machine.decision_function(outer) if isinstance(machine, SVC) else machine.predict(outer)
        values[i] = found
    return values


def _by_sums(images: Images, subsets: Sequence[Subset], config: RunConfig, advance: Advance) -> Paths:
    """Ridge regression; of classes, on their indicators: least squares, a linear discriminant in all but name."""
    blocks = list(dict.fromkeys(name for subset in subsets for name in subset))
    starts = dict(zip(blocks, np.cumsum([0, *(images.store.block(name).n_features for name in blocks)]), strict=False))
    features = {b: np.arange(start, start + images.store.block(b).n_features) for b, start in starts.items()}
    matrix = RowMatrix(images.store, blocks, images.rows)
    y = images.kind.indicators(images.y) if images.kind.has_classes else images.y.reshape(len(images.y), -1)
    standardizer = Standardizer.fit(matrix)
    sums = [sum_products(matrix, standardizer, y.astype(np.float64), held) for _, held in images.cuts]
    alphas = path_values(config)
    scores = {subset: [images.blank for _ in alphas] for subset in subsets}
    for i, (_, held) in enumerate(images.cuts):
        training = reduce(ProductSums.plus, [one for j, one in enumerate(sums) if j != i])
        fitted = {}
        for subset in subsets:
            columns = np.concatenate([features[name] for name in blocks if name in subset])
            fitted[subset] = columns, ridge_path(training.of_columns(columns), alphas)
            advance()
        for positions, x in batches(matrix, held):
            z = standardizer(x)
            for subset, (columns, path) in fitted.items():
                for into, (coef, intercept) in zip(scores[subset], path, strict=True):
                    into[positions] = z[:, columns].astype(np.float64) @ coef.T + intercept
    if not images.kind.has_classes:
        return scores
    # Least-squares values are brought into (0, 1): the largest stays the largest, and one half stays one half.
    squeezed = {subset: [1 / (1 + np.exp(-4 * (values - 0.5))) for values in path] for subset, path in scores.items()}
    return {subset: [images.kind.normalized(values) for values in path] for subset, path in squeezed.items()}


def ridge_path(sums: ProductSums, alphas: Sequence[float]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return weights (n_targets, n_features) and intercepts for each penalty, for rows of squared length about 1.

    Features are standardized anew on the rows of the sums, which follows from the sums.
    """
    zz, zy = sums.centered()
    mean, variance = sums.x / sums.n, zz.diagonal() / sums.n
    constant = variance <= 1e-7 * np.maximum(mean**2, 1e-6)
    factor = np.where(constant, 0.0, 1 / np.sqrt(np.where(constant, 1.0, variance)))
    zz *= factor.astype(zz.dtype)
    zz *= factor.astype(zz.dtype)[:, None]
    path = []
    for alpha in alphas:
        coef = solve_ridge(zz, zy * factor[:, None], float(alpha) * len(zz)) * factor
        path.append((coef, sums.y / sums.n - coef @ mean))
    return path


def _by_head(images: Images, subsets: Sequence[Subset], config: RunConfig, advance: Advance) -> Paths:
    scores = {subset: images.blank for subset in subsets}
    for subset in subsets:
        matrix = RowMatrix(images.store, subset, images.rows)
        for train, held in images.cuts:
            head = task_head(config.head, images.task, images.y[train], config.settings, seed=config.seed)
            groups = None if images.groups is None else images.groups[train]
            head.fit_in_groups(matrix[train], images.y[train], groups)
            scores[subset][held] = images.kind.scores(head, matrix[held]).reshape(len(held), -1)
            advance()
    return {subset: [found] for subset, found in scores.items()}
