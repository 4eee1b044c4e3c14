"""Every record in the table, the weights, and what the networks say of photographs."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from extract.encoders import (
    ENCODERS,
    LIBRARIES,
    PROFILES,
    Tap,
    Weights,
    build_encoders,
    find_encoders,
    from_open_clip,
    from_timm,
)
from extract.encoders import weights as weights_module
from extract.encoders.checkpoints import read_state
from extract.encoders.weights import parse_weights, sha256_of_state
from extract.engines import Cpu, choose_device
from extract.engines.forward import Forward, cast_once
from extract.errors import DeviceError, EncoderError, HubError, WeightsError
from features_store.schema import check_name

SMALL = "timm:test_efficientnet.r160_in1k"


@pytest.fixture(scope="module")
def lite0():
    """EfficientNet-Lite0 with its classifier's posteriors beside the pooled vector."""
    encoder = replace(ENCODERS["efficientnet_lite0"], taps=(Tap("pool", (1280,)), Tap("posteriors", (1000,))))
    return build_encoders([encoder], Weights())[0]


# ---- contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENCODERS)
def test_every_record_builds_the_shapes_it_promises(name):
    """On the meta device: the real architectures, without their numbers."""
    encoder = ENCODERS[name]
    assert encoder.name == name
    assert encoder.description
    for tap in encoder.taps:
        check_name("block", encoder.block(tap.name))
    if encoder.library == "affectory":
        (network,) = build_encoders([encoder], Weights())
        vector = network.prepare(np.zeros((40, 60, 3), np.uint8))
        assert vector.shape == network.input_shape == encoder.taps[0].shape
        return
    with torch.device("meta"):
        if encoder.library == "timm":
            assert encoder.architecture in timm.list_pretrained()
            module = timm.create_model(encoder.architecture)
            network = from_timm.wrap(encoder, module, {}, "torchvision")
        else:
            visual, directions = meta_visual(encoder.architecture), None
            if any(tap.name == "concepts" for tap in encoder.taps):
                directions = torch.empty(24 * 128, visual.output_dim)
            network = from_open_clip.wrap(encoder, visual, {}, "torchvision", directions=directions)
        outputs = network.outputs(network.module, torch.empty(2, *network.input_shape))
    for tap in encoder.taps:
        assert tuple(outputs[tap.name].shape) == (2, *tap.shape)
        assert len(network.names.get(tap.name, range(tap.shape[0]))) == tap.shape[0]


def meta_visual(name: str):
    import open_clip

    architecture, config = from_open_clip.find_published(name)
    with weights_module.silence_logging():
        quick = bool(config.get("quick_gelu"))
        return open_clip.create_model(architecture, force_quick_gelu=quick, device="meta").visual


def test_every_encoder_has_a_library_that_names_its_weights():
    """A library gives three functions; of a file on this machine the published weights are named without building."""
    for spec in ENCODERS.values():
        library = LIBRARIES[spec.builder or spec.library]
        assert library.published(spec).partition(":")[0] == {"packaged": "pypi", "lowlevel": ""}.get(
            spec.builder, spec.library
        )
    assert {spec.builder or spec.library for spec in ENCODERS.values()} == set(LIBRARIES) - {"fit"}


def test_profiles_name_encoders_and_fusion_has_its_size():
    for members in PROFILES.values():
        assert set(members) <= set(ENCODERS)
    assert sum(ENCODERS[name].n_features() for name in PROFILES["fusion"]) == 11_368 == 1408 + 2048 + 3048 + 4864
    assert not any(ENCODERS[name].needs_hub for name in PROFILES["offline"])


def test_an_unknown_encoder_lists_the_valid_ones():
    with pytest.raises(EncoderError, match=r"unknown encoder 'resnet5'.*did you mean 'resnet50'.*timm:NAME"):
        find_encoders(["resnet5"])
    with pytest.raises(EncoderError, match="no encoder was named"):
        find_encoders([])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:resnet5", "unknown timm model 'resnet5'.*'resnet50'"),
        ("timm:resnet50.nope", "unknown weights of timm resnet50 'nope'.*tv_in1k"),
        ("open_clip:ViT-B/openai", "unknown open_clip model 'ViT-B'"),
        ("open_clip:ViT-B-32/nope", "unknown weights of open_clip ViT-B-32 'nope'.*openai"),
    ],
)
def test_models_that_a_library_does_not_have(name, words):
    with pytest.raises(EncoderError, match=words):
        build_encoders(find_encoders([name]), Weights())


def test_names_that_are_doubled_count_once():
    assert [one.name for one in find_encoders(["lowlevel", "lowlevel", SMALL])] == ["lowlevel", SMALL]


# ---- right weights, right transform ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("photo", "expected"),
    [("chelsea", {"tabby", "tiger cat", "Egyptian cat"}), ("coffee", {"espresso"}), ("china", {"palace"})],
)
def test_the_classifier_names_what_is_on_the_photograph(lite0, photos, photo, expected):
    posteriors = Forward(lite0, Cpu())(lite0.prepare(photos[photo])[None])["posteriors"][0]
    assert posteriors.sum() == pytest.approx(1, abs=1e-4)
    best = lite0.names["posteriors"][int(posteriors.argmax())]
    assert set(best.split(", ")) & expected, best


def test_a_vector_does_not_depend_on_its_neighbours_in_the_batch(photos):
    (network,) = build_encoders(find_encoders([SMALL]), Weights("random", 0))
    batch = np.stack([network.prepare(photo) for photo in photos.values()])
    forward = Forward(network, Cpu())
    together = forward(batch)["pool"]
    assert np.array_equal(forward(batch[::-1].copy())["pool"][::-1], together)
    alone = np.concatenate([forward(one[None])["pool"] for one in batch])
    assert np.allclose(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tag", ["in1k", "tv_in1k", "sw_in12k_ft_in1k", "openai_ft_in12k_in1k_384"])
def test_classes_have_names_where_published_weights_are_those_of_imagenet(tag):
    assert "tench" in posterior_names(tag, published=True)[0]
    assert posterior_names(tag, published=False) is None  # a file's, a random or a tuned network's classes


@pytest.mark.parametrize("tag", ["", "fb_dino", "inat", "in21k"])
def test_a_thousand_classes_of_something_else_have_no_names(tag):
    assert posterior_names(tag, published=True) is None


def posterior_names(tag, *, published):
    module = timm.create_model("test_resnet", pretrained_cfg_overlay={"tag": tag})
    encoder = replace(find_encoders(["timm:test_resnet"])[0], taps=(Tap("posteriors"),))
    return from_timm.wrap(encoder, module, {}, "torchvision", published=published).names.get("posteriors")


def test_random_networks_name_no_classes():
    encoder = replace(find_encoders([SMALL])[0], taps=(Tap("posteriors"),))
    assert not build_encoders([encoder], Weights("random", 0))[0].names


def test_posteriors_and_concepts_are_computed_in_float32():
    """Under mixed precision they are what float32 makes of the same features."""
    encoder = replace(find_encoders(["timm:test_resnet"])[0], taps=(Tap("pool"), Tap("posteriors")))
    (network,) = build_encoders([encoder], Weights("random", 0))
    found = under_bfloat16(network)
    logits = network.module.get_classifier()(found["pool"].float())
    assert found["pool"].dtype == torch.bfloat16 or not torch.equal(found["pool"], plain(network)["pool"])
    assert torch.allclose(found["posteriors"], logits.softmax(dim=1), rtol=1e-6, atol=0)
    assert torch.allclose(found["posteriors"].sum(1), torch.ones(2), atol=1e-6)

    import open_clip

    vision = {"image_size": 64, "layers": 1, "width": 64, "patch_size": 32, "head_width": 32}
    text = {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1}
    with weights_module.seeded(0):
        visual = open_clip.CLIP(embed_dim=48, vision_cfg=vision, text_cfg=text).visual
        directions = torch.nn.functional.normalize(torch.randn(3072, 48), dim=-1)
    encoder = replace(find_encoders(["open_clip:RN50/openai"])[0], taps=(Tap("embedding"), Tap("concepts")))
    network = from_open_clip.wrap(encoder, visual, {}, "torchvision", directions=directions)
    found = under_bfloat16(network)
    cosines = torch.nn.functional.normalize(found["embedding"].float(), dim=-1) @ directions.T
    assert found["embedding"].dtype == torch.bfloat16
    assert torch.allclose(found["concepts"], cosines, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_vit", "timm:test_efficientnet"])
def test_weights_that_are_cast_once_give_the_same_bytes(name):
    """As those that autocast casts anew in every batch, in half the memory."""
    encoder = replace(find_encoders([name])[0], taps=(Tap("pool"), Tap("posteriors")))
    (network,) = build_encoders([encoder], Weights("random", 0))
    before, n_bytes = under_bfloat16(network), weight_bytes(network)
    cast_once(network.module, "bfloat16")
    after = under_bfloat16(network)
    assert all(torch.equal(before[tap], after[tap]) for tap in ("pool", "posteriors"))
    last = sum(p.numel() * p.element_size() for p in network.module.get_classifier().parameters())
    assert weight_bytes(network) - last < 0.6 * (n_bytes - last)
    with pytest.raises(DeviceError, match="was cast to bfloat16 for another pass"):
        Forward(network, Cpu())


def test_attention_that_is_cast_once_gives_the_same_bytes():
    """It is left alone, as is a layer with a forward of its own."""

    class Standardised(torch.nn.Linear):
        def forward(self, x):
            return torch.nn.functional.linear(x, self.weight - self.weight.mean(), self.bias)

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(8, 8)
            self.attention, self.last = torch.nn.MultiheadAttention(8, 2, batch_first=True), Standardised(8, 3)

        def forward(self, x):
            x = self.first(x)
            return self.last(self.attention(x, x, x, need_weights=False)[0])

    with weights_module.seeded(0):
        module, x = Both().eval(), torch.randn(2, 5, 8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        before = module(x)
        cast_once(module, "bfloat16")
        after = module(x)
    assert torch.equal(before, after)
    assert module.first.weight.dtype == torch.bfloat16
    assert module.attention.out_proj.weight.dtype == module.last.weight.dtype == torch.float32


def weight_bytes(network):
    return sum(p.numel() * p.element_size() for p in network.module.parameters())


def plain(network):
    batch = torch.randn(2, *network.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return network.outputs(network.module, batch)


def under_bfloat16(network):
    with torch.autocast("cpu", torch.bfloat16):
        return plain(network)


# ---- weights ------------------------------------------------------------------------------------------------------


def test_random_weights_depend_on_the_seed_alone():
    one, same, other = (build_encoders(find_encoders([SMALL]), Weights("random", seed))[0] for seed in (3, 3, 4))
    assert one.weights["source"] == "random:3"
    assert one.weights["sha256"] == same.weights["sha256"] != other.weights["sha256"]


@pytest.mark.parametrize(
    "name", ["timm:test_resnet", *(pytest.param(one, marks=pytest.mark.slow) for one in (SMALL, "timm:test_vit"))]
)
def test_random_weights_do_not_depend_on_the_number_of_threads(name):
    digests = set()
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            (network,) = build_encoders(find_encoders([name]), Weights("random", 3))
            digests.add(network.weights["sha256"])
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_random_weights_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    build_encoders(find_encoders([SMALL]), Weights("random", 0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [SMALL, pytest.param("efficientnet_b2", marks=pytest.mark.slow)])
def test_vectors_of_random_weights_fit_into_float16(photos, name):
    (network,) = build_encoders(find_encoders([name]), Weights("random", 0))
    vectors = Forward(network, Cpu())(network.prepare(photos["coffee"])[None])
    assert 1e-2 < np.abs(vectors["pool"]).max() < 6e4


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_checkpoint_file_gives_the_weights_it_holds(tmp_path, suffix):
    (random,) = build_encoders(find_encoders([SMALL]), Weights("random", 5))
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(random.module.state_dict(), path)
    else:
        from safetensors.torch import save_file

        save_file(random.module.state_dict(), path)
    (loaded,) = build_encoders(find_encoders([SMALL]), parse_weights(str(path)))
    assert loaded.weights == {"source": "file", "sha256": random.weights["sha256"]}


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"nothing": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=f"{path} does not fit '{SMALL}'"):
        build_encoders(find_encoders([SMALL]), parse_weights(str(path)))
    with pytest.raises(WeightsError, match="one file for 2 networks"):
        build_encoders(find_encoders([SMALL, "resnet50"]), parse_weights(str(path)))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "weights.pth"
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(WeightsError, match="does not fit"):
        build_encoders(find_encoders([SMALL]), parse_weights(str(path)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_weights_that_are_no_file_keep_nobody_waiting(tmp_path, name, make):
    make(tmp_path / name)
    refused = []

    def read():
        with pytest.raises(WeightsError, match="not a regular file"):
            read_state("a network", tmp_path / name)
        refused.append(name)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert refused


@pytest.mark.parametrize("text", ["random:", "random:-1", "random:x", f"random:{10**30}", "nowhere.pth"])
def test_weights_that_mean_nothing(text):
    with pytest.raises(WeightsError, match=r"valid: auto, random:SEED"):
        parse_weights(text)


def test_the_digest_of_weights_sees_names_and_values():
    state = {"a": torch.arange(3.0), "b": torch.zeros(2)}
    assert sha256_of_state(state) == sha256_of_state(dict(reversed(state.items())))
    assert sha256_of_state(state) != sha256_of_state({"a": state["a"], "c": state["b"]})
    assert sha256_of_state(state) != sha256_of_state({**state, "b": torch.ones(2)})


@pytest.mark.parametrize("name", ["resnet50", "clip_vit_l14"])
def test_a_hub_out_of_reach_is_one_error_that_says_what_to_do(name, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(weights_module, "_reachable", lambda _endpoint: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(HubError) as raised:
        build_encoders(find_encoders([name]), Weights())
    words = str(raised.value)
    for part in (name, str(tmp_path), "--weights FILE", "efficientnet_lite0, efficientnet_lite2, lowlevel"):
        assert part in words
    assert "\n" not in words
    assert constants.HF_HUB_OFFLINE is False


def test_devices():
    assert choose_device("cpu").kind == "cpu"
    with pytest.raises(DeviceError, match=r"unknown device 'gpu' .*valid: auto, cpu, cuda, cuda:N"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match=r"--device cuda: .*; use --device cpu, or "):
            choose_device("cuda")
