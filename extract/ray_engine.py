"""Encoders as actors of Ray Data, on any number of processes, GPUs or hosts; one writer, in the process that asks.

An actor gets rows, reads and decodes them itself, and sends vectors back, which are far smaller than pixels. Vectors
come back in any order and are written by their row. What an actor had not sent when it died is given to another.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.blocks import Sink
from extract.clock import Clock
from extract.encoders import Network
from extract.errors import ActorsError, EngineError, MachineError
from extract.forward import Forward, choose_device
from extract.lane import Lane
from extract.local_engine import Images, LocalEngine
from extract.passports import Circumstances
from extract.shards import Cut
from features_store import Status
from features_store.errors import unknown_name

ENGINES = ("local", "ray")
BATCHES_A_CALL = 4  # within a call, reading and decoding go on while the network runs
_PARTS = ("read", "decode", "transform", "wait for images", "forward")  # the parts of an actor's time


@dataclass(frozen=True)
class Cluster:
    """What is asked of Ray.

    Parameters
    ----------
    actors : int
        Each holds all networks.
    cpus, gpus : float
        What Ray sets aside for each actor. Fractions of a CPU: actors that take every whole CPU leave none to the
        tasks that feed them, and all wait for ever.
    threads : int, optional
        Of torch in each actor; vectors are equal to the bit between runs with equally many. None = the threads of
        this process, shared among the actors.
    """

    actors: int = 2
    cpus: float = 0.5
    gpus: float = 0.0
    threads: int | None = None


def cluster_of(engine: str, device: str, *, actors: int, cpus: float, gpus: float | None) -> Cluster | None:
    """Return what the command line asks of Ray; None = nothing.

    Raises
    ------
    EngineError
        If there is no such engine.
    """
    if engine not in ENGINES:
        raise EngineError(unknown_name("engine", engine, ENGINES))
    if engine == "local":
        return None
    return Cluster(actors, cpus, gpus if gpus is not None else float(choose_device(device) == "cuda"))


@dataclass(frozen=True)
class Work:
    """What every actor needs; it is stored once on each host.

    Parameters
    ----------
    images : Images
    networks : list of Network
    made : Circumstances
        Device, decoder and so on.
    batch_size : int
        Images per forward pass.
    n_decoders : int, optional
        Threads that decode, in each actor.
    """

    images: Images
    networks: list[Network]
    made: Circumstances
    batch_size: int
    n_decoders: int | None = None


class RayEngine:
    """Actors of Ray Data.

    Parameters
    ----------
    cluster : Cluster
    work : Work
    """

    def __init__(self, cluster: Cluster, work: Work) -> None:
        self._cluster, self._work = cluster, work

    def encode(
        self, rows: NDArray[np.int64], sinks: Sequence[Sink], clock: Clock, *, step: Callable[[int], None]
    ) -> None:
        """Give the sinks, one for each network, what they need of some rows.

        Raises
        ------
        EngineError
            If Ray is not installed, or an actor fails in a way that a new one would, too.
        """
        with _ray() as ray:
            shared = ray.put(self._work)
            threads = self._cluster.threads or max(1, _threads() // self._cluster.actors)
            calls = self._calls(rows, sinks)
            vectors = ray.data.from_numpy(calls).map_batches(
                _Actor,
                fn_constructor_args=[(shared,), threads],
                batch_size=None,
                batch_format="numpy",
                compute=ray.data.ActorPoolStrategy(size=min(self._cluster.actors, len(calls))),
                num_cpus=self._cluster.cpus,
                num_gpus=self._cluster.gpus or None,
            )
            for found in _found(ray, vectors, clock):
                with clock.part("write"):
                    for at, (network, sink) in enumerate(zip(self._work.networks, sinks, strict=True)):
                        _put(found, at, network, sink)
                for part, seconds in zip(_PARTS, found["seconds"].sum(axis=0).tolist(), strict=True):
                    clock.add(part, seconds)
                step(len(found["row"]))

    def _calls(self, rows: NDArray[np.int64], sinks: Sequence[Sink]) -> list[NDArray[np.int64]]:
        """Part rows into calls: (n, 1 + n_networks * n_views), the row and what is needed of it."""
        size = self._work.batch_size * max(1, BATCHES_A_CALL // self._work.images.views.n)  # rows; fills its batches
        needed = [sink.needed for sink in sinks]
        return [
            np.concatenate([one[:, None], *(mask[one] for mask in needed)], axis=1, dtype=np.int64)
            for one in np.split(rows, range(size, len(rows), size))
        ]


class _Actor:
    """One actor: all networks, and a local engine."""

    def __init__(self, work: tuple[Any], threads: int) -> None:
        import ray
        import torch

        torch.set_num_threads(threads)
        self._work: Work = ray.get(work[0])
        one = self._work
        self._engine = LocalEngine(one.made.decoder, batch_size=one.batch_size, n_decoders=one.n_decoders)
        self._forwards = [Forward(network, one.made.device, precision=one.made.precision) for network in one.networks]

    def __call__(self, call: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return row, status, seconds by part (in the first row) and vectors (n, n_views, ...) of each block."""
        work, table = self._work, call["data"]
        rows, n_views = table[:, 0], work.images.views.n
        needed = table[:, 1:].reshape(len(rows), len(work.networks), n_views).astype(bool)
        whole = work.images
        part = Images(whole.ids[rows], Cut(whole.source, rows), whole.numbers[rows], whole.views)
        status = np.full(len(rows), Status.WRITTEN, dtype=np.uint8)
        reasons = [""] * len(rows)
        kept = [_Kept(network, needed[:, at], status, reasons) for at, network in enumerate(work.networks)]
        lanes = [
            Lane(network, sink, forward, batch_size=work.batch_size)
            for network, sink, forward in zip(work.networks, kept, self._forwards, strict=True)
        ]
        clock, seconds = Clock(), np.zeros((len(rows), len(_PARTS)))
        self._engine.encode(part, range(len(rows)), lanes, clock, step=lambda _: None)
        seconds[0] = [clock.seconds().get(name, 0.0) for name in _PARTS]
        found = {"row": rows, "status": status, "seconds": seconds, "reason": np.array(reasons)}
        for at, sink in enumerate(kept):
            found.update({_column(at, tap): vectors for tap, vectors in sink.vectors.items()})
        return found


class _Kept:
    """Vectors of one network in memory; a `Sink`."""

    def __init__(
        self, network: Network, needed: NDArray[np.bool_], status: NDArray[np.uint8], reasons: list[str]
    ) -> None:
        self.needed, self._status, self._reasons = needed, status, reasons
        self.vectors = {
            tap: np.zeros((*needed.shape, *shape), dtype=np.float32) for tap, shape in network.shapes.items()
        }

    def write(
        self, rows: NDArray[np.int64], views: NDArray[np.int64], vectors: Mapping[str, NDArray[np.float32]]
    ) -> None:
        for tap, values in vectors.items():
            self.vectors[tap][rows, views] = values.reshape(len(rows), *self.vectors[tap].shape[2:])

    def fail(self, row: int, status: Status, reason: str) -> None:
        self._status[row], self._reasons[row] = status, reason


def _column(network: int, tap: str) -> str:
    return f"{network}/{tap}"


def _put(found: Mapping[str, NDArray[Any]], at: int, network: Network, sink: Sink) -> None:
    """Write what came back of one network."""
    rows, status = found["row"], found["status"]
    for row, failure, reason in zip(rows.tolist(), status.tolist(), found["reason"].tolist(), strict=True):
        if failure != Status.WRITTEN:
            sink.fail(row, Status(failure), str(reason))
    places, views = np.nonzero(sink.needed[rows] & (status == Status.WRITTEN)[:, None])
    taps = [tap.name for tap in network.encoder.taps]
    if len(places):
        sink.write(rows[places], views, {tap: found[_column(at, tap)][places, views] for tap in taps})


def _found(ray: Any, vectors: Any, clock: Clock) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Iterate over what the actors send, as it comes."""
    batches = iter(vectors.iter_batches(batch_size=None, batch_format="numpy"))
    while True:
        try:
            with clock.part("wait for actors"):
                found = next(batches, None)
        except ray.exceptions.RayError as error:
            if isinstance(getattr(error, "cause", None), MachineError):
                raise error.cause from error
            cause = str(getattr(error, "cause", None) or error).strip().splitlines()[-1][:300]
            msg = f"the actors of --engine ray stopped: {cause}; what was written stays, so run again to go on"
            raise ActorsError(msg) from error
        if found is None:
            return
        yield found


@contextmanager
def _ray() -> Iterator[Any]:
    """Join the cluster of RAY_ADDRESS, or start one here that ends with the run.

    Raises
    ------
    EngineError
        If Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its use to its makers unless told not to
    # It also warns on the terminal that actors made anew need the networks again; they are held until the end.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        msg = "--engine ray needs Ray, which is not installed; install it with: pip install 'affectory[ray]'"
        raise EngineError(msg) from error
    ours = not ray.is_initialized()
    if ours:
        # A dashboard may not be spoken of where a cluster is joined.
        dashboard = None if os.environ.get("RAY_ADDRESS") else False
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=dashboard)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the run has its own
    context.print_on_execution_start = False
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _threads() -> int:
    import torch

    return torch.get_num_threads()
