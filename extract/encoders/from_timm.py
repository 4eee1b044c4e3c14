"""Encoders from timm: the network, its own transform, the pooled vector, the posteriors, and any other layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.encoders.checkpoints import (
    CLASSIFIERS,
    check_fit,
    clear_missing,
    compared,
    lacks,
    read_state,
    recorded_fit,
)
from extract.encoders.layers import HookCapture
from extract.encoders.observation import learned_shapes
from extract.encoders.readout import full_precision
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


def build(encoder: EncoderSpec, weights: Weights, resizer: str, *, size: int | None = None) -> Encoder:
    """Build a timm model with the asked weights.

    Raises EncoderError, WeightsError, HubError.
    """
    if weights.path is not None:
        return _from_file(encoder, weights.path, resizer, size)
    module = _load(encoder, weights)
    source = f"timm:{encoder.architecture}" if weights.kind == "auto" else weights.source
    published = weights.kind == "auto"
    return network_of(encoder, module, weights_record(source, module), resizer, size=size, published=published)


def network_of(
    encoder: EncoderSpec,
    module: Any,
    weights: Mapping[str, Any],
    resizer: str,
    *,
    size: int | None = None,
    published: bool = False,
) -> Encoder:
    """Wrap a timm model that has its weights already.

    Raises EncoderError.
    """
    module.eval().requires_grad_(requires_grad=False)
    transform = transform_of(module, resizer, size=size)
    taps = tuple(tap.name for tap in encoder.taps)
    listener = HookCapture(
        encoder,
        module,
        _pooled,
        transform.crop,
        last=getattr(module, "output_fmt", "NCHW") == "NHWC",
        n_prefix=int(getattr(module, "num_prefix_tokens", 0)),
    )

    def outputs(module: Any, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        pool = _pooled(module, batch)  # (n, n_features)
        found = {"pool": pool, **listener.vectors()}
        if "posteriors" in taps:
            with full_precision(pool):  # where a thousand small numbers still sum to 1
                found["posteriors"] = module.get_classifier()(pool.float()).softmax(dim=1)
        return {tap: found[tap] for tap in taps}

    several = not callable(module.get_classifier()) or getattr(module, "aux_head", None) is not None
    if "posteriors" in taps and several:
        msg = f"{encoder.name} has several classifiers, or none; its posteriors are not offered"
        raise EncoderError(msg)
    return Encoder(
        spec=encoder,
        prepare=transform.apply,
        input_shape=transform.input_shape,
        shapes=_vectors_only(encoder, learned_shapes(encoder.name, module, outputs, transform.crop)),
        weights=weights,
        transform=transform.record(),
        module=module,
        normalise=transform.normalise,
        outputs=outputs,
        names=_class_names(module) if "posteriors" in taps and published else {},
        details=listener.details(),
    )


def _pooled(module: Any, batch: torch.Tensor) -> torch.Tensor:
    """Return what timm's own head gives to its classifier: (n, n_features)."""
    pool: torch.Tensor = module.forward_head(module.forward_features(batch), pre_logits=True)
    return pool


def _vectors_only(encoder: EncoderSpec, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Refuse a network whose head does not pool."""
    if len(shapes.get("pool", (1,))) != 1:
        msg = f"{encoder.name} gives {shapes['pool']} where a pooled vector is asked for; choose a layer: NAME@MODULE"
        raise EncoderError(msg)
    return shapes


def transform_of(module: Any, resizer: str = "torchvision", *, size: int | None = None) -> Transform:
    """Return the evaluation transform that timm's configuration of a model asks for.

    Raises EncoderError.
    """
    from timm.data.config import resolve_data_config

    wanted = {"input_size": (3, size, size), "crop_pct": 1.0} if size else {}
    config = resolve_data_config(wanted, model=module)
    height, width = config["input_size"][1:]
    edges = (math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"]))
    mode = config["crop_mode"]
    if config.get("crop_border_pixels") or mode not in ("center", "squash") or (mode == "center" and height != width):
        msg = f"timm asks for an input that is not supported: {config}"
        raise EncoderError(msg)
    return Transform(
        resize=edges if mode == "squash" else edges[0],
        crop=(height, width),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resizer=resizer,
    )


def _load(encoder: EncoderSpec, weights: Weights) -> Any:
    import timm

    architecture = encoder.architecture
    _check_name(architecture)
    if weights.kind == "random":
        with seeded_weights(weights.seed), silence_logging():
            module = timm.create_model(architecture, pretrained=False)
            return calibrate_batch_norm(module, transform_of(module).crop)
    with hub_errors(encoder):
        return timm.create_model(architecture, pretrained=True)


def _from_file(encoder: EncoderSpec, path: Path, resizer: str, size: int | None) -> Encoder:
    import timm

    architecture = encoder.architecture
    _check_name(architecture)
    what = f"{path} does not fit {encoder.name!r} (timm {architecture})"
    # The original files of some networks, which timm reads by itself, and wholly
    original = path.suffix == ".npz"
    state = {} if original else read_state(what, path)
    given = {"file": str(path)} if original else {"state_dict": state}
    try:
        with silence_logging(), recorded_fit() as fit:
            module = timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=given)
    except Exception as error:  # timm converts files of other programs, and stumbles over strange ones
        with silence_logging():
            fit = compared(timm.create_model(architecture, pretrained=False), state)
        reason = f"{what}: {first_line(error)}" if original or not fit.missing else lacks(what, fit, fit.missing)
        raise WeightsError(reason) from error
    settings: Any = module.pretrained_cfg
    settings.pop("state_dict", None)
    own = settings.get("classifier") or ()
    clear_missing(module, fit)
    network = network_of(encoder, module, weights_record("file", module), resizer, size=size)
    classifiers = (*CLASSIFIERS, *((own,) if isinstance(own, str) else own))
    return replace(network, notes=check_fit(what, network, fit, classifiers))


def _check_name(architecture: str) -> None:
    import timm

    base, _, tag = architecture.partition(".")
    if not timm.is_model(base):
        raise EncoderError(unknown_name("timm model", base, _near(base, timm.list_models())))
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{base}.*")] + [""]
    if tag not in tags:
        raise EncoderError(unknown_name(f"weights of timm {base}", tag, [one for one in tags if one]))


def _near(name: str, valid: list[str]) -> list[str]:
    """Cut a list of a thousand names to those worth printing."""
    import difflib

    return difflib.get_close_matches(name, valid, n=8, cutoff=0.4) or valid[:8]


def _class_names(module: Any) -> dict[str, tuple[str, ...]]:
    """Name the classes of published weights, where they are those of ImageNet-1k: in the order of the classifier."""
    from timm.data.imagenet_info import ImageNetInfo

    tag = str(module.pretrained_cfg.get("tag") or "")
    if module.num_classes != 1000 or "in1k" not in tag.split("_"):
        return {}
    info = ImageNetInfo()
    return {"posteriors": tuple(info.index_to_description(index) for index in range(1000))}
