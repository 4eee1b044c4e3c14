"""Whether the encoder that is here is the one that made a block."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from classify.errors import ModelError
from classify.json_schema import SchemaError, anything, choice, optional, record, table, text
from classify.runs.report_json import passport_weights
from features_store.schema import VECTOR_DTYPES

__all__ = ["brief", "check_encoder", "check_passport"]

_REMEDY = "predict with the encoder that the head was trained on, or extract again and train anew"


def check_encoder(block: str, passport: Mapping[str, Any], network: Any) -> None:
    """Refuse an encoder that would give other vectors than those that the head was trained on.

    Raises ModelError.
    """
    theirs, ours = passport_weights(passport).get("sha256"), network.weights.get("sha256")
    name = network.spec.name
    if theirs != ours:
        message = (
            f"the weights of {name!r} here have the SHA-256 {ours}, those of block {block!r} {theirs}: the head was "
            f"trained on other vectors; {_REMEDY}"
        )
        raise ModelError(message)
    tap = str(passport["tap"])
    made = {
        "library": network.spec.library,
        "architecture": network.spec.architecture,
        "transform": json.loads(json.dumps(dict(network.transform))),
        "layer": json.loads(json.dumps(network.details.get(tap))),
    }
    for field, value in made.items():
        if passport.get(field) != value:
            message = (
                f"the {field} of {name!r} here is {value}, that of block {block!r} {passport.get(field)}; {_REMEDY}"
            )
            raise ModelError(message)
    if tap not in network.shapes:
        message = f"the encoder {name!r} here has no tap {tap!r}, which block {block!r} was made of; {_REMEDY}"
        raise ModelError(message)


_LAYER = record({"module": text, "pooling": text})
_PASSPORT = record(
    {"encoder": text, "tap": text, "transform": table(anything), "dtype": choice(*VECTOR_DTYPES)},
    {
        "layer": (optional(_LAYER), None),
        "weights": (optional(record({}, {"source": (text, ""), "sha256": (optional(text), None)})), None),
        "resizer": (text, ""),
        "decoder": (optional(text), None),
        "autocast": (optional(text), None),
    },
)


def check_passport(block: str, passport: Mapping[str, Any]) -> None:
    """Refuse a passport that isn't one of this program's encoders, before anything is built as it says.

    Raises ModelError.
    """
    try:
        _PASSPORT(passport, "its passport")
    except SchemaError as error:
        message = (
            f"block {block!r} wasn't made by an encoder of this program ({error}; it says {brief(passport)}), so no "
            "vector can be made for a new image; train a head without it: classify run ... --blocks"
        )
        raise ModelError(message) from error


def brief(passport: Mapping[str, Any]) -> str:
    """Return what a passport says, short enough for a message."""
    text = json.dumps({key: passport[key] for key in list(passport)[:4]}, ensure_ascii=False)
    return text if len(text) < 160 else text[:157] + "..."
