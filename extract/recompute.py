"""Vectors of single images: by an encoder's name, or again as the passport of a block describes them.

`recompute` is what ``features-store verify --recompute`` calls; it is registered under the entry point group
``affectory.recompute``, and `features_store.verify` has the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora import Dataset, find_corpus
from extract.corpora.dataset import portable_path
from extract.encoders import Encoder, Tap, Weights, build_encoders, find_encoders
from extract.encoders.fitted import locate_network
from extract.encoders.weights import local_weights, parse_weights
from extract.engines import Device, choose_device
from extract.engines.forward import Forward
from extract.errors import EncoderError, HubError, RefusedImageError, WeightsError
from extract.inputs.files import Files
from extract.inputs.images import make_decoder
from extract.inputs.pixels import to_rgb
from extract.inputs.views import CANONICAL, Views
from extract.passport import plain
from features_store import MismatchError

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageEncoder:
    """Vectors of single images by one encoder: call it with PIL images or paths.

    Parameters
    ----------
    network : Encoder
        As built.
    device : Device
        Where it runs.
    precision : str
        See `extract.engines.device.Device.autocast`.
    decoder : {"torchvision", "simplejpeg", "pillow"}
        Of files.
    batch_size : int, optional
        Images per forward pass, always full. None = that of the device.
    """

    def __init__(
        self,
        network: Encoder,
        device: Device,
        *,
        precision: str = "auto",
        decoder: str = "torchvision",
        batch_size: int | None = None,
    ) -> None:
        self.network = network
        self._forward = Forward(network, device, precision=precision)
        self._size = batch_size or device.batch_size
        self._decode = make_decoder(decoder)

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Return the picture in the bytes of a file: (height, width, 3) uint8."""
        return self._decode(data)

    def vectors(self, pictures: Sequence[NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]:
        """Return by tap the vectors of RGB pictures: (n_images, n_features)."""
        found: dict[str, list[NDArray[np.float32]]] = {tap.name: [] for tap in self.network.spec.taps}
        for start in range(0, len(pictures), self._size):
            some = pictures[start : start + self._size]
            batch = self._forward.buffer(self._size)
            for slot, picture in enumerate(some):
                batch[slot] = self.network.prepare(picture)
            for tap, values in self._forward(batch).items():
                found[tap].append(values[: len(some)].reshape(len(some), -1))
        return {
            tap: np.concatenate(parts) if parts else np.zeros((0, int(np.prod(self.network.shapes[tap]))), np.float32)
            for tap, parts in found.items()
        }

    def __call__(self, images: Sequence[Image | Path | str]) -> dict[str, NDArray[np.float32]]:
        """Return by block the vectors of images: (n_images, n_features) float32."""
        blocks = {tap: self.network.spec.block(tap) for tap in self.network.shapes}
        pictures = [self._picture(image) for image in images]
        return {blocks[tap]: vectors for tap, vectors in self.vectors(pictures).items()}

    def _picture(self, image: Image | Path | str) -> NDArray[np.uint8]:
        if isinstance(image, (str, Path)):
            try:
                return self._decode(Files(Path(), np.array([str(image)])).read(0))
            except RefusedImageError as refused:
                raise RefusedImageError(refused.status, f"{image}: {refused}") from refused
        from PIL import ImageOps

        return np.ascontiguousarray(to_rgb(ImageOps.exif_transpose(image), b""))  # the copy is of no file format


def load_encoder(name: str, *, weights: str = "auto", device: str = "auto", precision: str = "auto") -> ImageEncoder:
    """Load an encoder as a function of images, without a store.

    Parameters
    ----------
    name : str
        A name of `extract.ENCODERS`, ``timm:NAME``, ``open_clip:ARCH/TAG``, or ``ENCODER@MODULE[:POOLING]``.
    weights : str
        "auto" (pretrained), "random:SEED", or a checkpoint file.
    device, precision : str
        As of ``extract run``.

    Returns
    -------
    ImageEncoder
        Takes a list of PIL images or paths; returns by block an array of shape (n_images, n_features), float32. A
        feature map comes flattened.

    Raises
    ------
    ExtractError
        If the encoder, its weights or the device are not there.

    Examples
    --------
    >>> encode = extract.load_encoder("efficientnet_lite0")    # doctest: +SKIP
    >>> encode(["photos/calm/0.jpg"])["efficientnet_lite0.pool"].shape    # doctest: +SKIP
    (1, 1280)
    """
    specs, chosen = find_encoders([name]), choose_device(device)
    (network,) = build_encoders(specs, parse_weights(weights))
    return ImageEncoder(network, chosen, precision=precision)


def recompute(
    passport: Mapping[str, Any],
    ids: Sequence[str],
    corpus: Mapping[str, Any],
    data: Path | Mapping[str, Path] | None,
    networks: Sequence[Path] = (),
    *,
    allow_download: bool = False,
) -> list[NDArray[np.floating[Any]] | str]:
    """Make the vectors of some images again, on the fastest device that there is.

    The passport chooses the weights, and may be a stranger's: they are fetched only with *allow_download*.
    """
    dataset = _read_dataset(corpus, data)
    rows = {image_id: row for row, image_id in enumerate(dataset.index.ids.tolist())}
    views, device = _views(passport), choose_device()
    network = _network(passport, networks, allow_download=allow_download)
    decoder = "pillow" if passport.get("decoder") == "pillow" else "torchvision"
    encode = ImageEncoder(network, device, precision=nearest_precision(passport, device.kind), decoder=decoder)
    found: list[NDArray[np.floating[Any]] | str] = []
    for image_id in ids:
        if image_id not in rows:
            found.append("the corpus has no such image any more")
            continue
        try:
            rgb = encode.decode(dataset.files.read(rows[image_id]))
        except RefusedImageError as refused:
            found.append(f"{refused.status.reason}: {refused}")
            continue
        pictures = [views.make(rgb, image_id, view) for view in range(views.n)]
        found.append(encode.vectors(pictures)[str(passport["tap"])])
    return found


def nearest_precision(passport: Mapping[str, Any], device: str) -> str:
    """Return the precision that comes nearest to the one a block was made with: float16 is none of a CPU's."""
    precision = str(passport.get("autocast") or "float32")
    return "float32" if precision == "float16" and device == "cpu" else precision


def _read_dataset(corpus: Mapping[str, Any], data: Path | Mapping[str, Path] | None) -> Dataset:
    name = corpus.get("name")
    if not isinstance(name, str):
        raise MismatchError("the store does not say which corpus it was made from, so its images cannot be found")
    options = corpus.get("options", {})
    found = find_corpus(name)
    defaults = {key: plain({key: option.default})[key] for key, option in found.options.items()}
    given = dict(options) if isinstance(options, Mapping) else {}
    texts = {key: str(value) for key, value in given.items() if key not in defaults or value != defaults[key]}
    for key in texts.keys() & found.options.keys():
        texts[key] = portable_path(texts[key]) if found.options[key].path else texts[key]
    return found.read(data, texts)


def _views(passport: Mapping[str, Any]) -> Views:
    record = passport.get("views")
    if record is None:
        return CANONICAL
    n, policy = record.get("n"), record.get("policy")
    if not isinstance(n, int) or not isinstance(policy, str):
        raise MismatchError(f"the block's passport has the views {record!r:.80}: it was not made by `extract`")
    views = Views(n, policy)
    if plain(views.record()) != plain(record):
        raise MismatchError(f"the block was made with the views {record}; this version makes {views.record()}")
    return views


_FORM: Mapping[str, Any] = {
    "encoder": str,
    "tap": str,
    "weights": Mapping,
    "transform": Mapping,
    "resizer": str,
    "layer": (Mapping, type(None)),
    "views": (Mapping, type(None)),
}


def _network(passport: Mapping[str, Any], networks: Sequence[Path], *, allow_download: bool) -> Encoder:
    """Build what a passport describes, and see that it is that."""
    for key, form in _FORM.items():
        if not isinstance(passport.get(key), form):
            raise MismatchError(
                f"the block's passport has no {key!r} of the right form: it was not made by `extract`, and cannot be "
                "recomputed"
            )
    layer = passport.get("layer") or {}
    tap = Tap(str(passport["tap"]), module=str(layer.get("module", "")), pooling=str(layer.get("pooling", "")))
    source = str(passport["weights"].get("source", "auto"))
    name = locate_network(str(passport["encoder"]), passport["weights"], networks)
    try:
        with nullcontext() if allow_download else local_weights():
            network = _built(name, tap, source, str(passport["resizer"]))
    except HubError as error:
        if allow_download:
            raise
        raise WeightsError(
            f"the weights of {name!r} are not on this machine; --allow-download fetches them from the hub that the "
            "passport names"
        ) from error
    made = {
        "weights": dict(network.weights),
        "transform": plain(network.transform),
        "layer": plain(network.details.get(tap.name)),
    }
    for key, value in made.items():
        if plain(passport.get(key)) != value:
            raise MismatchError(
                f"the block was made with {key} {passport.get(key)}; what can be built here has {value}"
            )
    return network


@lru_cache(maxsize=1)  # the blocks of one encoder follow each other
def _built(name: str, tap: Tap, source: str, resizer: str) -> Encoder:
    (encoder,) = find_encoders([name])
    known = {one.name: one for one in encoder.taps}
    if tap.name not in known and not tap.module:
        raise EncoderError(f"encoder {name!r} has no tap {tap.name!r}; valid: {', '.join(known)}")
    if source == "file":
        raise WeightsError(
            f"the weights of {name!r} came from a file whose place is not recorded; the block cannot be recomputed"
        )
    weights = parse_weights(source) if source.startswith("random:") else Weights()
    (network,) = build_encoders([replace(encoder, taps=(known.get(tap.name, tap),))], weights, resizer)
    return network
