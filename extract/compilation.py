"""Whether a network is compiled: as was asked, as its blocks were begun, or as pays."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from extract.clock import Clock
from extract.encoders import Encoder, Network
from extract.encoders.weights import quiet
from extract.errors import EncoderError
from extract.forward import Forward
from extract.streams import Streams
from features_store import open_store
from features_store.errors import first_line, unknown_name

MODES = ("auto", "on", "off")
SECONDS = 60.0
"""What compiling one network costs a CPU with two cores: 25 to 100 seconds for the networks of the profile `card`."""
SAVED = 0.1
"""Share of the time of a forward pass that compiling saves on most networks with convolutions; up to a half."""


def check_mode(mode: str) -> str:
    """Return a value of ``--compile``.

    Raises
    ------
    EncoderError
        If it is unknown.
    """
    if mode not in MODES:
        raise EncoderError(unknown_name("value of --compile", mode, MODES))
    return mode


@dataclass(frozen=True)
class Compilation:
    """Make forward passes, compiled or not.

    Parameters
    ----------
    mode : {"auto", "on", "off"}
        "auto" goes on as the blocks were begun, so that a run that was interrupted ends with the same bytes; for new
        blocks it times the plain network on the CPU, compiles where the images to come repay it, and keeps what it
        compiled if that is faster (a vision transformer may be slower). On CUDA it never compiles.
    device : {"cpu", "cuda"}
    batch_size : int
    tell : callable
        Takes one line for people.
    precision : {"auto", "float32", "bfloat16", "float16"}
    streams : Streams, optional
        As of `extract.forward.Forward`.
    """

    mode: str
    device: str
    batch_size: int
    tell: Callable[[str], None]
    precision: str = "auto"
    streams: Streams | None = None

    def forward(self, network: Network, n_views: int, clock: Clock, *, before: bool | None) -> Forward:
        """Return the forward pass of a network.

        Parameters
        ----------
        network : Network
        n_views : int
            Vectors that are to be made.
        clock : Clock
            Counts what compiling takes.
        before : bool, optional
            Whether the blocks that are there were made by the compiled network. None = no block is there.

        Returns
        -------
        Forward
            Not compiled where there is no network, or where compiling fails or gains nothing, which is told.
        """
        make = partial(Forward, network, self.device, precision=self.precision, streams=self.streams)
        plain = make()
        if not self.wanted(plain, n_views, before=before):
            return plain
        name = network.encoder.name
        self.tell(f"{name}: is compiled first, which takes a minute or two (--compile off leaves it as it is)")
        with clock.part("compile"):
            compiled = make(compiled=True)
            problem = _problem(compiled, self.batch_size)
            free = problem is None and self.mode == "auto" and before is None
            faster = not free or _faster(compiled, plain, self.batch_size)
        if problem is not None:
            self.tell(f"{name}: cannot be compiled here ({problem}) and runs as it is, only slower")
        elif not faster:
            self.tell(f"{name}: is no faster when compiled, and runs as it is")
        return compiled if problem is None and faster else plain

    def wanted(self, plain: Forward, n_views: int, *, before: bool | None) -> bool:
        """Tell whether the network of a forward pass is to be compiled; see `forward`."""
        if plain.network.module is None or self.mode != "auto":
            return plain.network.module is not None and self.mode == "on"
        return self._pays(plain, n_views) if before is None else before

    def _pays(self, plain: Forward, n_views: int) -> bool:
        if self.device != "cpu":
            return False
        n_streams = self.streams.n if self.streams else 1
        for _ in range(2):  # the first pass is slow; if even that one is fast enough, there is no second
            start = time.perf_counter()
            plain(plain.buffer(self.batch_size))
            saved = SAVED * (time.perf_counter() - start) * n_views / self.batch_size / n_streams
            if saved < SECONDS:
                return False
        return True


def _faster(compiled: Forward, plain: Forward, batch_size: int) -> bool:
    """Tell whether the shortest pass of `compiled` is shorter, of five that each runs in turn.

    The shortest, since what else the machine does only ever adds to a pass.
    """
    seconds: dict[Forward, list[float]] = {compiled: [], plain: []}
    for _ in range(5):
        for forward, taken in seconds.items():
            start = time.perf_counter()
            forward(forward.buffer(batch_size))
            taken.append(time.perf_counter() - start)
    return min(seconds[compiled]) < min(seconds[plain])


def compiled_before(encoder: Encoder, store: Path) -> bool | None:
    """Tell whether the blocks of an encoder in a store were made by the compiled network; None = there is no block."""
    paths = [store / f"{encoder.block(tap.name)}.h5" for tap in encoder.taps]
    there = [path for path in paths if path.exists()]
    if not there:
        return None
    records = [block.passport.get("environment") for path in there for block in open_store(path).blocks.values()]
    return any(isinstance(record, dict) and record.get("compiled") is True for record in records)


def _problem(compiled: Forward, batch_size: int) -> str | None:
    """Compile by running a batch; return the first words of what went wrong."""
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")  # of torch's own future
            compiled(compiled.buffer(batch_size))
    except Exception as error:  # there is no end to what can be missing: a compiler, its headers, an operator
        return first_line(error)
    return None
