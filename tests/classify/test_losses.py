"""Classes that weigh more, mistakes that cost more, classes that are merged."""

import numpy as np
import pytest
import torch

from classify.config import dump_config, load_config
from classify.data.merging import merge_classes
from classify.errors import ConfigError, HeadError, TaskError
from classify.heads import make_head
from classify.heads.losses import cost_matrix
from classify.runs.train import run
from features_store import Labels, Task
from features_store.errors import UnknownNameError
from features_store.polarity import polarity_costs

RANDOM = np.random.default_rng(1)
X = RANDOM.normal(size=(120, 6)).astype(np.float32)
Y = np.repeat([0, 1, 2], [80, 30, 10])
FROZEN = {"hidden": [8], "epochs": 1, "learning_rate": 1e-12, "dropout": 0.0, "random_state": 0}


def test_class_weights_and_costs_by_hand():
    """The recorded loss is the mean over rows of w_y (-log p_y + sum_k cost[y, k] p_k)."""
    cost = [[0, 1, 2], [0.5, 0, 0.5], [3, 1, 0]]
    head = make_head("mlp", "single", class_weight="balanced", cost=cost, **FROZEN).fit(X, Y)
    p = head.predict_proba(X)
    weight = 120 / (3 * np.bincount(Y))[Y]
    expected = np.mean(weight * (-np.log(p[np.arange(120), Y]) + (np.array(cost)[Y] * p).sum(axis=1)))
    assert head.history_[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_balanced_labels_by_hand():
    """Several labels: each side of each label weighs the same, also in the mixture of experts."""
    y = (RANDOM.random((120, 3)) < [0.1, 0.5, 0.9]).astype(int)
    for name in ("mlp", "moe"):
        head = make_head(name, "multi", class_weight="balanced", **FROZEN).fit(X, y)
        p, share = head.predict_proba(X), y.mean(axis=0)
        weight = np.where(y == 1, 0.5 / share, 0.5 / (1 - share))
        expected = np.mean(weight * -np.where(y == 1, np.log(p), np.log(1 - p)))
        assert head.history_[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["mlp", "moe", "conv"])
def test_a_costly_mistake_is_made_less_often(name):
    """Two classes that look alike, a third apart: cost moves the doubtful ones away from the dear mistake."""
    random = np.random.default_rng(2)
    y = np.resize([0, 1], 400)
    x = (random.normal(size=(400, 4)) + 0.8 * y[:, None]).astype(np.float32)
    small = {"epochs": 25, "learning_rate": 0.02, "random_state": 0, "dropout": 0.0}
    plain = make_head(name, "single", **small).fit(x, y)
    wary = make_head(name, "single", cost=[[0, 8], [0, 0]], **small).fit(x, y)
    mistakes = [((head.predict(x) == 1) & (y == 0)).sum() for head in (plain, wary)]
    assert mistakes[1] < mistakes[0] / 2


@pytest.mark.parametrize("cost", [[[0, 1], [1, 0]], [[0, -1, 0]] * 3, np.ones((3, 3)), "x", [[0, np.nan, 0]] * 3])
def test_wrong_costs_are_refused(cost):
    """A square over the classes, 0 on the diagonal, nothing below 0."""
    with pytest.raises(HeadError, match="square matrix"):
        cost_matrix(cost, np.arange(3))


def test_options_of_classes_mean_nothing_elsewhere():
    """A regression has no classes; with several labels a cost between classes has no meaning."""
    with pytest.raises(HeadError, match="a regression has no classes"):
        make_head("mlp", "regression", class_weight="balanced", **FROZEN).fit(X, Y.astype(float))
    with pytest.raises(HeadError, match="one label an image"):
        make_head("mlp", "multi", cost=np.zeros((2, 2)), **FROZEN).fit(X, np.stack([Y > 0, Y > 1], axis=1).astype(int))


def test_polarity_costs():
    """Crossing costs 1, neutral 0.5, within a polarity nothing; unknown names need a matrix."""
    assert polarity_costs(["joy", "anger", "neutral"]) == [[0, 1, 0.5], [1, 0, 0.5], [0.5, 0.5, 0]]
    assert polarity_costs(["Anger", "fear", "empathic pain"]) == [[0] * 3] * 3
    with pytest.raises(UnknownNameError, match=r"polarity of class 'sky'.*matrix"):
        polarity_costs(["sky", "joy"])


# ---- merging --------------------------------------------------------------------------------------------------------

EMOTION = Task("emotion", "single", ("amusement", "anger", "awe", "fear"))
EVOKES = Task("evokes", "multi", ("joy", "anger", "fear"))


def test_merged_single_labels():
    """A merged class stands where its first member stood; no label stays none."""
    merged = merge_classes(Labels(EMOTION, np.array([0, 1, 2, 3, -1], np.int16)), {"threat": ["anger", "fear"]})
    assert merged.task.classes == ("amusement", "threat", "awe")
    assert merged.values.tolist() == [0, 1, 2, 1, -1]
    assert "merged" in merged.task.source


def test_merged_several_labels():
    """There if any member is; an image without labels stays one."""
    values = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0], [255, 255, 255]], np.uint8)
    merged = merge_classes(Labels(EVOKES, values), {"bad": ["anger", "fear"]})
    assert merged.values.tolist() == [[1, 0], [0, 1], [0, 1], [0, 0], [255, 255]]


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        ({"bad": ["anger", "feer"]}, "did you mean 'fear'"),
        ({"a": ["anger"], "b": ["anger"]}, "names a class twice"),
        ({"awe": ["anger", "fear"]}, "one that is not merged"),
        ({"all": list(EMOTION.classes)}, "leaves the one class 'all'"),
    ],
)
def test_wrong_mergers_are_refused(merge, words):
    """Each with the class that it is about."""
    with pytest.raises(TaskError, match=words):
        merge_classes(Labels(EMOTION, np.zeros(4, np.int16)), merge)
    with pytest.raises(TaskError, match="no classes to merge"):
        merge_classes(Labels(Task("v", "regression", ("v",), (0.0, 1.0)), np.zeros((2, 1), np.float32)), merge)


def test_a_run_with_merged_classes_weights_and_costs(store, tmp_path):
    """From the TOML file to the report; the file that the run leaves says the same."""
    text = (
        f'store = "{store}"\ntask = "polarity"\nhead = "mlp"\nblocks = ["alpha.pool"]\nresamples = 20\n'
        "[set]\nepochs = 2\n"
        'class_weight = {negative = 2.0}\ncost = "polarity"\n[merge]\npositive = ["neutral", "positive"]\n'
    )
    (tmp_path / "asked.toml").write_text(text)
    config = load_config(tmp_path / "asked.toml", {"out": str(tmp_path / "run")})
    done = run(config)
    assert done.report["classes"] == ["negative", "positive"]
    assert done.report["parameters"]["class_weight"] == {"0": 2.0, "1": 1.0}
    assert done.report["parameters"]["cost"] == [[0.0, 1.0], [1.0, 0.0]]
    assert done.report["merge"] == {"positive": ["neutral", "positive"]}
    assert dump_config(load_config(done.folder / "config.toml")) == dump_config(config)
    with pytest.raises(ConfigError, match="unknown class in class_weight 'neutral'"):
        run(
            load_config(
                tmp_path / "asked.toml", {"set": {"class_weight": {"neutral": 1.0}}, "out": str(tmp_path / "b")}
            )
        )
    with pytest.raises(ConfigError, match="it takes a row and a column for each of negative, positive"):
        run(load_config(tmp_path / "asked.toml", {"set": {"cost": [[0.0]]}, "out": str(tmp_path / "b")}))


def test_the_loss_is_differentiable_where_the_cost_is():
    """Costs reach the weights: the gradient differs from the plain one."""
    head = make_head("mlp", "single", cost=np.array([[0, 4, 0], [0, 0, 0], [0, 0, 0]]), **FROZEN)
    head.classes_, head.multilabel_ = np.arange(3), False
    outputs = torch.zeros(2, 3, requires_grad=True)
    head._loss(Y)(outputs, torch.tensor([0, 0])).backward()
    assert outputs.grad[0, 1] > outputs.grad[0, 2]
