"""The passport of a block: canonical JSON, its key and digest, and the differences between two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from features_store.errors import FormatError
from features_store.hdf5 import check_json
from features_store.schema import MAX_PASSPORT_BYTES

CIRCUMSTANCES = ("versions", "environment", "index_digest")
"""Fields that record how a block was made without changing what it is meant to hold.

The index is one of them: the vector of an image does not depend on which other images were extracted with it, and a cut
of a block is made in the same way as the whole.
"""

_ANY_OF = "any of"


def canonical(passport: Mapping[str, Any]) -> str:
    """Return a JSON object as canonical text: sorted names, no blanks.

    Raises FormatError.
    """
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


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Name each field of the keys that differs, with both values."""
    left, right = dict(_flat(key(one), "")), dict(_flat(key(other), ""))
    missing = "absent"
    return [
        f"{path}: {left.get(path, missing)!r} / {right.get(path, missing)!r}"
        for path in sorted(left.keys() | right.keys())
        if left.get(path, missing) != right.get(path, missing)
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
