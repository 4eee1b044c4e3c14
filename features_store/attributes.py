"""Text and JSON attributes of files that are not trusted."""

from __future__ import annotations

import json
from typing import Any

import h5py

from features_store.errors import FormatError


def json_object(text: str, what: str) -> dict[str, Any]:
    """Parse a JSON object from a file that is not trusted."""
    value = _json(text, what)
    if not isinstance(value, dict):
        msg = f"{what} is not a JSON object"
        raise FormatError(msg)
    return value


def json_strings(text: str, what: str) -> tuple[str, ...]:
    """Parse a JSON list of strings."""
    value = _json(text, what)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        msg = f"{what} is not a JSON list of strings"
        raise FormatError(msg)
    return tuple(value)


def json_range(text: str, what: str) -> tuple[float, float]:
    """Parse a JSON list of two numbers."""
    value = _json(text, what)
    if not isinstance(value, list) or len(value) != 2 or not all(type(one) in (int, float) for one in value):
        msg = f"{what} is not a JSON list of two numbers"
        raise FormatError(msg)
    return float(value[0]), float(value[1])


def _json(text: str, what: str) -> Any:
    def refuse(constant: str) -> None:
        msg = f"{what} holds {constant}"
        raise FormatError(msg)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        msg = f"{what} is not JSON that can be read: {str(error)[:80]}"
        raise FormatError(msg) from error


def text_of(item: h5py.HLObject, name: str) -> str:
    if name not in item.attrs:
        msg = f"{item.name} has no attribute {name!r}"
        raise FormatError(msg)
    value = item.attrs[name]
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str):
        msg = f"{item.name} attribute {name!r} is not text"
        raise FormatError(msg)
    return value
