"""TOML: read from files that may be anybody's, and values written as it, which the standard library does not do."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from classify.errors import ConfigError, RunError
from classify.json_file import read_regular
from features_store.atomic import typed_path
from features_store.console import key_values

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser under its older name
    import tomli as tomllib

_MAX_BYTES = 4 * 2**20


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, or raise a `ConfigError` that says why not."""
    try:
        values = tomllib.loads(read_regular(typed_path(path), _MAX_BYTES).decode("utf-8"))
        _check_numbers(values)
    except FileNotFoundError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from error
    except RunError as error:
        raise ConfigError(f"cannot read the config file: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not valid TOML: it is nested too deeply") from error
    except ValueError as error:  # that of the parser, of a text that is not UTF-8, of a number with 5,000 digits
        raise ConfigError(f"{path} is not valid TOML: {str(error)[:200]}") from error
    return values


def _check_numbers(value: Any) -> None:
    """Refuse numbers that nothing here can hold, and the times and dates of TOML, for which there is no key."""
    if isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            _check_numbers(one)
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"the number {str(value)[:30]} has more than 64 bits")
    elif not isinstance(value, str | bool | int | float):
        raise ValueError(f"{value} is a time or a date")


def toml_key(key: str) -> str:
    """Write a key; quoted where it has other characters than TOML allows bare."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


def toml_value(value: Any) -> str:
    """Write a value; None, for which TOML has no word, as the text "none"."""
    value = "none" if value is None else value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)  # also inf and nan, which TOML spells as Python does
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{toml_key(k)} = {toml_value(v)}' for k, v in value.items())}}}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    raise ConfigError(f"a setting of type {type(value).__name__} ({value!r}) cannot be written to a config file")


def plain_value(value: Any) -> Any:
    """Let the word ``none`` stand for None, for which TOML has no value."""
    return None if value == "none" else value


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs as the command line gives them.

    A value that is valid TOML is taken as such (``300``, ``1e-5``, ``true``, ``[1000, 200]``); any other is a
    text, and ``none`` is None.
    """
    texts = key_values("--set", pairs, "epochs=50")
    return {key: plain_value(_value(text.strip())) for key, text in texts.items()}


def _value(text: str) -> Any:
    if "\n" in text:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
