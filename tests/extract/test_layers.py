"""Any layer of a network by its name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from extract.encoders import ENCODERS, Weights, build_networks, find_encoders
from extract.engines import Cpu
from extract.errors import EncoderError
from extract.forward import Forward


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("timm:test_resnet@layer2", {"layer2.mean": (48,)}),
        ("timm:test_resnet@layer3:max+layer4:map", {"layer3.max": (192,), "layer4.map": (96, 5, 5)}),
        ("timm:test_vit@blocks.3:cls+norm", {"blocks.3.cls": (64,), "norm.mean": (64,)}),
    ],
)
def test_any_layer_by_its_name(name, expected):
    """Against timm's own intermediate features."""
    (network,) = build_networks(find_encoders([name]), Weights("random", 0))
    assert {tap.name: network.shapes[tap.name] for tap in network.encoder.taps} == expected
    assert network.details[next(iter(expected))]["module"] in name
    batch = np.random.default_rng(0).integers(0, 256, (2, *network.input_shape), dtype=np.uint8)
    found = Forward(network, Cpu())(batch)
    x = network.normalise(torch.from_numpy(batch))
    with torch.inference_mode():
        if "vit" in name:
            layers = network.module.forward_intermediates(x, output_fmt="NLC", return_prefix_tokens=True)[1]
            prefix = layers[3][1]
            assert np.allclose(found["blocks.3.cls"], prefix[:, 0], atol=1e-5)
            last = network.module.forward_features(x)
            assert np.allclose(found["norm.mean"], last[:, 1:].mean(1), atol=1e-5)
            return
        names = ["act1", "layer1", "layer2", "layer3", "layer4"]
        maps = dict(zip(names, network.module.forward_intermediates(x)[1], strict=True))
    pools = {"mean": lambda a: a.mean((2, 3)), "max": lambda a: a.amax((2, 3)), "map": lambda a: a}
    for tap, vectors in found.items():
        layer, _, pooling = tap.rpartition(".")
        assert np.allclose(vectors, pools[pooling](maps[layer]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:test_resnet@layer9", "unknown layer of timm:test_resnet 'layer9'.*did you mean 'layer[1-4]'.*valid:"),
        ("timm:test_resnet@", "no layer stands in ''"),
        ("timm:test_resnet@layer1:avg", "unknown pooling 'avg'.*valid: cls, map, max, mean"),
        ("timm:test_resnet@layer1:cls", "gives 4 dimensions, which pooling 'cls' does not take"),
        ("lowlevel@layer1", "lowlevel is no network"),
    ],
)
def test_layers_that_cannot_be_kept(name, words):
    with pytest.raises(EncoderError, match=words):
        build_networks(find_encoders([name]), Weights("random", 0))


def test_layers_of_one_network_share_its_pass():
    (encoder,) = find_encoders(["timm:test_resnet", "timm:test_resnet@layer1", "timm:test_resnet@layer1+layer2:max"])
    assert [tap.name for tap in encoder.taps] == ["pool", "layer1.mean", "layer2.max"]
    assert encoder.block("layer2.max") == "timm-test_resnet.layer2.max"


def test_the_map_is_a_block_of_its_network():
    record = ENCODERS["resnet101_map"]
    assert record.block("map") == "resnet101.map"
    assert record.taps[0].shape == (2048, 8, 8)
