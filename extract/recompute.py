"""Making some rows of a block again as its passport says: what ``features-store verify --recompute`` calls.

Registered under the entry point group ``affectory.recompute``; `features_store.verify` has the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora import Dataset, find_corpus
from extract.encoders import Encoder, Tap, Weights, build_encoders, find_encoders
from extract.encoders.weights import parse_weights
from extract.engines import choose_device
from extract.engines.forward import Forward
from extract.errors import EncoderError, RefusedImageError, WeightsError
from extract.inputs.images import make_decoder
from extract.inputs.views import CANONICAL, Views
from extract.passport import plain
from features_store import MismatchError


def recompute(
    passport: Mapping[str, Any], ids: Sequence[str], corpus: Mapping[str, Any], data: Path | Mapping[str, Path] | None
) -> list[NDArray[np.floating[Any]] | str]:
    """Make the vectors of some images again, on the fastest device that there is.

    Raises AffectoryError.
    """
    reading = _reading(corpus, data)
    rows = {image_id: row for row, image_id in enumerate(reading.index.ids.tolist())}
    network, views = _network(passport), _views(passport)
    decode = make_decoder("pillow" if passport.get("decoder") == "pillow" else "torchvision")
    device = choose_device()
    forward = Forward(network, device, precision=made_with(passport, device.kind))
    batch = np.zeros((device.batch_size, *network.input_shape), dtype=network.input_dtype)

    def vector(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        batch[0] = network.prepare(pixels)  # whole batches of one shape, as when the block was made
        return forward(batch)[str(passport["tap"])][0].ravel()

    found: list[NDArray[np.floating[Any]] | str] = []
    for image_id in ids:
        try:
            if image_id not in rows:
                found.append("the corpus has no such image any more")
                continue
            rgb = decode(reading.files.read(rows[image_id]))
        except RefusedImageError as refused:
            found.append(f"{refused.status.reason}: {refused}")
            continue
        found.append(np.stack([vector(views.make(rgb, image_id, view)) for view in range(views.n)]))
    return found


def made_with(passport: Mapping[str, Any], device: str) -> str:
    """Return the precision that comes nearest to the one a block was made with: float16 is none of a CPU's."""
    precision = str(passport.get("autocast") or "float32")
    return "float32" if precision == "float16" and device == "cpu" else precision


def _reading(corpus: Mapping[str, Any], data: Path | Mapping[str, Path] | None) -> Dataset:
    name = corpus.get("name")
    if not isinstance(name, str):
        msg = "the store does not say which corpus it was made from, so its images cannot be found"
        raise MismatchError(msg)
    options = corpus.get("options", {})
    found = find_corpus(name)
    defaults = {key: plain({key: option.default})[key] for key, option in found.options.items()}
    given = dict(options) if isinstance(options, Mapping) else {}
    texts = {key: str(value) for key, value in given.items() if key not in defaults or value != defaults[key]}
    return found.read(data, texts)


def _views(passport: Mapping[str, Any]) -> Views:
    record = passport.get("views")
    if record is None:
        return CANONICAL
    views = Views(int(record["n"]), str(record["policy"]))
    if plain(views.record()) != plain(record):
        msg = f"the block was made with the views {record}; this version makes {views.record()}"
        raise MismatchError(msg)
    return views


def _network(passport: Mapping[str, Any]) -> Encoder:
    """Build what a passport describes, and see that it is that."""
    for key in ("encoder", "tap", "weights", "transform", "resizer"):
        if key not in passport:
            msg = f"the block's passport has no {key!r}: it was not made by `extract`, and cannot be recomputed"
            raise MismatchError(msg)
    layer = passport.get("layer") or {}
    tap = Tap(str(passport["tap"]), module=str(layer.get("module", "")), pooling=str(layer.get("pooling", "")))
    source = str(passport["weights"].get("source", "auto"))
    network = _built(str(passport["encoder"]), tap, source, str(passport["resizer"]))
    made = {
        "weights": dict(network.weights),
        "transform": plain(network.transform),
        "layer": plain(network.details.get(tap.name)),
    }
    for key, value in made.items():
        if plain(passport.get(key)) != value:
            msg = f"the block was made with {key} {passport.get(key)}; what can be built here has {value}"
            raise MismatchError(msg)
    return network


@lru_cache(maxsize=1)  # the blocks of one encoder follow each other
def _built(name: str, tap: Tap, source: str, resizer: str) -> Encoder:
    (encoder,) = find_encoders([name])
    known = {one.name: one for one in encoder.taps}
    if tap.name not in known and not tap.module:
        msg = f"encoder {name!r} has no tap {tap.name!r}; valid: {', '.join(known)}"
        raise EncoderError(msg)
    if source == "file":
        msg = f"the weights of {name!r} came from a file whose place is not recorded; the block cannot be recomputed"
        raise WeightsError(msg)
    weights = parse_weights(source) if source.startswith("random:") else Weights()
    (network,) = build_encoders([replace(encoder, taps=(known.get(tap.name, tap),))], weights, resizer)
    return network
