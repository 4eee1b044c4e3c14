"""How a run is done, whatever its corpus and encoders; a field with a panel is an option of ``extract run``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import EncoderError, EngineError
from extract.inputs.images import find_decoder
from extract.inputs.views import Views
from features_store.errors import unknown_name
from features_store.writer import allowed_failures

ENGINES = ("local", "ray")
COMPILE_MODES = ("auto", "on", "off")


def silent(_line: str) -> None:
    """Take a line for people, and show it to nobody."""


def _option(panel: str, text: str, *, default: Any, **typers: Any) -> Any:
    """Declare a field that is an option of the command line, in a panel of its help."""
    return field(default=default, metadata={"rich_help_panel": panel, "help": text, **typers})


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What all blocks of one run have in common, and how the work is done."""

    limit: int | None = _option("Corpus", "Only the first N images; others stay pending.", default=None, min=1)
    spread: bool = _option("Corpus", "Of --limit: N images from all over the corpus.", default=False)
    retry_failed: bool = _option("Output", "Try images again that failed before.", default=False)
    max_failed: str = _option(
        "Output", "Images that may fail: 5% or 40. Above: exit code 3.", default="5%", metavar="SHARE|N"
    )
    skip_unreadable: bool = _option(
        "Output", "Count a file that cannot be read as missing; else the run stops.", default=False
    )
    content: bool = _option("Output", "Store the SHA-256 of every image in the index.", default=False)
    device: str = _option(
        "Speed", "auto: a GPU if one can be used.", default="auto", metavar="auto|cpu|cuda[:N[,M]]|mps|xpu"
    )  # several only in `extract.extract`, which gives each a process
    precision: str = _option(
        "Speed", "auto: float16 on CUDA, else float32.", default="auto", metavar="auto|float32|bfloat16|float16"
    )
    # The last bits of a vector depend on it. None = as the blocks were begun on such a device, or what suits it.
    batch_size: int | None = _option("Speed", "Images per forward pass: CPU 8, CUDA 128.", default=None, min=1)
    decoder: str = _option("Speed", "Of JPEGs.", default="torchvision", metavar="torchvision|simplejpeg|pillow")
    decode_threads: int | None = None  # None = one per processor
    compile: str = _option("Speed", "auto: where it pays.", default="auto", metavar="auto|on|off")
    views: int = _option("Views", "Vectors per image: itself, and V - 1 augmentations.", default=1, min=1)
    policy: str = _option(
        "Views",
        "How images are augmented.",
        default="mediaeval",
        metavar="mediaeval|flip-rotate-crop|random-crop|strong",
    )
    dtype: str = "float16"  # in which vectors are stored; or float32
    engine: str = _option("Scale-out", "ray joins RAY_ADDRESS, or starts here.", default="local", metavar="local|ray")
    actors: int = _option("Scale-out", "Ray actors; each holds all networks.", default=2, min=1)
    actor_cpus: float = _option(
        "Scale-out", "CPUs reserved per Ray actor; keep it below 1, or Ray's read tasks starve.", default=0.5, min=0.01
    )
    actor_gpus: float | None = _option(
        "Scale-out", "GPUs reserved per Ray actor. Default: 1 if there are any.", default=None, min=0
    )
    # Of torch; vectors are equal to the bit between runs with equally many. None = those of this process, shared.
    actor_threads: int | None = None
    progress: bool = False  # a bar on the standard error stream
    echo: Callable[[str], None] = silent  # takes one line for people

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
        allowed_failures(self.max_failed, 0)

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
