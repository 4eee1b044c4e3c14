"""Trees of strangers: the same numbers as LightGBM's, and no text that makes anything but an error."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest

from classify.errors import HeadError
from classify.heads.gbm import GBMClassifier, GBMRegressor
from classify.heads.trees import read_trees

N, WIDTH = 300, 5
random = np.random.default_rng(5)
X = random.normal(size=(N, WIDTH)).astype(np.float32)
X[random.random(X.shape) < 0.2] = 0.0
Y = X[:, 0] + 0.5 * X[:, 1] ** 2 + 0.3 * random.normal(size=N)


def booster(objective: dict, y, x=X, **more) -> lightgbm.Booster:
    options = {"num_leaves": 12, "min_data_in_leaf": 4, "verbosity": -1, "num_threads": 1, **objective, **more}
    return lightgbm.train(options, lightgbm.Dataset(x, y, params=options), 12)


OBJECTIVES = [
    ({"objective": "regression"}, Y),
    ({"objective": "binary"}, (Y > 0).astype(int)),
    ({"objective": "multiclass", "num_class": 4}, np.digitize(Y, [-0.5, 0.2, 1])),
]


@pytest.mark.parametrize(("objective", "y"), OBJECTIVES)
@pytest.mark.parametrize("missing", ["none", "nan", "zero"])
def test_the_same_numbers(objective, y, missing) -> None:
    """Sums to the last bit; probabilities to the last digits that two exponential functions share."""
    x = X.copy()
    if missing == "nan":
        x[random.random(x.shape) < 0.1] = np.nan
    made = booster(objective, y, x, zero_as_missing=missing == "zero")
    trees = read_trees(made.model_to_string(), n_features=WIDTH)
    asked = np.concatenate([x, random.normal(size=(50, WIDTH)).astype(np.float32), np.zeros((1, WIDTH), np.float32)])
    raw = made.predict(asked, raw_score=True).reshape(len(asked), -1)
    assert np.array_equal(trees._raw(asked.astype(np.float64)), raw)
    assert np.allclose(trees.predict(asked), made.predict(asked), rtol=1e-13, atol=0)


def test_trees_of_one_leaf() -> None:
    """Where no split pays, a tree is its value."""
    made = booster({"objective": "regression"}, Y[:6], X[:6])
    trees = read_trees(made.model_to_string(), n_features=WIDTH)
    assert np.array_equal(trees.predict(X), made.predict(X))


@pytest.mark.parametrize(("objective", "y"), OBJECTIVES)
def test_changed_text_is_refused_or_answers(objective, y) -> None:
    """Whatever is changed in the text: an error, or finite numbers."""
    text = booster(objective, y).model_to_string()
    text = text[: text.index("end of trees") + 13]
    strange = (
        "-1",
        "0",
        "1",
        "2",
        "9",
        "99999999999999999999",
        "-",
        "e",
        "nan",
        "inf",
        " ",
        "",
        "\n",
        "=",
        "1e400",
        "-7",
    )
    refused = 0
    for _ in range(120):
        start = int(random.integers(len(text)))
        length = int(random.choice([0, 1, 1, 2, 8]))
        changed = text[:start] + str(random.choice(strange)) + text[start + length :]
        try:
            said = read_trees(changed, n_features=WIDTH).predict(X[:3])
            assert said.shape[0] == 3
            assert not np.isnan(said).any()
        except HeadError:
            refused += 1
    assert refused > 60


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("left_child", lambda cells: ["0", *cells[1:]], "once"),
        ("left_child", lambda cells: ["-500", *cells[1:]], "once"),
        ("right_child", lambda cells: [*cells[:-1], "1"], "once"),
        ("split_feature", lambda cells: ["5", *cells[1:]], "beyond"),
        ("split_feature", lambda cells: ["-1", *cells[1:]], "beyond"),
        ("decision_type", lambda cells: ["1", *cells[1:]], "decision_type"),
        ("threshold", lambda cells: cells[:-1], "numbers"),
        ("leaf_value", lambda cells: [*cells, "1"], "numbers"),
        ("leaf_value", lambda cells: ["inf", *cells[1:]], "numbers"),
        ("num_leaves", lambda cells: ["2"], "numbers"),
        ("num_leaves", lambda cells: ["1000000000"], "leaves"),
        ("num_cat", lambda cells: ["1"], "categories"),
        ("is_linear", lambda cells: ["1"], "linear"),
    ],
)
def test_what_crashes_a_parser(name, change, words) -> None:
    """One changed line of the first tree, with the sizes of the trees made right again."""
    text = booster(*OBJECTIVES[0]).model_to_string()
    before, tree, after = text.partition("Tree=0\n")
    old = next(line for line in after.split("\n") if line.startswith(f"{name}="))
    new = f"{name}={' '.join(change(old.partition('=')[2].split(' ')))}"
    first = next(line for line in before.split("\n") if line.startswith("tree_sizes=")).split(" ")[0]
    grown = f"tree_sizes={int(first.partition('=')[2]) + len(new) - len(old)}"
    changed = before.replace(first, grown, 1) + tree + after.replace(old, new, 1)
    with pytest.raises(HeadError, match=words):
        read_trees(changed, n_features=WIDTH)


def test_many_threads_are_not_asked_for() -> None:
    """A head may say up to 1,024 threads; no more are started than there are cores."""
    head = GBMRegressor(n_rounds=3, n_jobs=1).fit(X, Y)
    head.n_jobs = 1024
    assert np.isfinite(head.predict(X)).all()
    again = GBMClassifier(n_rounds=3, n_jobs=1024).fit(X, (Y > 0).astype(int))
    assert np.isfinite(again.predict_proba(X)).all()
    with pytest.raises(HeadError, match="n_jobs is 1000000"):
        GBMRegressor(n_jobs=10**6).fit(X, Y)
