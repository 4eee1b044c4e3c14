"""What a JSON value must be, written as the value looks: small checks that are put together.

A check takes a value and the words for its place, and returns the value, completed by what may be left out; it refuses
a value by naming the place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, NoReturn

from classify.errors import RunError

__all__ = ["Check", "SchemaError", "anything", "choice", "flag", "items", "number", "optional", "record", "table"]
__all__ += ["text", "whole", "wrong"]

Check = Callable[[Any, str], Any]
_HUGE = 1e300  # numbers beyond it overflow in the first sum that they are part of
_MAX_ITEMS = 5_000_000


class SchemaError(RunError):
    """A value of a file isn't what the file's kind has there."""


def wrong(where: str, value: Any, wanted: str) -> NoReturn:
    """Refuse a value."""
    shown = ascii(value).replace("<", "\\x3c")  # of a stranger's file, and it may end in a page
    raise SchemaError(f"{where} is {shown if len(shown) < 80 else shown[:77] + '...'}; it takes {wanted}")


def anything(value: Any, where: str) -> Any:
    """Take any JSON value."""
    return value


def text(value: Any, where: str) -> str:
    """Take a text."""
    return value if isinstance(value, str) else wrong(where, value, "a text")


def flag(value: Any, where: str) -> bool:
    """Take true or false."""
    return value if isinstance(value, bool) else wrong(where, value, "true or false")


def number(low: float = -_HUGE, high: float = _HUGE) -> Check:
    """Take a finite number between two ends."""

    def check(value: Any, where: str) -> Any:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        return value if fits else wrong(where, value, "a number" if high == _HUGE else f"a number from {low} to {high}")

    return check


def whole(low: int = 0, high: int = 2**62) -> Check:
    """Take a whole number between two ends."""

    def check(value: Any, where: str) -> Any:
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return value if fits else wrong(where, value, f"a whole number from {low} to {high}")

    return check


def choice(*values: Any) -> Check:
    """Take one of some values."""

    def check(value: Any, where: str) -> Any:
        fits = any(type(value) is type(one) and value == one for one in values)
        return value if fits else wrong(where, value, " or ".join(map(repr, values)))

    return check


def optional(inner: Check) -> Check:
    """Take null, or what *inner* takes."""
    return lambda value, where: None if value is None else inner(value, where)


def items(inner: Check, least: int = 0, most: int = _MAX_ITEMS) -> Check:
    """Take a list."""

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, list) or not least <= len(value) <= most:
            ends = "" if (least, most) == (0, _MAX_ITEMS) else f" of {least} to {most}"
            wrong(where, value, f"a list{ends}")
        return [inner(one, f"{where}[{i}]") for i, one in enumerate(value)]

    return check


def table(inner: Check) -> Check:
    """Take an object whose names are free."""

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            wrong(where, value, "an object")
        return {name: inner(one, f"{where}.{ascii(name)[1:-1][:60]}") for name, one in value.items()}

    return check


def record(needed: Mapping[str, Check], free: Mapping[str, tuple[Check, Any]] | None = None) -> Check:
    """Take an object: *needed* names with their checks, *free* ones with check and default; others pass as they are."""

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            wrong(where, value, "an object")
        lacking = [name for name in needed if name not in value]
        if lacking:
            raise SchemaError(f"{where} lacks {', '.join(lacking)}")
        made = dict(value)
        for name, inner in needed.items():
            made[name] = inner(value[name], f"{where}.{name}")
        for name, (inner, default) in (free or {}).items():
            made[name] = inner(value[name], f"{where}.{name}") if name in value else copy(default)
        return made

    return check
