"""Passports: everything that made a block, so that two blocks can be compared without their makers."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from extract.encoders import Encoder
from extract.engines.device import DeviceFacts
from extract.inputs.images import decoder_words
from extract.settings import RunSettings
from features_store import Index

_LIBRARIES = ("affectory", "torch", "torchvision", "timm", "open_clip_torch", "pillow", "scikit-image", "numpy", "h5py")


def make_passport(
    encoder: Encoder,
    tap: str,
    index: Index,
    facts: DeviceFacts,
    settings: RunSettings,
    *,
    batch_size: int,
    compiled: bool,
) -> dict[str, Any]:
    """Return the passport of one block, a JSON object."""
    spec, is_network = encoder.spec, encoder.module is not None
    return {
        "encoder": spec.name,
        "library": spec.library,
        "architecture": spec.architecture,
        "weights": dict(encoder.weights),
        "transform": {key: plain(value) for key, value in encoder.transform.items()},
        "decoder": decoder_words(settings.decoder),
        "resizer": settings.resizer,
        "tap": tap,
        **({"layer": dict(encoder.details[tap])} if tap in encoder.details else {}),
        "dtype": settings.dtype,
        "autocast": facts.autocast if is_network else None,
        "views": settings.augmentation.record(),
        "index_digest": index.digest,
        "versions": _versions(),
        "environment": {
            **facts.identity,
            **({"batch_size": batch_size} if is_network else {}),
            "compiled": compiled and is_network,
            "platform": " ".join((platform.system(), platform.machine(), platform.libc_ver()[0])).strip(),
            "python": platform.python_version(),
        },
    }


def plain(value: Any) -> Any:
    """Return a value as JSON gives it back: tuples become lists, in mappings too."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
