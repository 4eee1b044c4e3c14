"""The head ``auto``: a search over kernel machines, ridge regression and neighbours, and an average of the best.

Every choice (feature map, weight of each block, kernel width, strength, members of the average) is made by out-of-fold
predictions within the training rows. The members are chosen greedily with replacement (Caruana et al. 2004).
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold
from sklearn.utils import check_random_state

from classify.data.rows import ArrayRows, RowMatrix, Rows
from classify.data.standardizer import Standardizer, finite_batches
from classify.errors import HeadError
from classify.heads.base import ClassifierHead, Head, RegressorHead
from classify.heads.one_vs_rest import constant_log_odds, fit_sigmoid, indicator_columns, probabilities
from classify.heads.options import number, random_seed, whole
from classify.heads.pairwise import Candidate, Products, fit_member, kernel, member_scores

__all__ = ["AutoClassifier", "AutoRegressor"]

MAPS = ("sqrt", "standardize")
GAMMAS = (0.5, 1.0, 2.0)
COSTS = (3.0, 1.0, 10.0, 0.3)
ALPHAS = tuple(float(10.0**k) for k in np.arange(-4.0, 1.1, 0.5))
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


@dataclass(kw_only=True, repr=False, eq=False)
class _AutoHead(Head):
    """The search, and the average of its members."""

    seconds: float = number(60.0, "time for the search; it decides how many candidates are tried", least=0, most=1e6)
    candidates: int | None = whole(None, "try so many, whatever the time: the same on every machine", none="by time")
    members: int = whole(8, "predictions that are averaged at most; a good one may count several times", most=64)
    folds: int = whole(5, "inner folds of the training rows, by which everything is chosen", least=2, most=100)
    max_rows: int = whole(20_000, "refuse more training rows: candidates share matrices with their square", most=10**6)
    random_state: Any = random_seed("deals the rows to the inner folds")
    _learned: ClassVar[tuple[str, ...]] = (
        *("widths_", "maps_", "mean_", "scale_", "members_", "shares_", "finish_"),
        *("dual_", "intercept_", "vectors_", "targets_", "search_"),
    )
    takes_groups = True

    def _search(self, rows: Rows, targets: np.ndarray, strata: np.ndarray | None, groups: Any) -> None:
        """Try candidates on *targets*, (n, n_outputs), until the budget is used; fit the chosen ones on all rows."""
        n = rows.shape[0]
        if n > self.max_rows:
            raise HeadError(
                f"auto compares all pairs of {n} training rows, and max_rows is {self.max_rows}; raise it if the "
                "memory is there, or use the linear, mlp or gbm head"
            )
        self.widths_ = _widths(rows)
        several = 4 * n * n * len(self.widths_) * len(MAPS) <= MAX_BYTES
        vectors = rows.take(np.arange(n))
        self.maps_ = list(MAPS if several else MAPS[1:])
        self._measure(vectors)
        grams = {name: Products.of(z, z) for name, z in ((m, self._mapped(vectors, m)) for m in self.maps_)}
        folds = self._deal(n, strata, groups)
        trials = self._tried(grams, targets, folds)
        chosen = self._choose(trials, targets)
        shares = {i: count / chosen.total() for i, count in chosen.items()}
        self.members_ = [trials[i].candidate for i in shares]
        fitted = [fit_member(one, kernel(one, grams[one["map"]]), targets, {}, 0) for one in self.members_]
        self.shares_ = np.array(list(shares.values()))
        self.finish_ = np.stack([trials[i].finish for i in shares])
        self.dual_, self.intercept_ = (np.stack(parts) for parts in zip(*fitted, strict=True))
        self.vectors_, self.targets_ = vectors, targets
        average = sum(share * trials[i].predictions for i, share in shares.items())
        self.search_ = {
            "n_candidates": len(trials),
            "inner_loss": self._loss(average, targets),
            "inner_loss_of_best": min(one.loss for one in trials),
        }
        self.history_, self.n_parameters_ = [], int(vectors.size + self.dual_.size)

    def _tried(self, grams: dict[str, Products], targets: np.ndarray, folds: Folds) -> list[_Trial]:
        """Try candidates until the budget is used; one is always tried."""
        deadline, trials = time.monotonic() + self.seconds, list[_Trial]()
        seen, pairs, kept = None, np.empty(0), dict[Any, Any]()
        for one in _candidates(self.maps_, len(self.widths_), trials):
            full = time.monotonic() > deadline if self.candidates is None else len(trials) >= self.candidates
            if trials and full:
                break
            if seen != (seen := (one["family"], one["map"], one["weights"], one.get("gamma"))):
                pairs, kept = kernel(one, grams[one["map"]]), {}
            trials.append(self._try(one, pairs, targets, folds, kept))
        return trials

    def _measure(self, vectors: np.ndarray) -> None:
        """Measure mean and scale of each feature under each map, (n_maps, n_features) float32."""
        fitted = [Standardizer.fit(ArrayRows(_raise(vectors, name)), standardize=True) for name in self.maps_]
        self.mean_, self.scale_ = np.stack([one.mean for one in fitted]), np.stack([one.scale for one in fitted])

    def _mapped(self, x: np.ndarray, name: str) -> list[np.ndarray]:
        """Return rows under a map, standardised, block by block."""
        at = self.maps_.index(name)
        z = Standardizer(self.mean_[at], self.scale_[at])(_raise(x, name))
        return np.split(z, np.cumsum(self.widths_)[:-1], axis=1)

    def _deal(self, n: int, strata: np.ndarray | None, groups: Any) -> Folds:
        """Deal the rows to folds: classes evenly where each is in every fold, groups whole."""
        random = check_random_state(self.random_state)
        n_units = n if groups is None else len(np.unique(groups))
        folds = min(self.folds, n_units)
        if folds < 2:
            raise HeadError(
                f"auto chooses by inner folds, and n_samples = {n} in {n_units} group(s); it needs two groups at least"
            )
        even = strata is not None and np.bincount(strata).min() >= folds
        options: dict[str, Any] = {"n_splits": folds, "shuffle": True, "random_state": random}
        makers = {(False, False): KFold, (False, True): StratifiedKFold, (True, False): GroupKFold}
        maker = makers.get((groups is not None, even), StratifiedGroupKFold)
        return list(maker(**options).split(np.zeros(n), strata if even else None, groups))

    def _try(self, candidate: Candidate, pairs: np.ndarray, targets: np.ndarray, folds: Folds, kept: Any) -> _Trial:
        """Predict every row by a fit on the other folds."""

        def scores(fold: int) -> np.ndarray:
            train, held_out = folds[fold]
            fitted = fit_member(candidate, pairs[np.ix_(train, train)], targets[train], kept, fold)
            return member_scores(candidate, pairs[np.ix_(held_out, train)], fitted, targets[train])

        raw = np.empty(targets.shape)
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # libsvm and LAPACK work without the interpreter's lock
            for (_, held_out), found in zip(folds, threads.map(scores, range(len(folds))), strict=True):
                raw[held_out] = found
        finish = self._calibrate(raw, targets)
        predictions = self._finish(raw, finish)
        return _Trial(candidate, predictions, finish, self._loss(predictions, targets))

    def _choose(self, trials: Sequence[_Trial], targets: np.ndarray) -> Counter[int]:
        """Add the prediction that helps the average most, until none does; count how often each was taken."""
        total: Any = 0.0
        chosen, best = Counter[int](), np.inf
        for n in range(self.members):
            losses = [self._loss((total + one.predictions) / (n + 1), targets) for one in trials]
            at = int(np.argmin(losses))
            if losses[at] >= best:
                break
            best, total = losses[at], total + trials[at].predictions
            chosen[at] += 1
        return chosen

    def _predictions(self, X: Any) -> Iterator[np.ndarray]:
        """Yield the average of the members, some rows at a time."""
        rows = self._rows(X, reset=False)
        support = {name: self._mapped(self.vectors_, name) for name in {one["map"] for one in self.members_}}
        for _, x in finite_batches(rows):
            products = {name: Products.of(self._mapped(x, name), blocks) for name, blocks in support.items()}
            total: Any = 0.0
            for i, one in enumerate(self.members_):
                fitted = self.dual_[i], self.intercept_[i]
                raw = member_scores(one, kernel(one, products[one["map"]]), fitted, self.targets_)
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


def _raise(x: np.ndarray, name: str) -> np.ndarray:
    """Apply a feature map: the signed root draws in the long tails of pooled activations."""
    return np.sign(x) * np.sqrt(np.abs(x)) if name == "sqrt" else x


def _candidates(maps: Sequence[str], n_blocks: int, trials: Sequence[_Trial]) -> Iterator[Candidate]:
    """Yield candidates, the most promising first; *trials* grows meanwhile, and tells which blocks are good.

    First every block alone and all together, by one machine; then the best blocks joined one by one, the others at a
    low weight or at none; then neighbours, ridge and other machines over all these weights.
    """
    alone = [[float(i == k) for i in range(n_blocks)] for k in range(n_blocks)] if n_blocks > 1 else []
    weights = [[1.0] * n_blocks, *alone]
    yield from (_machine(maps[0], one, GAMMAS[0], COSTS[0]) for one in weights)
    order = np.argsort([one.loss for one in trials[1:]]).tolist()
    joined = [
        [1.0 if i in order[:n] else low for i in range(n_blocks)] for n in range(2, n_blocks) for low in (0.0, WEAK)
    ]
    yield from (_machine(maps[0], one, GAMMAS[0], COSTS[0]) for one in joined)
    ranked = [one.candidate["weights"] for one in sorted(trials, key=lambda one: one.loss)]
    for one, name in itertools.product(ranked, maps):
        for k, sharpness in itertools.product(NEIGHBOURS, SHARPNESS):
            yield {"family": "neighbours", "map": name, "weights": one, "k": k, "sharpness": sharpness}
        for alpha in ALPHAS:
            yield {"family": "ridge", "map": name, "weights": one, "alpha": alpha}
    for one, name, gamma, cost in itertools.product(ranked, maps, GAMMAS, COSTS):
        if (cost, gamma, name) != (COSTS[0], GAMMAS[0], maps[0]):
            yield _machine(name, one, gamma, cost)


def _machine(name: str, weights: list[float], gamma: float, cost: float) -> Candidate:
    return {"family": "svm", "map": name, "weights": weights, "gamma": gamma, "C": cost}


class AutoClassifier(ClassifierHead, _AutoHead):
    """The best average of kernel machines, ridge and neighbours that a bounded search finds, for labels.

    Candidates are judged by the log loss of their calibrated out-of-fold probabilities.

    Attributes
    ----------
    search_ : dict
        Number of candidates, and the inner loss of the average and of the best candidate.
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
        self._search(rows, columns, None if self.multilabel_ else codes, groups)
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
        p = np.clip(predictions, 1e-9, 1 - 1e-9)
        if self.multilabel_:
            return float(-(targets * np.log(p) + (1 - targets) * np.log1p(-p)).mean())
        truth = np.concatenate([1 - targets, targets], axis=1) if targets.shape[1] == 1 else targets
        return float(-(truth * np.log(p)).sum(axis=1).mean())


class AutoRegressor(RegressorHead, _AutoHead):
    """The best average of kernel machines, ridge and neighbours that a bounded search finds, for real outputs.

    Candidates are judged by their squared out-of-fold error, in deviations of the target.

    Attributes
    ----------
    search_ : dict
        Number of candidates, and the inner loss of the average and of the best candidate.
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
        self._search(rows, (targets - self.units_[0]) / self.units_[1], None, groups)
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
