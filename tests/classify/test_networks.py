"""The perceptron and the mixture of experts against their published formulas, computed by numpy alone."""

import numpy as np
import pytest

from classify.heads import make_head

X = np.random.default_rng(0).normal(size=(240, 20)).astype(np.float32)
HIDDEN = X @ np.random.default_rng(9).normal(size=(20, 2)).astype(np.float32)
TARGETS = {
    "single": np.array(["negative", "neutral", "positive"])[np.digitize(HIDDEN[:, 0], [-2, 2])],
    "multi": (HIDDEN > 0).astype(np.uint8),
    "regression": 5 + HIDDEN / HIDDEN.std(axis=0),
}


def quick(name, kind, **options):
    """Make a network small enough for a test."""
    return make_head(name, kind, **{"hidden": [32], "epochs": 15, "learning_rate": 0.01, **options})


def test_mlp_equals_numpy():
    """D -> 1000 -> 200 -> K of the paper, in small: ReLU layers, then sigmoids, then softmax."""
    for kind in ("multi", "single"):
        y = TARGETS[kind]
        head = quick("mlp", kind, hidden=(30, 10)).fit(X, y)
        w = {k: v.numpy().astype(np.float64) for k, v in head.module_.state_dict().items()}
        h = (X.astype(np.float64) - X.mean(axis=0)) / X.astype(np.float64).std(axis=0)
        for layer in (0, 3):
            h = np.maximum(h @ w[f"{layer}.weight"].T + w[f"{layer}.bias"], 0)
        z = h @ w["6.weight"].T + w["6.bias"]
        expected = 1 / (1 + np.exp(-z)) if kind == "multi" else np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        assert np.allclose(head.predict_proba(X), expected, atol=1e-5)
        assert head.n_parameters_ == 20 * 30 + 30 + 30 * 10 + 10 + 10 * len(head.classes_) + len(head.classes_)


def mixture(head, X):
    """Compute o_c class by class: two sigmoid experts, a softmax gate with a dummy."""
    w = {k: v.numpy().astype(np.float64) for k, v in head.module_.state_dict().items()}
    x = (X.astype(np.float64) - X.mean(axis=0)) / X.astype(np.float64).std(axis=0)
    shared = np.maximum(x @ w["shared.0.weight"].T + w["shared.0.bias"], 0)
    columns = []
    for c in range(len(w["experts.bias"]) // 2):
        e = shared @ w["experts.weight"][2 * c : 2 * c + 2].T + w["experts.bias"][2 * c : 2 * c + 2]
        g = np.exp(shared @ w["gates.weight"][3 * c : 3 * c + 3].T + w["gates.bias"][3 * c : 3 * c + 3])
        gate = g / g.sum(axis=1, keepdims=True)
        columns.append((e, gate))
    return columns


def test_moe_equals_numpy():
    """o_c = sum over two experts of sigmoid(e) times softmax(g); the third gate gives nothing."""
    y = TARGETS["multi"]
    head = quick("moe", "multi").fit(X, y)
    expected = [(1 / (1 + np.exp(-e)) * gate[:, :2]).sum(axis=1) for e, gate in mixture(head, X)]
    assert np.allclose(head.predict_proba(X), np.stack(expected, axis=1), atol=1e-5)

    y = TARGETS["single"]
    head = quick("moe", "single").fit(X, y)
    o = np.stack([(1 / (1 + np.exp(-e)) * gate[:, :2]).sum(axis=1) for e, gate in mixture(head, X)], axis=1)
    assert np.allclose(head.predict_proba(X), o / o.sum(axis=1, keepdims=True), atol=1e-5)
    assert head.n_parameters_ == 20 * 32 + 32 + 33 * (3 * 2 + 3 * 3)

    y = TARGETS["regression"]
    head = quick("moe", "regression").fit(X, y)
    values = np.stack([(e * gate[:, :2]).sum(axis=1) for e, gate in mixture(head, X)], axis=1)
    assert np.allclose(head.predict(X), values * y.std(axis=0) + y.mean(axis=0), atol=1e-4)


def test_moe_loss_is_the_cross_entropy_of_each_class():
    """The recorded loss is -(y log o + (1 - y) log(1 - o)), averaged over classes and rows."""
    y = TARGETS["single"]
    options = {"dropout": 0.0, "epochs": 1, "learning_rate": 1e-12}
    head = quick("moe", "single", **options).fit(X, y)
    o = np.stack([(1 / (1 + np.exp(-e)) * gate[:, :2]).sum(axis=1) for e, gate in mixture(head, X)], axis=1)
    one_hot = y[:, None] == head.classes_
    expected = -np.mean(np.where(one_hot, np.log(o), np.log(1 - o)))
    assert head.history_[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_initial_weights_are_as_named():
    """Glorot normal has deviation sqrt(2 / (n_in + n_out)) and biases of 0."""
    y = TARGETS["single"]
    head = quick("mlp", "single", hidden=[2000], init="glorot_normal", epochs=1, learning_rate=1e-12).fit(X, y)
    weight, bias = head.module_[0].weight.detach().numpy(), head.module_[0].bias.detach().numpy()
    assert weight.std() == pytest.approx(np.sqrt(2 / 2020), rel=0.02)
    assert abs(np.mean(np.abs(weight) < weight.std()) - 0.683) < 0.01
    assert np.abs(bias).max() < 1e-9


@pytest.mark.parametrize("name", ["mlp", "moe"])
def test_regression_starts_from_the_mean(name):
    """Before anything is learned the prediction is the training mean, not noise about it."""
    y = TARGETS["regression"]
    head = quick(name, "regression", epochs=1, learning_rate=1e-12).fit(X, y)
    assert np.allclose(head.predict(X), y.mean(axis=0), atol=1e-6)
