"""From image files to predictions: the encoders of a model are rebuilt from its passports, checked, and kept loaded.

One of the two modules that go back to pixels, and so import `extract`, when they are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import ModelError
from classify.inference.model import Model, Prediction
from classify.json_file import SchemaError, anything, choice, optional, record, table, text
from features_store import passport as passports_of_blocks
from features_store.errors import unknown_name
from features_store.schema import VECTOR_DTYPES

if TYPE_CHECKING:
    from extract.encoders import Encoder
    from extract.engines.forward import Forward

Prepared = list[NDArray[Any]]
_READ_AHEAD = 4  # images that are decoded while others are in the networks


@dataclass(frozen=True)
class BlockOutput:
    """The network and tap that a block comes from, and the columns that it fills."""

    block: str
    network: int
    tap: str
    columns: slice
    dtype: str


class Encoders:
    """The networks behind some blocks, in the order in which their vectors are concatenated.

    *passports* are by block, *weights* the checkpoint files by encoder, for those that were extracted with one. With
    *allow_download* weights that are not on this machine are fetched from a model hub: a passport, which may be a
    stranger's, chooses which. A block that no encoder made, or an encoder that here has other weights, another
    architecture or another input than the passport says, is refused (ModelError).
    """

    def __init__(
        self,
        passports: Mapping[str, Mapping[str, Any]],
        *,
        device: str = "auto",
        weights: Mapping[str, Path] | None = None,
        allow_download: bool = False,
    ) -> None:
        from extract.engines import choose_device
        from extract.engines.forward import Forward
        from extract.inputs.images import make_decoder
        from extract.recompute import nearest_precision

        self.networks: list[Encoder] = []
        self.forwards: list[Forward] = []
        self.outputs: list[BlockOutput] = []
        self.n_features = 0
        built: dict[str, int] = {}
        chosen, self._decoder_of = choose_device(device), []
        for block, passport in passports.items():
            _check_passport(block, passport)
        _check_weight_files(passports, weights or {})
        for block, passport in passports.items():
            name = _encoder_name(block, passport, weights or {})
            key = json.dumps([name, *(passport.get(field) for field in ("weights", "resizer", "autocast"))])
            if key not in built:
                built[key] = len(self.networks)
                network = _rebuilt(block, name, passport, weights or {}, allow_download=allow_download)
                self.networks.append(network)
                self.forwards.append(Forward(network, chosen, precision=nearest_precision(passport, chosen.kind)))
                self._decoder_of.append("torchvision" if "torchvision" in str(passport.get("decoder")) else "pillow")
            network, tap = self.networks[built[key]], str(passport["tap"])
            _check_encoder(block, passport, network)
            end = self.n_features + int(np.prod(network.shapes[tap]))
            columns = slice(self.n_features, end)
            self.outputs.append(BlockOutput(block, built[key], tap, columns, str(passport["dtype"])))
            self.n_features = end
        self._decoders = {name: make_decoder(name) for name in set(self._decoder_of)}
        for forward in self.forwards:  # the first pass of a network takes longer than all others
            forward(np.zeros((1, *forward.network.input_shape), dtype=forward.network.input_dtype))

    def decode(self, path: str) -> list[NDArray[np.uint8]]:
        """Read an image file; return it as each network's decoder gives it: (height, width, 3) uint8, by network."""
        from extract.inputs.files import Files

        data = Files(Path(), np.array([path])).read(0)
        pictures = {name: decode(data) for name, decode in self._decoders.items()}
        return [pictures[name] for name in self._decoder_of]

    def prepare(self, pictures: Sequence[NDArray[np.uint8]]) -> Prepared:
        """Return the input of each network for one image."""
        return [network.prepare(one) for network, one in zip(self.networks, pictures, strict=True)]

    def vectors(self, batch: Sequence[Prepared]) -> NDArray[np.float32]:
        """Return the concatenated vectors of some images, (n_images, n_features).

        They are rounded as the store rounds them, so that an image has the same vector here and there; a value too
        large for that becomes infinite.
        """
        found = [self.taps(at, np.stack([one[at] for one in batch])) for at in range(len(self.networks))]
        whole = np.empty((len(batch), self.n_features), dtype=np.float32)
        for output in self.outputs:
            with np.errstate(over="ignore"):
                rounded = found[output.network][output.tap].reshape(len(batch), -1).astype(output.dtype)
            whole[:, output.columns] = rounded
        return whole

    def taps(self, network: int, batch: NDArray[Any]) -> Mapping[str, NDArray[np.float32]]:
        """Return the vectors of a batch for one network, by tap."""
        return self.forwards[network](batch)


_PASSPORT = record(
    {"encoder": text, "tap": text, "transform": table(anything), "dtype": choice(*VECTOR_DTYPES)},
    {
        "layer": (optional(record({"module": text, "pooling": text})), None),
        "weights": (optional(record({}, {"source": (text, ""), "sha256": (optional(text), None)})), None),
        "resizer": (text, ""),
        "decoder": (optional(text), None),
        "autocast": (optional(text), None),
    },
)


def _check_passport(block: str, passport: Mapping[str, Any]) -> None:
    """Refuse a passport that is not one of this program's encoders, before anything is built from it."""
    try:
        _PASSPORT(passport, "its passport")
    except SchemaError as error:
        shown = json.dumps({key: passport[key] for key in list(passport)[:4]}, ensure_ascii=False)
        raise ModelError(
            f"block {block!r} was not made by an encoder of this program ({error}; its passport begins {shown[:160]}), "
            "so no vector can be made for a new image; train a head without it: classify run ... --blocks"
        ) from error


def _check_weight_files(passports: Mapping[str, Mapping[str, Any]], files: Mapping[str, Path]) -> None:
    """Refuse a checkpoint for a network that is not there, or that reads none."""
    from extract.encoders import ENCODERS

    valid = {
        str(one["encoder"])
        for one in passports.values()
        if not str(passports_of_blocks.weights(one).get("source", "")).startswith("random:")
        and (one["encoder"] not in ENCODERS or ENCODERS[str(one["encoder"])].needs_weights)
    }
    for name in files:
        if name not in valid:
            words = unknown_name("network", name, valid) if valid else "no network of these blocks reads a file"
            raise ModelError(f"--weights {name}={files[name]} is not used: {words}")


def _check_encoder(block: str, passport: Mapping[str, Any], network: Encoder) -> None:
    """Refuse an encoder that would give other vectors than those that the head was trained on."""
    tap, weights = str(passport["tap"]), passports_of_blocks.weights(passport)
    here = {
        "library": network.spec.library,
        "architecture": network.spec.architecture,
        "transform": dict(network.transform),
        "layer": network.details.get(tap),
        "weights": {"sha256": network.weights.get("sha256")},
    }
    theirs = {name: passport.get(name) for name in here} | {"weights": {"sha256": weights.get("sha256")}}
    differing = passports_of_blocks.differences(theirs, here)
    if tap not in network.shapes:
        differing.append(f"tap: {tap!r} / absent")
    if differing:
        raise ModelError(
            f"the encoder {network.spec.name!r} here is not the one that made block {block!r} (block / here): "
            f"{'; '.join(differing[:5])}; predict with the encoder that the head was trained on, or extract again and "
            "train anew"
        )


def _encoder_name(block: str, passport: Mapping[str, Any], files: Mapping[str, Path]) -> str:
    from extract.encoders import find_encoders
    from extract.encoders.fitted import locate_network
    from extract.errors import EncoderError

    name, tap, layer = passport["encoder"], passport["tap"], passport.get("layer")
    try:
        name = locate_network(
            name, passports_of_blocks.weights(passport), [path for path in files.values() if path.is_dir()]
        )
        known = {one.name for one in find_encoders([name])[0].taps}
    except EncoderError as error:
        raise ModelError(f"block {block!r} cannot be made for new images: {error}") from error
    return f"{name}@{layer['module']}:{layer['pooling']}" if layer and tap not in known else name


def _rebuilt(
    block: str, full_name: str, passport: Mapping[str, Any], files: Mapping[str, Path], *, allow_download: bool
) -> Encoder:
    from extract.encoders import Weights, build_encoders, find_encoders
    from extract.encoders.weights import local_weights
    from extract.errors import HubError

    recorded, name = passports_of_blocks.weights(passport), str(passport["encoder"])
    source = str(recorded.get("source", ""))
    weights = Weights()
    if re.fullmatch(r"random:[0-9]{1,9}", source):
        weights = Weights("random", seed=int(source.removeprefix("random:")))
    elif name in files and files[name].is_dir() != full_name.startswith("fit:"):
        raise ModelError(
            f"--weights {name}={files[name]} is a folder, and {name!r} is no fitted network; give a file"
            if files[name].is_dir()
            else f"--weights {name}={files[name]} is a file, and {name!r} is a fitted network; give its folder"
        )
    elif name in files and not full_name.startswith("fit:"):
        weights = Weights("file", path=files[name])
    elif source == "file":
        raise ModelError(
            f"the weights of {name!r} came from a checkpoint file with SHA-256 {recorded.get('sha256')}; say where it "
            f"is with --weights {name}=FILE"
        )
    (spec,) = find_encoders([full_name])
    try:
        with nullcontext() if allow_download else local_weights():
            (network,) = build_encoders([spec], weights, str(passport.get("resizer", "torchvision")))
    except HubError as error:
        if allow_download:
            raise
        raise ModelError(
            f"block {block!r} needs the weights of {name!r}, which are not on this machine; --allow-download fetches "
            f"them from the model hub of {spec.library}, --weights {name}=FILE takes a file"
        ) from error
    return network


class Predictor:
    """Predicts for image files, with encoders that stay loaded; see `Encoders` for the options."""

    def __init__(
        self,
        model: Model,
        *,
        device: str = "auto",
        weights: Mapping[str, Path] | None = None,
        allow_download: bool = False,
    ) -> None:
        self.model = model
        passports = {name: model.passports[name] for name in model.blocks}
        self.encoders = Encoders(passports, device=device, weights=weights, allow_download=allow_download)
        if self.encoders.n_features != model.head.n_features_in_:
            raise ModelError(
                f"the head takes {model.head.n_features_in_} features, and the blocks {', '.join(model.blocks)} have "
                f"{self.encoders.n_features}"
            )

    def __call__(self, images: Iterable[str]) -> Iterator[Prediction]:
        """Predict image by image, in order; an image that cannot be used has a reason.

        Each image goes through the networks alone, so that its prediction does not depend on its neighbours, and the
        first prediction is there before the second path is read.
        """
        for path in _paths(images):
            yield self._prediction(path, self._prepared(path))

    def many(self, images: Sequence[str], *, step: Callable[[], object] = lambda: None) -> Iterator[Prediction]:
        """Predict for a list of images: the next are decoded while one is in the networks.

        *step* is called after each image. Each prediction is the same as one by one.
        """
        from extract.engines.local import ordered

        with ThreadPoolExecutor(2, thread_name_prefix="decode") as pool:
            paths = list(_paths(images))
            prepared = ordered(pool, self._prepared, paths, ahead=_READ_AHEAD)
            for path, one in zip(paths, prepared, strict=True):
                yield self._prediction(path, one)
                step()

    def _prepared(self, path: str) -> Prepared | str:
        """Return the inputs of the networks, or why the image cannot be used."""
        from extract.errors import RefusedImageError, UnreadableError

        try:
            return self.encoders.prepare(self.encoders.decode(path))
        except UnreadableError as error:
            return str(error).partition(";")[0]
        except RefusedImageError as refused:
            words = str(refused)
            return words if refused.status.reason in words else f"{refused.status.reason}: {words}"

    def _prediction(self, path: str, prepared: Prepared | str) -> Prediction:
        if isinstance(prepared, str):
            return Prediction(path, reason=prepared)
        vectors = self.encoders.vectors([prepared])
        if not np.isfinite(vectors).all():
            return Prediction(path, reason="non-finite: an encoder gave values that the store cannot hold")
        scores = self.model.scores(vectors)[0]
        if not np.isfinite(scores).all():
            return Prediction(path, reason="non-finite: the head gives no number for this image")
        return self.model.predict(path, scores, vectors[0])


def _paths(images: Iterable[Any]) -> Iterator[str]:
    """Yield paths as text; refuse anything else, like an array of pixels."""
    if isinstance(images, str | bytes | Path) or not isinstance(images, Iterable):
        raise ModelError(f"images is {str(images)!r}; give a list of paths, like [{str(images)!r}]")
    for image in images:
        if not isinstance(image, str | Path):
            raise ModelError(f"an image is given as {type(image).__name__}; a predictor takes paths of image files")
        yield str(image)


def image_paths(places: Iterable[str]) -> list[str]:
    """List image files: files as they are given, folders with all images below them."""
    from extract.inputs.disk import find_images

    found: list[str] = []
    for place in places:
        if not Path(place).is_dir():
            found.append(place)
            continue
        inside = find_images(Path(place))
        if not inside:
            raise ModelError(f"{place} holds no image file; give images, or a folder that holds some")
        found += [str(Path(place) / name) for name in inside]
    return found
