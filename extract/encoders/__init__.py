"""The table of encoders, and the profiles: named sets of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from extract.encoders import from_open_clip, from_timm, lowlevel, packaged, scratch
from extract.encoders.layers import parse_layers
from extract.encoders.spec import Encoder, Network, Tap
from extract.encoders.weights import Weights
from extract.errors import EncoderError, WeightsError
from features_store.errors import unknown_name

__all__ = ["ENCODERS", "PROFILES", "Encoder", "Network", "Tap", "Weights", "build_networks", "find_encoders"]


def _timm(name: str, architecture: str, pool: int, description: str, posteriors: int = 0) -> Encoder:
    taps = (Tap("pool", (pool,)), *([Tap("posteriors", (posteriors,))] if posteriors else []))
    return Encoder(name, description, "timm", architecture, from_timm.build, taps)


def _clip(name: str, architecture: str, description: str, **taps: int) -> Encoder:
    kept = tuple(Tap(tap, (size,)) for tap, size in taps.items())
    return Encoder(name, description, "open_clip", architecture, from_open_clip.build, kept)


def _packaged(name: str, architecture: str, description: str) -> Encoder:
    taps = (Tap("pool", (1280,)),)
    return Encoder(name, description, "timm", architecture, packaged.build, taps, needs_hub=False)


_RECORDS = (
    _timm("efficientnet_b2", "efficientnet_b2.ra_in1k", 1408, "EfficientNet-B2, ImageNet-1k"),
    _timm("resnet152", "resnet152.tv_in1k", 2048, "ResNet-152, ImageNet-1k, plain recipe"),
    _timm("inception_v3", "inception_v3.tv_in1k", 2048, "Inception-v3, ImageNet-1k", posteriors=1000),
    _clip(
        "clip_vit_l14",
        "ViT-L-14/openai",
        "CLIP ViT-L/14, 400 M image-text pairs; concepts are cosines with 3,072 adjective-noun pairs",
        embedding=768,
        tokens=1024,
        concepts=3072,
    ),
    _timm("resnet50", "resnet50.tv_in1k", 2048, "ResNet-50, ImageNet-1k, plain recipe"),
    _timm("seresnet50", "seresnet50.ra2_in1k", 2048, "SE-ResNet-50, ImageNet-1k"),
    _timm("resnet101", "resnet101.tv_in1k", 2048, "ResNet-101, ImageNet-1k, plain recipe"),
    Encoder(
        "resnet101_map",
        "ResNet-101 at 256 x 256 pixels: the last feature map, for heads that look at places",
        "timm",
        "resnet101.tv_in1k",
        partial(from_timm.build, size=256),
        (Tap("map", (2048, 8, 8), module="layer4", pooling="map"),),
        stem="resnet101",
    ),
    _timm("vgg16", "vgg16.tv_in1k", 4096, "VGG-16, ImageNet-1k; pool is the last hidden layer"),
    _timm("xception", "legacy_xception.tf_in1k", 2048, "Xception, ImageNet-1k"),
    _clip(
        "coca_mscoco",
        "coca_ViT-B-32/mscoco_finetuned_laion2b_s13b_b90k",
        "CoCa ViT-B/32, a captioning network tuned on MSCOCO",
        embedding=512,
    ),
    _packaged("efficientnet_lite0", "tf_efficientnet_lite0.in1k", "EfficientNet-Lite0, ImageNet-1k, from pip"),
    _packaged("efficientnet_lite2", "tf_efficientnet_lite2.in1k", "EfficientNet-Lite2, ImageNet-1k, from pip"),
    lowlevel.ENCODER,
)

ENCODERS: dict[str, Encoder] = {record.name: record for record in _RECORDS}
"""By name. Beside these, ``timm:NAME`` and ``open_clip:ARCH/TAG`` stand for any model of the two libraries, and
``ENCODER@MODULE[:POOLING]`` for any layer of a network."""

PROFILES: dict[str, tuple[str, ...]] = {
    "fusion": ("efficientnet_b2", "resnet152", "inception_v3", "clip_vit_l14"),  # of the fusion system of 2021
    "offline": ("efficientnet_lite0", "efficientnet_lite2", "lowlevel"),
}
OLD_PROFILES = {"card": "fusion"}


def find_encoders(names: Iterable[str]) -> list[Encoder]:
    """Look encoders up.

    Raises EncoderError.
    """
    found: dict[str, Encoder] = {}
    for name in names:
        one = _find(name)
        there = found.get(one.name)
        found[one.name] = replace(there, taps=tuple(dict.fromkeys(there.taps + one.taps))) if there else one
    if not found:
        msg = f"no encoder was named; valid: {', '.join(ENCODERS)}, timm:NAME, open_clip:ARCH/TAG"
        raise EncoderError(msg)
    return list(found.values())


def _find(name: str) -> Encoder:
    if name.startswith(scratch.PREFIX):
        return scratch.fitted_encoder(Path(name.removeprefix(scratch.PREFIX)))
    base, at, wanted = name.partition("@")
    encoder = _network(base)
    if not at:
        return encoder
    if not encoder.needs_weights:
        msg = f"{name!r}: {base} is no network and has no layers"
        raise EncoderError(msg)
    return replace(encoder, taps=parse_layers(wanted))


def _network(name: str) -> Encoder:
    if name in ENCODERS:
        return ENCODERS[name]
    library, _, model = name.partition(":")
    if library == "timm" and model:
        return Encoder(name, f"timm {model}", "timm", model, from_timm.build, (Tap("pool"),))
    if library == "open_clip" and model:
        return Encoder(name, f"open_clip {model}", "open_clip", model, from_open_clip.build, (Tap("embedding"),))
    raise EncoderError(unknown_name("encoder", name, [*ENCODERS, "timm:NAME", "open_clip:ARCH/TAG", "fit:FOLDER"]))


def build_networks(encoders: list[Encoder], weights: Weights, resizer: str = "torchvision") -> list[Network]:
    """Build all networks, before anything is written.

    Raises WeightsError.
    """
    with_weights = [encoder.name for encoder in encoders if encoder.needs_weights]
    if weights.kind == "file" and len(with_weights) != 1:
        msg = (
            f"--weights {weights.path} is one file for {len(with_weights)} networks ({', '.join(with_weights)}); "
            "name the one that it belongs to with --encoders"
        )
        raise WeightsError(msg)
    return [encoder.build(encoder, weights, resizer) for encoder in encoders]
