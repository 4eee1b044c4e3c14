"""The training loop: its steps against optimisers written out by hand, and its rules of rate and stopping."""

import numpy as np
import pytest
import torch
from torch import nn

from classify.data.rows import ArrayRows
from classify.data.standardizer import Standardizer
from classify.errors import HeadError
from classify.heads import make_head
from classify.heads.training import Batches, Training

X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
Y = torch.from_numpy((X @ np.arange(5, dtype=np.float32))[:, None])
PLAIN = Standardizer(np.zeros(5, np.float32), np.ones(5, np.float32))


def batches(size=40, generator=None, x=X, y=Y):
    """Return batches of the toy rows."""
    return Batches(ArrayRows(x), y, size=size, standardizer=PLAIN, generator=generator)


def linear():
    """Return a linear layer that starts at 0."""
    layer = nn.Linear(5, 1, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def laid_out(*, validation=None, size=40, **options):
    """Return the training of a linear layer, with the options of a head."""
    head = make_head("mlp", "regression", **{"learning_rate": 1e-3, "patience": None, **options})
    return Training(head, linear(), nn.functional.mse_loss, batches(size), validation)


def train(**options):
    """Train the linear layer and return it with the history."""
    training = laid_out(**options)
    training.run()
    return training.module, training.history


def gradient(w):
    """Return the gradient of the mean squared error at *w*, by numpy."""
    x, y = X.astype(np.float64), Y.numpy().astype(np.float64)[:, 0]
    return 2 * x.T @ (x @ w - y) / len(x)


def test_sgd_with_nesterov_momentum_and_per_step_decay_by_hand():
    """Twelve steps equal the published recurrence, with the rate lr / (1 + decay t), halved each 5 epochs."""
    module, history = train(epochs=12, optimizer="sgd", learning_rate=0.01, decay=0.1, halve_every=5)
    w, velocity = np.zeros(5), np.zeros(5)
    for t in range(12):
        rate = 0.01 / (1 + 0.1 * t) * 0.5 ** (t // 5)
        assert history[t]["learning_rate"] == pytest.approx(rate)
        velocity = 0.9 * velocity + gradient(w)
        w = w - rate * (gradient(w) + 0.9 * velocity)
    assert np.allclose(module.weight.detach().numpy()[0], w, atol=1e-5)


def test_adam_by_hand():
    """Ten steps of the fused optimiser equal Kingma and Ba's recurrence."""
    module, _ = train(epochs=10, learning_rate=0.05)
    w, m, v = np.zeros(5), np.zeros(5), np.zeros(5)
    for t in range(1, 11):
        g = gradient(w)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert np.allclose(module.weight.detach().numpy()[0], w, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "nadam", "sgd"])
def test_every_optimiser_finds_the_plane(optimizer):
    """A linear task without noise is solved, in small batches."""
    rate = 0.01 if optimizer == "sgd" else 0.1
    module, history = train(epochs=60, size=8, optimizer=optimizer, learning_rate=rate)
    assert np.allclose(module.weight.detach().numpy()[0], np.arange(5), atol=0.05)
    assert history[-1]["loss"] < 0.01


def test_epoch_loss_is_the_mean_over_rows():
    """A last batch that is smaller weighs less: with rate almost 0 the loss is the plain mean."""
    _, history = train(epochs=1, size=16, learning_rate=1e-12)
    assert history[0]["loss"] == pytest.approx(float((Y**2).mean()), rel=1e-5)


def test_early_stopping_returns_and_keeps_the_best_weights():
    """With validation rows that contradict the training rows the loop stops and goes back to its best epoch."""
    options = {"epochs": 50, "optimizer": "sgd", "learning_rate": 0.01, "patience": 3}
    module, history = train(**options, validation=batches(y=0.3 * Y))
    losses = [record["validation_loss"] for record in history]
    best = int(np.argmin(losses))
    assert len(history) == best + 1 + 3 < 50
    with torch.no_grad():
        kept = float(nn.functional.mse_loss(module(torch.from_numpy(X)), 0.3 * Y))
    assert kept == pytest.approx(losses[best], rel=1e-4)


def test_the_last_weights_are_kept_where_asked_for():
    """With ``keep="last"`` the losses are the same ones, and the weights those of the last epoch that was run."""
    options = {"epochs": 50, "optimizer": "sgd", "learning_rate": 0.01, "patience": 3}
    module, history = train(**options, keep="last", validation=batches(y=0.3 * Y))
    assert history == train(**options, validation=batches(y=0.3 * Y))[1]
    losses = [record["validation_loss"] for record in history]
    with torch.no_grad():
        kept = float(nn.functional.mse_loss(module(torch.from_numpy(X)), 0.3 * Y))
    assert kept == pytest.approx(losses[-1], rel=1e-4)
    assert kept > min(losses) * 1.01


def test_without_validation_rows_patience_is_nothing():
    """Training then runs to its last epoch, and ends with the last weights."""
    assert len(train(epochs=9, patience=1)[1]) == 9


def test_a_stop_rule_ends_training_and_training_goes_on_from_there():
    """Stopped after 4 epochs and called again, the weights equal those of training that never stopped."""
    whole, _ = train(epochs=9)
    training = laid_out(epochs=9)
    training.run(stop=lambda: len(training.history) == 4)
    assert len(training.history) == 4
    training.run()
    assert torch.equal(training.module.weight, whole.weight)


def test_shuffling_follows_from_the_generator():
    """Each pass has a new order, each row comes once, and the same seed gives the same orders."""

    def passes(seed):
        made = batches(8, torch.Generator().manual_seed(seed))
        return [torch.cat([y for _, y in made])[:, 0].tolist() for _ in range(2)]

    first, second = passes(1)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(Y[:, 0].tolist())
    assert passes(1) == [first, second]
    assert passes(2)[0] != first


def test_batches_are_standardized_and_leave_the_rows_alone():
    """The buffer holds (x - mean) / scale; the array behind it is untouched."""
    before = X.copy()
    standardizer = Standardizer.fit(ArrayRows(X), standardize=True)
    made = Batches(ArrayRows(X), Y, size=7, standardizer=standardizer)
    got = torch.cat([x.clone() for x, _ in made]).numpy()
    assert np.allclose(got, (X - X.mean(axis=0)) / X.std(axis=0), atol=1e-5)
    assert np.array_equal(X, before)


def test_statistics_are_exact_far_from_zero_and_constant_features_keep_scale_one():
    """One pass over many chunks equals numpy in float64, also where the mean dwarfs the deviation."""
    wide = np.random.default_rng(3).normal(size=(1300, 3)) * [1, 1e-2, 0] + [0, 1000, 7]
    wide = wide.astype(np.float32)
    found = Standardizer.fit(ArrayRows(wide), standardize=True)
    assert np.allclose(found.mean, wide.astype(np.float64).mean(axis=0), rtol=1e-6)
    assert np.allclose(found.scale[:2], wide.astype(np.float64).std(axis=0)[:2], rtol=1e-5)
    assert found.scale[2] == 1


def test_divergence_is_an_error_that_says_so():
    """A rate far too high ends in one sentence, not in a network of NaN."""
    with pytest.raises(HeadError, match=r"diverged in epoch \d+.*learning_rate"):
        train(epochs=200, optimizer="sgd", learning_rate=1e3)
