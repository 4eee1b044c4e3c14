"""Signal planted so that the best possible accuracy is known: every kind of head comes within two points of it."""

import numpy as np
import pytest
from scipy.stats import norm

from classify.heads import make_head

N_TRAIN, N_TEST, DISTANCE = 3000, 8000, 1.1
BAYES = norm.cdf(DISTANCE)  # two normal clouds of equal size, their centres 2 * DISTANCE apart
SHAPE = (4, 3, 3)
OPTIONS = {
    "mlp": {"hidden": [32], "epochs": 12, "learning_rate": 3e-3},
    "moe": {"hidden": [32], "epochs": 15, "learning_rate": 3e-3},
    "svm": {},
    "gbm": {"n_rounds": 150, "learning_rate": 0.05, "num_leaves": 7, "feature_fraction": 1.0, "n_jobs": 1},
    "conv": {"epochs": 15, "learning_rate": 5e-3, "batch_size": 64},
}


def clouds(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return six features of which two tell the class, and four more that copy one of them in noise: (n, 10), (n,)."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = random.normal(size=(n, 6))
    x[:, :2] += np.where(y, 1, -1)[:, None] * DISTANCE / np.sqrt(2)
    copies = x[:, :1] + random.normal(size=(n, 4))  # they add nothing to what the first feature tells
    return np.concatenate([x, copies], axis=1).astype(np.float32), y


def maps(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return maps whose first channel has another mean for each class: the average over places tells all there is."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = random.normal(size=(n, *SHAPE))
    x[:, 0] += np.where(y, 1, -1)[:, None, None] * DISTANCE / 3  # nine places: their mean has deviation 1/3
    return x.reshape(n, -1).astype(np.float32), y


@pytest.mark.parametrize("name", OPTIONS)
def test_planted_signal_is_learned_to_within_two_points_of_the_bayes_rate(name):
    """Accuracy on 8,000 unseen rows; above the Bayes rate only by the luck of the draw."""
    draw = maps if name == "conv" else clouds
    (x, y), held_out, (x_test, y_test) = draw(N_TRAIN, 0), draw(1000, 1), draw(N_TEST, 2)
    options = {**OPTIONS[name], **({"shape": SHAPE} if name == "conv" else {})}
    head = make_head(name, "single", random_state=0, **options).fit(x, y, validation=held_out)
    accuracy = (head.predict(x_test) == y_test).mean()
    assert BAYES - 0.02 <= accuracy <= BAYES + 3 * np.sqrt(BAYES * (1 - BAYES) / N_TEST)
