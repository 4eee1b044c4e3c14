"""scikit-learn's own contract, run on every head of the table."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from classify.heads import HEADS, make_head

# Small and quick: the checks fit each head about a hundred times.
QUICK = {
    "mlp": {"hidden": (24,), "epochs": 25, "dropout": 0.1, "learning_rate": 0.05},
    "moe": {"hidden": (24,), "epochs": 25, "dropout": 0.1, "learning_rate": 0.05},
    "conv": {"epochs": 25, "learning_rate": 0.05},
    "auto": {"budget": 4},
    "gbm": {"n_rounds": 20, "min_leaf": 1, "feature_fraction": 1.0, "learning_rate": 0.3, "n_jobs": 1},
}
LIKE_MLP = ("moe", "conv")  # other modules under the same estimator


def estimators(names):
    """Make small heads for labels and for values."""
    return [make_head(name, kind, **QUICK.get(name, {})) for name in names for kind in ("single", "regression")]


# No check is excused: `expected_failed_checks` stays away until one fails by design.
@parametrize_with_checks(estimators(name for name in HEADS if name not in LIKE_MLP))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_scikit_learn_contract(estimator, check):
    """Each head behaves as scikit-learn says an estimator must."""
    np.random.seed(0)  # noqa: NPY002 - some checks draw from the global generator
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(estimators(LIKE_MLP))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_scikit_learn_contract_of_other_networks(estimator, check):
    """So do the networks that `mlp` shares its estimator with."""
    np.random.seed(0)  # noqa: NPY002
    check(estimator)
