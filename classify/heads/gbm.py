"""Gradient-boosted trees by LightGBM: one booster for all classes, or one for each label or output."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import lightgbm
import numpy as np
from scipy.special import expit
from sklearn.utils import check_random_state

from classify.data.rows import Rows
from classify.data.standardizer import finite_batches
from classify.errors import HeadError
from classify.heads.base import ClassifierHead, Head, RegressorHead
from classify.heads.one_vs_rest import constant_log_odds
from classify.heads.options import number, random_seed, whole
from classify.heads.trees import read_trees

_ERRORS = 2  # the file descriptor of the error stream


class _BoostedHead(Head):
    """Base of the boosted heads.

    Attributes
    ----------
    boosters_ : list of lightgbm.Booster or None
        None where a label never varies in the training rows.
    n_parameters_ : int
        Leaves of all trees.
    """

    length = "n_rounds"
    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "learning_rate": ("log", 0.01, 0.3),
        "num_leaves": ("int", 4, 63),
        "min_leaf": ("int", 2, 50),
        "feature_fraction": ("uniform", 0.05, 1.0),
        "l2": ("log", 1e-3, 1e2),
    }
    _learned: ClassVar[tuple[str, ...]] = ("boosters_",)

    n_rounds: int | list[int] = whole(200, "trees of each class, label or output", most=100_000, several=True)
    learning_rate: float = number(0.05, "what each tree's output is multiplied by", least=1e-9, most=1e3)
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
            raise HeadError(f"{type(self).__name__} needs at least 2 training rows to find a split, got n_samples=1")
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
            raise HeadError(f"LightGBM refused to train: {error}") from error

    def _booster(
        self, options: dict[str, Any], train: Any, sets: list[Any], held_out: np.ndarray | None
    ) -> lightgbm.Booster:
        callbacks: list[Any] = []
        if held_out is not None:
            sets[0].set_label(held_out)
            callbacks = [lightgbm.early_stopping(self.patience, verbose=False)] if self.patience else []
        rounds = options.pop("num_iterations")
        booster = lightgbm.train(options, train, rounds, valid_sets=sets, callbacks=callbacks)
        # Rounds past the best are dropped here, so that a saved head and this one cannot differ in them.
        text = booster.model_to_string(num_iteration=booster.best_iteration or None)
        return lightgbm.Booster(model_str=text)

    def _rounds(self, n_boosters: int) -> list[int]:
        """Return the rounds of each booster."""
        if not isinstance(self.n_rounds, list | tuple):
            return [self.n_rounds] * n_boosters
        if len(self.n_rounds) != n_boosters:
            raise HeadError(
                f"n_rounds is {self.n_rounds!r}; it takes one number, or one for each of {n_boosters} boosters"
            )
        return list(self.n_rounds)

    def _finish(self, boosters: list[Any], *, validated: bool) -> None:
        self.boosters_, self.history_ = boosters, []
        self.best_length_ = self._best_rounds() if validated and self.patience else None
        dumps = [booster.dump_model()["tree_info"] for booster in boosters if booster is not None]
        idle = sum(all(tree["num_leaves"] == 1 for tree in trees) for trees in dumps)
        if idle:
            which = "no tree" if idle == len(dumps) else f"of {idle} of {len(dumps)} labels or outputs no tree"
            text = f"{which} found a split, so every image gets the same prediction; lower min_leaf ({self.min_leaf})"
            warnings.warn(text, UserWarning, stacklevel=2)
        self.n_parameters_ = sum(tree["num_leaves"] for trees in dumps for tree in trees)

    def _best_rounds(self) -> int | list[int] | None:
        """Return the rounds that were best on the validation rows, one number or one for each label or output."""
        known = [max(1, booster.current_iteration()) for booster in self.boosters_ if booster is not None]
        if not known:
            return None
        # A label that never varied in training has no rounds of its own: the median of the others'.
        typical = int(np.median(known))
        rounds = [typical if one is None else max(1, one.current_iteration()) for one in self.boosters_]
        return rounds[0] if len(rounds) == 1 else rounds

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

    def read_boosters(self, fitted: list[bool], texts: dict[str, str], *, foreign: bool) -> list[Any]:
        """Read boosters from LightGBM's text: checked all, and given to LightGBM only where they were made here."""
        if set(texts) != {f"booster-{k}" for k, is_fitted in enumerate(fitted) if is_fitted}:
            raise HeadError(f"it has {sum(fitted)} boosters, and the texts {', '.join(sorted(texts))[:80]}")
        boosters: list[Any] = []
        for k, is_fitted in enumerate(fitted):
            trees = read_trees(texts[f"booster-{k}"], n_features=self.n_features_in_) if is_fitted else None
            boosters.append(trees if foreign or trees is None else lightgbm.Booster(model_str=trees.text))
        return boosters


def _whole(rows: Rows) -> np.ndarray:
    return rows.take(np.arange(rows.shape[0]))


def _threads(n_jobs: int | None) -> int:
    """Return how many threads are started: no more than cores, and never 0, which LightGBM takes for "find out"."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(n_jobs or cores, cores))


class GBMClassifier(ClassifierHead, _BoostedHead):
    """Boosted trees for one label an image (softmax; logistic for two classes) or several (a booster for each).

    A label that never varies in the training rows gets its smoothed share as a constant. Rows are not
    standardized: trees do not change under it. Parameters and attributes are those of the base class, with
    ``classes_`` and ``multilabel_``.
    """

    _learned = ("constants_", "boosters_")

    def fit(self, X: Any, y: Any, *, validation: tuple[Any, Any] | None = None) -> GBMClassifier:
        """Fit the boosters; rows of *validation* stop them early, and are never trained on."""
        rows, codes = self._training_rows(X, y)
        held_out = None if validation is None else self._held_out(*validation)
        n, columns = len(self.classes_), codes.reshape(len(codes), -1)
        objective: dict[str, Any] = {"objective": "multiclass", "num_class": n}
        if n == 2 or self.multilabel_:
            objective = {"objective": "binary"}
        self.constants_ = np.array([constant_log_odds(y) for y in columns.T]) if self.multilabel_ else np.zeros(1)
        varied = np.flatnonzero(columns.min(axis=0) != columns.max(axis=0))
        boosters: list[Any] = [None] * columns.shape[1]
        rounds = self._rounds(len(boosters))
        if len(varied):
            scored = held_out and (held_out[0], held_out[1].reshape(len(held_out[1]), -1)[:, varied])
            fitted = self._boost(rows, columns[:, varied], scored, objective, [rounds[k] for k in varied])
            for k, booster in zip(varied, fitted, strict=True):
                boosters[k] = booster
        self._finish(boosters, validated=held_out is not None)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 (n_images, n_classes); rows sum to 1 unless multi-label."""
        rows = self._rows(X, reset=False)
        if self.multilabel_:
            return self._outputs(rows, np.asarray(expit(self.constants_)))
        found = self._outputs(rows, self.constants_)
        return np.concatenate([1 - found, found], axis=1) if len(self.classes_) == 2 else found


class GBMRegressor(RegressorHead, _BoostedHead):
    """Boosted trees for one or several real outputs, a booster for each, on the squared error.

    Rows are not standardized: trees do not change under it. Parameters and attributes are those of the base
    class.
    """

    def fit(self, X: Any, y: Any, *, validation: tuple[Any, Any] | None = None) -> GBMRegressor:
        """Fit the boosters; rows of *validation* stop them early, and are never trained on."""
        rows, targets = self._training_rows(X, y)
        held_out = None if validation is None else self._held_out(*validation)
        rounds = self._rounds(targets.shape[1])
        boosters = self._boost(rows, targets, held_out, {"objective": "regression"}, rounds)
        self._finish(boosters, validated=held_out is not None)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return values in the units of y, float64 (n_images,) or (n_images, n_outputs)."""
        rows = self._rows(X, reset=False)
        return self._shaped(self._outputs(rows, np.zeros(len(self.boosters_))))


_lock = threading.Lock()
_holders, _held = 0, None  # how many threads hold the stream, and where it went meanwhile: (copy, file)


@contextmanager
def without_fatal_lines() -> Iterator[None]:
    """Keep ``[LightGBM]`` lines off the error stream; whatever else arrives there meanwhile is passed on at the end.

    Threads that overlap share one hold, so that none puts the other's file back in the stream's place.
    """
    global _holders, _held  # noqa: PLW0603 - there is one error stream a process
    with _lock:
        if not _holders:
            _held = _hold()
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders and _held is not None:
                _release(*_held)


def _hold() -> tuple[int, Any] | None:
    try:
        copy = os.dup(_ERRORS)
    except OSError:  # the process has no error stream
        return None
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `_release`
    os.dup2(file.fileno(), _ERRORS)
    return copy, file


def _release(copy: int, file: Any) -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
    os.dup2(copy, _ERRORS)
    os.close(copy)
    file.seek(0)
    lines = file.readlines()
    file.close()
    fatal = any(line.startswith(b"[LightGBM]") for line in lines)  # each is followed by an empty one
    kept = b"".join(line for line in lines if not (fatal and line.startswith((b"[LightGBM]", b"\n"))))
    if kept:
        os.write(_ERRORS, kept)
