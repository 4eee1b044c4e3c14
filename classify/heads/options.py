"""The options of the heads: each is declared once, with its default, its range and one line of help.

A head declares such fields (`classify.heads.base.Head` makes them keyword arguments), so that the signature which
scikit-learn reads, the check before a fit and the list that ``classify heads HEAD`` prints come from the same line::

    C: float = number(1.0, "Inverse of the L2 penalty", above=0, most=1e9)
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classify.errors import HeadError

_LARGEST = 10**9  # of a count without a limit of its own
_WIDEST = 2**20  # units of a layer


@dataclass(frozen=True)
class Option:
    """What an option means, which values it takes in words, and whether a value is one of them."""

    help: str
    takes: str
    valid: Callable[[Any], bool]


def options_of(head: Any) -> dict[str, Option]:
    """Return the options of a head or of its class, by name."""
    fields = getattr(head, "__dataclass_fields__", {})
    return {name: field.metadata["option"] for name, field in fields.items() if "option" in field.metadata}


def check_options(head: Any) -> None:
    """Refuse the first option of a head that is not one of the values it takes."""
    for name, option in options_of(head).items():
        value = getattr(head, name)
        if not option.valid(value):
            shown = repr(value) if len(repr(value)) <= 200 else repr(value)[:200] + "..."
            raise HeadError(f"{name} is {shown}; it takes {option.takes}")


def _declared(default: Any, about: str, takes: str, valid: Callable[[Any], bool]) -> Any:
    return dataclasses.field(default=default, metadata={"option": Option(about, takes, valid)})


def number(
    default: Any,
    about: str,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
    words: Sequence[str] = (),
) -> Any:
    """Declare a finite number in a range, or one of some *words*."""

    def valid(value: Any) -> bool:
        if isinstance(value, str):
            return value in words
        return is_number(value) and max(above, least) <= value <= min(below, most) and value not in (above, below)

    ends = [("above", above), ("from", least), ("below", below), ("to", most)]
    spoken = [f"{word} {end:g}" for word, end in ends if math.isfinite(end)]
    takes = " ".join(["a number", *spoken]) + "".join(f', or "{word}"' for word in words)
    return _declared(default, about, takes, valid)


def whole(
    default: Any, about: str, *, least: int = 1, most: int = _LARGEST, none: str = "", several: bool = False
) -> Any:
    """Declare a whole number in a range; or None, with what that means; or a list of *several*."""

    def single(value: Any) -> bool:
        return is_whole(value) and least <= value <= most

    def valid(value: Any) -> bool:
        if value is None:
            return bool(none)
        if several and isinstance(value, list | tuple):
            return len(value) > 0 and all(map(single, value))
        return single(value)

    takes = f"a whole number from {least} to {most}"
    takes += ", or a list of them, one for each label" * several + f", or none ({none})" * bool(none)
    return _declared(default, about, takes, valid)


def budget(default: Any, about: str) -> Any:
    """Declare how much is tried: a number of candidates, or seconds as text."""

    def valid(value: Any) -> bool:
        if isinstance(value, str):
            return re.fullmatch(r"[0-9]{1,6}s", value) is not None
        return is_whole(value) and 1 <= value <= 10**6

    return _declared(default, about, "a whole number from 1 to 1000000, or seconds, like 60s", valid)


def choice(default: str, about: str, names: Iterable[str]) -> Any:
    """Declare one of some names."""
    valid = tuple(names)
    return _declared(default, about, " or ".join(valid), lambda value: isinstance(value, str) and value in valid)


def flag(about: str, *, default: bool) -> Any:
    """Declare a switch."""
    return _declared(default, about, "true or false", lambda value: isinstance(value, bool | np.bool_))


def layers(default: Sequence[int], about: str, *, least: int) -> Any:
    """Declare the sizes of layers, at *least* so many; one number is one layer."""

    def valid(value: Any) -> bool:
        sizes = value if isinstance(value, list | tuple) else [value]
        return len(sizes) >= least and all(is_whole(n) and 1 <= n <= _WIDEST for n in sizes)

    return _declared(default, about, f"sizes of layers, each from 1 to {_WIDEST}, like [1000, 200]", valid)


def weights_of_classes(about: str) -> Any:
    """Declare the weights of classes."""

    def valid(value: Any) -> bool:
        if isinstance(value, Mapping):
            return all(is_number(weight) and 0 <= weight <= 1e6 for weight in value.values())
        return value is None or (isinstance(value, str) and value == "balanced")

    takes = '"balanced", none, or a weight from 0 to 1e+06 for each class'
    return _declared(None, about, takes, valid)


def costs_of_mistakes(about: str) -> Any:
    """Declare a matrix of costs; whether it fits the classes is seen where they are known."""

    def valid(value: Any) -> bool:
        if value is None:
            return True
        rows = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(rows, list | tuple) or not all(isinstance(row, list | tuple) for row in rows):
            return False
        square = all(len(row) == len(rows) for row in rows)
        right = square and all(is_number(c) and 0 <= c <= 1e6 for row in rows for c in row)
        return right and not any(row[i] for i, row in enumerate(rows))

    takes = (
        "none, or a square matrix with a row and a column for each class, numbers from 0 to 1e+06, 0 on the diagonal"
    )
    return _declared(None, about, takes, valid)


def map_shape(about: str) -> Any:
    """Declare channels, height and width."""

    def valid(value: Any) -> bool:
        listed = isinstance(value, list | tuple) and len(value) == 3
        return value is None or (listed and all(is_whole(n) and 1 <= n <= _LARGEST for n in value))

    return _declared(None, about, "channels, height and width, each a whole number from 1, or none", valid)


def random_seed(about: str) -> Any:
    """Declare where random numbers come from."""

    def valid(value: Any) -> bool:
        return value is None or isinstance(value, np.random.RandomState) or (is_whole(value) and 0 <= value < 2**32)

    return _declared(None, about, "a whole number from 0 to 4294967295, a RandomState, or none", valid)


def refuse_one_label_options(head: Any) -> None:
    """Refuse options that mean nothing where an image has several labels."""
    weight = getattr(head, "class_weight", None)
    if getattr(head, "cost", None) is not None:
        raise HeadError("cost is for tasks with one label an image; with several, every label is its own decision")
    if weight is not None and weight != "balanced":
        raise HeadError(f'class_weight is {weight!r}; a multi-label task takes "balanced" or none')


def refuse_class_options(head: Any) -> None:
    """Refuse options that mean nothing without classes."""
    for name in ("class_weight", "cost"):
        if getattr(head, name) is not None:
            raise HeadError(f"{name} is {getattr(head, name)!r}, and a regression has no classes; leave it out")


def is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number; true and false are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number; true and false are none."""
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond float64
        return False
