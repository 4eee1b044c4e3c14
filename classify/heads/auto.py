"""The head ``auto``: a search over kernel machines, ridge regression and neighbours, and an average of the best.

Every choice (feature map and weight of each block, kernel width, strength, members of the average) is made by
out-of-fold predictions within the training rows. The members are chosen greedily with replacement (Caruana et al.
2004). The average is drawn to the mean label by as much as rows that did not choose it show.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state

from classify.data.folds import inner_cuts
from classify.data.rows import ArrayRows, RowMatrix, Rows
from classify.data.standardizer import Standardizer, finite_batches
from classify.errors import HeadError
from classify.heads.base import ClassifierHead, Head, RegressorHead
from classify.heads.one_vs_rest import constant_log_odds, fit_sigmoid, indicator_columns, log_loss, probabilities
from classify.heads.options import budget, choice, random_seed, whole
from classify.heads.pairwise import Candidate, Products, fit_member, kernel, member_scores

__all__ = ["AutoClassifier", "AutoRegressor"]

MAPS = ("sqrt", "standardize")  # that are tried
GAMMAS = (0.5, 1.0)
COSTS = (3.0, 1.0, 10.0)
ALPHAS = tuple(float(10.0**k) for k in np.arange(-3.5, 0.1, 0.5))
NEIGHBOURS = (15, 7, 31)
SHARPNESS = (0.0, 8.0)
WEAK = 0.3  # weight of a block that is weak, where it is not left out
MAX_BYTES = 2 * 2**30  # of Gram matrices; above it one feature map is tried

Folds = list[tuple[np.ndarray, np.ndarray]]  # rows to fit on, rows to predict


@dataclass
class _Trial:
    """A candidate with its out-of-fold predictions."""

    candidate: Candidate
    predictions: np.ndarray  # (n, n_outputs) values, or (n, n_classes) probabilities
    finish: np.ndarray  # what makes predictions of scores
    loss: float


class _AutoHead(Head):
    """The search, and the average of its members."""

    budget: int | str = budget(
        200, "candidates that are tried; seconds stop the search by the clock, so another machine may choose otherwise"
    )
    feature_map: str = choice(
        "auto",
        "sqrt: signed roots, l2: rows of length 1, standardize: as they are; each is standardized then; auto: for each "
        "block the first or the last",
        ("auto", "l2", *MAPS),
    )
    members: int = whole(8, "predictions that are averaged at most; a good one may count several times", most=64)
    folds: int = whole(5, "inner folds of the training rows, by which everything is chosen", least=2, most=100)
    max_rows: int = whole(20_000, "refuse more training rows: candidates share matrices with their square", most=10**6)
    random_state: Any = random_seed("deals the rows to the inner folds")
    _learned: ClassVar[tuple[str, ...]] = (
        *("widths_", "maps_", "mean_", "scale_", "members_", "shares_", "finish_"),
        *("dual_", "intercept_", "vectors_", "targets_", "search_"),
    )
    takes_groups = True

    def _search(self, rows: Rows, targets: np.ndarray, strata: np.ndarray, groups: Any) -> None:
        """Try candidates on *targets*, (n, n_outputs), until the budget is used; fit the chosen ones on all rows."""
        n = rows.shape[0]
        if n > self.max_rows:
            raise HeadError(
                f"auto compares all pairs of {n} training rows, and max_rows is {self.max_rows}; raise it if the "
                "memory is there, or use the linear, mlp or gbm head"
            )
        folds = inner_cuts(strata, groups, self.folds, int(check_random_state(self.random_state).randint(2**31 - 1)))
        if not folds:
            raise HeadError(f"auto chooses by inner folds, and n_samples = {n} in one group; it needs two at least")
        self.widths_ = _widths(rows)
        several = 8 * n * n * len(self.widths_) * len(MAPS) <= MAX_BYTES
        free = list(MAPS) if several else ["standardize"]
        self.maps_ = free if self.feature_map == "auto" else [self.feature_map]
        vectors = rows.take(np.arange(n))
        self._measure(vectors)
        mapped = {name: self._mapped(vectors, name) for name in self.maps_}
        products = Products.of(mapped, mapped)
        trials = self._tried(products, targets, folds)
        chosen, mean = self._choose(trials, targets), self._mean(targets)
        trust = self._trust(trials, mean, targets, folds)
        pairs = [(trust * count / chosen.total(), trials[i]) for i, count in chosen.items()] + [(1 - trust, mean)]
        shares, members = zip(*(pair for pair in pairs if pair[0] > 0), strict=True)
        self.shares_ = np.array(shares)
        self.members_ = [one.candidate for one in members]
        self.finish_ = np.stack([one.finish for one in members])
        fitted = [self._fitted(one, products, targets) for one in self.members_]
        self.dual_, self.intercept_ = (np.stack(parts) for parts in zip(*fitted, strict=True))
        self._keep(vectors, targets)
        average = sum(share * one.predictions for share, one in zip(shares, members, strict=True))
        self.search_ = {
            "n_tried": len(trials),
            "inner_loss": self._loss(average, targets),
            "inner_loss_of_best": min(one.loss for one in trials),
            "mean": round(1 - trust, 2),
            "blocks": self._weighed(),
        }
        self.history_, self.n_parameters_ = [], int(self.vectors_.size + self.dual_.size)

    def _tried(self, products: Products, targets: np.ndarray, folds: Folds) -> list[_Trial]:
        """Try candidates until the budget is used; one is always tried."""
        most, deadline = math.inf, math.inf
        if isinstance(self.budget, str):
            deadline = time.monotonic() + float(self.budget[:-1])
        else:
            most = self.budget
        trials, seen, pairs, kept = list[_Trial](), None, np.empty(0), dict[Any, Any]()
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # libsvm and LAPACK work without the interpreter's lock
            for one in _candidates(self.maps_, len(self.widths_), trials):
                if trials and (len(trials) >= most or time.monotonic() > deadline):
                    break
                if any(one == trial.candidate for trial in trials):
                    continue
                if seen != (seen := (one["family"], one["maps"], one["weights"], one.get("gamma"))):
                    pairs, kept = kernel(one, products), {}
                trials.append(self._try(one, pairs, targets, folds, kept, threads))
        return trials

    def _measure(self, vectors: np.ndarray) -> None:
        """Measure mean and scale of each feature under each map, (n_maps, n_features) float32."""
        raised = (np.concatenate(self._raised(vectors, name), axis=1) for name in self.maps_)
        fitted = [Standardizer.fit(ArrayRows(one), standardize=True) for one in raised]
        self.mean_, self.scale_ = np.stack([one.mean for one in fitted]), np.stack([one.scale for one in fitted])

    def _raised(self, x: np.ndarray, name: str) -> list[np.ndarray]:
        """Apply a feature map to each block: the signed root draws in the long tails of pooled activations."""
        blocks = np.split(x, np.cumsum(self.widths_)[:-1], axis=1)
        if name == "sqrt":
            return [np.sign(block) * np.sqrt(np.abs(block)) for block in blocks]
        if name == "standardize":
            return blocks
        lengths = [np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64)) for block in blocks]
        return [
            (block / np.where(length > 0, length, 1.0)[:, None]).astype(np.float32)
            for block, length in zip(blocks, lengths, strict=True)
        ]

    def _mapped(self, x: np.ndarray, name: str) -> list[np.ndarray]:
        """Return rows under a map, standardized, block by block."""
        at = self.maps_.index(name)
        z = Standardizer(self.mean_[at], self.scale_[at])(np.concatenate(self._raised(x, name), axis=1))
        return np.split(z, np.cumsum(self.widths_)[:-1], axis=1)

    def _try(
        self,
        candidate: Candidate,
        pairs: np.ndarray,
        targets: np.ndarray,
        folds: Folds,
        kept: Any,
        threads: ThreadPoolExecutor,
    ) -> _Trial:
        """Predict every row by a fit on the other folds."""

        def scores(fold: int) -> np.ndarray:
            train, held_out = folds[fold]
            fitted = fit_member(candidate, pairs[np.ix_(train, train)], targets[train], kept, fold)
            return member_scores(candidate, pairs[np.ix_(held_out, train)], fitted, targets[train])

        raw = np.empty(targets.shape)
        for (_, held_out), found in zip(folds, threads.map(scores, range(len(folds))), strict=True):
            raw[held_out] = found
        finish = self._calibrate(raw, targets)
        predictions = self._finish(raw, finish)
        return _Trial(candidate, predictions, finish, self._loss(predictions, targets))

    def _choose(self, trials: Sequence[_Trial], targets: np.ndarray, rows: Any = slice(None)) -> Counter[int]:
        """Add the prediction that helps the average most, to the end; count how often each was taken at the best."""
        total: Any = 0.0
        taken, found = list[int](), list[float]()
        for n in range(self.members):
            losses = [self._loss((total + one.predictions[rows]) / (n + 1), targets[rows]) for one in trials]
            taken.append(int(np.argmin(losses)))
            found.append(losses[taken[-1]])
            total = total + trials[taken[-1]].predictions[rows]
        return Counter(taken[: int(np.argmin(found)) + 1])

    def _trust(self, trials: Sequence[_Trial], mean: _Trial, targets: np.ndarray, folds: Folds) -> float:
        """Return the share of the average beside the mean label that is best for rows which did not choose it.

        The best of many candidates looks good by chance, in noise too: the rows of each fold see the average of those
        that all other rows choose.
        """
        apart = np.empty(mean.predictions.shape)
        for others, rows in folds:
            chosen = self._choose(trials, targets, others)
            apart[rows] = sum(count * trials[i].predictions[rows] for i, count in chosen.items()) / chosen.total()
        shares = np.linspace(0, 1, 21).tolist()
        return min(shares, key=lambda share: self._loss(share * apart + (1 - share) * mean.predictions, targets))

    def _mean(self, targets: np.ndarray) -> _Trial:
        """Return what looks at no image, and predicts the mean label."""
        n_blocks, zeros = len(self.widths_), np.zeros(targets.shape)
        finish = self._calibrate(zeros, targets)
        predictions = self._finish(zeros, finish)
        candidate = {"family": "mean", "maps": [self.maps_[0]] * n_blocks, "weights": [0.0] * n_blocks}
        return _Trial(candidate, predictions, finish, self._loss(predictions, targets))

    @staticmethod
    def _fitted(one: Candidate, products: Products, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fit a member on all rows; neighbours need no fit."""
        if one["family"] in ("knn", "mean"):
            return np.zeros(targets.T.shape), np.zeros(targets.shape[1])
        return fit_member(one, kernel(one, products), targets, {}, 0)

    def _keep(self, vectors: np.ndarray, targets: np.ndarray) -> None:
        """Keep the rows and blocks that a member looks at; a block of no weight is 0 in every row."""
        if not any(one["family"] == "knn" for one in self.members_):
            used = np.asarray(self.dual_.any(axis=(0, 1)))
            used[:1] |= not used.any()
            vectors, targets, self.dual_ = vectors[used], targets[used], self.dual_[:, :, used]
        self.vectors_, self.targets_ = vectors[:, self._columns()], targets

    def _columns(self) -> np.ndarray:
        """Return which features belong to a block of some weight: (n_features,)."""
        return np.repeat(np.any([one["weights"] for one in self.members_], axis=0), self.widths_)

    def _weighed(self) -> dict[str, dict[str, Any]]:
        """Return by block what it weighs in the average, and the feature maps that it is seen under."""
        names = getattr(self, "blocks_in_", None) or ["all"]
        weights = np.array([one["weights"] for one in self.members_])
        found = self.shares_ @ (weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9))
        return {
            name: {
                "weight": round(float(found[k]), 4),
                "maps": sorted({one["maps"][k] for one in self.members_ if one["weights"][k]}),
            }
            for k, name in enumerate(names)
        }

    def _predictions(self, X: Any) -> Iterator[np.ndarray]:
        """Yield the average of the members, some rows at a time."""
        rows, used = self._rows(X, reset=False), self._columns()
        vectors = np.zeros((len(self.vectors_), rows.shape[1]), np.float32)
        vectors[:, used] = self.vectors_
        support = {name: self._mapped(vectors, name) for one in self.members_ for name in one["maps"]}
        for _, x in finite_batches(rows):
            products = Products.of({name: self._mapped(x, name) for name in support}, support)
            total: Any = 0.0
            for i, one in enumerate(self.members_):
                raw = member_scores(one, kernel(one, products), (self.dual_[i], self.intercept_[i]), self.targets_)
                total = total + self.shares_[i] * self._finish(raw, self.finish_[i])
            yield total

    def gradient(self, x: np.ndarray, output: int) -> None:
        """Return None: neighbours have no slope, so blocks and features are explained by leaving them out."""
        return

    def _calibrate(self, raw: np.ndarray, targets: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _finish(self, raw: np.ndarray, finish: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _loss(self, predictions: Any, targets: np.ndarray) -> float:
        raise NotImplementedError


def _widths(rows: Rows) -> list[int]:
    """Return the number of features of each block; rows of no store are one block."""
    if isinstance(rows, RowMatrix):
        return [rows.store.block(name).n_features for name in rows.blocks]
    return [rows.shape[1]]


def _candidates(maps: Sequence[str], n_blocks: int, trials: Sequence[_Trial]) -> Iterator[Candidate]:
    """Yield candidates, the most promising first; *trials* grows meanwhile, and tells which blocks are good.

    First all blocks together, then every block alone under each map, by one machine; then the best blocks joined one by
    one, each under the map that suits it, the others at a low weight or at none; then neighbours, ridge and other
    machines over all these weights, under one map or each block's own.
    """
    yield _machine([maps[0]] * n_blocks, [1.0] * n_blocks, GAMMAS[0], COSTS[0])
    alone = [[float(i == k) for i in range(n_blocks)] for k in range(n_blocks)]
    for name, weights in itertools.product(maps, alone):
        yield _machine([name] * n_blocks, weights, GAMMAS[0], COSTS[0])
    losses = {(one.candidate["maps"][0], tuple(one.candidate["weights"])): one.loss for one in trials}
    by_block = [[losses.get((name, tuple(weights)), np.inf) for name in maps] for weights in alone]
    own = [maps[int(np.argmin(found))] for found in by_block]
    order = np.argsort(np.min(by_block, axis=1)).tolist()
    joined = [
        [1.0 if i in order[:n] else low for i in range(n_blocks)] for n in range(2, n_blocks) for low in (0.0, WEAK)
    ]
    yield from (_machine(own, weights, GAMMAS[0], COSTS[0]) for weights in [[1.0] * n_blocks, *joined])
    several = [own, *([name] * n_blocks for name in maps)]
    ranked = []
    for one in sorted(trials, key=lambda one: one.loss):
        if one.candidate["weights"] not in ranked:
            ranked.append(one.candidate["weights"])
    for weights, names in itertools.product(ranked, several):
        for k, sharpness in itertools.product(NEIGHBOURS, SHARPNESS):
            yield {"family": "knn", "maps": names, "weights": weights, "k": k, "sharpness": sharpness}
        for alpha in ALPHAS:
            yield {"family": "ridge", "maps": names, "weights": weights, "alpha": alpha}
        yield from (_machine(names, weights, gamma, cost) for gamma, cost in itertools.product(GAMMAS, COSTS))


def _machine(names: list[str], weights: list[float], gamma: float, cost: float) -> Candidate:
    return {"family": "svm", "maps": names, "weights": weights, "gamma": gamma, "C": cost}


class AutoClassifier(ClassifierHead, _AutoHead):
    """The best average of kernel machines, ridge and neighbours that a bounded search finds, for labels.

    Candidates are judged by the log loss of their calibrated out-of-fold probabilities.

    Attributes
    ----------
    search_ : dict
        How many candidates were tried, the inner loss of the average and of the best candidate, the share of the mean
        label, and of each block its weight and its feature maps.
    members_ : list of dict
        The candidates that are averaged, with their ``shares_``.
    """

    def fit(self, X: Any, y: Any, *, validation: object = None, groups: Any = None) -> AutoClassifier:
        """Search, and fit the members on all rows; *validation* is ignored.

        Parameters
        ----------
        groups : array, shape (n_images,), default=None
            Images of one group stay in one inner fold.

        Returns
        -------
        self
        """
        rows, codes = self._training_rows(X, y)
        columns = indicator_columns(codes, len(self.classes_)).astype(np.float64)
        self._search(rows, columns, self._strata(codes), groups)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 (n_images, n_classes); rows sum to 1 unless multi-label."""
        return np.concatenate(list(self._predictions(X)))

    def _calibrate(self, raw: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Fit a sigmoid for each column, (n_columns, 2)."""
        pairs, weights = zip(raw.T, targets.T, strict=True), np.ones(len(raw))
        return np.stack(
            [fit_sigmoid(s, t, weights) if 0 < t.sum() < len(t) else [0.0, constant_log_odds(t)] for s, t in pairs]
        )

    def _finish(self, raw: np.ndarray, finish: np.ndarray) -> np.ndarray:
        return probabilities(raw * finish[:, 0] + finish[:, 1], multilabel=self.multilabel_)

    def _loss(self, predictions: Any, targets: np.ndarray) -> float:
        return log_loss(predictions, targets, multilabel=self.multilabel_)


class AutoRegressor(RegressorHead, _AutoHead):
    """The best average of kernel machines, ridge and neighbours that a bounded search finds, for real outputs.

    Candidates are judged by their squared out-of-fold error, in deviations of the target.

    Attributes
    ----------
    search_ : dict
        How many candidates were tried, the inner loss of the average and of the best candidate, the share of the mean
        label, and of each block its weight and its feature maps.
    members_ : list of dict
        The candidates that are averaged, with their ``shares_``.
    """

    _learned: ClassVar[tuple[str, ...]] = (*_AutoHead._learned, "units_")

    def fit(self, X: Any, y: Any, *, validation: object = None, groups: Any = None) -> AutoRegressor:
        """Search, and fit the members on all rows; *validation* is ignored.

        Parameters
        ----------
        groups : array, shape (n_images,), default=None
            Images of one group stay in one inner fold.

        Returns
        -------
        self
        """
        rows, targets = self._training_rows(X, y)
        deviation = targets.std(axis=0)
        self.units_ = np.stack([targets.mean(axis=0), np.where(deviation > 0, deviation, 1.0)])
        scaled = (targets - self.units_[0]) / self.units_[1]
        self._search(rows, scaled, self._strata(targets), groups)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return values in the units of y, float64 (n_images,) or (n_images, n_outputs)."""
        return self._shaped(np.concatenate(list(self._predictions(X))) * self.units_[1] + self.units_[0])

    def _calibrate(self, raw: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.zeros((targets.shape[1], 2))  # values are used as they are

    def _finish(self, raw: np.ndarray, finish: np.ndarray) -> np.ndarray:
        return raw

    def _loss(self, predictions: Any, targets: np.ndarray) -> float:
        return float(((predictions - targets) ** 2).mean())
