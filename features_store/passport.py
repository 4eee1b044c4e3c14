"""The passport of a block (its provenance record): canonical JSON, key and digest, and the differences between two.

JSON of files that are not trusted is read here too.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from features_store.errors import FormatError
from features_store.schema import MAX_PASSPORT_BYTES, checked_text

CIRCUMSTANCES = ("versions", "environment", "index_digest")
"""Fields that record how a block was made without changing what it is meant to hold.

The index is one of them: the vector of an image does not depend on which other images were extracted with it, and a cut
of a block is made in the same way as the whole.
"""

_ANY_OF = "any of"
_MAX_JSON_DEPTH = 32
_MAX_DIGITS = 20  # of a whole number: 64 bits and a sign


def canonical(passport: Mapping[str, Any]) -> str:
    """Return a JSON object as canonical text: sorted names, no blanks."""
    try:
        text = json.dumps(dict(passport), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FormatError(f"a passport must be a JSON object: {error}") from error
    check_json(json.loads(text), "a passport")  # what no reader would take is not written
    size = len(text.encode())
    if size > MAX_PASSPORT_BYTES:
        raise FormatError(f"the passport has {size} bytes; at most {MAX_PASSPORT_BYTES} fit into an HDF5 attribute")
    return text


def key(passport: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that decide what the vectors are, without circumstances."""
    return {name: value for name, value in passport.items() if name not in CIRCUMSTANCES}


def digest(passport: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the key, in hexadecimal: the identity of a block's making."""
    return hashlib.sha256(canonical(key(passport)).encode()).hexdigest()


def weights(passport: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record of the weights; empty where there is none, or none of this form."""
    found = passport.get("weights")
    return found if isinstance(found, Mapping) else {}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Name each field of the keys that differs, with both values."""
    left, right = dict(_flat(key(one), "")), dict(_flat(key(other), ""))
    shown = [{path: repr(value) for path, value in side.items()} for side in (left, right)]
    return [
        f"{path}: {' / '.join(side.get(path, 'not recorded') for side in shown)}"
        for path in sorted(left.keys() | right.keys())
        if path not in left or path not in right or left[path] != right[path]
    ]


def union(values: Iterable[Any]) -> Any:
    """Return one JSON value that stands for several.

    If all are equal it is that value, otherwise ``{"any of": [...]}``, sorted, each once. The result depends neither on
    the order of the values, nor on which of them were united before.
    """
    distinct = {json.dumps(one, sort_keys=True): one for value in values for one in alternatives(value)}
    united = [distinct[text] for text in sorted(distinct)]
    return united[0] if len(united) == 1 else {_ANY_OF: united}


def alternatives(value: Any) -> list[Any]:
    """Return the values that a `union` stands for; any other value alone."""
    listed = value.get(_ANY_OF) if isinstance(value, Mapping) else None
    return listed if isinstance(listed, list) else [value]


def new_circumstances(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Name each circumstance of `here` that `there` does not have among its own, with both values."""
    found = []
    for name in ("environment", "versions"):
        known = [dict(_flat(one, name)) for one in alternatives(there.get(name))]
        for path, value in _flat(here.get(name, {}), name):
            values = [one.get(path) for one in known]
            if value not in values:
                found.append(f"{path}: {' or '.join(map(repr, values))} / {value!r}")
    return found


def merged(passports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the passport of a block whose rows come from blocks with equal keys.

    Circumstances that differ are united; a recorded index digest that differs is left out.
    """
    together = key(passports[0])
    for name in ("versions", "environment"):
        found = [one[name] for one in passports if name in one]
        if found:
            together[name] = union(found)
    digests = {one.get("index_digest") for one in passports}
    if len(digests) == 1 and None not in digests:
        together["index_digest"] = digests.pop()
    return together


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}" if path else str(name))
    else:
        # A tuple comes back from JSON as a list: they are the same passport.
        yield path, json.loads(json.dumps(value))


# ---- reading JSON that is not trusted --------------------------------------------------------------------------------


def json_object(text: str, what: str) -> dict[str, Any]:
    """Parse a JSON object from a file that is not trusted."""
    value = _json(text, what)
    if not isinstance(value, dict):
        raise FormatError(f"{what} is not a JSON object")
    return value


def json_strings(text: str, what: str) -> tuple[str, ...]:
    """Parse a JSON list of strings."""
    value = _json(text, what)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise FormatError(f"{what} is not a JSON list of strings")
    return tuple(value)


def json_range(text: str, what: str) -> tuple[float, float]:
    """Parse a JSON list of two numbers."""
    value = _json(text, what)
    if not isinstance(value, list) or len(value) != 2 or not all(type(one) in (int, float) for one in value):
        raise FormatError(f"{what} is not a JSON list of two numbers")
    return float(value[0]), float(value[1])


def _json(text: str, what: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise FormatError(f"{what} holds {constant[:40]}, which is no number of JSON or too large a one")

    def integer(digits: str) -> int:
        return int(digits) if len(digits) <= _MAX_DIGITS else refuse(digits)

    def real(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(digits)

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise FormatError(f"{what} holds the name {name[:40]!r} twice")
            found[name] = value
        return found

    try:
        value = json.loads(text, parse_constant=refuse, parse_int=integer, parse_float=real, object_pairs_hook=members)
    except RecursionError as error:
        raise FormatError(f"{what} is nested too deeply; at most {_MAX_JSON_DEPTH} levels are read") from error
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(f"{what} is not JSON that can be read: {str(error)[:80]}") from error
    check_json(value, what)
    return value


def check_json(value: Any, what: str) -> None:
    """Refuse what later code, or a terminal, would stumble over."""
    layer = [value]
    for _ in range(_MAX_JSON_DEPTH):
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
        raise FormatError(f"{what} is nested too deeply; at most {_MAX_JSON_DEPTH} levels are read")
