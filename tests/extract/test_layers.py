"""Any layer of a network by its name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from extract import pipeline
from extract.corpora import find_corpus
from extract.encoders import ENCODERS, Weights, build_encoders, find_encoders
from extract.engines import Cpu
from extract.engines.forward import Forward
from extract.errors import EncoderError
from extract.settings import RunSettings
from features_store import MismatchError


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
    (network,) = build_encoders(find_encoders([name]), Weights("random", 0))
    assert {tap.name: network.shapes[tap.name] for tap in network.spec.taps} == expected
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
        ("timm:test_vit@patch_embed.proj:cls", "gives 4 dimensions, which pooling 'cls' does not take"),
        (
            "timm:vit_tiny_patch16_224@patch_embed:cls",
            "'patch_embed' of timm:vit_tiny.* has no class token, which :cls would take",
        ),
        ("timm:vit_tiny_patch16_224@blocks.0.attn.q_norm", r"gives \(3, 197, 64\) for an image, which pooling 'mean'"),
    ],
)
def test_layers_that_cannot_be_kept(name, words):
    with pytest.raises(EncoderError, match=words):
        build_encoders(find_encoders([name]), Weights("random", 0))


def test_layers_of_one_network_share_its_pass():
    (encoder,) = find_encoders(["timm:test_resnet", "timm:test_resnet@layer1", "timm:test_resnet@layer1+layer2:max"])
    assert [tap.name for tap in encoder.taps] == ["pool", "layer1.mean", "layer2.max"]
    assert encoder.block("layer2.max") == "timm-test_resnet.layer2.max"


def test_the_map_is_a_block_of_its_network():
    record = ENCODERS["resnet101_map"]
    assert record.block("map") == "resnet101.map"
    assert record.taps[0].shape == (2048, 8, 8)


def test_a_layer_that_a_later_one_writes_into_is_taken_before():
    """The activation behind a norm writes over what the norm gives."""
    (network,) = build_encoders(find_encoders(["timm:test_resnet@layer1.0.bn1"]), Weights("random", 0))
    assert network.details["layer1.0.bn1.mean"]["before_in_place"] is True
    batch = np.random.default_rng(0).integers(0, 256, (2, *network.input_shape), dtype=np.uint8)
    found = Forward(network, Cpu())(batch)["layer1.0.bn1.mean"]
    seen = []
    layer = network.module.get_submodule("layer1.0.bn1")
    handle = layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.clone()))
    with torch.inference_mode():
        network.module(network.normalise(torch.from_numpy(batch)))
    handle.remove()
    assert np.allclose(found, seen[0].mean((2, 3)), atol=1e-5)


def test_a_block_whose_layer_was_read_otherwise_is_not_gone_on_with(class_folder, tmp_path):
    """Format 1.0 pooled these channels as places."""
    (network,) = build_encoders(find_encoders(["timm:test_vit@patch_embed"]), Weights("random", 0))
    tap = "patch_embed.mean"
    assert network.shapes[tap] == (64,)
    assert network.details[tap] == {"module": "patch_embed", "pooling": "mean", "channels": "last"}
    before = replace(network, details={tap: {"module": "patch_embed", "pooling": "mean"}})
    reading = find_corpus("folder").read(class_folder)
    settings = RunSettings(device="cpu", batch_size=4, limit=2)
    pipeline.run(reading, [before], tmp_path / "store", settings)
    with pytest.raises(MismatchError, match=r"patch_embed\.mean\.h5 was made in another way.*channels"):
        pipeline.run(reading, [network], tmp_path / "store", settings)


SIGLIP = "open_clip:ViT-B-16-SigLIP/webli"


@pytest.mark.slow
def test_siglip_has_no_class_token():
    """All 196 tokens are those of patches; what 1.0 left out of the mean was one of them, and the passport says so."""
    (network,) = build_encoders(find_encoders([f"{SIGLIP}@trunk.blocks.11:mean"]), Weights("random", 0))
    assert network.details == {
        "trunk.blocks.11.mean": {"module": "trunk.blocks.11", "pooling": "mean", "prefix_tokens": 0}
    }
    seen = []
    network.module.trunk.blocks[11].register_forward_hook(lambda _layer, _inputs, output: seen.append(output.clone()))
    batch = np.random.default_rng(0).integers(0, 256, (1, *network.input_shape), dtype=np.uint8)
    found = Forward(network, Cpu())(batch)["trunk.blocks.11.mean"]
    assert seen[0].shape[1] == 196
    assert np.allclose(found, seen[0].mean(1), atol=1e-5)
    with pytest.raises(EncoderError, match=r"'trunk.blocks.11' of .* has no class token, which :cls would take"):
        build_encoders(find_encoders([f"{SIGLIP}@trunk.blocks.11:cls"]), Weights("random", 0))
