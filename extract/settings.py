"""How a run is done, whatever its corpus and encoders: each option of ``extract run`` of this kind is a field here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extract.errors import EncoderError, EngineError
from extract.inputs.images import find_decoder
from extract.inputs.views import Views
from features_store.errors import unknown_name
from features_store.writer import FailureLimit

ENGINES = ("local", "ray")
COMPILE_MODES = ("auto", "on", "off")


def silent(_line: str) -> None:
    """Take a line for people, and show it to nobody."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What all blocks of one run have in common, and how the work is done.

    Parameters
    ----------
    device : str
        "auto" (a GPU if one can be used), or a name of `extract.engines.DEVICES`, with ``:N`` for the N-th;
        in `extract.extract` also with ``:N,M`` for several, in a process each.
    precision : {"auto", "float32", "bfloat16", "float16"}
        "auto" is float16 on GPUs with units for it, else float32.
    batch_size : int, optional
        Images per forward pass; the last bits of a vector depend on it. None = as the blocks were begun on such a
        device, or what suits the device.
    compile : {"auto", "on", "off"}
        Whether networks are compiled (local engine only); see `extract.engines.forward.compile_if_faster`.
    decoder : str
        A row of `extract.inputs.images.DECODERS`; "pillow" is the reference, and slower.
    decode_threads : int, optional
        None = one per processor.
    views, policy : int, str
        Vectors per image: the image itself, and ``views - 1`` augmentations by a policy.
    dtype : {"float16", "float32"}
        In which vectors are stored.
    limit : int, optional
        Only the first `limit` images of the index are done, the others stay pending. None = all.
    spread : bool
        Those images are spread evenly over the index, so that one which is sorted by class shows all of them.
    engine : {"local", "ray"}
        Threads of this process, or actors of Ray.
    actors, actor_cpus, actor_gpus : int, float, float, optional
        Of Ray: how many, each holding all networks, and what is reserved for each. Actors that reserve every whole CPU
        leave none to the tasks that feed them, and all wait for ever: keep `actor_cpus` below 1. `actor_gpus` None =
        one for each if the cluster has one, and the CPU was not named.
    actor_threads : int, optional
        Of torch in each actor; vectors are equal to the bit between runs with equally many. None = the threads of
        this process, shared among the actors.
    retry_failed : bool
        Images that failed in earlier runs are tried again.
    content : bool
        Store the SHA-256 of every image file in the index.
    max_failed : str
        Images that may fail, "5%" or a number; above it blocks stay open.
    skip_unreadable : bool
        A file that cannot be read counts as missing, whatever the cause. False = the run stops.
    progress : bool
        Show a bar on the standard error stream.
    echo : callable
        Takes one line for people.
    """

    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    compile: str = "auto"
    decoder: str = "torchvision"
    decode_threads: int | None = None
    views: int = 1
    policy: str = "mediaeval"
    dtype: str = "float16"
    limit: int | None = None
    spread: bool = False
    engine: str = "local"
    actors: int = 2
    actor_cpus: float = 0.5
    actor_gpus: float | None = None
    actor_threads: int | None = None
    retry_failed: bool = False
    content: bool = False
    max_failed: str = "5%"
    skip_unreadable: bool = False
    progress: bool = False
    echo: Callable[[str], None] = silent

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise EngineError(unknown_name("engine", self.engine, ENGINES))
        for what, value, valid in (
            ("value of --compile", self.compile, COMPILE_MODES),
            ("type of vectors", self.dtype, ("float16", "float32")),
        ):
            if value not in valid:
                raise EncoderError(unknown_name(what, value, valid))
        for name in ("batch_size", "limit", "decode_threads", "actors"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EncoderError(f"{name} is {value}; give a whole number of at least 1")
        find_decoder(self.decoder)
        Views(self.views, self.policy)
        FailureLimit(self.max_failed)

    def rows(self, n_images: int) -> NDArray[np.int64]:
        """Return the images of an index that are done."""
        if self.limit is None or self.limit >= n_images:
            return np.arange(n_images)
        return np.linspace(0, n_images - 1, self.limit).astype(np.int64) if self.spread else np.arange(self.limit)

    @property
    def augmentation(self) -> Views:
        """Which views are made of each image."""
        return Views(self.views, self.policy)

    @property
    def resizer(self) -> str:
        """What resizes the images that the decoder gives."""
        return find_decoder(self.decoder).resizer
