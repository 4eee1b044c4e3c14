"""Where the weights of a network come from, and proof of which they are."""

from __future__ import annotations

import errno
import hashlib
import logging
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from extract.errors import HubError, WeightsError
from features_store import AffectoryError, DiskSpaceError
from features_store.errors import FULL_DISK, first_line

if TYPE_CHECKING:
    import torch

    from extract.encoders.spec import EncoderSpec

_PROBE_SECONDS = 3.0
_BIAS = 0.5
_SEED_THREADS = 2  # fixed: the sums of a convolution, and so the batch statistics of random weights, depend on it
_FORBIDDEN = frozenset((errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO))


@dataclass(frozen=True)
class Weights:
    """The value of ``--weights``: the published weights, a seeded initialisation, or a checkpoint file."""

    kind: Literal["auto", "random", "file"] = "auto"
    seed: int = 0
    path: Path | None = None

    @property
    def are_published(self) -> bool:
        """Whether they are those that the library or the hub has."""
        return self.kind == "auto"

    @property
    def are_random(self) -> bool:
        """Whether they are drawn from the seed."""
        return self.kind == "random"

    @property
    def source(self) -> str:
        """The word for passports; a file is named by its sha256, not by its place."""
        return f"random:{self.seed}" if self.are_random else self.kind


def parse_weights(text: str) -> Weights:
    """Read the value of ``--weights``."""
    valid = "valid: auto, random:SEED (a whole number from 0, of at most nine digits), or the path of a checkpoint file"
    if text == "auto":
        return Weights()
    if text.startswith("random:"):
        seed = text.removeprefix("random:")
        if not (seed.isascii() and seed.isdigit() and len(seed) <= 9):
            raise WeightsError(f"--weights {text!r} has no seed; {valid}")
        return Weights(kind="random", seed=int(seed))
    path = Path(text)
    if not path.is_file():
        raise WeightsError(f"--weights {text!r} is no file; {valid}")
    return Weights(kind="file", path=path)


def sha256_of_state(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of a state dict: over name, type, shape and bytes of each tensor, sorted by name."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(dtype=torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_record(source: str, module: torch.nn.Module) -> dict[str, Any]:
    """Return the passport's entry for the weights of a module."""
    return {"source": source, "sha256": sha256_of_state(module.state_dict())}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from one seed, without touching torch's global generator."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Initialise networks from one seed: equal weights whatever number of threads torch has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(_SEED_THREADS)
    try:
        with seeded(seed):
            yield
    finally:
        torch.set_num_threads(before)


def calibrate_batch_norm(module: torch.nn.Module, size: tuple[int, int]) -> torch.nn.Module:
    """Give a randomly initialised network the batch statistics of one batch of noise of (height, width); return it.

    With initial statistics, activations grow or shrink from layer to layer until the vectors no longer fit into
    float16. The noise is like photographs, strong in large forms and weak in small ones, with contrasts from faint to
    hard: with noise of one kind, activations explode at the next photograph, and rounding errors with them. Biases
    above zero keep most units active; without them, a random Inception-v3 turns a difference of one grey level in a
    few pixels into another vector, which no trained network does. Draws from torch's generator, so call it under
    `seeded_weights`.
    """
    import torch

    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    if not norms:
        return module
    module.eval()
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.train()
        layer.momentum = 1.0  # keep nothing of the old statistics
        if layer.bias is not None:
            layer.bias.data.fill_(_BIAS)
    with torch.no_grad():
        module(_noise(6, size))
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return module.eval()


def _noise(n_images: int, size: tuple[int, int]) -> torch.Tensor:
    """Draw images of octaves of noise, each of a higher contrast than the one before: (n_images, 3, *size)."""
    import torch
    from torch.nn.functional import interpolate

    octaves = []
    for edge, strength in ((1, 0.3), (8, 0.4), (32, 0.6), (128, 0.8)):  # edge in pixels
        coarse = torch.randn(n_images, 3, *(max(length // edge, 2) for length in size))
        octaves.append(strength * interpolate(coarse, size=size, mode="bilinear"))
    return torch.stack(octaves).sum(0) * torch.linspace(0.2, 3, n_images).view(-1, 1, 1, 1)


@contextmanager
def silence_logging() -> Iterator[None]:
    """Keep the model libraries from logging; what matters is raised, or stands in the passport."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def hub_errors(spec: EncoderSpec) -> Iterator[None]:
    """Turn every failure to reach a model hub into one error that says what to do."""
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    # Without this the client retries for most of a minute per file where there is no network at all.
    constants.HF_HUB_OFFLINE = offline or not _reachable(constants.ENDPOINT)
    try:
        with silence_logging():
            yield
    except Exception as error:
        if (fault := _local_fault(error)) is not None:
            raise fault from error
        libraries = ("httpx", "httpcore", "huggingface_hub", "requests", "urllib", "urllib3")
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in libraries:
            raise
        reason = first_line(error).partition(". ")[0].rstrip(".")
        raise HubError(
            f"the weights of {spec.name!r} ({spec.library} {spec.architecture}) are not in the caches {_caches()}, and "
            f"their hub cannot be reached ({reason[:160]}); give a checkpoint with --weights FILE, fill the cache on "
            "a machine with a network"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = offline


def _refuse(self: socket.socket, address: object) -> None:
    raise OSError(errno.ENETUNREACH, "downloads are not allowed")


@contextmanager
def local_weights() -> Iterator[None]:
    """Refuse every connection: weights in the caches are found, and nothing is fetched."""
    before = socket.socket.connect
    socket.socket.connect = _refuse  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        socket.socket.connect = before  # type: ignore[method-assign]


def _reachable(endpoint: str) -> bool:
    if socket.socket.connect is _refuse:
        return False
    url = urllib.request.urlparse(endpoint)  # type: ignore[attr-defined]
    if urllib.request.getproxies().get(url.scheme):
        return True  # only the proxy knows
    try:
        socket.create_connection((url.hostname, url.port or 443), timeout=_PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def _caches() -> str:
    import torch
    from huggingface_hub import constants

    return f"{constants.HF_HUB_CACHE} and {Path(torch.hub.get_dir()) / 'checkpoints'}"


def _local_fault(error: BaseException) -> AffectoryError | None:
    """Return the error of this machine's own disk that lies behind a failed download, if it is that."""
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        place = getattr(cause, "filename", None) or f"one of the caches {_caches()}"
        if number in FULL_DISK or "No space left on device" in str(cause):
            return DiskSpaceError(
                f"weights do not fit on the disk of {place}; free some space, or set HF_HOME and TORCH_HOME elsewhere"
            )
        if number in _FORBIDDEN and getattr(cause, "filename", None):  # a socket has none
            return WeightsError(
                f"weights cannot be read or kept in {place}: {first_line(cause)}; set HF_HOME and TORCH_HOME elsewhere"
            )
        cause = cause.__cause__ or cause.__context__
    return None
