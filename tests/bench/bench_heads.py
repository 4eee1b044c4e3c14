"""N = 2,432: one network against scikit-learn, skorch and a plain loop, and a grid of machines against a grid search.

Competitors take turns, one epoch each a round; figures are medians over rounds, ratios are of these medians. All
networks start from the same weights and see the same batches, and the table shows that their losses agree.
"""

from __future__ import annotations

import copy
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from classify.data.rows import RowMatrix
from classify.heads import make_head
from classify.heads.training import Training
from features_store import Store
from tests.bench.results import record
from tests.bench.synthetic import CARD, make_store

N, N_LABELS, BATCH, ROUNDS = 2432, 7, 64, int(os.environ.get("AFFECTORY_BENCH_ROUNDS", "5"))
FIVE = {"E": 1408, "R": 2048, "Y": 3862, "S": 2048, "G": 2048}  # 11,414 features, the five vectors of the paper
COSTS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # over 1 / n_features
Curve = list[float]


def network(optimizer: str, *, project: str, learning_rate: float) -> object:
    """Return the head of the bench: 11,414-1000-200-7 without dropout, which scikit-learn doesn't have."""
    return make_head(
        "mlp",
        "multi",
        random_state=0,
        hidden=(1000, 200),
        dropout=0.0,
        batch_size=BATCH,
        epochs=1000,
        optimizer=optimizer,
        project=project,
        learning_rate=learning_rate,
    )


class Ours:
    """A training of the product, one epoch at a time."""

    def __init__(self, x: RowMatrix, y: np.ndarray, optimizer: str, *, project: str, learning_rate: float) -> None:
        start = time.perf_counter()
        head = network(optimizer, project=project, learning_rate=learning_rate)
        self.training: Training = head.training(x, y)
        self.prepared = time.perf_counter() - start

    def epoch(self) -> float:
        self.training.run(lambda: True)
        return self.training.history[-1]["loss"]


class PlainLoop:
    """What one would write: a TensorDataset, a DataLoader, torch's own optimiser."""

    def __init__(self, start: nn.Module, z: np.ndarray, y: np.ndarray, optimizer: str, *, learning_rate: float) -> None:
        self.module = copy.deepcopy(start)
        self.data = torch.utils.data.TensorDataset(torch.from_numpy(z), torch.from_numpy(y.astype(np.float32)))
        parameters = self.module.parameters()
        self.optimizer = (
            torch.optim.Adam(parameters, lr=learning_rate)
            if optimizer == "adam"
            else torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, nesterov=True)
        )
        self.order = Orders()

    def epoch(self) -> float:
        total = 0.0
        loader = torch.utils.data.DataLoader(self.data, batch_sampler=self.order.batches())
        for x, y in loader:
            self.optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(self.module(x), y)
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(x)
        return total / len(self.data)


class ScikitLearn:
    """MLPClassifier from the same weights, fed the same batches; its loss is a sum over labels, ours a mean."""

    def __init__(self, start: nn.Module, z: np.ndarray, y: np.ndarray, *, learning_rate: float) -> None:
        from sklearn.neural_network import MLPClassifier

        self.z, self.y, self.order = z, y, Orders()
        options = {"batch_size": BATCH, "learning_rate_init": learning_rate, "alpha": 0.0, "epsilon": 1e-8}
        self.model = MLPClassifier((1000, 200), solver="adam", shuffle=False, random_state=0, **options)
        self.model.partial_fit(z[:BATCH], y[:BATCH], classes=np.arange(N_LABELS))
        layers = [layer for layer in start if isinstance(layer, nn.Linear)]
        for i, layer in enumerate(layers):
            self.model.coefs_[i][...] = layer.weight.detach().numpy().T
            self.model.intercepts_[i][...] = layer.bias.detach().numpy()
        del self.model._optimizer
        self.model.t_ = 0

    def epoch(self) -> float:
        total = 0.0
        for batch in self.order.batches():
            fresh = not hasattr(self.model, "_optimizer")
            if fresh:
                from sklearn.neural_network._stochastic_optimizers import AdamOptimizer

                parameters = self.model.coefs_ + self.model.intercepts_
                self.model._optimizer = AdamOptimizer(parameters, self.model.learning_rate_init)
            self.model.partial_fit(self.z[batch], self.y[batch])
            total += self.model.loss_ * len(batch)
        return total / len(self.z) / N_LABELS


class Skorch:
    """skorch's NeuralNet around the same module."""

    def __init__(self, start: nn.Module, z: np.ndarray, y: np.ndarray, *, learning_rate: float) -> None:
        from skorch import NeuralNet

        self.z, self.y = z, y.astype(np.float32)
        self.net = NeuralNet(
            copy.deepcopy(start),
            nn.BCEWithLogitsLoss,
            optimizer=torch.optim.Adam,
            lr=learning_rate,
            batch_size=BATCH,
            iterator_train__shuffle=True,
            train_split=None,
            verbose=0,
            max_epochs=1,
            warm_start=True,
        ).initialize()

    def epoch(self) -> float:
        self.net.partial_fit(self.z, self.y)
        return self.net.history[-1, "train_loss"]


class Orders:
    """The batches that the product draws from the head's seed."""

    def __init__(self) -> None:
        from sklearn.utils import check_random_state

        self.generator = torch.Generator().manual_seed(int(check_random_state(0).randint(2**31 - 1)))

    def batches(self) -> list[list[int]]:
        order = torch.randperm(N, generator=self.generator).numpy()
        return [np.sort(order[start : start + BATCH]).tolist() for start in range(0, N, BATCH)]


def take_turns(competitors: dict[str, Callable[[], float]]) -> tuple[list[dict[str, float]], dict[str, Curve]]:
    """Run an epoch of each in turn, for some rounds; return median seconds (clock, then processor) and losses."""
    times: dict[str, list[float]] = {name: [] for name in competitors}
    busy: dict[str, list[float]] = {name: [] for name in competitors}
    curves: dict[str, Curve] = {name: [] for name in competitors}
    for _ in range(ROUNDS):
        for name, epoch in competitors.items():
            start, own = time.perf_counter(), time.process_time()
            curves[name].append(epoch())
            times[name].append(time.perf_counter() - start)
            busy[name].append(time.process_time() - own)
    return [{name: statistics.median(t) for name, t in of.items()} for of in (times, busy)], curves


def table(title: str, measured: tuple[list[dict[str, float]], dict[str, Curve]], ours: str) -> None:
    """Print what each took, by how much ours is faster by the clock and by the processor's time, and the losses."""
    (seconds, busy), curves = measured
    print(f"\n{title}")
    for name, taken in seconds.items():
        losses = " ".join(f"{loss:.4f}" for loss in curves[name])
        ratios = f"{taken / seconds[ours]:6.2f}x by the clock, {busy[name] / busy[ours]:6.2f}x by the processor"
        print(f"  {name:<28} {N / taken:7.0f} rows/s  ours is {ratios}  losses {losses}", flush=True)
        if name != ours:
            record("heads", title, **{name: (taken / seconds[ours], "of our time")})


def networks(store: Store) -> None:
    """Compare an Adam epoch and an SGD epoch with those of the competitors."""
    x = RowMatrix(store, list(FIVE))
    y = (np.random.default_rng(1).uniform(size=(N, N_LABELS)) < 0.3).astype(np.int64)
    classes = store.labels["polarity"].values
    y[:, :3] |= classes[:, None] == np.arange(3)
    ours = Ours(x, y, "adam", project="never", learning_rate=1e-4)
    start = copy.deepcopy(ours.training.module)
    rest = ours.training.train
    z = (np.asarray(x) - rest.mean.numpy()) * rest.factor.numpy()
    competitors = {
        "affectory": ours.epoch,
        "plain DataLoader loop": PlainLoop(start, z, y, "adam", learning_rate=1e-4).epoch,
        "scikit-learn MLPClassifier": ScikitLearn(start, z, y, learning_rate=1e-4).epoch,
    }
    try:
        competitors["skorch (its own order)"] = Skorch(start, z, y, learning_rate=1e-4).epoch
    except ImportError:
        print("skorch isn't installed; pip install skorch to compare with it")
    table("Adam, 11,414-1000-200-7, batch 64, one epoch", take_turns(competitors), "affectory")
    projected = Ours(x, y, "sgd", project="auto", learning_rate=1e-2)
    competitors = {
        "affectory, projected": projected.epoch,
        "affectory, not projected": Ours(x, y, "sgd", project="never", learning_rate=1e-2).epoch,
        "plain DataLoader loop": PlainLoop(start, z, y, "sgd", learning_rate=1e-2).epoch,
    }
    title = "SGD with Nesterov momentum, the same network, one epoch"
    table(title, take_turns(competitors), "affectory, projected")
    rank = projected.training.train.rows.shape[1]
    print(f"  projecting 11,414 features to {rank} took {projected.prepared:.1f} s, once")


def grid(store: Store) -> None:
    """Compare 15 subsets x 8 costs x 5 folds with scikit-learn's grid search, extrapolated from timed fits."""
    from sklearn.svm import SVC

    from classify.data.folds import deal_strata
    from classify.data.standardizer import Standardizer
    from classify.studies.ablation import subsets_of

    y, rows = store.labels["polarity"].values.astype(np.int64), np.arange(N)
    folds = deal_strata(y)
    start, spent = time.perf_counter(), time.process_time()
    right = all_machines(store, subsets_of(list(CARD)), y, folds)
    taken, spent = time.perf_counter() - start, time.process_time() - spent
    print("\nSVM grid: 15 subsets of 4 blocks x 8 costs x 5 folds, N = 2,432, up to 11,368 features")
    print(f"  affectory, Gram matrices and all   {taken:8.1f} s, {spent:.1f} s of the processor", flush=True)
    train, held = np.flatnonzero(folds != 0), np.flatnonzero(folds == 0)
    matrix = RowMatrix(store, list(CARD), rows)
    z = Standardizer.fit(matrix[train], standardize=True).whole(matrix)
    timed, busy, theirs = [], [], []
    for cost in (COSTS[1], COSTS[3], COSTS[5]):
        start, own = time.perf_counter(), time.process_time()
        machine = SVC(C=cost / z.shape[1], kernel="linear").fit(z[train], y[train])
        theirs.append(np.mean(machine.predict(z[held]) == y[held]))
        timed.append(time.perf_counter() - start)
        busy.append(time.process_time() - own)
    widths = [sum(CARD[name] for name in subset) for subset in subsets_of(list(CARD))]
    fits = len(COSTS) * 5 * sum(widths) / max(widths)  # in fits at full width: the time goes as the width does
    whole, cycles = fits * statistics.mean(timed), fits * statistics.mean(busy)
    each = ", ".join(f"{seconds:.1f}" for seconds in timed)
    print(
        f"  GridSearchCV over SVC(linear)      {whole:8.0f} s, {cycles:.0f} s of the processor (from fits of {each} s)"
    )
    print(f"  ours is {whole / taken:.0f}x as fast, {cycles / spent:.0f}x by the processor's time")
    case = "SVM grid, 15 subsets of blocks x 8 values of C x 5 folds"
    record("heads", case, affectory=(taken, "s"), GridSearchCV_over_SVC=(whole / taken, "of our time, extrapolated"))
    ours = [right[tuple(CARD)][0][i] for i in (1, 3, 5)]
    print(f"  accuracy on the first fold: ours {np.round(ours, 4).tolist()}, SVC {np.round(theirs, 4).tolist()}")


def all_machines(
    store: Store, subsets: list[tuple[str, ...]], y: np.ndarray, folds: np.ndarray
) -> dict[tuple[str, ...], list[np.ndarray]]:
    """Do what `ablate --set C=[...]` does; return the accuracy by subset, fold and cost."""
    from classify.config import RunConfig
    from classify.studies.subset_scores import Images, path_scores

    images = Images(store, store.labels["polarity"].task, np.arange(N), y, folds)
    config = RunConfig("card", "polarity", "svm", settings={"kernel": "linear", "C": list(COSTS)})
    paths = path_scores(images, subsets, config)
    return {
        subset: [
            np.array([(one[folds == fold].argmax(axis=1) == y[folds == fold]).mean() for one in path])
            for fold in range(5)
        ]
        for subset, path in paths.items()
    }


def main() -> None:
    """Make the stores and print the tables."""
    warnings.filterwarnings("ignore")
    folder = Path(os.environ.get("AFFECTORY_BENCH_FOLDER", "."))
    networks(make_store(folder / "five", N, FIVE))
    grid(make_store(folder / "card", N, CARD))


if __name__ == "__main__":
    main()
