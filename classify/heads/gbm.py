"""Gradient-boosted trees by LightGBM: one booster for all classes, or one for each label or output."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from scipy.special import expit
from sklearn.utils import check_random_state

from classify.data.rows import Rows
from classify.data.standardizer import finite_batches
from classify.errors import HeadError
from classify.heads.base import ClassifierHead, FittedState, Head, RegressorHead
from classify.heads.error_stream import without_fatal_lines
from classify.heads.one_vs_rest import constant_log_odds
from classify.heads.options import number, random_seed, whole
from classify.heads.trees import read_trees

__all__ = ["GBMClassifier", "GBMRegressor"]

_MAX_BOOSTERS = 32_767  # one for each label


@dataclass(kw_only=True, repr=False, eq=False)
class _BoostedHead(Head):
    """Base of the boosted heads.

    Attributes
    ----------
    boosters_ : list of lightgbm.Booster or None
        None where a label never varies in the training rows.
    n_parameters_ : int
        Leaves of all trees.
    """

    n_rounds: int | list[int] = whole(200, "trees of each class, label or output", most=100_000, several=True)
    learning_rate: float = number(0.05, "what each tree's answer is multiplied by", least=1e-9, most=1e3)
    num_leaves: int = whole(15, "leaves of a tree, at most", least=2, most=131_072)
    min_leaf: int = whole(10, "training rows in a leaf, at least", most=2**31 - 1)
    feature_fraction: float = number(
        0.2,
        "share of the features that each tree may use: of thousands of correlated ones a few suffice",
        least=1e-6,
        most=1,
    )
    row_fraction: float = number(0.8, "share of the training rows that each tree sees", least=1e-6, most=1)
    l2: float = number(1.0, "penalty on the leaves' values", least=0, most=1e12)
    max_bin: int = whole(63, "values that a feature is rounded to", least=2, most=65_535)
    patience: int | None = whole(
        20, "given validation rows, stop after so many rounds without a lower validation loss", none="never"
    )
    n_jobs: int | None = whole(None, "threads", most=1024, none="as many as this process may use")
    random_state: Any = random_seed("draws features and rows")

    def _options(self) -> dict[str, Any]:
        """Return LightGBM's options; wide data is histogrammed feature by feature, and bits repeat."""
        return {
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": self.min_leaf,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.row_fraction,
            "bagging_freq": 1,
            "lambda_l2": self.l2,
            "max_bin": self.max_bin,
            "feature_pre_filter": False,
            "force_col_wise": True,
            "deterministic": True,
            "num_threads": _threads(self.n_jobs),
            "seed": int(check_random_state(self.random_state).randint(2**31 - 1)),
            "verbosity": -1,
        }

    def _boost(
        self,
        rows: Rows,
        columns: np.ndarray,
        validation: tuple[Rows, np.ndarray] | None,
        objective: dict[str, Any],
        rounds: list[int],
    ) -> list[lightgbm.Booster]:
        """Fit one booster to each column of *columns*, of so many *rounds*; the features are binned once for all."""
        if rows.shape[0] < 2:
            message = f"{type(self).__name__} needs at least 2 training rows to find a split, got n_samples=1"
            raise HeadError(message)
        options = {**self._options(), **objective}
        try:
            with without_fatal_lines():
                train = lightgbm.Dataset(_whole(rows), columns[:, 0], params=options, free_raw_data=False)
                train.construct()
                sets = [] if validation is None else [train.create_valid(_whole(validation[0]), validation[1][:, 0])]
                return [
                    self._booster(
                        {**options, "num_iterations": rounds[k]},
                        train.set_label(columns[:, k]),
                        sets,
                        validation and validation[1][:, k],
                    )
                    for k in range(columns.shape[1])
                ]
        except lightgbm.basic.LightGBMError as error:
            message = f"LightGBM refused to train: {error}"
            raise HeadError(message) from error

    def _booster(
        self, options: dict[str, Any], train: Any, sets: list[Any], held_out: np.ndarray | None
    ) -> lightgbm.Booster:
        callbacks: list[Any] = []
        if held_out is not None:
            sets[0].set_label(held_out)
            callbacks = [lightgbm.early_stopping(self.patience, verbose=False)] if self.patience else []
        rounds = options.pop("num_iterations")
        booster = lightgbm.train(options, train, rounds, valid_sets=sets, callbacks=callbacks)
        # Rounds past the best are dropped here, so that a saved head and this one can't differ in them.
        text = booster.model_to_string(num_iteration=booster.best_iteration or None)
        return lightgbm.Booster(model_str=text)

    def _rounds(self, n_boosters: int) -> list[int]:
        """Return the rounds of each booster."""
        if not isinstance(self.n_rounds, list | tuple):
            return [self.n_rounds] * n_boosters
        if len(self.n_rounds) != n_boosters:
            message = f"n_rounds is {self.n_rounds!r}; it takes one number, or one for each of {n_boosters} boosters"
            raise HeadError(message)
        return list(self.n_rounds)

    def _finish(self, boosters: list[Any]) -> None:
        self.boosters_, self.history_ = boosters, []
        dumps = [booster.dump_model()["tree_info"] for booster in boosters if booster is not None]
        idle = sum(all(tree["num_leaves"] == 1 for tree in trees) for trees in dumps)
        if idle:
            which = "no tree" if idle == len(dumps) else f"of {idle} of {len(dumps)} labels or outputs no tree"
            text = f"{which} found a split, so every image gets the same answer; lower min_leaf ({self.min_leaf})"
            warnings.warn(text, UserWarning, stacklevel=2)
        self.n_parameters_ = sum(tree["num_leaves"] for trees in dumps for tree in trees)

    def _outputs(self, rows: Rows, constants: np.ndarray) -> np.ndarray:
        """Return each booster's output, or its constant, side by side: float64 (n_images, n_outputs)."""
        threads = _threads(self.n_jobs)
        parts = []
        for _, x in finite_batches(rows):
            columns = [
                np.full(len(x), constants[k]) if booster is None else booster.predict(x, num_threads=threads)
                for k, booster in enumerate(self.boosters_)
            ]
            parts.append(np.column_stack(columns))
        return np.concatenate(parts)

    def fitted_state(self) -> FittedState:
        """Return the boosters as LightGBM's own text."""
        texts = {f"booster-{k}": b.model_to_string() for k, b in enumerate(self.boosters_) if b is not None}
        return FittedState(values={"n_boosters": len(self.boosters_)}, texts=texts)

    def restore(self, state: FittedState) -> None:
        """Read the boosters back: checked all, and given to LightGBM only where they were made here."""
        n_boosters = state.values["n_boosters"]
        known = {f"booster-{k}" for k in range(n_boosters)} if 0 < n_boosters <= _MAX_BOOSTERS else set()
        if not set(state.texts) <= known:
            message = f"it has {n_boosters!r} boosters, and the texts {', '.join(sorted(state.texts))[:80]}"
            raise HeadError(message)
        self.boosters_ = []
        for k in range(n_boosters):
            text = state.texts.get(f"booster-{k}")
            trees = None if text is None else read_trees(text, n_features=self.n_features_in_)
            ours = trees is not None and not state.foreign
            self.boosters_.append(lightgbm.Booster(model_str=text) if ours else trees)


def _whole(rows: Rows) -> np.ndarray:
    return rows.take(np.arange(rows.shape[0]))


def _threads(n_jobs: int | None) -> int:
    """Return how many threads are started: never more than there are cores."""
    return max(1, min(n_jobs or _usable_cores(), _usable_cores()))


def _usable_cores() -> int:
    """Return how many cores this process may run on; never 0, which LightGBM takes for "find out"."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class GBMClassifier(ClassifierHead, _BoostedHead):
    """Boosted trees for one label an image (softmax; logistic for two classes) or several (a booster for each).

    A label that never varies in the training rows gets its smoothed share as a constant. Rows are not
    standardized: trees don't change under it. Parameters and attributes are those of the base class, with
    ``classes_`` and ``multilabel_``.
    """

    def fit(self, X: Any, y: Any, *, validation: tuple[Any, Any] | None = None) -> GBMClassifier:
        """Fit the boosters.

        Parameters
        ----------
        y : array
            single-label: (n_images,) labels; multi-label: (n_images, n_labels) of 0 and 1.
        validation : (X, y), default=None
            Rows for early stopping; never trained on.

        Returns
        -------
        self
        """
        rows = self._rows(X, reset=True)
        codes = self._encode(y)
        self._check_pair(rows, codes)
        held_out = None if validation is None else self._held_out(*validation)
        if self.multilabel_:
            self._fit_labels(rows, codes, held_out)
            return self
        n = len(self.classes_)
        objective = {"objective": "binary"} if n == 2 else {"objective": "multiclass", "num_class": n}
        self.constants_ = np.zeros(1)
        columns = None if held_out is None else (held_out[0], held_out[1][:, None])
        self._finish(self._boost(rows, codes[:, None], columns, objective, self._rounds(1)))
        return self

    def _fit_labels(self, rows: Rows, codes: np.ndarray, held_out: tuple[Rows, np.ndarray] | None) -> None:
        self.constants_ = np.array([constant_log_odds(column) for column in codes.T])
        varied = np.flatnonzero(codes.min(axis=0) != codes.max(axis=0))
        boosters: list[Any] = [None] * codes.shape[1]
        rounds = self._rounds(codes.shape[1])
        if len(varied):
            columns = None if held_out is None else (held_out[0], held_out[1][:, varied])
            binary = {"objective": "binary"}
            fitted = self._boost(rows, codes[:, varied], columns, binary, [rounds[k] for k in varied])
            for k, booster in zip(varied, fitted, strict=True):
                boosters[k] = booster
        self._finish(boosters)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 (n_images, n_classes); rows sum to 1 unless multi-label."""
        rows = self._rows(X, reset=False)
        if self.multilabel_:
            return self._outputs(rows, np.asarray(expit(self.constants_)))
        found = self._outputs(rows, self.constants_)
        return np.concatenate([1 - found, found], axis=1) if len(self.classes_) == 2 else found

    def fitted_state(self) -> FittedState:
        """Return the boosters as LightGBM's own text, and the constants of labels that never vary."""
        state = super().fitted_state()
        state.values["constants"] = self.constants_.tolist()
        return state

    def restore(self, state: FittedState) -> None:
        """Read the boosters back."""
        super().restore(state)
        self.constants_ = np.array(state.values["constants"])


class GBMRegressor(RegressorHead, _BoostedHead):
    """Boosted trees for one or several real outputs, a booster for each, on the squared error.

    Rows are not standardized: trees don't change under it. Parameters and attributes are those of the base
    class.
    """

    def fit(self, X: Any, y: Any, *, validation: tuple[Any, Any] | None = None) -> GBMRegressor:
        """Fit the boosters.

        Parameters
        ----------
        validation : (X, y), default=None
            Rows for early stopping; never trained on.

        Returns
        -------
        self
        """
        rows = self._rows(X, reset=True)
        targets = self._targets(y)
        self._check_pair(rows, targets)
        held_out = None if validation is None else self._held_out(*validation)
        rounds = self._rounds(targets.shape[1])
        self._finish(self._boost(rows, targets, held_out, {"objective": "regression"}, rounds))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return values in the units of y, float64 (n_images,) or (n_images, n_outputs)."""
        rows = self._rows(X, reset=False)
        return self._shaped(self._outputs(rows, np.zeros(len(self.boosters_))))
