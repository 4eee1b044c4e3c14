"""From image files to answers: the encoders of a model rebuilt from its passports, and kept loaded.

One of the two modules that go back to pixels, and so import `extract`, when they are used.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import ModelError
from classify.inference.downloads import no_network
from classify.inference.model import Answer, Model
from classify.inference.passports import check_encoder, check_passport
from classify.runs.report_json import passport_weights

if TYPE_CHECKING:
    from extract.encoders import Encoder
    from extract.engines.forward import Forward

__all__ = ["Encoders", "Predictor", "image_paths"]

Prepared = list[NDArray[Any]]
_READ_AHEAD = 4  # images that are decoded while others are on their way through the networks


@dataclass(frozen=True)
class _Place:
    """Where the vectors of a block come from, and where they go."""

    block: str
    network: int
    tap: str
    columns: slice
    dtype: str


class Encoders:
    """The networks behind some blocks.

    Parameters
    ----------
    passports : mapping of str to mapping
        By block, in the order in which their vectors stand side by side.
    weights : mapping of str to Path, optional
        By encoder, the checkpoint file, for those that were extracted with one.
    allow_download : bool
        Whether weights that aren't on this machine may be fetched from a model hub: a passport, which may be a
        stranger's, chooses which.

    Raises
    ------
    ModelError
        A block wasn't made by an encoder, or the encoder that is here is another one: its weights, its architecture or
        its input differ from what the passport says.
    ExtractError
        An encoder can't be built.
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
        from extract.recompute import made_with

        self.networks: list[Encoder] = []
        self.forwards: list[Forward] = []
        self.places: list[_Place] = []
        self.forward_seconds = 0.0
        made: dict[str, int] = {}
        chosen, start, self._decoder_of = choose_device(device), 0, []
        for block, passport in passports.items():
            check_passport(block, passport)
            same = [passport.get(field) for field in ("weights", "resizer", "autocast")]
            key = json.dumps([_encoder_name(block, passport), *same])
            if key not in made:
                made[key] = len(self.networks)
                network = _rebuilt(block, passport, weights or {}, allow_download=allow_download)
                self.networks.append(network)
                self.forwards.append(Forward(network, chosen, precision=made_with(passport, chosen.kind)))
                self._decoder_of.append("torchvision" if "torchvision" in str(passport.get("decoder")) else "pillow")
            network, tap = self.networks[made[key]], str(passport["tap"])
            check_encoder(block, passport, network)
            width = int(np.prod(network.shapes[tap]))
            place = _Place(block, made[key], tap, slice(start, start + width), str(passport["dtype"]))
            self.places.append(place)
            start += width
        self.n_features = start
        self._decoders = {name: make_decoder(name) for name in set(self._decoder_of)}
        for forward in self.forwards:  # the first pass of a network takes longer than all others
            forward(np.zeros((1, *forward.network.input_shape), dtype=forward.network.input_dtype))

    def read(self, path: str) -> bytes:
        """Return the bytes of an image file.

        Raises RefusedImageError.
        """
        from extract.inputs.files import Files

        return Files(Path(), np.array([path])).read(0)

    def decode(self, data: bytes) -> list[NDArray[np.uint8]]:
        """Return the picture as each network's decoder gives it: (height, width, 3) uint8, by network.

        Raises RefusedImageError.
        """
        pictures = {name: decode(data) for name, decode in self._decoders.items()}
        return [pictures[name] for name in self._decoder_of]

    def prepare(self, pictures: Sequence[NDArray[np.uint8]]) -> Prepared:
        """Return what each network takes of one image."""
        return [network.prepare(one) for network, one in zip(self.networks, pictures, strict=True)]

    def vectors(self, batch: Sequence[Prepared]) -> NDArray[np.float32]:
        """Return the vectors of some images side by side, (n_images, n_features).

        They are rounded as the store rounds them, so that an image has the vector here that it has there; what is too
        large for that becomes infinite.
        """
        found = [self.taps(at, np.stack([one[at] for one in batch])) for at in range(len(self.networks))]
        whole = np.empty((len(batch), self.n_features), dtype=np.float32)
        for place in self.places:
            with np.errstate(over="ignore"):
                rounded = found[place.network][place.tap].reshape(len(batch), -1).astype(place.dtype)
            whole[:, place.columns] = rounded
        return whole

    def taps(self, network: int, batch: NDArray[Any]) -> Mapping[str, NDArray[np.float32]]:
        """Return the vectors of a batch for one network, by tap."""
        start = time.perf_counter()
        found = self.forwards[network](batch)
        self.forward_seconds += time.perf_counter() - start
        return found


def _encoder_name(block: str, passport: Mapping[str, Any]) -> str:
    from extract.encoders import find_encoders
    from extract.errors import EncoderError

    name, tap, layer = passport["encoder"], passport["tap"], passport.get("layer")
    try:
        known = {one.name for one in find_encoders([name])[0].taps}
    except EncoderError as error:
        message = f"block {block!r} can't be made for new images: {error}"
        raise ModelError(message) from error
    return f"{name}@{layer['module']}:{layer['pooling']}" if layer and tap not in known else name


def _rebuilt(block: str, passport: Mapping[str, Any], files: Mapping[str, Path], *, allow_download: bool) -> Encoder:
    from extract.encoders import Weights, build_encoders, find_encoders
    from extract.errors import HubError

    wanted = passport_weights(passport)
    source, name = str(wanted.get("source", "")), str(passport["encoder"])
    weights = Weights()
    if re.fullmatch(r"random:[0-9]{1,9}", source):
        weights = Weights("random", seed=int(source.removeprefix("random:")))
    elif name in files:
        weights = Weights("file", path=files[name])
    elif source == "file":
        message = (
            f"the weights of {name!r} came from a checkpoint file with SHA-256 {wanted.get('sha256')}; say where it is "
            f"with --weights {name}=FILE"
        )
        raise ModelError(message)
    (encoder,) = find_encoders([_encoder_name(block, passport)])
    try:
        with nullcontext() if allow_download else no_network():
            (network,) = build_encoders([encoder], weights, str(passport.get("resizer", "torchvision")))
    except HubError as error:
        if allow_download:
            raise
        message = (
            f"block {block!r} needs the weights of {name!r}, which aren't on this machine; --allow-download fetches "
            f"them from the model hub of {encoder.library}, --weights {name}=FILE takes a file"
        )
        raise ModelError(message) from error
    return network


class Predictor:
    """Answers for image files, with encoders that stay loaded.

    Parameters
    ----------
    allow_download : bool
        See `Encoders`.

    Raises
    ------
    ModelError
        See `Encoders`; or the head takes another number of features than its blocks have.
    """

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
            message = (
                f"the head takes {model.head.n_features_in_} features, and the blocks {', '.join(model.blocks)} have "
                f"{self.encoders.n_features}"
            )
            raise ModelError(message)
        model.scores(np.zeros((1, self.encoders.n_features), dtype=np.float32))

    def __call__(self, images: Iterable[str]) -> Iterator[Answer]:
        """Answer for images one by one, in order; one that can't be used is answered with a reason.

        Each image goes through the networks alone, so that what is said of it doesn't depend on its neighbours, and
        the first answer is there before the second path is asked for.
        """
        for path in _paths(images):
            yield self._answer(path, self._prepared(path))

    def many(self, images: Sequence[str], *, step: Callable[[], object] = lambda: None) -> Iterator[Answer]:
        """Answer for images that are known beforehand: the next are decoded while one is in the networks.

        *step* is called after each image. Each answer is the same as one by one.
        """
        from extract.engines.batcher import ordered

        with ThreadPoolExecutor(2, thread_name_prefix="decode") as pool:
            paths = list(_paths(images))
            prepared = ordered(pool, self._prepared, paths, ahead=_READ_AHEAD)
            for path, one in zip(paths, prepared, strict=True):
                yield self._answer(path, one)
                step()

    def _prepared(self, path: str) -> Prepared | str:
        """Return what the networks take, or why there is nothing."""
        from extract.errors import RefusedImageError, UnreadableError

        try:
            return self.encoders.prepare(self.encoders.decode(self.encoders.read(path)))
        except UnreadableError as error:
            return str(error).partition(";")[0]
        except RefusedImageError as refused:
            words = str(refused)
            return words if refused.status.reason in words else f"{refused.status.reason}: {words}"

    def _answer(self, path: str, prepared: Prepared | str) -> Answer:
        if isinstance(prepared, str):
            return Answer(path, reason=prepared)
        vectors = self.encoders.vectors([prepared])
        if not np.isfinite(vectors).all():
            return Answer(path, reason="non-finite: an encoder gave values that the store can't hold")
        scores = self.model.scores(vectors)[0]
        if not np.isfinite(scores).all():
            return Answer(path, reason="non-finite: the head gives no number for this image")
        return self.model.answer(path, scores, vectors[0])


def _paths(images: Iterable[Any]) -> Iterator[str]:
    """Yield paths as text; refuse what is none, an array of pixels for example."""
    if isinstance(images, str | bytes | Path):
        message = f"images is {str(images)!r}; give a list of paths, like [{str(images)!r}]"
        raise ModelError(message)
    for image in images:
        if not isinstance(image, str | Path):
            message = f"an image is given as {type(image).__name__}; a predictor takes paths of image files"
            raise ModelError(message)
        yield str(image)


def image_paths(places: Iterable[str]) -> list[str]:
    """Return the images that some places stand for: files as they are, folders with all below them.

    Raises ModelError.
    """
    from extract.inputs.disk import find_images

    found: list[str] = []
    for place in places:
        if not Path(place).is_dir():
            found.append(place)
            continue
        inside = find_images(Path(place))
        if not inside:
            message = f"{place} holds no image file; give images, or a folder that holds some"
            raise ModelError(message)
        found += [str(Path(place) / name) for name in inside]
    return found
