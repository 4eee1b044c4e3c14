"""Passports: everything that made a block, so that two blocks can be compared without their makers."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from extract.encoders import Encoder
from extract.engines import DEVICES
from extract.inputs.images import decoder_words
from extract.settings import Circumstances
from features_store import Index

_LIBRARIES = ("affectory", "torch", "torchvision", "timm", "open_clip_torch", "pillow", "scikit-image", "numpy", "h5py")


def passport_of(network: Encoder, tap: str, index: Index, made: Circumstances) -> dict[str, Any]:
    """Return the passport of one block, a JSON object."""
    encoder = network.spec
    return {
        "encoder": encoder.name,
        "library": encoder.library,
        "architecture": encoder.architecture,
        "weights": dict(network.weights),
        "transform": {key: plain(value) for key, value in network.transform.items()},
        "decoder": decoder_words(made.decoder),
        "resizer": made.resizer,
        "tap": tap,
        **({"layer": dict(network.details[tap])} if tap in network.details else {}),
        "dtype": made.dtype,
        # Mixed precision touches networks only
        "autocast": made.autocast if network.module is not None else None,
        "views": made.views.record(),
        "index_digest": index.digest,
        "versions": _versions(),
        "environment": {
            **(made.identity or DEVICES[made.device]().identity()),
            **({"batch_size": made.batch_size} if made.batch_size and network.module is not None else {}),
            "compiled": made.compiled and network.module is not None,
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
