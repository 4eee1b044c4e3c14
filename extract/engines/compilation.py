"""Whether a network is compiled: as was asked, as its blocks were begun, or as pays."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from extract.encoders import Encoder
from extract.encoders.weights import silence_logging
from extract.engines import Device
from extract.engines.forward import Forward
from extract.errors import EncoderError
from extract.timings import Clock
from features_store.errors import first_line, unknown_name

MODES = ("auto", "on", "off")
SECONDS = 60.0
"""What compiling one network costs a CPU with two cores: 25 to 100 seconds for the networks of the profile `fusion`."""
SAVED = 0.1
"""Share of the time of a forward pass that compiling saves on most networks with convolutions; up to a half."""


def check_mode(mode: str) -> str:
    """Return a value of ``--compile``.

    Raises EncoderError.
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
    tell : callable
        Takes one line for people.
    """

    mode: str
    device: Device
    tell: Callable[[str], None]
    precision: str = "auto"

    def forward(self, network: Encoder, n_views: int, clock: Clock, *, batch_size: int, before: bool | None) -> Forward:
        """Return the forward pass of a network."""
        make = partial(Forward, network, self.device, precision=self.precision)
        plain = make()
        if not self.wanted(plain, n_views, batch_size=batch_size, before=before):
            return plain
        name = network.spec.name
        self.tell(f"{name}: is compiled first, which takes a minute or two (--compile off leaves it as it is)")
        with clock.part("compile"):
            compiled = make(compiled=True)
            problem = _problem(compiled, batch_size)
            free = problem is None and self.mode == "auto" and before is None
            faster = not free or _faster(compiled, plain, batch_size)
        if problem is not None:
            self.tell(f"{name}: cannot be compiled here ({problem}) and runs as it is, only slower")
        elif not faster:
            self.tell(f"{name}: is no faster when compiled, and runs as it is")
        return compiled if problem is None and faster else plain

    def wanted(self, plain: Forward, n_views: int, *, batch_size: int, before: bool | None) -> bool:
        """Tell whether the network of a forward pass is to be compiled; see `forward`."""
        if plain.network.module is None or self.mode != "auto":
            return plain.network.module is not None and self.mode == "on"
        return self._pays(plain, n_views, batch_size) if before is None else before

    def _pays(self, plain: Forward, n_views: int, batch_size: int) -> bool:
        if self.device.kind != "cpu":
            return False
        # The first pass is slow; if even that one is fast enough, there is no second.
        return all(SAVED * seconds_per_view(plain, batch_size) * n_views >= SECONDS for _ in range(2))


def seconds_per_view(forward: Forward, batch_size: int) -> float:
    """Time one pass, and return the seconds that one view takes while all streams are busy."""
    start = time.perf_counter()
    forward(forward.buffer(batch_size))
    return (time.perf_counter() - start) / batch_size / max(1, forward.n_slots - 1)


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


def _problem(compiled: Forward, batch_size: int) -> str | None:
    """Compile by running a batch; return the first words of what went wrong."""
    try:
        with warnings.catch_warnings(), silence_logging():
            warnings.simplefilter("ignore")  # of torch's own future
            compiled(compiled.buffer(batch_size))
    except Exception as error:  # there is no end to what can be missing: a compiler, its headers, an operator
        return first_line(error)
    return None
