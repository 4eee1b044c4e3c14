"""Encoders from timm: the network, its own transform, the pooled vector, the posteriors, and any other layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from extract.encoders.layers import Listener, learned_shapes
from extract.encoders.record import Encoder, Network
from extract.encoders.weights import Weights, hub, identity_of, quiet, seeded_weights, settle
from extract.errors import EncoderError, WeightsError
from extract.transforms import Transform
from features_store.errors import first_line, unknown_name

if TYPE_CHECKING:
    import torch


def build(encoder: Encoder, weights: Weights, resizer: str, *, size: int | None = None) -> Network:
    """Build a timm model with the asked weights.

    Parameters
    ----------
    encoder : Encoder
    weights : Weights
    resizer : {"torchvision", "pillow"}
    size : int, optional
        Edge of the input: the shorter edge is resized to it, and the centre square is taken. Pixels. None = the
        transform that timm has for these weights.

    Raises
    ------
    EncoderError
        If timm has no such model, or its input is of a kind that is not supported.
    WeightsError
        If a checkpoint file does not fit.
    HubError
        If the weights must be fetched and cannot.
    """
    module = _load(encoder, weights)
    source = f"timm:{encoder.architecture}" if weights.kind == "auto" else weights.source
    return network_of(encoder, module, identity_of(source, module), resizer, size=size)


def network_of(
    encoder: Encoder, module: Any, weights: Mapping[str, Any], resizer: str, *, size: int | None = None
) -> Network:
    """Wrap a timm model that has its weights already.

    Parameters
    ----------
    encoder : Encoder
    module : timm model
    weights : mapping
        The passport's entry.
    resizer : {"torchvision", "pillow"}
    size : int, optional
        See `build`.

    Raises
    ------
    EncoderError
        If the model has no such layer.
    """
    module.eval().requires_grad_(requires_grad=False)
    transform = transform_of(module, resizer, size=size)
    taps = tuple(tap.name for tap in encoder.taps)
    channels_last = getattr(module, "output_fmt", "NCHW") == "NHWC"
    listener = Listener(encoder, module, last=channels_last, prefix=int(getattr(module, "num_prefix_tokens", 0)))

    def outputs(module: Any, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        features = module.forward_features(batch)
        pool = module.forward_head(features, pre_logits=True)  # (n, n_features)
        found = {"pool": pool, **listener.vectors()}
        if "posteriors" in taps:
            # (n, n_features) -> (n, n_classes); in float32, where a thousand small numbers still sum to 1
            found["posteriors"] = module.get_classifier()(pool).float().softmax(dim=1)
        return {tap: found[tap] for tap in taps}

    return Network(
        encoder=encoder,
        prepare=transform.apply,
        input_shape=transform.input_shape,
        shapes=_shapes(module, outputs, transform, listens=bool(listener.taps)),
        weights=weights,
        transform=transform.record(),
        module=module,
        normalise=transform.normalise,
        outputs=outputs,
        names=_class_names(module) if "posteriors" in taps else {},
        details=listener.details(),
    )


def _shapes(module: Any, outputs: Any, transform: Transform, *, listens: bool) -> dict[str, tuple[int, ...]]:
    if listens:
        return learned_shapes(module, outputs, transform.crop)
    return {
        "pool": (int(getattr(module, "head_hidden_size", None) or module.num_features),),
        "posteriors": (int(module.num_classes),),
    }


def transform_of(module: Any, resizer: str = "torchvision", *, size: int | None = None) -> Transform:
    """Return the evaluation transform that timm's configuration of a model asks for.

    Parameters
    ----------
    module : timm model
    resizer : {"torchvision", "pillow"}
    size : int, optional
        See `build`.

    Raises
    ------
    EncoderError
        If it is of a kind that is not supported.
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


def _load(encoder: Encoder, weights: Weights) -> Any:
    import timm

    architecture = encoder.architecture
    _check_name(architecture)
    if weights.kind == "random":
        with seeded_weights(weights.seed), quiet():
            module = timm.create_model(architecture, pretrained=False)
            return settle(module, transform_of(module).crop)
    if weights.kind == "auto":
        with hub(encoder):
            return timm.create_model(architecture, pretrained=True)
    try:
        with quiet():
            return timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay={"file": str(weights.path)})
    except Exception as error:  # a checkpoint can be wrong in as many ways as there are files
        msg = f"{weights.path} does not fit {encoder.name!r} (timm {architecture}): {first_line(error)}"
        raise WeightsError(msg) from error


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
    """Name the classes where timm knows them: ImageNet-1k, in the order of the classifier."""
    from timm.data.imagenet_info import ImageNetInfo

    if module.num_classes != 1000:
        return {}
    info = ImageNetInfo()
    return {"posteriors": tuple(info.index_to_description(index) for index in range(1000))}
