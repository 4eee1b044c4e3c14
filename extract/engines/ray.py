"""Encoders as actors of Ray Data, on any number of processes, GPUs or hosts; one writer, in the process that asks.

An actor gets rows, reads and decodes them itself, and sends vectors back, which are far smaller than pixels. Vectors
come back in any order and are written by their row. What an actor had not sent when it died is given to another.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import RowSubset
from extract.encoders import Encoder
from extract.engines import autocast_dtype, choose_device
from extract.engines.batcher import Lane, Sink
from extract.engines.forward import Forward
from extract.engines.local import Images, LocalEngine
from extract.errors import ActorsError, DeviceError, EngineError, MachineError
from extract.settings import Circumstances
from extract.timings import Clock
from features_store import Status
from features_store.errors import unknown_name

ENGINES = ("local", "ray")
BATCHES_A_CALL = 4  # within a call, reading and decoding go on while the network runs
_PATIENCE = 300  # seconds for the first actor of a cluster, which may have to start a machine
_PARTS = ("read", "decode", "transform", "forward", "wait for images", "wait for the device", "wait for vectors")
"""The parts of an actor's time."""


@dataclass(frozen=True)
class Cluster:
    """What is asked of Ray.

    Parameters
    ----------
    actors : int
        Each holds all networks.
    cpus : float
        What Ray reserves for each actor. Below 1: actors that take every whole CPU leave none to the tasks that feed
        them, and all wait for ever.
    gpus : float, optional
        None = one for each actor if the cluster has one, and the CPU was not asked for.
    threads : int, optional
        Of torch in each actor; vectors are equal to the bit between runs with equally many. None = the threads of
        this process, shared among the actors.
    """

    actors: int = 2
    cpus: float = 0.5
    gpus: float | None = 0.0
    threads: int | None = None


def check_engine(engine: str) -> None:
    """Refuse an engine that does not exist.

    Raises EngineError.
    """
    if engine not in ENGINES:
        raise EngineError(unknown_name("engine", engine, ENGINES))


def ask_cluster(cluster: Cluster, device: str, precision: str) -> tuple[Cluster, dict[str, Any]]:
    """Ask the cluster which device its actors will have; a process without a GPU may drive actors that have one.

    Must be called within `session`.

    Raises DeviceError, EngineError.
    """
    import ray

    gpus = cluster.gpus
    if gpus is None:
        gpus = 1.0 if device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    cluster = replace(cluster, gpus=gpus)
    if not gpus:
        return cluster, _describe(device, precision)
    asked = ray.remote(num_cpus=min(cluster.cpus, 0.5), num_gpus=gpus)(_describe).remote(device, precision)
    try:
        return cluster, ray.get(asked, timeout=_PATIENCE)
    except ray.exceptions.GetTimeoutError as error:
        there = ray.cluster_resources().get("GPU", 0)
        msg = f"no actor with {gpus:g} GPUs was given in {_PATIENCE} s; the cluster has {there:g}: lower --actor-gpus"
        raise EngineError(msg) from error
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, DeviceError):
            raise error.cause from error
        raise


def _describe(device: str, precision: str) -> dict[str, Any]:
    """Describe the device of this process as the passports will."""
    found = choose_device(device)
    return {
        "device": found.kind,
        "identity": dict(found.identity()),
        "autocast": autocast_dtype(found, precision),
        "batch_size": found.batch_size,
    }


@dataclass(frozen=True)
class Work:
    """What every actor needs; it is stored once on each host.

    Parameters
    ----------
    made : Circumstances
        Device, decoder and so on.
    batch_sizes : list of int
        By network, images per forward pass.
    """

    images: Images
    networks: list[Encoder]
    made: Circumstances
    batch_sizes: list[int]


class RayEngine:
    """Actors of Ray Data.

    Parameters
    ----------
    n_decoders : int, optional
        Threads that decode, in each actor. None = as many as it has CPUs; its share of the cluster's if it reserves
        less than one.
    """

    def __init__(self, cluster: Cluster, work: Work, n_decoders: int | None = None) -> None:
        self._cluster, self._work, self.n_decoders = cluster, work, n_decoders or 0

    def encode(
        self, rows: NDArray[np.int64], sinks: Sequence[Sink], clock: Clock, *, step: Callable[[int], None]
    ) -> None:
        """Give the sinks, one for each network, what they need of some rows.

        Raises EngineError.
        """
        with session() as ray:
            shared = ray.put(self._work)
            cluster, calls = self._cluster, self._calls(rows, sinks)
            actors = min(cluster.actors, len(calls))
            threads = cluster.threads or max(1, _threads() // cluster.actors)
            share = cluster.cpus if cluster.cpus >= 1 else ray.cluster_resources().get("CPU", 1) / actors
            self.n_decoders = self.n_decoders or max(1, int(share))
            vectors = ray.data.from_numpy(calls).map_batches(
                _Actor,
                fn_constructor_args=[(shared,), threads, self.n_decoders],
                batch_size=len(calls[0]),  # one call each: Ray asks for a number where actors have GPUs
                batch_format="numpy",
                compute=ray.data.ActorPoolStrategy(size=actors),
                num_cpus=cluster.cpus,
                num_gpus=cluster.gpus or None,
            )
            for found in _found(ray, vectors, clock):
                with clock.part("write"):
                    for at, (network, sink) in enumerate(zip(self._work.networks, sinks, strict=True)):
                        _put(found, at, network, sink)
                for part, seconds in zip(_PARTS, found["seconds"].sum(axis=0).tolist(), strict=True):
                    clock.add(part, seconds)
                step(len(found["row"]))

    def _calls(self, rows: NDArray[np.int64], sinks: Sequence[Sink]) -> list[NDArray[np.int64]]:
        """Cut rows into calls: (n, 1 + n_networks * n_views), the row and what is needed of it."""
        size = max(self._work.batch_sizes) * max(1, BATCHES_A_CALL // self._work.images.views.n)  # fills its batches
        needed = [sink.needed for sink in sinks]
        return [
            np.concatenate([one[:, None], *(mask[one] for mask in needed)], axis=1, dtype=np.int64)
            for one in np.split(rows, range(size, len(rows), size))
        ]


class _Actor:
    """One actor: all networks, and a local engine."""

    def __init__(self, work: tuple[Any], threads: int, n_decoders: int) -> None:
        import ray
        import torch

        torch.set_num_threads(threads)
        self._work: Work = ray.get(work[0])
        made = self._work.made
        self._engine = LocalEngine(made.decoder, n_decoders=n_decoders)
        device = choose_device(made.device)
        self._forwards = [Forward(network, device, precision=made.precision) for network in self._work.networks]

    def __call__(self, call: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return row, status, seconds by part (in the first row) and vectors (n, n_views, ...) of each block."""
        work, table = self._work, call["data"]
        rows, n_views = table[:, 0], work.images.views.n
        needed = table[:, 1:].reshape(len(rows), len(work.networks), n_views).astype(bool)
        whole = work.images
        part = Images(whole.ids[rows], RowSubset(whole.source, rows), whole.numbers[rows], whole.views)
        status = np.full(len(rows), Status.WRITTEN, dtype=np.uint8)
        reasons = [""] * len(rows)
        kept = [_Kept(network, needed[:, at], status, reasons) for at, network in enumerate(work.networks)]
        lanes = [
            Lane(network, sink, forward, batch_size=batch_size)
            for network, sink, forward, batch_size in zip(
                work.networks, kept, self._forwards, work.batch_sizes, strict=True
            )
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
        self, network: Encoder, needed: NDArray[np.bool_], status: NDArray[np.uint8], reasons: list[str]
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


def _put(found: Mapping[str, NDArray[Any]], at: int, network: Encoder, sink: Sink) -> None:
    """Write what came back of one network."""
    rows, status = found["row"], found["status"]
    for row, failure, reason in zip(rows.tolist(), status.tolist(), found["reason"].tolist(), strict=True):
        if failure != Status.WRITTEN:
            sink.fail(row, Status(failure), str(reason))
    places, views = np.nonzero(sink.needed[rows] & (status == Status.WRITTEN)[:, None])
    taps = [tap.name for tap in network.spec.taps]
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
def session() -> Iterator[Any]:
    """Join the cluster of RAY_ADDRESS, or start one here that ends with the run.

    Raises EngineError.
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
