"""Damaged and hostile variants of JSON values: one name or one value of a good file is another."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**62, -(2**62), 0.5, -0.25, 1e300, 1e-300, "", "x", "test", "../../etc/passwd",
    "<script>alert(1)</script>", "a\x1b]0;owned\x07\x1b[31mb", "\ud800", "O", "nan", [], {}, [None], [[]], [{}], [1, 2],
    {"": None}, {"value": 1, "low": None, "high": 2}, ["a"] * 40, {"n": 0}, "timm:resnet18", "random:x", "9" * 400,
)  # fmt: skip
RAW = (b"NaN", b"Infinity", b"1e999", b"9" * 5000, b"[" * 200 + b"]" * 200, b'{"a":1,"a":2}')


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container with every key of it."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def mutant(value: Any, random: np.random.Generator) -> bytes:
    """Return JSON text of *value* with one thing changed."""
    made = copy.deepcopy(value)
    # Deep lists have most of the places: half of the time the change is near the top.
    depth = random.integers(1, 4)
    known = [place for place in places(made) if random.random() < 0.5 or _near(made, place[0], depth)]
    container, key = known[random.integers(len(known))] if known else next(places(made))
    kind = random.integers(6)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        name = str(STRANGE[random.integers(len(STRANGE))]) if random.random() < 0.3 else f"{key}x"
        container[name] = container.pop(key)
    elif kind == 2 and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    elif kind == 3:
        container[key] = "\0RAW\0"
        raw = RAW[random.integers(len(RAW))]
        return json.dumps(made).encode().replace(b'"\\u0000RAW\\u0000"', raw)
    elif kind == 4 and isinstance(container[key], int | float) and not isinstance(container[key], bool):
        container[key] = [-container[key] - 1, container[key] * 10**6 + 1, str(container[key])][random.integers(3)]
    else:
        container[key] = copy.deepcopy(STRANGE[random.integers(len(STRANGE))])
    return json.dumps(made).encode()


def _near(value: Any, container: Any, depth: int) -> bool:
    layer = [value]
    for _ in range(depth):
        if any(one is container for one in layer):
            return True
        layer = [
            inner
            for one in layer
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
    return False
