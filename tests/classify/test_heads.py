"""The promises that every head of the table keeps."""

import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from classify.errors import HeadError
from classify.heads import HEADS, head_options, make_head

QUICK = {
    "auto": {"budget": 6},
    "mlp": {"hidden": [32], "epochs": 15, "learning_rate": 0.01},
    "moe": {"hidden": [32], "epochs": 15, "learning_rate": 0.01},
    "conv": {"epochs": 15, "learning_rate": 0.02},
    "gbm": {"n_rounds": 30, "n_jobs": 1, "feature_fraction": 0.5},
}
KINDS = ("single", "multi", "regression")
ALL = [(name, kind) for name in HEADS for kind in KINDS]
LEARNERS = [(name, kind) for name, kind in ALL if name != "dummy"]
WORDS = np.array(["negative", "neutral", "positive"])


def quick(name, kind, **options):
    """Make a head small enough for a test."""
    return make_head(name, kind, **{**QUICK.get(name, {}), **options})


def data(kind, n=240, seed=0):
    """Return 20 features, of which five tell, and targets of a kind; single labels are words."""
    X, codes = make_classification(
        n, 20, n_informative=5, n_redundant=0, n_classes=3, n_clusters_per_class=1, class_sep=1.5, random_state=seed
    )
    X = X.astype(np.float32)
    hidden = X @ np.random.default_rng(9).normal(size=(20, 2)).astype(np.float32)
    hidden -= np.median(hidden, axis=0)
    if kind == "single":
        return X, WORDS[codes]
    return X, (hidden > 0).astype(np.uint8) if kind == "multi" else 5 + hidden / hidden.std(axis=0)


def scores(head, kind, X):
    """Return what a head gives: probabilities, or values."""
    return head.predict(X) if kind == "regression" else head.predict_proba(X)


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_fit_predicts_labels_of_the_right_shape_and_leaves_x_alone(name, kind):
    """Labels come back as labels, probabilities as float64 columns that follow classes_; X is untouched."""
    X, y = data(kind)
    before = X.copy()
    head = quick(name, kind)
    assert head.fit(X, y) is head
    found, predicted = scores(head, kind, X), head.predict(X)
    assert np.array_equal(X, before)
    assert predicted.shape == y.shape
    assert head.n_features_in_ == 20
    assert head.n_parameters_ > 0
    assert isinstance(head.history_, list)
    if kind == "single":
        assert found.shape == (240, 3)
        assert np.allclose(found.sum(axis=1), 1)
        assert head.classes_.tolist() == WORDS.tolist()
        assert np.array_equal(predicted, head.classes_[found.argmax(axis=1)])
    if kind == "multi":
        assert np.array_equal(predicted, found >= 0.5)
    assert found.dtype == np.float64


@pytest.mark.parametrize(("name", "kind"), LEARNERS)
def test_every_learner_beats_the_dummy_on_held_out_rows(name, kind):
    """The planted signal is found in each kind of task."""
    X, y = data(kind, 400)
    head = quick(name, kind).fit(X[:300], y[:300], validation=(X[300:350], y[300:350]))
    dummy = make_head("dummy", kind).fit(X[:300], y[:300])
    held_out = X[350:], y[350:]
    if kind == "regression":
        assert head.score(*held_out) > 0.5
    else:
        assert np.mean(head.predict(held_out[0]) == held_out[1]) > 0.8
        assert np.mean(dummy.predict(held_out[0]) == held_out[1]) < 0.7


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_same_seed_gives_equal_bits_whatever_the_global_generators(name, kind):
    """Fitting twice, and after clone, gives equal bits; the global generators neither matter nor move."""
    import torch

    X, y = data(kind)
    first = scores(quick(name, kind).fit(X, y), kind, X)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the point of the test
    state = torch.random.get_rng_state()
    again = quick(name, kind).fit(X, y)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(scores(again, kind, X), first)
    assert np.array_equal(scores(clone(again).fit(X, y), kind, X), first)
    assert np.array_equal(scores(again.fit(X, y), kind, X), first)


@pytest.mark.parametrize("name", ["mlp", "moe", "gbm"])
def test_another_seed_gives_another_fit(name):
    """The seed does decide something."""
    X, y = data("single")
    fits = [quick(name, "single", random_state=seed).fit(X, y).predict_proba(X) for seed in (0, 1)]
    assert not np.array_equal(*fits)


@pytest.mark.parametrize("name", HEADS)
def test_nan_and_infinity_are_refused_with_their_place(name):
    """The message says which row, at fit and at predict, also among many rows."""
    X, y = data("single", 1200)
    broken = X.copy()
    broken[777, 3] = np.nan
    with pytest.raises(HeadError, match=r"NaN: row 777, column 3"):
        quick(name, "single").fit(broken, y)
    head = quick(name, "single").fit(X, y)
    with pytest.raises(HeadError, match=r"NaN: row 777, column 3"):
        head.predict(broken)
    too_large = X.astype(np.float64)
    too_large[5, 1] = 1e200
    with pytest.raises(HeadError, match=r"too large for float32\): row 5, column 1"):
        head.predict(too_large)


@pytest.mark.parametrize("name", HEADS)
def test_another_width_is_refused_with_both_numbers(name):
    """A matrix of 19 features is not one of 20."""
    X, y = data("single")
    with pytest.raises(HeadError, match=r"19 features.*expecting 20"):
        quick(name, "single").fit(X, y).predict(X[:, 1:])


@pytest.mark.parametrize("name", HEADS)
def test_rows_and_targets_must_be_equally_many(name):
    """Both counts are named."""
    X, y = data("single")
    with pytest.raises(HeadError, match=r"240.*239|239.*240"):
        quick(name, "single").fit(X, y[1:])


@pytest.mark.parametrize("name", HEADS)
def test_validation_may_lack_a_class_or_have_one_more(name):
    """A class missing in validation is fine; one that only validation has is left out of its loss."""
    X, y = data("single")
    seen = y != "neutral"
    quick(name, "single").fit(X, y, validation=(X[seen], y[seen]))
    head = quick(name, "single").fit(X[seen], y[seen], validation=(X, y))
    assert head.classes_.tolist() == ["negative", "positive"]
    assert head.predict_proba(X).shape == (240, 2)
    assert all(np.isfinite(record["validation_loss"]) for record in head.history_)


@pytest.mark.parametrize("name", HEADS)
def test_label_that_never_varies_does_not_crash(name):
    """Columns that are all 0 or all 1 get a probability near their share."""
    X, y = data("multi")
    y = np.column_stack([y[:, 0], np.zeros(240), np.ones(240)]).astype(np.uint8)
    found = quick(name, "multi").fit(X, y, validation=(X, y)).predict_proba(X)
    assert np.isfinite(found).all()
    assert found[:, 1].max() < 0.5 < found[:, 2].min()


@pytest.mark.parametrize("name", HEADS)
def test_tiny_classes_do_not_crash(name):
    """A class of one row and one of two rows train beside a large one."""
    X, _ = data("single")
    y = np.array(["many"] * 237 + ["two"] * 2 + ["one"])
    found = quick(name, "single").fit(X, y).predict_proba(X)
    assert np.allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("name", [name for name in HEADS if name != "dummy"])
def test_one_class_alone_is_refused(name):
    """There is nothing to learn, and the message names the class."""
    X, y = data("single")
    with pytest.raises(HeadError, match=r"all of one class.*neutral"):
        quick(name, "single").fit(X, np.full_like(y, "neutral"))


def test_columns_of_other_numbers_than_0_and_1_are_refused():
    """A matrix of labels is 0 and 1; the value found is quoted."""
    X, y = data("multi")
    with pytest.raises(HeadError, match="must be 0 or 1; found"):
        quick("linear", "multi").fit(X, y + 1)


@pytest.mark.parametrize("name", [name for name in HEADS if name != "dummy"])
def test_works_inside_scikit_learn(name):
    """Pipeline, GridSearchCV and cross_val_predict drive a head like any estimator."""
    X, y = data("single")
    option = next(o for o in ("epochs", "n_rounds", "C", "k", "budget") if o in head_options(name, "single"))
    values = [1.0, 0.1] if option == "C" else [2, 5]
    pipeline = make_pipeline(StandardScaler(), quick(name, "single"))
    search = GridSearchCV(pipeline, {f"{type(pipeline[-1]).__name__.lower()}__{option}": values}, cv=2)
    assert search.fit(X, y).predict(X).shape == y.shape
    assert cross_val_predict(quick(name, "single"), X, y, cv=2, method="predict_proba").shape == (240, 3)


def test_gbm_stops_early_and_ignores_the_scale_of_a_feature():
    """Trees see only the order of values; rounds past the best of validation are dropped."""
    X, y = data("single", 400)
    y = np.random.default_rng(6).permutation(y)
    options = {"n_rounds": 60, "patience": 5}
    whole = quick("gbm", "single", **options).fit(X[:300], y[:300])
    cut = quick("gbm", "single", **options).fit(X[:300], y[:300], validation=(X[300:], y[300:]))
    assert cut.boosters_[0].num_trees() < whole.boosters_[0].num_trees() == 180
    scaled = quick("gbm", "single", **options).fit(1024 * X[:300], y[:300])
    assert np.array_equal(scaled.predict_proba(1024 * X), whole.predict_proba(X))


def test_dummy_gives_shares_and_means():
    """Worked by hand."""
    X = np.zeros((4, 2))
    assert make_head("dummy", "single").fit(X, list("abbb")).predict_proba(X)[0].tolist() == [0.25, 0.75]
    assert make_head("dummy", "multi").fit(X, [[0, 1], [1, 1], [0, 0], [0, 1]]).predict(X)[0].tolist() == [0, 1]
    assert make_head("dummy", "regression").fit(X, [1, 2, 3, 6]).predict(X).tolist() == [3, 3, 3, 3]


def test_unknown_names_are_answered_with_the_known_ones():
    """Heads, options and values alike; a near miss is suggested."""
    with pytest.raises(HeadError, match=r"unknown head 'mpl' \(did you mean 'mlp'\?\); valid: auto, conv, dummy, gbm"):
        make_head("mpl", "single")
    with pytest.raises(HeadError, match=r"unknown option of head mlp \(single\) 'epoch' \(did you mean 'epochs'\?\)"):
        make_head("mlp", "single", epoch=3)
    with pytest.raises(HeadError, match="'ranking'"):
        make_head("mlp", "ranking")
    X, y = data("single")
    for name, options, said in (
        ("mlp", {"init": "glorot"}, "init is 'glorot'; it takes glorot_normal or"),
        ("mlp", {"hidden": [0]}, r"hidden is \[0\]"),
        ("mlp", {"dropout": 1.0}, "dropout is 1.0"),
        ("moe", {"n_experts": 0}, "n_experts is 0"),
        ("svm", {"kernel": "poly"}, "kernel is 'poly'; it takes linear or rbf"),
        ("svm", {"gamma": "wide"}, "gamma is 'wide'"),
        ("gbm", {"num_leaves": -1}, "num_leaves is -1; it takes a whole number from 2"),
    ):
        with pytest.raises(HeadError, match=said):
            make_head(name, "single", **options).fit(X, y)


def test_one_layer_may_be_given_as_a_number():
    """`hidden=16` on a command line is one hidden layer."""
    X, y = data("single")
    assert quick("mlp", "single", hidden=16).fit(X, y).module_[0].out_features == 16


def test_torch_and_lightgbm_live_in_one_process():
    """Fitted in turn, in either order, with two threads each: no deadlock of two OpenMP runtimes."""
    X, y = np.random.default_rng(0).normal(size=(200, 300)), np.arange(200) % 3

    def fit() -> None:
        torch.set_num_threads(2)
        for name, options in [("mlp", {"epochs": 2, "hidden": 16}), ("gbm", {"n_rounds": 3, "n_jobs": 2})] * 2:
            make_head(name, "single", **options).fit(X, y).predict(X)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    thread.join(120)
    torch.set_num_threads(1)
    assert not thread.is_alive()
