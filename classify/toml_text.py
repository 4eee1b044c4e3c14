"""Values as TOML text, which the standard library reads and doesn't write."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from classify.errors import ConfigError

__all__ = ["toml_key", "toml_value"]


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
    message = f"a setting of type {type(value).__name__} ({value!r}) can't be written to a config file"
    raise ConfigError(message)
