"""Stage 1: images to vectors of frozen networks, written once into dumps.

::

    import extract
    print(extract.extract("folder", data="photos", profile="fusion"))       # a store in features/folder
    encode = extract.load_encoder("efficientnet_lite0")
    encode(["photos/calm/0.jpg"])["efficientnet_lite0.pool"]              # (1, 1280) float32
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extract.corpora import CORPORA, read_corpus
    from extract.encoders import ENCODERS, PROFILES
    from extract.pipeline import extract
    from extract.recompute import load_encoder

_HOMES = {
    "CORPORA": "corpora",
    "ENCODERS": "encoders",
    "PROFILES": "encoders",
    "extract": "pipeline",
    "load_encoder": "recompute",
    "read_corpus": "corpora",
}

__all__ = ["CORPORA", "ENCODERS", "PROFILES", "extract", "load_encoder", "read_corpus"]


def __getattr__(name: str) -> Any:
    """Import what is used when it is used: torch takes seconds."""
    if name in _HOMES:
        from importlib import import_module

        from features_store.console import wait_passively

        wait_passively()
        return getattr(import_module(f"extract.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'extract' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
