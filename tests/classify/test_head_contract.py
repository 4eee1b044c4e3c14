"""What a run, a search, an explanation and a saved file ask of every head of the table."""

from __future__ import annotations

import numpy as np
import pytest

from classify.heads import HEADS, head_class, head_options, make_head
from classify.heads.training import Checkpoint

QUICK = {
    "mlp": {"hidden": 8, "epochs": 3},
    "moe": {"hidden": [8], "epochs": 3, "n_experts": 9},
    "conv": {"epochs": 3},
    "gbm": {"n_rounds": 6, "n_jobs": 1},
    "auto": {"budget": 4},
}
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(90, 6)).astype(np.float32)
Y = {
    "single": np.digitize(X[:, 0], [-0.5, 0.5]),
    "multi": (X[:, :2] > 0).astype(np.uint8),
    "regression": X[:, :2] * 3 + 1,
}
every_head = pytest.mark.parametrize(("name", "kind"), [(h.name, k) for h in HEADS.values() for k in h.kinds])


@pytest.fixture(scope="module")
def fitted():
    """Return a function that returns a head fitted with validation rows, each once."""
    known = {}

    def one(name, kind):
        if (name, kind) not in known:
            head = make_head(name, kind, **QUICK.get(name, {}))
            known[name, kind] = head.fit(X[:60], Y[kind][:60], validation=(X[60:], Y[kind][60:]))
        return known[name, kind]

    return one


@every_head
def test_what_is_learned_is_named(fitted, name, kind):
    """Every attribute that ends in _ is one that a saved head gets back, and every name of those is there."""
    head = fitted(name, kind)
    found = {key for key in vars(head) if key.endswith("_")}
    assert found - {"best_length_"} == set(head.learned())


@every_head
def test_length_is_an_option_and_has_a_best_value(fitted, name, kind):
    """Given validation rows and patience; without patience training is never cut short."""
    head = fitted(name, kind)
    if head.length is None:
        assert head.best_length_ is None
        return
    best, most = np.atleast_1d(head.best_length_), head_options(name, kind)[head.length]
    assert (best >= 1).all()
    assert (best <= most).all()
    patient = make_head(name, kind, **{**QUICK[name], "patience": None})
    assert patient.fit(X[:60], Y[kind][:60], validation=(X[60:], Y[kind][60:])).best_length_ is None
    if "keep" in head_options(name, kind):  # a second fit then takes as many epochs as the kept weights had
        last = make_head(name, kind, **{**QUICK[name], "keep": "last"})
        last.fit(X[:60], Y[kind][:60], validation=(X[60:], Y[kind][60:]))
        assert last.best_length_ == len(last.history_)


@every_head
def test_the_gradient_is_the_slope_of_the_output(fitted, name, kind):
    """Along a direction, against a difference; heads without slopes return None, never zeros."""
    head, x = fitted(name, kind), X[0].copy()
    slope = head.gradient(x, 1)
    if name in ("auto", "knn", "gbm", "dummy"):
        assert slope is None
        return
    step = np.float32(1e-2) * RANDOM.normal(size=6).astype(np.float32)
    rows = np.stack([x + step, x - step])
    if kind == "regression":
        above, below = head.predict(rows)[:, 1]
    else:
        p = head.predict_proba(rows)[:, 1]
        above, below = np.log(p) - np.log1p(-p)
    assert float(slope @ step) == pytest.approx((above - below) / 2, rel=0.05, abs=1e-3)


@every_head
def test_what_is_searched_are_options(name, kind):
    """Whose values the head takes."""
    assert set(head_class(name, kind).search_space) <= set(head_options(name, kind))


@every_head
def test_heads_that_are_resumable_take_a_checkpoint(tmp_path, name, kind):
    """The others refuse the argument."""
    head = make_head(name, kind, **QUICK.get(name, {}))
    options = {"checkpoint": Checkpoint(tmp_path / "state", {})}
    if head.resumable:
        head.fit(X, Y[kind], **options)
        assert (tmp_path / "state" / "state.json").is_file()
    else:
        with pytest.raises(TypeError, match="checkpoint"):
            head.fit(X, Y[kind], **options)
