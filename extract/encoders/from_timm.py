"""Encoders from timm: the network, its own transform, the pooled vector, the posteriors, and any other layer."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.encoders.checkpoints import (
    CLASSIFIERS,
    check_fit,
    clear_missing,
    compare_states,
    missing_weights,
    read_state,
    recorded_fit,
)
from extract.encoders.readout import HookCapture, full_precision, learn_shapes
from extract.encoders.spec import Encoder, EncoderSpec
from extract.encoders.weights import (
    Weights,
    calibrate_batch_norm,
    hub_errors,
    seeded_weights,
    silence_logging,
    weights_record,
)
from extract.errors import EncoderError, WeightsError
from extract.inputs.transforms import Transform
from features_store.errors import first_line, unknown_name

if TYPE_CHECKING:
    import torch


def published(spec: EncoderSpec) -> str:
    """Return what passports call the published weights."""
    return f"timm:{spec.architecture}"


def build(spec: EncoderSpec, weights: Weights, resizer: str) -> Encoder:
    """Build a timm model with its published weights, random ones, or those of a file."""
    import timm

    architecture = spec.architecture
    check_name(architecture)
    if weights.path is not None:
        return _from_file(spec, weights.path, resizer)
    if weights.are_random:
        with seeded_weights(weights.seed), silence_logging():
            module = timm.create_model(architecture, pretrained=False)
            calibrate_batch_norm(module, transform_of(module).crop)
        return wrap(spec, module, weights_record(weights.source, module), resizer)
    with hub_errors(spec):
        module = timm.create_model(architecture, pretrained=True)
    return wrap(spec, module, weights_record(published(spec), module), resizer, published=True)


def _from_file(spec: EncoderSpec, path: Path, resizer: str) -> Encoder:
    import timm

    architecture = spec.architecture
    what = f"{path} does not fit {spec.name!r} (timm {architecture})"
    # The original files of some networks, which timm reads by itself, and wholly
    original = path.suffix == ".npz"
    state = {} if original else read_state(what, path)
    given = {"file": str(path)} if original else {"state_dict": state}
    try:
        with silence_logging(), recorded_fit() as fit:
            module = timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=given)
    except Exception as error:  # timm converts files of other programs, and fails on strange ones in many ways
        with silence_logging():
            fit = compare_states(timm.create_model(architecture, pretrained=False), state)
        reason = (
            f"{what}: {first_line(error)}" if original or not fit.missing else missing_weights(what, fit, fit.missing)
        )
        raise WeightsError(reason) from error
    settings: Any = module.pretrained_cfg
    settings.pop("state_dict", None)
    own = settings.get("classifier") or ()
    clear_missing(module, fit)
    encoder = wrap(spec, module, weights_record("file", module), resizer)
    classifiers = (*CLASSIFIERS, *((own,) if isinstance(own, str) else own))
    return replace(encoder, notes=check_fit(what, encoder, fit, classifiers))


def wrap(
    spec: EncoderSpec, module: Any, weights: Mapping[str, Any], resizer: str, *, published: bool = False
) -> Encoder:
    """Make an encoder of a timm model that has its weights already."""
    module.eval().requires_grad_(requires_grad=False)
    transform = transform_of(module, resizer, spec.geometry)
    taps = tuple(tap.name for tap in spec.taps)
    channels_last = getattr(module, "output_fmt", "NCHW") == "NHWC"
    n_prefix = int(getattr(module, "num_prefix_tokens", 0))
    layers = HookCapture(spec, module, pooled, transform.crop, last=channels_last, n_prefix=n_prefix)

    def outputs(module: Any, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        pool = pooled(module, batch)  # (n, n_features)
        found = {"pool": pool, **layers.outputs()}
        if "posteriors" in taps:
            with full_precision(pool):  # where a thousand small numbers still sum to 1
                found["posteriors"] = module.get_classifier()(pool.float()).softmax(dim=1)
        return {tap: found[tap] for tap in taps}

    several = not callable(module.get_classifier()) or getattr(module, "aux_head", None) is not None
    if "posteriors" in taps and several:
        raise EncoderError(f"{spec.name} has several classifiers, or none; its posteriors are not offered")
    shapes = learn_shapes(spec.name, module, outputs, transform.crop)
    if len(shapes.get("pool", (1,))) != 1:
        raise EncoderError(
            f"{spec.name} gives {shapes['pool']} where a pooled vector is expected; choose a layer: NAME@MODULE"
        )
    return Encoder(
        spec=spec,
        prepare=transform.apply,
        input_shape=transform.input_shape,
        shapes=shapes,
        weights=weights,
        transform=transform.record(),
        module=module,
        normalise=transform.normalise,
        outputs=outputs,
        names=_class_names(module) if "posteriors" in taps and published else {},
        details=layers.details(),
    )


def pooled(module: Any, batch: torch.Tensor) -> torch.Tensor:
    """Return what timm's own head gives to its classifier: (n, n_features)."""
    pool: torch.Tensor = module.forward_head(module.forward_features(batch), pre_logits=True)
    return pool


def transform_of(module: Any, resizer: str = "torchvision", geometry: Mapping[str, Any] | None = None) -> Transform:
    """Return the evaluation transform of timm's configuration of a model, changed where *geometry* says so."""
    from timm.data.config import resolve_data_config

    config = resolve_data_config(dict(geometry or {}), model=module)
    height, width = config["input_size"][1:]
    edges = (math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"]))
    mode = config["crop_mode"]
    if config.get("crop_border_pixels") or mode not in ("center", "squash") or (mode == "center" and height != width):
        raise EncoderError(f"timm asks for an input that is not supported: {config}")
    return Transform(
        resize=edges if mode == "squash" else edges[0],
        crop=(height, width),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resizer=resizer,
    )


def reference(encoder: Encoder) -> Callable[[Any], dict[str, Any]]:
    """Return timm's own way from a Pillow image to vectors by tap: its transform, eager, one image at a time."""
    import torch
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    module: Any = encoder.module
    transform = create_transform(**resolve_data_config(dict(encoder.spec.geometry), model=module))

    def vectors(picture: Any) -> dict[str, Any]:
        with torch.inference_mode():
            batch = transform(picture)[None]
            features = module.forward_features(batch)
            pool = module.forward_head(features, pre_logits=True)
            found = {"pool": pool, "map": features, "posteriors": module(batch).softmax(-1)}
        return {tap.name: found[tap.name][0].numpy() for tap in encoder.spec.taps}

    return vectors


def check_name(architecture: str) -> None:
    import timm

    base, _, tag = architecture.partition(".")
    if not timm.is_model(base):
        models = timm.list_models()
        near = difflib.get_close_matches(base, models, n=8, cutoff=0.4) or models[:8]  # of a thousand
        raise EncoderError(unknown_name("timm model", base, near))
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{base}.*")] + [""]
    if tag not in tags:
        raise EncoderError(unknown_name(f"weights of timm {base}", tag, [one for one in tags if one]))


def _class_names(module: Any) -> dict[str, tuple[str, ...]]:
    """Name the classes of published weights, where they are those of ImageNet-1k: in the order of the classifier."""
    from timm.data.imagenet_info import ImageNetInfo

    tag = str(module.pretrained_cfg.get("tag") or "")
    if module.num_classes != 1000 or "in1k" not in tag.split("_"):
        return {}
    info = ImageNetInfo()
    return {"posteriors": tuple(info.index_to_description(index) for index in range(1000))}
