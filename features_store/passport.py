"""The passport of a block: canonical JSON, its key and digest, and the differences between two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from features_store.errors import FormatError
from features_store.schema import MAX_PASSPORT_BYTES

CIRCUMSTANCES = ("versions", "environment")
"""Fields that record how a block was made without changing what it is meant to hold."""


def canonical(passport: Mapping[str, Any]) -> str:
    """Return a JSON object as canonical text: sorted names, no blanks.

    Raises
    ------
    FormatError
        If it is no JSON object, or too large for an HDF5 attribute.
    """
    try:
        text = json.dumps(dict(passport), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"a passport must be a JSON object: {error}"
        raise FormatError(msg) from error
    size = len(text.encode())
    if size > MAX_PASSPORT_BYTES:
        msg = f"the passport has {size} bytes; at most {MAX_PASSPORT_BYTES} fit into an HDF5 attribute"
        raise FormatError(msg)
    return text


def key(passport: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that decide what the vectors are, without circumstances."""
    return {name: value for name, value in passport.items() if name not in CIRCUMSTANCES}


def digest(passport: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the key, in hexadecimal: the identity of a block's making."""
    return hashlib.sha256(canonical(key(passport)).encode()).hexdigest()


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Name each field of the keys that differs, with both values.

    Returns
    -------
    list of str
        Such as ``"weights.sha256: 'ab…' / 'cd…'"``; empty if the keys are equal.
    """
    left, right = dict(_flat(key(one), "")), dict(_flat(key(other), ""))
    missing = "absent"
    return [
        f"{path}: {left.get(path, missing)!r} / {right.get(path, missing)!r}"
        for path in sorted(left.keys() | right.keys())
        if left.get(path, missing) != right.get(path, missing)
    ]


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}" if path else str(name))
    else:
        # A tuple comes back from JSON as a list: they are the same passport.
        yield path, json.loads(json.dumps(value))
