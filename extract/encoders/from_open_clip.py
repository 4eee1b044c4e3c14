"""Encoders from open_clip: the image tower, its own transform, the embedding, the mean token, concepts, any layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from extract.encoders import concepts as vocabulary
from extract.encoders.checkpoints import (
    Fit,
    check_fit,
    clear_missing,
    compare_states,
    missing_weights,
    read_state,
    recorded_fit,
    unwrapped_file,
)
from extract.encoders.readout import HookCapture, full_precision, learn_shapes
from extract.encoders.spec import Encoder, EncoderSpec
from extract.encoders.weights import (
    Weights,
    calibrate_batch_norm,
    hub_errors,
    seeded_weights,
    sha256_of_state,
    silence_logging,
    weights_record,
)
from extract.errors import EncoderError, WeightsError
from extract.inputs.transforms import Transform
from features_store.errors import first_line, unknown_name

if TYPE_CHECKING:
    import torch

_SCALES = ("logit_scale", "logit_bias")  # of cosines in training


def published(spec: EncoderSpec) -> str:
    """Return what passports call the published weights."""
    return f"open_clip:{spec.architecture}"


def build(spec: EncoderSpec, weights: Weights, resizer: str) -> Encoder:
    """Build the image tower of an open_clip model; ``spec.architecture`` is ``ARCH/TAG``.

    The embedding is kept as it leaves the projection, not scaled to length 1. *tokens* is the mean of the patch
    tokens of the last layer, after its layer normalisation, the class token left out. *concepts* are cosines with
    sentences; see `extract.encoders.concepts`.
    """
    architecture, config = find_published(spec.architecture)
    model, fit = _load(spec, weights, architecture, config)
    what = f"{weights.path} does not fit {spec.name!r} (open_clip {architecture})"
    with_concepts = any(tap.name == "concepts" for tap in spec.taps)
    text_missing = [name for name in fit.missing if not name.startswith("visual.") and name not in _SCALES]
    if with_concepts and text_missing:
        raise WeightsError(missing_weights(what, fit, text_missing))
    clear_missing(model, fit)
    record = weights_record(published(spec) if weights.are_published else weights.source, model.visual)
    directions, text_sha256 = None, ""
    if with_concepts:
        text = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("visual.")}
        text_sha256 = sha256_of_state(text)  # first: the text tower is cut to the length of the sentences
        directions = vocabulary.directions(model.eval(), architecture, vocabulary.sentences())
    encoder = wrap(spec, model.visual, record, resizer, directions=directions, text_sha256=text_sha256)
    return replace(encoder, notes=check_fit(what, encoder, fit.below("visual.")))


def wrap(
    spec: EncoderSpec,
    visual: Any,
    weights: Mapping[str, Any],
    resizer: str,
    *,
    directions: torch.Tensor | None = None,
    text_sha256: str = "",
) -> Encoder:
    """Make an encoder of an image tower that has its weights already.

    *directions* are those of the sentences of `concepts` in its space, (n_concepts, n_features) float32 of length 1;
    *text_sha256* is of the state dict of the text tower that made them.
    """
    from extract.encoders.attention import replace_attention

    visual.eval().requires_grad_(requires_grad=False)
    replace_attention(visual)
    if hasattr(visual, "output_tokens"):
        visual.output_tokens = True
    names, details = {}, {}
    if directions is not None:
        # Not part of the state dict: the same weights give other last digits of these on another processor.
        visual.register_buffer("concepts", directions, persistent=False)
        names["concepts"] = vocabulary.pairs()
        details["concepts"] = {**vocabulary.vocabulary(), "text_sha256": text_sha256}
    _, config = find_published(spec.architecture)
    transform = transform_of(visual, config, resizer)
    taps = tuple(tap.name for tap in spec.taps)
    layers = HookCapture(spec, visual, lambda tower, batch: tower(batch), transform.crop, last=False, n_prefix=1)

    def outputs(module: Any, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {**_outputs(module, batch), **layers.outputs()}
        return {tap: found[tap] for tap in taps if tap in found}

    return Encoder(
        spec=spec,
        prepare=transform.apply,
        input_shape=transform.input_shape,
        shapes=learn_shapes(spec.name, visual, outputs, transform.crop),
        weights=weights,
        transform=transform.record(),
        module=visual,
        normalise=transform.normalise,
        outputs=outputs,
        names=names,
        details={**details, **layers.details()},
    )


def _outputs(module: Any, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    from torch.nn.functional import normalize

    out = module(batch)
    # (n, n_features), (n, n_tokens, width) where the tower shows its tokens
    embedding, tokens = out if isinstance(out, tuple) else (out, None)
    found = {"embedding": embedding}
    if tokens is not None:
        found["tokens"] = tokens.float().mean(dim=1)
    if hasattr(module, "concepts"):
        with full_precision(embedding):  # (n, n_features) -> (n, n_concepts); in float32, as the directions
            found["concepts"] = normalize(embedding.float(), dim=-1) @ module.concepts.float().T
    return found


def find_published(name: str) -> tuple[str, dict[str, Any]]:
    """Split ``ARCH/TAG`` and look up open_clip's configuration of these weights."""
    import open_clip

    architecture, _, tag = name.partition("/")
    if architecture not in open_clip.list_models():
        raise EncoderError(unknown_name("open_clip model", architecture, open_clip.list_models()))
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    config = open_clip.get_pretrained_cfg(architecture, tag) if tag in tags else None
    if not config:
        raise EncoderError(unknown_name(f"weights of open_clip {architecture}", tag, tags))
    return architecture, config


def _load(spec: EncoderSpec, weights: Weights, architecture: str, config: dict[str, Any]) -> tuple[Any, Fit]:
    """Return the model with both towers, and what a file lacks of it."""
    import open_clip

    # The plain architecture has GELU; OpenAI's weights were trained with QuickGELU, and nothing fails without it:
    # the vectors are only silently worse.
    create: dict[str, Any] = {"force_quick_gelu": bool(config.get("quick_gelu", False))}
    if weights.are_random:
        with seeded_weights(weights.seed), silence_logging():
            model = open_clip.create_model(architecture, **create, pretrained_image=False)
            calibrate_batch_norm(model.visual, transform_of(model.visual, config).crop)
            return model, Fit()
    path = weights.path
    if path is None:
        with hub_errors(spec):
            path = open_clip.download_pretrained(config)
    what = f"{path} does not fit {spec.name!r} (open_clip {architecture})"
    # Published files, and original ones of other programs, are read by open_clip itself
    own = weights.are_published or path.suffix in (".npz", ".npy")
    try:
        with nullcontext(path) if own else unwrapped_file(what, path) as plain, silence_logging():
            if own:
                return open_clip.create_model(architecture, pretrained=str(plain), **create), Fit()
            with recorded_fit() as fit:
                return open_clip.create_model(architecture, pretrained=str(plain), **create), fit
    except WeightsError:
        raise
    except Exception as error:  # a checkpoint can be wrong in as many ways as there are files
        with silence_logging():
            fit = compare_states(open_clip.create_model(architecture, **create, device="meta"), read_state(what, path))
        reason = missing_weights(what, fit, fit.missing) if fit.missing else f"{what}: {first_line(error)}"
        raise WeightsError(reason) from error


def transform_of(visual: Any, config: Mapping[str, Any], resizer: str = "torchvision") -> Transform:
    """Return the evaluation transform of open_clip's configuration of some weights."""
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    wanted = merge_preprocess_dict(asdict(PreprocessCfg()), {**config, "size": visual.image_size})
    size = wanted["size"]
    height, width = (size, size) if isinstance(size, int) else size
    mode = wanted["resize_mode"]
    if mode not in ("shortest", "squash") or (mode == "shortest" and height != width):
        raise EncoderError(f"open_clip asks for an input that is not supported: {wanted}")
    return Transform(
        resize=(height, width) if mode == "squash" else height,
        crop=(height, width),
        interpolation=wanted["interpolation"],
        mean=tuple(wanted["mean"]),
        std=tuple(wanted["std"]),
        resizer=resizer,
    )


def reference(encoder: Encoder) -> Callable[[Any], dict[str, Any]]:
    """Return open_clip's own way from a Pillow image to vectors by tap: its transform, eager, one image at a time."""
    import open_clip
    import torch
    from torch.nn.functional import normalize

    module: Any = encoder.module
    architecture, config = find_published(encoder.spec.architecture)
    keys = [key for key in ("mean", "std", "interpolation", "resize_mode") if key in config]
    size = open_clip.get_model_config(architecture)["vision_cfg"]["image_size"]
    transform = open_clip.image_transform(size, is_train=False, **{key: config[key] for key in keys})

    def vectors(picture: Any) -> dict[str, Any]:
        with torch.inference_mode():
            embedding, tokens = module(transform(picture)[None])
            found = {"embedding": embedding, "tokens": tokens.mean(1)}
            if hasattr(module, "concepts"):
                found["concepts"] = normalize(embedding, dim=-1) @ module.concepts.T
        return {tap.name: found[tap.name][0].numpy() for tap in encoder.spec.taps}

    return vectors
