"""Training in the span of the training rows, against training over all features."""

import numpy as np
import pytest
from sklearn.svm import SVC

from classify.data.span import Projection, inner_products
from classify.errors import HeadError
from classify.heads import make_head

RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=(90, 400)).astype(np.float32) * RANDOM.uniform(0.2, 3, size=400).astype(np.float32)
UNSEEN = RANDOM.normal(size=(40, 400)).astype(np.float32)
LABELS = {
    "single": RANDOM.integers(3, size=90),
    "multi": (RANDOM.uniform(size=(90, 4)) > 0.6).astype(int),
    "regression": X[:, :2] @ RANDOM.normal(size=(2, 2)) + RANDOM.normal(size=(90, 2)),
}
VALIDATION = {kind: (UNSEEN[:30], y[:30]) for kind, y in LABELS.items()}
NETWORK = {"hidden": (32, 16), "epochs": 12, "batch_size": 16, "random_state": 3}


def said(name, kind, *, validation=None, **options):
    """Return what a head fitted on X says of the unseen rows."""
    head = make_head(name, kind, **options).fit(X, LABELS[kind], validation=validation)
    return head, head.predict(UNSEEN) if kind == "regression" else head.predict_proba(UNSEEN)


def test_coordinates_keep_all_inner_products():
    """The rows, unseen rows within the span, and lifting back: all by the definition of an orthonormal basis."""
    projection = Projection.fit(X)
    assert projection.rank == 90
    assert np.allclose(projection.coordinates @ projection.coordinates.T, inner_products(X), atol=1e-6)
    basis = projection.lift(np.eye(90))
    assert np.allclose(basis @ basis.T, np.eye(90), atol=1e-10)
    assert np.allclose(projection.project(UNSEEN), UNSEEN @ basis.T, atol=1e-6)
    assert np.allclose(projection.lift(projection.coordinates), X, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 1, 7])
def test_dependent_rows_have_as_many_coordinates_as_their_rank(rank):
    """Repeated rows and rows of zeros do not add coordinates, and do not divide by zero."""
    rows = (RANDOM.normal(size=(20, rank)) @ RANDOM.normal(size=(rank, 50))).astype(np.float32)
    rows[3] = 0
    projection = Projection.fit(rows)
    assert projection.rank == max(rank, 1)
    assert np.isfinite(projection.project(UNSEEN[:, :50])).all()
    assert np.allclose(projection.lift(projection.coordinates), rows, atol=1e-4)


def test_inner_products_are_exact_for_half_precision():
    """Every product of half-precision values is exact in float64."""
    rows = RANDOM.normal(size=(5, 3000)).astype(np.float16)
    assert np.allclose(inner_products(rows), rows.astype(np.float64) @ rows.astype(np.float64).T, rtol=1e-13)


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
@pytest.mark.parametrize(
    "options",
    [{}, {"weight_decay": 0.02, "decay": 0.01}, {"momentum": 0.0, "halve_every": 4, "init": "torch"}],
    ids=["plain", "decay", "no-momentum"],
)
@pytest.mark.parametrize("name", ["mlp", "moe"])
def test_networks_under_sgd_are_equal_on_unseen_rows(name, kind, options):
    """With the initial weights outside the span kept, projecting changes nothing: history, early stop, predictions."""
    hidden = {"hidden": (32,)} if name == "moe" else {}
    shared = {**NETWORK, **hidden, "optimizer": "sgd", "learning_rate": 0.02, "patience": 3, **options}
    more = {"validation": VALIDATION[kind]}
    projected, one = said(name, kind, project="auto", **shared, **more)
    full, other = said(name, kind, project="never", **shared, **more)
    assert np.abs(one - other).max() < 1e-4 * max(1, np.abs(other).max())
    assert projected.n_parameters_ == full.n_parameters_
    assert len(projected.history_) == len(full.history_)
    for ours, theirs in zip(projected.history_, full.history_, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_dropping_the_outside_changes_unseen_rows_only():
    """The training rows have no part outside the span, so only unseen rows can tell the difference."""
    shared = {**NETWORK, "optimizer": "sgd", "learning_rate": 0.02}
    kept, one = said("mlp", "single", **shared)
    dropped, other = said("mlp", "single", keep_outside=False, **shared)
    assert np.abs(one - other).max() > 0.01
    assert np.allclose(kept.predict_proba(X), dropped.predict_proba(X), atol=1e-4)
    assert np.linalg.norm(dropped.module_[0].weight.detach()) < np.linalg.norm(kept.module_[0].weight.detach())


def test_adam_is_projected_only_when_asked():
    """Adam's steps depend on the coordinates: "auto" leaves it alone, "always" finds another network."""
    _, never = said("mlp", "single", project="never", **NETWORK)
    _, auto = said("mlp", "single", project="auto", **NETWORK)
    _, always = said("mlp", "single", project="always", **NETWORK)
    assert np.array_equal(never, auto)
    assert np.abs(never - always).max() > 1e-3


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_linear_heads_are_equal_on_unseen_rows(kind):
    """Logistic regression and ridge by their own optimality, solved in few coordinates or in all."""
    options = {} if kind == "regression" else {"max_iter": 5000}
    head, one = said("linear", kind, project="auto", **options)
    _, other = said("linear", kind, project="never", **options)
    assert np.abs(one - other).max() < 1e-4
    assert head.coef_.shape[1] == 400


def test_support_vector_machines_in_coordinates_are_equal():
    """A linear machine fitted on coordinates decides on unseen rows as one fitted on all features."""
    scaled = (X / np.sqrt(400)).astype(np.float32)
    projection = Projection.fit(scaled)
    y = LABELS["single"]
    full = SVC(kernel="linear", tol=1e-8).fit(scaled, y).decision_function(UNSEEN)
    few = SVC(kernel="linear", tol=1e-8).fit(projection.coordinates, y).decision_function(projection.project(UNSEEN))
    assert np.abs(full - few).max() < 1e-4


@pytest.mark.parametrize(("name", "kind"), [("mlp", "single"), ("linear", "single"), ("linear", "regression")])
def test_a_choice_that_does_not_exist_is_refused(name, kind):
    """The message names the valid ones."""
    with pytest.raises(HeadError, match=r"project.*auto.*never"):
        make_head(name, kind, project="sometimes").fit(X, LABELS[kind])
