"""JSON files of runs and bundles: opened with care, parsed strictly, and checked against a schema.

A run or a bundle may come from anybody. A file is opened without following a link in its last component and without
waiting for anybody to write into it, and no more of it is read than its limit. JSON comes in with finite numbers, each
name once, a bounded depth, and no characters that would steer a terminal.

A schema is written as the value looks, from small checks (`text`, `number`, `items`, `table`, `record`, ...). A check
takes a value and the words for its place, and returns the value, completed by what may be left out; it refuses a value
by naming the place.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, NoReturn

from classify.errors import RunError
from features_store import atomic, disk
from features_store.atomic import atomic_write
from features_store.errors import AffectoryError, ExistsError, UnsafeFileError

MAX_JSON = 64 * 2**20  # bytes; the report of a run on 1,000 classes has 30 MB
_NUMBERS = re.compile(r"\[\n[\s\d.,eE+\-nul]*\]")  # no text holds a line end as it is
_MAX_DEPTH = 32
_MAX_VALUES = 6_000_000  # each may take 64 bytes of memory, and 3 of the file
_MAX_DIGITS = 19  # of a whole number: 64 bits
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
Check = Callable[[Any, str], Any]
_HUGE = 1e300  # numbers beyond it overflow in the first sum that they are part of
_MAX_ITEMS = 5_000_000


def check_new(path: Path, *, force: bool) -> None:
    """Refuse a file that is there or cannot be written, before any work is done for it."""
    try_place(path)
    if path.exists() and not force:
        raise ExistsError(f"{path} exists; replace it with --force (force=True)")


def try_place(path: Path, what: str = "") -> None:
    """Refuse a place that cannot be written, by writing there, and sweep what killed processes left there."""
    disk.try_place(path, what)
    atomic.recover(path)


@contextmanager
def whole_file(path: Path, what: str = "", *, force: bool = False) -> Iterator[Path]:
    """Give a temporary file that becomes *path*, whole or not at all; *what* it is stands in the error."""
    try:
        with atomic_write(path, force=force) as temporary:
            yield temporary
    except AffectoryError:
        raise
    except OSError as error:
        raise RunError(f"cannot write {what}{path}: {error.strerror or error}") from error


def write_json(path: Path, values: Any, *, force: bool = False) -> None:
    """Write plain values, whole or not at all; a NaN among them is an error, and the folder is made."""
    check_new(path, force=force)
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    text = _NUMBERS.sub(lambda found: re.sub(r"\s+", " ", found[0]), text)
    with whole_file(path, force=force) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))  # as JSON writes what UTF-8 cannot


def read_regular(path: Path, limit: int = MAX_JSON) -> bytes:
    """Return the bytes of a regular file, at most *limit*; a link, a pipe, a device, a second name is refused."""
    try:
        return atomic.read_regular(path, limit)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
    except UnsafeFileError as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a name with a zero byte in it
        raise RunError(f"{str(path)!r} cannot be the name of a file: {error}") from error


def clean_text(text: str) -> str:
    """Return text whose control characters, which would steer a terminal, are a question mark in a diamond."""
    return _CONTROL.sub("�", text)


def parse_json(data: bytes, what: object, *, clean: bool = True) -> Any:
    """Parse JSON that is not trusted; characters that would steer a terminal are taken out (*clean*), or refused."""

    def refuse(reason: str) -> NoReturn:
        raise RunError(f"{what} is not valid JSON: {reason}")

    def integer(digits: str) -> int:
        return int(digits) if len(digits) <= _MAX_DIGITS else refuse(f"{digits[:30]}… has too many digits")

    def real(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(f"{digits[:30]} is too large a number")

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = {clean_text(name) if clean else name: value for name, value in pairs}
        return values if len(values) == len(pairs) else refuse("a name stands in it twice")

    def constant(name: str) -> NoReturn:
        refuse(f"{name} is no number of JSON")

    if data.count(b",") > _MAX_VALUES:
        refuse(f"it holds more than {_MAX_VALUES:,} values")
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_int=integer,
            parse_float=real,
            parse_constant=constant,
            object_pairs_hook=members,
        )
        made = _cleaned(value, _MAX_DEPTH, refuse)
        if not clean and made != value:
            refuse("it holds control characters")
        return made
    except RecursionError:
        refuse("it is nested too deeply")
    except RunError:
        raise
    except ValueError as error:
        refuse(str(error)[:120])


def _cleaned(value: Any, depth: int, refuse: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict | list):
        if not depth:
            refuse(f"it is nested more than {_MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            return {clean_text(name): _cleaned(inner, depth - 1, refuse) for name, inner in value.items()}
        return [_cleaned(inner, depth - 1, refuse) for inner in value]
    return value


def read_json(path: Path) -> dict[str, Any] | None:
    """Read an object; None where there is no such file."""
    try:
        values = parse_json(read_regular(path), path)
    except FileNotFoundError:
        return None
    if not isinstance(values, Mapping):
        raise RunError(f"{path} holds no JSON object; was it written by `classify`?")
    return dict(values)


class SchemaError(RunError):
    """A value of a file is not what the file's kind has there."""


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


def record(
    needed: Mapping[str, Check],
    free: Mapping[str, tuple[Check, Any]] | None = None,
    known: Mapping[str, Check] | None = None,
) -> Check:
    """Take an object: *needed* names, *free* ones with their defaults, *known* ones if they are there; no others."""

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            wrong(where, value, "an object")
        lacking = [name for name in needed if name not in value]
        if lacking:
            raise SchemaError(f"{where} lacks {', '.join(lacking)}")
        defaults = {name: default for name, (_, default) in (free or {}).items()}
        checks = {**needed, **{name: inner for name, (inner, _) in (free or {}).items()}, **(known or {})}
        return {
            name: inner(value[name], f"{where}.{name}") if name in value else copy(defaults[name])
            for name, inner in checks.items()
            if name in value or name in defaults
        }

    return check
