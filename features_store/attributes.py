"""Text and JSON attributes of files that are not trusted."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import h5py

from features_store.errors import FormatError

_MAX_DEPTH = 32
_MAX_DIGITS = 20  # of a whole number: 64 bits and a sign
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and new line


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
    def refuse(constant: str) -> NoReturn:
        msg = f"{what} holds {constant[:40]}, which is no number of JSON or too large a one"
        raise FormatError(msg)

    def integer(digits: str) -> int:
        return int(digits) if len(digits) <= _MAX_DIGITS else refuse(digits)

    def real(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(digits)

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            msg = f"{what} holds the name {twice[:40]!r} twice"
            raise FormatError(msg)
        return dict(pairs)

    try:
        value = json.loads(text, parse_constant=refuse, parse_int=integer, parse_float=real, object_pairs_hook=members)
    except RecursionError as error:
        msg = f"{what} is nested too deeply; at most {_MAX_DEPTH} levels are read"
        raise FormatError(msg) from error
    except FormatError:
        raise
    except ValueError as error:
        msg = f"{what} is not JSON that can be read: {str(error)[:80]}"
        raise FormatError(msg) from error
    check_json(value, what)
    return value


def check_json(value: Any, what: str) -> None:
    """Refuse what later code, or a terminal, would stumble over."""
    layer = [value]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for one in layer:
            if isinstance(one, dict):
                inner += [*one, *one.values()]
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, str):
                checked_text(one, what)
        layer = inner
    if layer:
        msg = f"{what} is nested too deeply; at most {_MAX_DEPTH} levels are read"
        raise FormatError(msg)


def text_of(item: h5py.HLObject, name: str) -> str:
    """Return a text attribute of an object of a file that is not trusted."""
    where = f"{item.name} attribute {name!r}"
    if name not in item.attrs:
        msg = f"{item.name} has no attribute {name!r}"
        raise FormatError(msg)
    value = item.attrs[name]
    if not isinstance(value, (str, bytes)):
        msg = f"{where} is not text"
        raise FormatError(msg)
    return checked_text(value, where)


def checked_text(raw: str | bytes, what: str) -> str:
    """Decode text, and refuse what is not UTF-8 or would steer the terminal on which it is printed."""
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        text.encode()
    except UnicodeError as error:
        msg = f"{what} is not UTF-8"
        raise FormatError(msg) from error
    if _CONTROL.search(text):
        msg = f"{what} holds control characters"
        raise FormatError(msg)
    return text
