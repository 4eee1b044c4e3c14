"""What can be trained: parameters as published, bounds, options, and what a network of timm must be like."""

import pytest
import torch

from extract.encoders.architectures import Emosepar, FractalNet, parameters
from extract.encoders.networks import ARCHITECTURES, find_architecture, probe
from extract.encoders.weights import seeded
from extract.errors import EncoderError, WeightsError

COUNTS = [  # network, options, outputs, of the last layer, numbers, trained: as docs/networks.md has them
    ("emosepar", {}, 2, 0, 534_786, 531_138),
    ("resnet32", {}, 10, 0, None, 464_154),
    ("resnet32", {"depth": 20}, 10, 0, None, 269_722),
    ("resnet32", {"depth": 44}, 10, 0, None, 658_586),
    ("resnet32", {"depth": 56}, 10, 0, None, 853_018),
    ("resnet32", {"depth": 110}, 10, 0, None, 1_727_962),
    ("fractalnet", {}, 10, 0, None, 33_724_618),
    ("vgg16", {"top": False}, 2, 1026, 14_714_688, 14_714_688),
    ("vgg16", {}, 1000, 0, 138_357_544, 138_357_544),
    ("vgg19", {}, 1000, 0, 143_667_240, 143_667_240),
    ("inception_v3", {}, 2, 2 * 2048 + 2, 21_785_568 + 34_432, 21_768_352 + 17_216),
    ("legacy_xception", {}, 2, 2 * 2048 + 2, 20_861_480, 20_806_952),
    ("alexnet", {}, 1000, 0, 61_100_840, 61_100_840),
    ("concepts", {"trunk": "test_resnet"}, 3862, 0, None, None),
]


@pytest.mark.parametrize(("name", "options", "n_outputs", "last", "numbers", "trained"), COUNTS)
def test_parameters_are_as_published(name, options, n_outputs, last, numbers, trained):
    """Counted without memory; the last layer of another number of classes apart."""
    with torch.device("meta"):
        network = find_architecture(name).make(n_outputs, size=32, **options)
    if name == "concepts":
        assert sum(p.numel() for part in (network.filters, network.dense) for p in part.parameters()) == (
            64 * network.filters.in_channels + 64 + 64 * 3862 + 3862
        )
        assert 2048 * 64 + 64 + 64 * 3862 + 3862 == 382_166
        return
    found = parameters(network)
    assert found[1] - last == trained
    assert numbers is None or found[0] - last == numbers


def test_inception_of_keras_has_no_scales():
    """21,802,784 numbers below the last layer, as Keras counts them; it computes, and learns."""
    network = find_architecture("inception_v3").build(2, {"init": "keras"}, size=96)
    assert parameters(network) == (21_802_784 + 2 * 2048 + 2, 21_768_352 + 2 * 2048 + 2)
    network.train()(torch.randn(2, 3, 96, 96)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_emosepar_is_printed_layer_by_layer():
    """The counts of the thesis; nothing is padded: 150, 148, 73, 71, 69, 34, 32, 30, 14, 12, 10."""
    network = Emosepar(2).eval()
    counts = [parameters(layer)[0] for layer in network.body if parameters(layer)[0]]
    printed = [864, 128, 4512, 512, 17664, 512, 34176, 1024, 68096, 1024, 133888, 2048, 267264, 2048]
    assert [*counts, parameters(network.dense)[0]] == [*printed, 1026]
    x, sizes = torch.zeros(1, 3, 150, 150), [150]
    with torch.no_grad():
        for layer in network.body:
            x = layer(x)
            sizes += [x.shape[-1]] if x.shape[-1] != sizes[-1] else []
    assert sizes == [150, 148, 73, 71, 69, 34, 32, 30, 14, 12, 10]
    assert x.shape == (1, 512, 10, 10)


def test_fractal_columns_double():
    """A block of three columns has 1 + 2 + 4 convolutions, and is as deep as the longest."""
    network = FractalNet(8, widths=(4, 6), columns=3)
    for block, n_in, n_out in zip(network.body.blocks, (3, 4), (4, 6), strict=True):
        assert [len(column) for column in block.columns] == [1, 2, 4]
        first, others = n_in * n_out * 9 + 2 * n_out, n_out * n_out * 9 + 2 * n_out
        assert parameters(block)[1] == 3 * first + 4 * others
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 8)


def test_drop_path_drops_in_training_only():
    """Evaluation is the mean of all columns and repeats; training passes differ; no path, no chance."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    network = FractalNet(2, widths=(4, 4), columns=3, drop_path=0.5, dropout=0.0)
    assert torch.equal(network.eval()(x), network(x))
    network.train()
    assert len({network(x).sum().item() for _ in range(8)}) > 3
    steady = FractalNet(2, widths=(4, 4), columns=3, drop_path=0.0, dropout=0.0).train()
    assert torch.equal(steady(x), steady(x))


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("test_resnet", {}, 48),
        ("test_vit", {"dropout": 0.1, "drop_path": 0.1}, 48),
        ("test_resnet", {"top": False, "init": "keras"}, 32),
        ("resnet32", {"depth": 8, "width": 4}, 64),
        ("fractalnet", {"widths": [4, 6], "columns": 2}, 64),
        ("concepts", {"trunk": "test_resnet"}, 48),
    ],
)
def test_each_can_be_trained_at_other_sizes(name, options, size):
    """One answer an image, which is the classifier's over the pooled vector; building draws nothing beside its seed."""
    state = torch.get_rng_state()
    with seeded(0):
        network = find_architecture(name).build(3, options, size=size)
    assert probe(network, 3, size, name) == network.get_classifier().weight.shape[1]
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("emosepa", "did you mean 'emosepar'"),
        ("resnet5000", "unknown network to fit 'resnet5000'"),
        ("resnet50.none", "unknown weights of timm resnet50 'none'"),
        *((bad, "no bare name") for bad in ("hf-hub:a/b", "local-dir:/tmp/x", "../resnet50", "timm/resnet50", "")),
    ],
)
def test_other_names_are_refused(name, words):
    """No hub, no folder, no path: a name of ours or of timm."""
    with pytest.raises(EncoderError, match=words):
        find_architecture(name)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("fractalnet", {"columns": 40}, "of fractalnet is a number from 1 to 4"),
        ("fractalnet", {"widths": [10**7]}, "is a number from 1 to 1024"),
        ("fractalnet", {"widths": []}, "is a number from 1"),
        ("fractalnet", {"dropout": "x"}, "is a number from 0 to 1"),
        ("fractalnet", {"drop_path": float("nan")}, "is a number from 0 to 1"),
        ("fractalnet", {"widths": [1.5]}, "cannot be built"),
        ("resnet32", {"depth": 33}, "depth is 33, and 6n"),
        ("resnet32", {"init": "mine"}, "unknown value of option 'init'"),
        ("resnet32", {"top": False}, "unknown option of resnet32 'top'"),
        ("concepts", {"trunk": "hf-hub:a/b"}, "no bare name"),
        ("vit_huge_patch14_224", {}, "parameters with"),
    ],
)
def test_options_that_would_be_built_for_ever_are_refused(name, options, words):
    """Each option has a range, whoever gives it, and a network a number of parameters, before memory is taken."""
    with pytest.raises(EncoderError, match=words):
        find_architecture(name).build(2, options)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"size": 100_000}, "valid: 16 to 1024"),
        ({"size": 32.0}, "valid: 16 to 1024"),
        ({"crop": 2}, "from 0.5 to 1"),
        ({"input": "rgb"}, "unknown input 'rgb'"),
        ({"interpolation": "box"}, "unknown interpolation 'box'"),
    ],
)
def test_inputs_have_bounds(given, words):
    """Sizes, crops and conventions are checked, whoever gives them."""
    with pytest.raises(EncoderError, match=words):
        find_architecture("resnet32").transform(given)


def test_a_network_that_cannot_take_the_size_is_refused():
    """Before an image is read."""
    architecture = ARCHITECTURES["emosepar"]
    with pytest.raises(EncoderError, match="cannot run emosepar on images of 16 x 16 pixels"):
        probe(architecture.build(2, {}, size=16), 2, 16, "emosepar")


def test_keras_initial_weights():
    """Glorot uniform, zero biases, momentum .99, epsilon 1e-3."""
    network = find_architecture("resnet32").build(2, {"init": "keras", "depth": 8})
    weight = network.dense.weight
    assert weight.abs().max() <= (6 / (64 + 2)) ** 0.5
    assert weight.abs().max() > 0.8 * (6 / (64 + 2)) ** 0.5
    assert not network.dense.bias.any()
    norms = [one for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert {(one.eps, one.momentum) for one in norms} == {(1e-3, 0.01)}


def test_training_starts_at_the_weights_of_a_file(tmp_path):
    """All but a last layer of other classes; what lacks more, or is of another network, is refused."""
    from safetensors.torch import save_file

    for name in ("resnet32", "test_resnet"):
        architecture = find_architecture(name)
        before = architecture.build(5, {})
        save_file(before.state_dict(), tmp_path / f"{name}.safetensors")
        for n_outputs in (5, 2):
            after = architecture.build(n_outputs, {}, initial=tmp_path / f"{name}.safetensors")
            same = {key for key, value in after.state_dict().items() if torch.equal(value, before.state_dict()[key])}
            last = {key for key in after.state_dict() if key.startswith(("dense", "fc"))}
            assert same >= after.state_dict().keys() - last
            assert (last <= same) == (n_outputs == 5)
            assert after.get_classifier().weight.any() == (n_outputs == 5)  # a new last layer says nothing yet
    with pytest.raises(WeightsError, match="does not fit: it lacks"):
        find_architecture("resnet32").build(2, {}, initial=tmp_path / "test_resnet.safetensors")
    with pytest.raises(EncoderError, match="does not fit test_resnet"):
        find_architecture("test_resnet").build(2, {}, initial=tmp_path / "resnet32.safetensors")
    with pytest.raises(EncoderError, match="init=keras draws all weights anew"):
        find_architecture("resnet32").build(5, {"init": "keras"}, initial=tmp_path / "resnet32.safetensors")
    with pytest.raises(WeightsError, match="nobody publishes"):
        find_architecture("emosepar").build(2, {}, initial=True)
