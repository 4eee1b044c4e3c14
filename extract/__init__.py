"""Stage 1: images to vectors of frozen networks, written once into dumps (``extract run CORPUS``)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extract.corpora import CORPORA, read_corpus

_HOMES = {
    "CORPORA": "corpora",
    "read_corpus": "corpora",
}

__all__ = ["CORPORA", "read_corpus"]


def __getattr__(name: str) -> Any:
    """Import what is used when it is used."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"extract.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'extract' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
