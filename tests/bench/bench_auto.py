"""Heads that choose for themselves against what one would write with scikit-learn or LightGBM: scores and CPU seconds.

Outer folds are shared, every choice is made inside them, and all see the same vectors. Planted data are made here;
``AFFECTORY_BENCH_STORES=STORE:TASK,...`` adds tasks of real stores, each output of a regression by itself. There
``AFFECTORY_BENCH_AUTOGLUON=PYTHON``, an interpreter with AutoGluon, adds it on the first two folds, five minutes each.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from classify.data.folds import cuts, deal_strata
from classify.data.kinds import KINDS
from classify.data.rows import RowMatrix
from classify.heads import make_head
from features_store import BlockSpec, BlockWriter, Index, Store, open_store, write_index
from tests.bench.results import record

N, WIDTH, N_BLOCKS = 700, 60, 6
WIDE, WIDE_BLOCKS = 2432, (2048, 2048, 2048, 2048, 2048, 1128)  # columns as the profile `fusion` has them in all
FOLDS = int(os.environ.get("AFFECTORY_BENCH_FOLDS", "5"))
AUTOGLUON, AUTOGLUON_FOLDS, AUTOGLUON_SECONDS = os.environ.get("AFFECTORY_BENCH_AUTOGLUON", ""), 2, 300
OURS = ("auto", "svm", "linear", "knn")
COSTS, GAMMAS, ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0), (0.25, 0.5, 1.0, 2.0), 10.0 ** np.linspace(-6, 5, 45)


class Case(NamedTuple):
    """Rows of a store with what is to be told of them."""

    name: str
    store: Store
    blocks: list[str]
    rows: np.ndarray
    y: np.ndarray
    kind: str
    real: bool = False
    n_folds: int = FOLDS  # so many of five are fitted
    rivals: tuple[str, ...] = ()  # which of the others to run; none named: all


def store_of(folder: Path, blocks: dict[str, np.ndarray]) -> Store:
    """Make a store of these blocks where none is, and open it."""
    if not (folder / "index.h5").exists():
        n = len(next(iter(blocks.values())))
        index = Index(np.array([f"{i:04}.jpg" for i in range(n)]))
        folder.mkdir(parents=True, exist_ok=True)
        for name, vectors in blocks.items():
            spec = BlockSpec(name, vectors.shape[1:], {"encoder": "noise"}, "float32")
            with BlockWriter(folder / f"{name}.h5", index, spec) as writer:
                writer.write(np.arange(n), vectors)
        write_index(folder / "index.h5", index)
    return open_store(folder)


def wide(folder: Path) -> Case:
    """Return a task as wide as a store of real networks: 64 directions of two blocks of six tell it."""
    random = np.random.default_rng(6)
    blocks = {f"b{k}": random.normal(size=(WIDE, d)).astype(np.float32) for k, d in enumerate(WIDE_BLOCKS)}
    for vectors in blocks.values():  # most of the variance in few directions, as networks have it
        vectors[:] += 3 * random.normal(size=(WIDE, 64)) @ random.normal(size=(64, vectors.shape[1])) / 8
    signal = blocks["b1"] @ random.normal(size=WIDE_BLOCKS[1]) + blocks["b4"] @ random.normal(size=WIDE_BLOCKS[4])
    y = signal / signal.std() + 0.7 * random.normal(size=WIDE)
    # a grid over SVR takes hours at this width
    return Case(
        "2,432 images x 11,368 features",
        store_of(folder, blocks),
        list(blocks),
        np.arange(WIDE),
        y,
        "regression",
        n_folds=1,
        rivals=("RidgeCV", "LightGBM"),
    )


def planted(folder: Path) -> Iterator[Case]:
    """Yield tasks on six blocks of noise, whose truth is known."""
    random = np.random.default_rng(5)
    x = random.normal(size=(N_BLOCKS, N, WIDTH)).astype(np.float32)
    names = [f"b{k}" for k in range(N_BLOCKS)]
    store, noise = store_of(folder / "planted", dict(zip(names, x, strict=True))), random.normal(size=N)
    signal = x[2, :, :8].sum(axis=1) / np.sqrt(8)
    rows, classes = np.arange(N), np.digitize(signal + 0.5 * noise, [-0.5, 0.5])
    yield Case("one block of signal among five of noise", store, names, rows, signal + 0.5 * noise, "regression")
    yield Case("the same, only that block given", store, names[2:3], rows, signal + 0.5 * noise, "regression")
    yield Case("three classes, one block among six", store, names, rows, classes, "single")
    product = (x[2, :, 0] + x[2, :, 1]) * (x[4, :, 0] + x[4, :, 1]) / 2 + 0.3 * noise
    yield Case("signal in a product of blocks", store, [names[2], names[4]], rows, product, "regression")
    yield Case("noise", store, names, rows, noise, "regression")
    yield wide(folder / "wide")


def real() -> Iterator[Case]:
    """Yield the tasks that are named in the environment."""
    for asked in filter(None, os.environ.get("AFFECTORY_BENCH_STORES", "").split(",")):
        place, _, name = asked.partition(":")
        store = open_store(Path(place))
        blocks = sorted(block for block, one in store.blocks.items() if len(one.item_shape) == 1)
        labels = store.labels[name]
        rows = np.flatnonzero(store.usable(blocks) & labels.known)
        y, title = labels.values[rows], f"{Path(place).name}, {name}"
        if labels.task.kind == "regression":
            for k, output in enumerate(labels.task.classes):
                yield Case(f"{title}, {output}", store, blocks, rows, y[:, k].astype(float), "regression", real=True)
        elif labels.task.kind == "single":
            yield Case(title, store, blocks, rows, y.astype(np.int64), "single", real=True)


def head(name: str, kind: str) -> Callable[[Any, np.ndarray, Any], np.ndarray]:
    """Return a head of the product as it comes."""

    def answer(x: RowMatrix, y: np.ndarray, new: RowMatrix) -> np.ndarray:
        fitted = make_head(name, kind, random_state=0).fit(x, y)
        return fitted.predict_proba(new) if kind == "single" else fitted.predict(new)

    return answer


def others(kind: str) -> dict[str, Callable[[Any, np.ndarray, Any], np.ndarray]]:
    """Return what one would write instead, in its usual form."""
    from lightgbm import LGBMClassifier, LGBMRegressor
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, SVR

    def grid(machine: Any, x: np.ndarray) -> Any:
        name, d = type(machine).__name__.lower(), x.shape[1]
        space = {f"{name}__C": list(COSTS), f"{name}__gamma": [gamma / d for gamma in GAMMAS]}
        scoring = "neg_log_loss" if isinstance(machine, SVC) else "neg_mean_squared_error"
        return GridSearchCV(make_pipeline(StandardScaler(), machine), space, cv=5, scoring=scoring)

    def answer(model: Callable[[np.ndarray], Any]) -> Callable[[Any, np.ndarray, Any], np.ndarray]:
        def fitted(x: RowMatrix, y: np.ndarray, new: RowMatrix) -> np.ndarray:
            dense = np.asarray(x)
            made = model(dense).fit(dense, y)
            return made.predict_proba(np.asarray(new)) if kind == "single" else made.predict(np.asarray(new))

        return fitted

    if kind == "single":
        logistic = LogisticRegressionCV(Cs=10, cv=5, scoring="neg_log_loss", max_iter=1000)
        return {
            "GridSearchCV over SVC": answer(lambda x: grid(SVC(probability=True, random_state=0), x)),
            "LogisticRegressionCV": answer(lambda x: make_pipeline(StandardScaler(), logistic)),
            "LightGBM": answer(lambda x: LGBMClassifier(verbose=-1, random_state=0)),
        }
    return {
        "GridSearchCV over SVR": answer(lambda x: grid(SVR(), x)),
        "RidgeCV": answer(lambda x: make_pipeline(StandardScaler(), RidgeCV(ALPHAS * x.shape[1]))),
        "LightGBM": answer(lambda x: LGBMRegressor(verbose=-1, random_state=0)),
    }


def autogluon(x: RowMatrix, y: np.ndarray, new: RowMatrix) -> np.ndarray:
    """Fit AutoGluon in an environment of its own and return its answers: (n_new, n_classes or 1)."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/rows.npz", x=np.asarray(x), y=y, new=np.asarray(new))
        script = Path(__file__).with_name("autogluon_answers.py")
        subprocess.run([AUTOGLUON, str(script), folder, str(AUTOGLUON_SECONDS)], check=True)
        found: np.ndarray = np.load(f"{folder}/answers.npy")
    return found


def cpu_seconds() -> float:
    """Return the CPU time of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def compare(case: Case) -> None:
    """Print and record scores, seconds, and how far each is from the first, with a paired 95% interval."""
    folds = cuts(deal_strata(KINDS[case.kind].strata(case.y), n_folds=FOLDS))[: case.n_folds]
    classes, codes = np.unique(case.y, return_inverse=True)
    losses: dict[str, np.ndarray] = {}
    print(f"\n{case.name}: {len(case.rows)} images, {len(case.blocks)} blocks, {len(folds)} folds", flush=True)
    rivals = {name: one for name, one in others(case.kind).items() if name in case.rivals or not case.rivals}
    if AUTOGLUON and case.real:
        rivals["AutoGluon"] = autogluon
    for name, answer in {**{name: head(name, case.kind) for name in OURS}, **rivals}.items():
        mine = folds[:AUTOGLUON_FOLDS] if name == "AutoGluon" else folds
        found = np.full((len(case.y), len(classes) if case.kind == "single" else 1), np.nan)
        cpu, wall = cpu_seconds(), time.perf_counter()
        try:
            for train, held in mine:
                x, new = (RowMatrix(case.store, case.blocks, case.rows[part]) for part in (train, held))
                found[held] = answer(x, case.y[train], new).reshape(len(held), -1)
        except subprocess.CalledProcessError:
            print(f"  {name:<24} ended without an answer", flush=True)
            continue
        cpu, wall = (cpu_seconds() - cpu) / len(mine), (time.perf_counter() - wall) / len(mine)
        if case.kind == "single":
            losses[name] = -np.log(np.clip(found[np.arange(len(found)), codes], 1e-9, 1))
            score, unit = float(np.nanmean(losses[name])), "log loss"
        else:
            losses[name] = (found[:, 0] - case.y) ** 2 / case.y.var()
            told = np.isfinite(found[:, 0])
            score, unit = float(np.corrcoef(found[told, 0], case.y[told])[0, 1]), "r"
        worse = losses[name] - losses["auto"]
        worse = worse[np.isfinite(worse)]
        mean, half = float(worse.mean()), float(1.96 * worse.std() / np.sqrt(len(worse)))
        print(
            f"  {name:<24} {unit} {score:6.3f}   {cpu:6.1f} CPU s, {wall:6.1f} s a fold   loss over auto's "
            f"{mean:+.3f} ± {half:.3f}, {len(mine)} folds",
            flush=True,
        )
        measures = {name: (score, unit), f"{name}, time": (cpu, "CPU s a fold")}
        if name != "auto":
            measures |= {f"{name}, loss over auto's": (mean, f"± {half:.3f}, {len(mine)} folds")}
        record("auto", case.name, **measures)


def main() -> None:
    """Make the planted store, and compare."""
    warnings.filterwarnings("ignore")
    folder = Path(os.environ.get("AFFECTORY_BENCH_FOLDER", "."))
    for case in (*planted(folder), *real()):
        compare(case)


if __name__ == "__main__":
    main()
