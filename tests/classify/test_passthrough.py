"""The head that fits nothing: a network's own outputs, scored as they are."""

import numpy as np
import pytest

from classify.config import load_config
from classify.errors import ConfigError, HeadError
from classify.heads import make_head
from classify.heads.persistence import load_head, save_head
from classify.runs.train import run
from features_store import BlockSpec, BlockWriter, Index, Labels, Split, Task, write_index

RANDOM = np.random.default_rng(0)
N = 90
TASKS = {
    "single": Task("single", "single", ("a", "b", "c")),
    "multi": Task("multi", "multi", ("x", "y")),
    "regression": Task("regression", "regression", ("v",), range=(0.0, 1.0)),
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Return a store with the outputs of a network for each kind of task, and labels that follow from them."""
    folder = tmp_path_factory.mktemp("features") / "net"
    folder.mkdir()
    scores = {
        "single": RANDOM.dirichlet(np.ones(3), N).astype(np.float32),
        "multi": RANDOM.random((N, 2), np.float32),
        "regression": RANDOM.random((N, 1), np.float32),
    }
    values = {
        "single": scores["single"].argmax(axis=1).astype(np.int16),
        "multi": (scores["multi"] > 0.5).astype(np.uint8),
        "regression": scores["regression"],
    }
    labels = {kind: Labels(task, values[kind]) for kind, task in TASKS.items()}
    ids = np.array([f"{i:03}.png" for i in range(N)])
    index = Index(ids, labels, {"default": Split("default", np.resize([0, 1, 2], N))}, None, None, {"name": "net"})
    write_index(folder / "index.h5", index)
    for kind, task in TASKS.items():
        spec = BlockSpec(f"{kind}.outputs", (len(task.classes),), {"encoder": kind}, names=task.classes)
        with BlockWriter(folder / f"{kind}.outputs.h5", index, spec) as writer:
            writer.write(np.arange(N), scores[kind])
    return folder


@pytest.mark.parametrize(
    ("kind", "metric", "best"), [("single", "accuracy", 1), ("multi", "macro_f1", 1), ("regression", "rmse", 0)]
)
def test_outputs_are_scored_as_they_are(outputs, tmp_path, kind, metric, best):
    """A network that is right has every image right; nothing is trained, and the head can be loaded again."""
    given = {"store": str(outputs), "task": kind, "head": "none", "blocks": [f"{kind}.outputs"], "resamples": 20}
    done = run(load_config(None, {**given, "out": str(tmp_path / "run")}))
    assert done.report["metrics"]["test"][metric]["value"] == pytest.approx(best, abs=1e-3)
    assert done.report["n_parameters"] == 0


def test_other_blocks_are_refused(outputs, tmp_path):
    """By their number of columns, and by their names where they have some."""
    for kind, blocks in (("single", ["multi.outputs"]), ("multi", None), ("regression", ["single.outputs"])):
        given = {"store": str(outputs), "task": kind, "head": "none", "blocks": blocks, "out": str(tmp_path / "run")}
        with pytest.raises(ConfigError, match=r"head none scores .* name the block of outputs"):
            run(load_config(None, {key: value for key, value in given.items() if value is not None}))


def test_the_head_alone(tmp_path):
    """Probabilities of one label sum to 1; other numbers and widths are refused; saved and loaded it says the same."""
    x, y = RANDOM.random((12, 3), np.float32), np.resize([0, 1, 2], 12)
    for kind, target in (("single", y), ("multi", np.eye(3, dtype=int)[y]), ("regression", x)):
        head = make_head("none", kind).fit(x, target)
        save_head(head, tmp_path / kind)
        said = [
            one.predict(x) if kind == "regression" else one.predict_proba(x)
            for one in (head, load_head(tmp_path / kind))
        ]
        assert np.array_equal(*said)
        assert said[0] == pytest.approx(x / x.sum(axis=1, keepdims=True) if kind == "single" else x)
    with pytest.raises(HeadError, match="from 0 to 1"):
        make_head("none", "single").fit(x, y).predict_proba(x - 1)
    for kind, target in (("single", y), ("regression", x)):
        with pytest.raises(HeadError, match="got 2 columns"):
            make_head("none", kind).fit(x[:, :2], target)
