"""Taps of many architectures: what is offered is what the model's own forward pass gives; the rest is refused."""

from __future__ import annotations

import math

import open_clip
import pytest
import timm
import torch

from extract.encoders import EncoderSpec, Tap, from_open_clip, from_timm
from extract.encoders import weights as weights_module
from extract.encoders.readout import learn_readouts
from extract.errors import EncoderError

N_MODULES = 25
"""About so many of each network, evenly spread, beside those that are named."""
THIN = {"depth": 1, "embed_dim": 48, "num_heads": 3}

# Name, arguments, edge in pixels, patches and tokens before them (None: not a network of plain tokens), taps that must
# be offered, taps that must be refused.
TIMM = [
    ("vit_tiny_patch16_224", THIN, 32, (4, 1), "blocks.0:cls blocks.0:mean patch_embed:mean", "patch_embed:cls"),
    ("deit_tiny_distilled_patch16_224", THIN, 32, (4, 2), "blocks.0:cls blocks.0:mean", "blocks.0.attn.q_norm:mean"),
    ("vit_base_patch16_siglip_224", THIN, 32, (4, 0), "blocks.0:mean", "blocks.0:cls norm:cls attn_pool.q:mean"),
    ("vit_medium_patch16_reg4_gap_256", THIN, 32, (4, 4), "blocks.0:mean", "blocks.0:cls norm:cls"),
    ("vit_small_patch14_reg4_dinov2", THIN, 28, (4, 5), "blocks.0:cls norm:mean", "patch_embed.proj:cls"),
    ("eva02_tiny_patch14_224", THIN, 28, (4, 1), "blocks.0:cls blocks.0.attn:mean", "patch_embed:cls"),
    ("vit_small_patch16_dinov3", THIN, 32, (4, 5), "blocks.0:cls norm:mean patch_embed:mean", "patch_embed:cls"),
    ("beit_base_patch16_224", THIN, 32, (4, 1), "blocks.0:cls blocks.0:mean", ""),
    ("cait_xxs24_224", THIN, 32, (4, 1), "norm:cls blocks.0:mean", "blocks.0:cls blocks.0.attn.attn_drop:mean"),
    ("xcit_nano_12_p16_224", THIN, 32, (4, 1), "norm:cls blocks.0:mean", "blocks.0:cls"),
    ("flexivit_small", THIN, 32, (4, 1), "blocks.0:cls", ""),
    ("convit_tiny", {"depth": 2, "local_up_to_layer": 1}, 32, (4, 1), "blocks.1:cls blocks.0:mean", "blocks.0:cls"),
    ("test_vit", {"depth": 1}, 32, (4, 1), "blocks.0:cls patch_embed:mean", "patch_embed:cls"),
    ("test_vit2", {"depth": 1}, 32, (4, 1), "blocks.0:mean", "blocks.0:cls"),
    ("test_vit3", {"depth": 1, "img_size": 32}, 32, (4, 1), "blocks.0:mean", "blocks.0:cls"),
    ("test_vit4", {"depth": 1}, 32, (4, 1), "norm:mean", "norm:cls"),
    ("test_vit_relpos", {"depth": 1, "img_size": 32}, 32, (4, None), "", ""),
    ("swin_tiny_patch4_window7_224", {"depths": (1, 1), "num_heads": (2, 2), "embed_dim": 24}, 56, None,
     "layers.1:mean layers.0.blocks.0.mlp:mean patch_embed.proj:mean", "layers.0.blocks.0.attn:mean layers.1:cls"),
    ("swinv2_tiny_window8_256", {"depths": (1, 1), "num_heads": (2, 2), "embed_dim": 24}, 64, None,
     "layers.1:mean", "layers.0.blocks.0.attn:mean layers.1.blocks.0.attn.softmax:mean"),
    ("hiera_tiny_224", {"embed_dim": 24, "stages": (1, 1, 1, 1)}, 64, None, "blocks.0:mean", "blocks.0:cls"),
    ("pvt_v2_b0", {"depths": (1, 1, 1, 1)}, 64, None, "stages.0:mean stages.0.blocks.0:mean", "stages.0.blocks.0:cls"),
    ("convnext_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 12, 20, 24)}, 64, None,
     "stages.0:mean stages.0.blocks.0.mlp:mean", "stages.0:cls"),
    ("test_convnext", {}, 64, None, "stages.0:mean", "stages.0:cls"),
    ("test_mambaout", {}, 96, None, "stages.0:mean", "stages.0:cls"),
    ("test_maxvit", {}, 64, None, "stages.0:mean", "stages.0.blocks.0.attn_block.attn:mean"),
    ("test_resnet", {}, 64, None, "layer1:mean layer1.0.bn1:max", "layer1:cls"),
    ("test_byobnet", {}, 64, None, "stages.0:mean", ""),
    ("test_efficientnet", {}, 64, None, "blocks.0:mean", ""),
    ("test_efficientnet_ln", {}, 64, None, "blocks.0:mean", ""),
    ("test_nfnet", {}, 64, None, "stages.0:mean", ""),
    ("mobilenetv3_small_050", {}, 64, None, "blocks.0:mean", ""),
    ("lcnet_035", {}, 64, None, "blocks.0:mean", ""),
]  # fmt: skip
QUICK = (
    "vit_tiny_patch16_224",
    "vit_base_patch16_siglip_224",
    "vit_medium_patch16_reg4_gap_256",
    "eva02_tiny_patch14_224",
    "cait_xxs24_224",
    "test_vit",
    "swin_tiny_patch4_window7_224",
    "hiera_tiny_224",
    "convnext_tiny",
    "test_resnet",
)
LARGE = [
    ("crossvit_tiny_240", {}, None, None, "patch_embed.0.proj:mean", "norm.0:mean norm.0:cls blocks.0.blocks.0.0:mean"),
    ("coat_tiny", {}, 64, None, "", "serial_blocks1.0:mean"),
    ("levit_128s", {}, None, None, "stem:mean", "stages.0:cls"),
    ("test_coatnet", {}, None, None, "stages.0:mean", ""),
    ("edgenext_xx_small", {}, 64, None, "stages.0:mean stages.0.blocks.0.mlp:mean", ""),
    ("mobilevit_xxs", {}, 64, None, "stages.0:mean", "stages.2.1.transformer:mean"),
    ("mvitv2_base_cls", {}, 64, None, "norm:cls norm:mean", "patch_embed.proj:cls"),
    ("volo_d1_224", {}, None, None, "network.0:mean", "norm:mean norm:cls"),
    ("twins_pcpvt_small", {}, 64, None, "blocks.0.0:mean", ""),
    ("inception_v3", {}, 128, None, "Mixed_7c:mean", "Mixed_7c:cls"),
    ("densenet121", {}, 64, None, "features:mean", ""),
    ("vgg11", {}, 64, None, "features:mean pre_logits:mean", ""),
    ("efficientvit_b0", {}, 64, None, "stages.0:mean", ""),
    ("gcvit_xxtiny", {}, None, None, "stages.0:mean", "stages.0.blocks.0.attn:mean"),
]


WITH_SIZE = (
    *("vit_", "deit", "eva", "beit", "cait", "xcit", "flexi", "convit"),
    *("swin", "hiera", "coat_", "mvit", "twins"),
)
"""Starts of the names of networks that are told the size of their input."""


def raw_outputs(module, run, batch):
    """Return by module what it gives in one pass, as it is when it gives it."""
    seen, handles = {}, []
    for name, layer in module.named_modules():
        if name:

            def keep(_layer, _inputs, output, name=name):
                one = output[0] if isinstance(output, (tuple, list)) and len(output) else output
                seen[name] = one.clone() if isinstance(one, torch.Tensor) else None

            handles.append(layer.register_forward_hook(keep))
    with torch.inference_mode():
        run(module, batch)
    for handle in handles:
        handle.remove()
    return seen


def expected(raw, pooling, plain):
    """Pool by what is known of the architecture, not of the code."""
    if raw.ndim == 2:
        return raw
    if raw.ndim == 3:
        n_patches, n_prefix = plain or (None, 0)
        leading = n_prefix if plain and raw.shape[1] == n_patches + n_prefix else 0
        if not plain and math.isqrt(raw.shape[1]) ** 2 != raw.shape[1]:
            leading = 1  # a class token before a square of patches
        tokens = raw[:, leading:]
        return {"mean": lambda: tokens.mean(1), "max": lambda: tokens.amax(1), "cls": lambda: raw[:, 0]}[pooling]()
    axes = (2, 3) if raw.shape[2] == raw.shape[3] else (1, 2)
    return raw.mean(axes) if pooling == "mean" else raw.amax(axes)


def check(module, network_of, run, size, plain, offered, refused):
    """Offer every module with every pooling; compare what is taken with `expected`."""
    wanted = [tap.rpartition(":")[0] for tap in (offered + " " + refused).split()]
    names = [name for name, _ in module.named_modules() if name]
    names = sorted({*names[:: max(1, len(names) // N_MODULES)], *wanted})
    taps = [Tap(f"{name}:{how}", module=name, pooling=how) for name in names for how in ("mean", "max", "cls")]
    found, not_found = learn_readouts("x", module, run, (size, size), taps)
    assert set(offered.split()) <= found.keys()
    assert set(refused.split()) <= not_found.keys()
    assert all("\n" not in reason for reason in not_found.values())
    batch = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    raw = raw_outputs(module, run, batch)
    network = network_of([tap for tap in taps if tap.name in found])
    with torch.inference_mode():
        vectors = network.outputs(network.module, batch)
    for name in found:
        layer, _, how = name.rpartition(":")
        wanted = expected(raw[layer], how, plain)
        assert vectors[name].shape == wanted.shape == (2, *network.shapes[name]), name
        assert torch.allclose(vectors[name], wanted, rtol=1e-5, atol=1e-5, equal_nan=True), name
    return vectors, batch


@pytest.mark.parametrize(
    ("name", "arguments", "size", "plain", "offered", "refused"),
    [pytest.param(*one, id=one[0], marks=() if one[0] in QUICK else pytest.mark.slow) for one in (*TIMM, *LARGE)],
)
def test_taps_of_timm(name, arguments, size, plain, offered, refused):
    if size and name.startswith(WITH_SIZE):
        arguments = {**arguments, "img_size": size}
    configuration = {"input_size": (3, size, size), "crop_pct": 1.0, "crop_mode": "center"} if size else {}
    with weights_module.seeded(0), weights_module.silence_logging():
        module = timm.create_model(name, pretrained_cfg_overlay=configuration, **arguments).eval()
    size = size or module.pretrained_cfg["input_size"][1]
    if plain and plain[1] is None:
        plain = (plain[0], module.num_prefix_tokens)

    def run(model, batch):
        return model.forward_head(model.forward_features(batch), pre_logits=True)

    def network_of(taps):
        encoder = EncoderSpec("x", "", "timm", name, (Tap("pool"), *taps))
        return from_timm.wrap(encoder, module, {}, "torchvision")

    vectors, batch = check(module, network_of, run, size, plain, offered, refused)
    classifier = module.get_classifier()
    # The pooled vector is what the classifier takes; VOLO has a second one, for the patches
    if isinstance(classifier, torch.nn.Linear) and getattr(module, "aux_head", None) is None:
        with torch.inference_mode():
            assert torch.allclose(classifier(vectors["pool"]), module(batch), rtol=1e-4, atol=1e-5)


VISION = {"image_size": 32, "layers": 1, "width": 48, "patch_size": 16, "head_width": 16}
TRUNK = {"timm_proj": "linear", "image_size": 160}
OPEN_CLIP = {
    "plain": (VISION, (4, 1), "transformer.resblocks.0:cls transformer.resblocks.0:mean", "conv1:cls"),
    "average": ({**VISION, "pool_type": "avg", "final_ln_after_pool": True}, (4, 1), "transformer:mean", ""),
    "attention": (
        {**VISION, "attentional_pool": True, "attn_pooler_queries": 7, "attn_pooler_heads": 2},
        (4, 1),
        "transformer:cls",
        "ln_post:mean ln_post:cls attn_pool:mean",
    ),
    "resnet": ({**VISION, "layers": [1, 1, 1, 1], "width": 8, "image_size": 64}, None, "layer1:mean", "layer1:cls"),
    "trunk with class": (
        {**TRUNK, "timm_model_name": "test_vit", "timm_pool": "token"},
        (100, 1),
        "trunk.blocks.5:cls trunk.blocks.5:mean",
        "",
    ),
    "trunk without class": (
        {**TRUNK, "timm_model_name": "test_vit2", "timm_pool": "avg"},
        (100, 1),
        "trunk.blocks.7:mean",
        "trunk.blocks.7:cls",
    ),
    "trunk of convolutions": (
        {**TRUNK, "timm_model_name": "test_convnext", "timm_pool": "avg"},
        None,
        "trunk.stages.0:mean",
        "trunk.stages.0:cls",
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("plain", "attention", "trunk without class") else pytest.mark.slow)
        for name in OPEN_CLIP
    ],
)
def test_taps_of_open_clip(name):
    vision, plain, offered, refused = OPEN_CLIP[name]
    text = {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1}
    with weights_module.seeded(0), weights_module.silence_logging():
        module = open_clip.CustomTextCLIP(embed_dim=32, vision_cfg=vision, text_cfg=text).visual.eval()
    own = torch.randn(2, 3, vision["image_size"], vision["image_size"], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        embedding = module(own)

    def network_of(taps):
        encoder = EncoderSpec("x", "", "open_clip", "RN50/openai", (Tap("embedding"), *taps))
        return from_open_clip.wrap(encoder, module, {}, "torchvision")

    vectors, batch = check(
        module, network_of, lambda tower, batch: tower(batch), vision["image_size"], plain, offered, refused
    )
    assert torch.equal(own, batch)
    assert torch.allclose(vectors["embedding"], embedding, rtol=1e-5, atol=1e-5)
    for tap in vectors:
        if tap.startswith("trunk.blocks"):
            record = network_of([Tap(tap, module=tap.rpartition(":")[0], pooling="mean")]).details[tap]
            assert "prefix_tokens" not in record  # one token is left out, as in format 1.0
            break


def test_a_layer_that_mixes_images_is_refused():
    arguments = {"depths": (1,), "num_heads": (2,), "embed_dim": 24, "img_size": 56}
    module = timm.create_model(
        "swin_tiny_patch4_window7_224", pretrained_cfg_overlay={"input_size": (3, 56, 56)}, **arguments
    )
    tap = Tap("a", module="layers.0.blocks.0.attn", pooling="map")
    encoder = EncoderSpec("x", "", "timm", "", (tap,))
    with pytest.raises(EncoderError, match="not one row for each"):
        from_timm.wrap(encoder, module, {}, "torchvision")
