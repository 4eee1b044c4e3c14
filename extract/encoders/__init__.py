"""The tables of encoders, of the libraries that build them, and of profiles: named sets of encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from extract.encoders import fitted, from_open_clip, from_timm, lowlevel, packaged
from extract.encoders.networks import check_size
from extract.encoders.readout import parse_layers
from extract.encoders.spec import Encoder, EncoderSpec, Tap
from extract.encoders.weights import Weights
from extract.errors import EncoderError, HubError, WeightsError
from features_store.errors import unknown_name

__all__ = ["ENCODERS", "LIBRARIES", "PROFILES", "Encoder", "EncoderSpec", "Tap", "Weights"]
__all__ += ["at_size", "build_encoders", "find_encoders"]


class Library(NamedTuple):
    """What a library of encoders gives: three functions of a file of its own."""

    build: Callable[[EncoderSpec, Weights, str], Encoder]
    """``build(spec, weights, resizer)``; imports the library when called."""
    published: Callable[[EncoderSpec], str]
    """What passports call the published weights."""
    reference: Callable[[Encoder], Callable[[Any], dict[str, Any]]]
    """From a Pillow image to vectors by tap, made of nothing but the library's own parts: what ours must equal."""


LIBRARIES: dict[str, Library] = {
    "timm": Library(from_timm.build, from_timm.published, from_timm.reference),
    "open_clip": Library(from_open_clip.build, from_open_clip.published, from_open_clip.reference),
    "packaged": Library(packaged.build, packaged.published, from_timm.reference),
    "lowlevel": Library(lowlevel.build, lowlevel.published, lowlevel.reference),
    "fit": Library(fitted.build, fitted.published, fitted.reference),
}
"""By `EncoderSpec.builder`, or else `EncoderSpec.library`."""


def _timm(name: str, architecture: str, pool: int, description: str, posteriors: int = 0) -> EncoderSpec:
    taps = (Tap("pool", (pool,)), *([Tap("posteriors", (posteriors,))] if posteriors else []))
    return EncoderSpec(name, description, "timm", architecture, taps)


def _clip(name: str, architecture: str, description: str, **taps: int) -> EncoderSpec:
    return EncoderSpec(
        name, description, "open_clip", architecture, tuple(Tap(tap, (size,)) for tap, size in taps.items())
    )


def _packaged(name: str, architecture: str, description: str) -> EncoderSpec:
    return EncoderSpec(name, description, "timm", architecture, (Tap("pool", (1280,)),), "packaged", needs_hub=False)


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
    EncoderSpec(
        "resnet101_map",
        "ResNet-101 at 256 x 256 pixels out of 292: the last feature map, for heads that look at places",
        "timm",
        "resnet101.tv_in1k",
        (Tap("map", (2048, 8, 8), module="layer4", pooling="map"),),
        geometry={"input_size": (3, 256, 256), "crop_pct": 0.875, "interpolation": "lanczos"},
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
    EncoderSpec(
        "lowlevel",
        "no network: colour histograms, colourfulness, Gabor energies, LBP, HOG",
        "affectory",
        "lowlevel",
        (Tap("features", (973,)),),
        "lowlevel",
        needs_hub=False,
        needs_weights=False,
    ),
)

ENCODERS: dict[str, EncoderSpec] = {record.name: record for record in _RECORDS}
"""By name. Beside these, ``timm:NAME`` and ``open_clip:ARCH/TAG`` stand for any model of the two libraries,
``fit:FOLDER`` for a network of `extract fit`, ``ENCODER~SIZE`` for one at another size of its input, and
``ENCODER@MODULE[:POOLING]`` for any layer of a network."""

PROFILES: dict[str, tuple[str, ...]] = {
    "fusion": ("efficientnet_b2", "resnet152", "inception_v3", "clip_vit_l14"),  # of the fusion system of 2021
    "offline": ("efficientnet_lite0", "efficientnet_lite2", "lowlevel"),
}
OLD_PROFILES = {"card": "fusion"}


def find_encoders(names: Iterable[str]) -> list[EncoderSpec]:
    """Look encoders up; layers of one network share its record."""
    found: dict[str, EncoderSpec] = {}
    for name in names:
        spec = _find_encoder(name)
        same = found.get(spec.name)
        found[spec.name] = replace(same, taps=tuple(dict.fromkeys(same.taps + spec.taps))) if same else spec
    if not found:
        raise EncoderError(f"no encoder was named; valid: {', '.join(ENCODERS)}, timm:NAME, open_clip:ARCH/TAG")
    return list(found.values())


def _find_encoder(name: str) -> EncoderSpec:
    if name.startswith(fitted.PREFIX):
        return fitted.read_spec(Path(name.removeprefix(fitted.PREFIX)))
    sized, at, layers = name.partition("@")
    base, tilde, size = sized.partition("~")
    library, _, model = base.partition(":")
    if base in ENCODERS:
        spec = ENCODERS[base]
    elif library in ("timm", "open_clip") and model:
        tap = Tap("pool" if library == "timm" else "embedding")
        spec = EncoderSpec(base, f"{library} {model}", library, model, (tap,))
    else:
        raise EncoderError(unknown_name("encoder", base, [*ENCODERS, "timm:NAME", "open_clip:ARCH/TAG", "fit:FOLDER"]))
    if tilde:
        spec = _at_size(spec, size)
    if not at:
        return spec
    if not spec.needs_weights:
        raise EncoderError(f"{name!r}: {base} is no network and has no layers")
    return replace(spec, taps=parse_layers(layers))


def _at_size(spec: EncoderSpec, text: str) -> EncoderSpec:
    """Return a network of timm that takes squares of another size, into which images are squashed.

    Raises EncoderError.
    """
    edge = check_size(int(text) if text.isascii() and text.isdigit() else text)
    if spec.library != "timm":
        raise EncoderError(f"{spec.name!r} takes images of one size; only networks of timm take --size")
    geometry = {"input_size": (3, edge, edge), "crop_pct": 1.0, "crop_mode": "squash"}
    taps = tuple(replace(tap, shape=()) if len(tap.shape) > 1 else tap for tap in spec.taps)
    name, stem = f"{spec.name}~{edge}", f"{spec.stem}~{edge}" if spec.stem else ""
    return replace(spec, name=name, stem=stem, taps=taps, geometry=geometry)


def at_size(name: str, size: int | None) -> str:
    """Return the name of an encoder at another size of its input, unless it has one already.

    Raises EncoderError.
    """
    if size is not None and name.startswith(fitted.PREFIX):
        raise EncoderError(f"{name} takes images of the size that it was trained with; leave out --size {size}")
    base, at, layers = name.partition("@")
    return name if size is None or "~" in base else f"{base}~{size}{at}{layers}"


def build_encoders(specs: list[EncoderSpec], weights: Weights, resizer: str = "torchvision") -> list[Encoder]:
    """Build all encoders, before anything is written."""
    with_weights = [spec.name for spec in specs if spec.needs_weights]
    if weights.path is not None and len(with_weights) != 1:
        raise WeightsError(
            f"--weights {weights.path} is one file for {len(with_weights)} networks ({', '.join(with_weights)}); "
            "name the one that it belongs to with --encoders"
        )
    try:
        return [LIBRARIES[spec.builder or spec.library].build(spec, weights, resizer) for spec in specs]
    except HubError as error:
        free = ", ".join(sorted(name for name, one in ENCODERS.items() if not one.needs_hub))
        raise HubError(f"{error}, or choose encoders that need no hub: {free}") from error
