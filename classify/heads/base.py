"""What every head has: checks of X and y, learned attributes, the facts that a run, a search and an explanation use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, column_or_1d, validate_data

from classify.data.kinds import KINDS
from classify.data.rows import ArrayRows, RowMatrix, Rows
from classify.data.standardizer import refuse_non_finite
from classify.errors import HeadError
from classify.heads.options import check_options, refuse_one_label_options

_STEP = 0.02  # of a feature's deviation, for a difference
_DIFFERENCE_VALUES = 2**22  # of rows held at once
_TINY = 1e-12


class Head(BaseEstimator):
    """Base of all heads: the checks of X, the attributes that every fitted head has, and what a run asks of a head.

    A head is one file with a classifier and a regressor, each with options as fields (see `classify.heads.options`),
    ``fit(X, y, *, validation=None)`` and ``predict_proba`` or ``predict``, and one line in ``HEADS``. Whatever ``fit``
    learns stands in attributes that end in ``_``, named in ``_learned``: they are saved by their type.

    Attributes
    ----------
    length : str or None
        The option that says how long training is at most, ``epochs`` or ``n_rounds``; None where there is no such.
    resumable : bool
        Whether ``fit`` takes ``checkpoint=``.
    takes_groups : bool
        Whether ``fit`` takes ``groups=``, the group of each row.
    search_space : mapping
        Options worth a search, each with how it is drawn, and between what, see `classify.studies.search`.
    best_length_ : int, list of int or None
        What *length* the fitted state has, the best on the validation rows, where training could stop early; None where
        it could not.
    """

    length: ClassVar[str | None] = None
    resumable: ClassVar[bool] = False
    takes_groups: ClassVar[bool] = False
    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    _learned_by_base: ClassVar[tuple[str, ...]] = ()
    _learned: ClassVar[tuple[str, ...]] = ()

    best_length_: int | list[int] | None = None
    search_: dict[str, Any]  # of a head that chose by inner folds: how many candidates, and their loss there
    n_features_in_: int
    blocks_in_: list[str]  # only where it was fitted on blocks of a store
    history_: list[dict[str, float]]
    n_parameters_: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make the options that a class declares keyword arguments of its constructor."""
        super().__init_subclass__(**kwargs)
        if any(isinstance(value, dataclasses.Field) for value in vars(cls).values()):
            dataclasses.dataclass(kw_only=True, repr=False, eq=False)(cls)

    def check_options(self) -> None:
        """Refuse an option that is not one of the values it takes."""
        check_options(self)

    @classmethod
    def learned(cls) -> tuple[str, ...]:
        """Return the names of all attributes that ``fit`` sets, those that others build on first."""
        return ("n_features_in_", *cls._learned_by_base, *cls._learned, "n_parameters_", "history_")

    def fit_in_groups(self, X: Any, y: Any, groups: Any = None, **options: Any) -> Any:
        """Fit; a head that chooses by folds of its own keeps the rows of a group, (n_images,), in one of them."""
        return self.fit(X, y, **options, **({"groups": groups} if self.takes_groups else {}))

    def gradient(self, x: np.ndarray, output: int) -> np.ndarray | None:
        """Return the slope of an output at one row, (n_features,); None where the head has none.

        Of a classifier the output is the log-odds of a class, by its place in ``classes_``; of a regressor a value.
        By central differences; networks override it, and heads without slopes (trees, constants) return None.
        """
        standardizer = getattr(self, "standardizer_", None)
        if standardizer is None:
            return None
        step, slope = _STEP * standardizer.scale, np.zeros_like(x)
        moved = np.flatnonzero(np.isfinite(step))  # a constant feature moves nothing
        size = max(1, _DIFFERENCE_VALUES // (2 * len(x)))
        for start in range(0, len(moved), size):
            some = moved[start : start + size]
            rows, at = np.repeat(x[None], 2 * len(some), axis=0), np.arange(len(some))
            rows[at, some] += step[some]
            rows[at + len(some), some] -= step[some]
            width = rows[at, some] - rows[at + len(some), some]  # as float32 has it
            above, below = np.split(self._explained(rows, output), 2)
            slope[some] = (above - below) / width
        return slope

    def _explained(self, X: np.ndarray, output: int) -> np.ndarray:
        """Return the output that `gradient` is the slope of, for each row."""
        raise NotImplementedError

    def _rows(self, X: Any, *, reset: bool) -> Rows:
        """Check *X* and return it as `Rows`; *reset* at the start of ``fit``."""
        if reset:
            self.check_options()
        else:
            check_is_fitted(self, "n_features_in_")
        if isinstance(X, RowMatrix):
            return self._check_lazy(X, reset=reset)
        if reset and hasattr(self, "blocks_in_"):
            del self.blocks_in_
        try:
            # Values too large for float32 turn infinite here and are refused below, with their place.
            with np.errstate(over="ignore"):
                array = validate_data(self, X, reset=reset, dtype=np.float32, ensure_all_finite=False)
        except HeadError:
            raise
        except ValueError as error:
            raise HeadError(str(error)) from error
        rows = ArrayRows(array)
        if not np.isfinite(array.sum(dtype=np.float64)):
            refuse_non_finite(np.arange(len(array)), array)
        return rows

    def _check_lazy(self, X: RowMatrix, *, reset: bool) -> RowMatrix:
        if reset:
            if not len(X):
                raise HeadError(f"{type(self).__name__} cannot be fitted on 0 rows")
            self.n_features_in_, self.blocks_in_ = X.shape[1], list(X.blocks)
            if hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
            return X
        fitted_on = getattr(self, "blocks_in_", None)
        if fitted_on is not None and fitted_on != list(X.blocks):
            raise HeadError(
                f"{type(self).__name__} was fitted on the blocks {', '.join(fitted_on)}, in this order, and X has "
                f"{', '.join(X.blocks)}; give it the same blocks"
            )
        if X.shape[1] != self.n_features_in_:
            raise HeadError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                f"features as input; the blocks of X are {', '.join(X.blocks)}"
            )
        return X

    def _training_rows(self, X: Any, y: Any) -> tuple[Rows, np.ndarray]:
        """Check what ``fit`` was given; return the rows and their codes or targets, see `_encode`."""
        rows = self._rows(X, reset=True)
        if y is None:
            raise HeadError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        targets = self._encode(y)
        self._check_pair(rows, targets)
        return rows, targets

    def _encode(self, y: Any) -> np.ndarray:
        """Check the training labels or targets, and return them as numbers."""
        raise NotImplementedError

    def _held_out(self, X: Any, y: Any) -> tuple[Rows, np.ndarray] | None:
        """Return validation rows with their codes or targets; None where no row can be scored."""
        raise NotImplementedError

    @staticmethod
    def _check_pair(rows: Rows, y: np.ndarray) -> None:
        try:
            check_consistent_length(np.empty(rows.shape[0]), y)
        except ValueError as error:
            raise HeadError(str(error)) from error


class ClassifierHead(ClassifierMixin, Head):
    """Base of the classifiers, single-label or multi-label by the shape of y.

    A one-dimensional y of any labels is single-label: ``classes_`` are its sorted labels. A two-dimensional
    y of 0 and 1, one column a label, is multi-label: ``classes_`` are the column numbers.
    """

    classes_: np.ndarray
    multilabel_: bool
    _learned_by_base = ("classes_", "multilabel_")
    _min_classes = 2

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _encode(self, y: Any) -> np.ndarray:
        """Check the training labels, set ``classes_``, return int64 codes (n,) or 0/1 (n, n_labels)."""
        try:
            y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
            check_classification_targets(y)
            target = type_of_target(y, input_name="y")
        except ValueError as error:
            raise HeadError(str(error)) from error
        one_label = y.ndim == 2 and y.shape[1] == 1 and bool(np.isin(y, (0, 1)).all())
        self.multilabel_ = target == "multilabel-indicator" or one_label
        if self.multilabel_:
            refuse_one_label_options(self)
            self.classes_ = np.arange(y.shape[1])
            return self._indicators(y)
        if target not in ("binary", "multiclass"):
            raise HeadError(f"y is {target}; {type(self).__name__} takes one label a row, or columns of 0 and 1")
        self.classes_, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if len(self.classes_) < self._min_classes:
            raise HeadError(
                f"the training rows are all of one class ({self.classes_[0]}); "
                f"{type(self).__name__} needs at least {self._min_classes} classes"
            )
        return codes.astype(np.int64)

    def _strata(self, codes: np.ndarray) -> np.ndarray:
        """Return the stratum of each training row, (n,), which inner folds spread evenly."""
        return KINDS["multi" if self.multilabel_ else "single"].strata(codes)

    def _indicators(self, y: np.ndarray) -> np.ndarray:
        wrong = ~np.isin(y, (0, 1))
        if wrong.any():
            raise HeadError(f"y has columns, so each value must be 0 or 1; found {y[wrong][0]!r}")
        if y.shape[1] != len(self.classes_):
            raise HeadError(f"y has {y.shape[1]} label columns, the head was fitted on {len(self.classes_)}")
        return y.astype(np.int64)

    def _held_out(self, X: Any, y: Any) -> tuple[Rows, np.ndarray] | None:
        """Return validation rows and codes; None where no row can be scored.

        A row of a class that no training row has cannot be scored by a head that does not know it.
        """
        rows, y = self._rows(X, reset=False), np.asarray(y)
        self._check_pair(rows, y)
        if self.multilabel_:
            return rows, self._indicators(y)
        codes = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        known = self.classes_[codes] == y
        if known.all():
            return rows, codes
        return (self._rows(X[known], reset=False), codes[known]) if known.any() else None

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row, or for multi-label int64 0/1 (n_images, n_labels) at one half."""
        probabilities = self.predict_proba(X)
        if self.multilabel_:
            return (probabilities >= 0.5).astype(np.int64)
        return self.classes_[np.argmax(probabilities, axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 (n_images, n_classes); rows sum to 1 unless multi-label."""
        raise NotImplementedError

    def _explained(self, X: np.ndarray, output: int) -> np.ndarray:
        p = np.clip(self.predict_proba(X)[:, output], _TINY, 1 - _TINY)
        return np.asarray(np.log(p) - np.log1p(-p))


class RegressorHead(RegressorMixin, Head):
    """Base of the regressors, for one output, y (n_images,), or several, y (n_images, n_outputs)."""

    single_output_: bool
    _learned_by_base = ("single_output_",)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _encode(self, y: Any) -> np.ndarray:
        """Check the training targets and return them as float64 (n, n_outputs)."""
        try:
            y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        except ValueError as error:
            raise HeadError(str(error)) from error
        self.single_output_ = y.ndim == 1
        return y[:, None] if y.ndim == 1 else y

    def _strata(self, targets: np.ndarray) -> np.ndarray:
        """Return the stratum of each training row, (n,), which inner folds spread evenly."""
        return KINDS["regression"].strata(targets)

    def _held_out(self, X: Any, y: Any) -> tuple[Rows, np.ndarray]:
        rows, y = self._rows(X, reset=False), np.asarray(y, dtype=np.float64)
        self._check_pair(rows, y)
        return rows, y[:, None] if y.ndim == 1 else y

    def _shaped(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0] if self.single_output_ else values

    def _explained(self, X: np.ndarray, output: int) -> np.ndarray:
        return np.asarray(self.predict(X)).reshape(len(X), -1)[:, output]
