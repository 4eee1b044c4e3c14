"""The convolutional head against numpy, its maps, and the blocks of maps that it takes."""

import numpy as np
import pytest

from classify.config import RunConfig
from classify.data.rows import choose_maps
from classify.errors import ConfigError, HeadError, TaskError
from classify.heads import make_head
from classify.runs.train import run
from features_store import BlockSpec, BlockWriter, open_store

SHAPE = (5, 3, 4)
RANDOM = np.random.default_rng(0)
MAPS = RANDOM.normal(size=(80, *SHAPE)).astype(np.float32)
Y = (MAPS[:, 0].mean(axis=(1, 2)) > 0).astype(int)
MAPS[Y == 1, 0, 1, 2] += 6  # what class 1 looks like stands in one place


def fitted(kind="single", y=Y, **options):
    """Return a small head fitted on the maps."""
    options = {"shape": SHAPE, "epochs": 25, "learning_rate": 0.03, "random_state": 0, **options}
    return make_head("conv", kind, **options).fit(MAPS.reshape(80, -1), y)


def by_hand(head, standardized=True):
    """Compute the ReLU maps and the outputs with numpy."""
    w = {name: one.numpy().astype(np.float64) for name, one in head.module_.state_dict().items()}
    x = MAPS.astype(np.float64)
    if standardized:
        x = (x - x.mean(axis=(0, 2, 3), keepdims=True)) / x.std(axis=(0, 2, 3), keepdims=True)
    maps = np.einsum("oc,nchw->nohw", w["convolution.weight"][:, :, 0, 0], x)
    maps = np.maximum(maps + w["convolution.bias"][None, :, None, None], 0)
    return maps, maps.mean(axis=(2, 3)) @ w["dense.weight"].T + w["dense.bias"], w


def test_conv_equals_numpy():
    """1x1 convolution to C k maps, ReLU, global average pooling, dense, softmax; channels standardized as one."""
    head = fitted(maps_per_class=3)
    _, z, _ = by_hand(head)
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    assert np.allclose(head.predict_proba(MAPS.reshape(80, -1)), expected, atol=1e-5)
    assert head.n_parameters_ == 5 * 6 + 6 + 6 * 2 + 2
    plain = fitted(standardize=False)
    _, z, _ = by_hand(plain, standardized=False)
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    assert np.allclose(plain.predict_proba(MAPS.reshape(80, -1)), expected, atol=1e-5)


def test_class_activation_maps_sum_to_the_outputs_and_point_at_the_cause():
    """The mean of a class' map is its output less the bias; class 1 is found where it was put."""
    head = fitted()
    maps, z, w = by_hand(head)
    found = head.activation_maps(MAPS.reshape(80, -1))
    assert found.shape == (80, 2, 3, 4)
    assert np.allclose(found, np.einsum("om,nmhw->nohw", w["dense.weight"], maps), atol=1e-4)
    assert np.allclose(found.mean(axis=(2, 3)) + w["dense.bias"], z, atol=1e-4)
    difference = (found[:, 1] - found[:, 0])[Y == 1].mean(axis=0)
    assert np.unravel_index(difference.argmax(), difference.shape) == (1, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": (5, 3, 3)}, r"shape is \[5, 3, 3\], and a row has 60 values"),
        ({"maps_per_class": 0}, "maps_per_class is 0"),
    ],
)
def test_wrong_options_are_refused(options, words):
    """The error names the option and what it takes."""
    with pytest.raises(HeadError, match=words):
        fitted(**options)


def test_a_run_on_maps(store, tmp_path):
    """The run finds the block of maps and its shape; vectors are refused, and so are maps by other heads."""
    settings = {"epochs": 2}
    config = RunConfig(str(store), "polarity", "conv", settings=settings, resamples=20, out=str(tmp_path / "conv"))
    done = run(config)
    assert done.report["blocks"] == ["alpha.map"]
    assert done.report["parameters"]["shape"] == [4, 2, 2]
    with pytest.raises(TaskError, match=r"'alpha.pool' holds vectors of 12 values.*blocks with maps: alpha.map"):
        run(RunConfig(str(store), "polarity", "conv", blocks=("alpha.pool",), out=str(tmp_path / "a")))
    with pytest.raises(TaskError, match="holds maps"):
        run(RunConfig(str(store), "polarity", "mlp", blocks=("alpha.map",), out=str(tmp_path / "b")))
    with pytest.raises(ConfigError, match="'shape' is not an option of a head: it follows from the blocks"):
        run(RunConfig(str(store), "polarity", "conv", settings={"shape": [1, 1, 16]}, out=str(tmp_path / "c")))


def test_maps_stand_side_by_side_by_channel(store, tmp_path):
    """Blocks of equal height and width are joined; others, and an unclear choice, are refused."""
    opened = open_store(store)
    for name, shape in (("more.map", (3, 2, 2)), ("wide.map", (4, 2, 3))):
        with BlockWriter(tmp_path / f"{name}.h5", opened.index, BlockSpec(name, shape, {"encoder": name})):
            pass
    both = open_store([store, tmp_path / "more.map.h5", tmp_path / "wide.map.h5"])
    assert choose_maps(both, ["alpha.map", "more.map"]) == (("alpha.map", "more.map"), (7, 2, 2))
    with pytest.raises(TaskError, match="only maps of one size"):
        choose_maps(both, ["alpha.map", "wide.map"])
    with pytest.raises(TaskError, match=r"several: alpha\.map, more\.map, wide\.map"):
        choose_maps(both)
