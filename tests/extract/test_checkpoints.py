"""Checkpoint files: all that the taps need is in them, or they are refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from extract.encoders import Tap, Weights, build_encoders, find_encoders
from extract.encoders import weights as weights_module
from extract.engines import Cpu
from extract.engines.forward import Forward
from extract.errors import WeightsError

SMALL = "timm:test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def state():
    """The weights of a small network."""
    with weights_module.seeded(0):
        return timm.create_model("test_resnet").state_dict()


def build(path, *taps, name=SMALL):
    (encoder,) = find_encoders([name])
    if taps:
        encoder = replace(encoder, taps=tuple(Tap(tap) for tap in taps))
    return build_encoders([encoder], Weights("file", path=path))[0]


def vector(network):
    batch = np.random.default_rng(0).integers(0, 256, (1, *network.input_shape), dtype=np.uint8)
    return Forward(network, Cpu())(batch)


def saved(tmp_path, content, name="weights.pth"):
    path = tmp_path / name
    torch.save(content, path)
    return path


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


WRAPPED = {
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"state": {}}},
    "module": lambda state: prefixed(state, "module."),
    "both": lambda state: {"state_dict": prefixed(state, "module.")},
    "lightning": lambda state: {"state_dict": prefixed(state, "model.")},
    "compiled": lambda state: prefixed(state, "module._orig_mod."),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_what_training_programs_wrap_around_weights(tmp_path, state, wrapper):
    network = build(saved(tmp_path, WRAPPED[wrapper](state)))
    found = network.module.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert network.notes == ()


@pytest.mark.parametrize("wrapper", [*WRAPPED, "safetensors"])
@pytest.mark.parametrize("lost", ["conv1.0.weight", "layer4.0.bn1.running_mean", "bn1.bias"])
def test_a_weight_that_a_tap_needs_and_that_is_lost_is_named(tmp_path, state, wrapper, lost):
    less = {name: tensor for name, tensor in state.items() if name != lost}
    if wrapper == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(less, path)
    else:
        path = saved(tmp_path, WRAPPED[wrapper](less))
    with pytest.raises(WeightsError, match=rf"does not fit '{SMALL}'.*lacks 1 weights \({lost}\)"):
        build(path)


def test_a_classifier_is_needed_for_posteriors_alone(tmp_path, state):
    trunk = saved(tmp_path, {name: tensor for name, tensor in state.items() if not name.startswith("fc.")})
    other = {**state, "fc.weight": torch.zeros(8, 96), "fc.bias": torch.zeros(8)}
    for path, words in (
        (trunk, r"lacks 2 weights \(fc.weight, fc.bias\)"),
        (saved(tmp_path, other, "eight.pth"), r"fc.weight is \(8, 96\) there and \(1000, 96\) here"),
    ):
        with pytest.raises(WeightsError, match=words):
            build(path, "pool", "posteriors")
        network, again = build(path), build(path)
        assert "fc.weight, fc.bias" in network.notes[0]
        assert network.weights == again.weights  # no random number is in the digest
        whole = build(saved(tmp_path, state, "whole.pth"))
        assert np.array_equal(vector(network)["pool"], vector(whole)["pool"])


def test_a_layer_needs_only_what_stands_before_it(tmp_path, state):
    path = saved(tmp_path, {name: tensor for name, tensor in state.items() if not name.startswith("layer4.")})
    network = build(path, name=f"{SMALL}@layer2")
    assert np.isfinite(vector(network)["layer2.mean"]).all()
    with pytest.raises(WeightsError, match=r"lacks \d+ weights \(layer4\.0"):
        build(path, name=f"{SMALL}@layer4")


def test_weights_of_a_larger_network_are_refused(tmp_path, state):
    with pytest.raises(WeightsError, match=r"holds 1 weights \(layer4.9.conv1.weight\), for which this network has no"):
        build(saved(tmp_path, {**state, "layer4.9.conv1.weight": torch.zeros(3)}))
    network = build(saved(tmp_path, {**state, "AuxLogits.fc.weight": torch.zeros(3)}))
    assert network.notes == ("the checkpoint has 1 weights (AuxLogits.fc.weight) besides, which no tap needs",)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"state_dict": {"a": 1}}])
def test_a_file_without_weights(tmp_path, content):
    with pytest.raises(WeightsError, match="holds no weights"):
        build(saved(tmp_path, content))


@pytest.mark.parametrize(
    "name",
    [
        "inception_v3",
        pytest.param("timm:vit_tiny_patch16_224", marks=pytest.mark.slow),
        pytest.param("timm:swin_tiny_patch4_window7_224", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_that_fits_nothing_is_refused_before_anything_is_written(
    tmp_path, command_line, class_folder, name
):
    path = saved(tmp_path, {"nothing": torch.zeros(3)})
    store = tmp_path / "store"
    code, _, err = command_line(
        *("run", "folder", "--data", class_folder, "--store", store, "--encoders", name, "--weights", path)
    )
    assert code == 2
    assert f"error: {path} does not fit '{name}'" in err
    assert "lacks" in err
    assert "1 weights (nothing) instead" in err
    assert not store.exists() or not list(store.glob("*.h5"))


@pytest.fixture(scope="module")
def clip_state():
    """The weights of the smallest CLIP that open_clip has a name for."""
    import open_clip

    with weights_module.seeded(0), weights_module.silence_logging():
        return open_clip.create_model("ViT-B-32").state_dict()


@pytest.mark.slow
def test_open_clips_text_tower_is_needed_for_concepts_alone(tmp_path, clip_state):
    name = "open_clip:ViT-B-32/openai"
    tower = {key: tensor for key, tensor in clip_state.items() if key.startswith("visual.")}
    path = saved(tmp_path, {"model": prefixed(tower, "module.")})
    network = build(path, name=name)
    assert torch.equal(network.module.state_dict()["proj"], tower["visual.proj"])
    with pytest.raises(WeightsError, match=r"lacks \d+ weights \(positional_embedding"):
        build(path, "concepts", name=name)
    del tower["visual.proj"]
    with pytest.raises(WeightsError, match=r"lacks 1 weights \(proj\)"):
        build(saved(tmp_path, tower), name=name)
    with pytest.raises(WeightsError, match=r"lacks 152 weights \(class_embedding"):
        build(saved(tmp_path, {"nothing": torch.zeros(3)}), name=name)
