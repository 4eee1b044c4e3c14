"""Encoders as actors of Ray Data, on any number of processes, GPUs or hosts; one writer, in the process that asks.

An actor gets rows, reads and decodes them itself, and sends vectors back, which are far smaller than pixels. Vectors
come back in any order and are written by their row. What an actor had not sent when it died is given to another.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from extract.corpora import Dataset
from extract.encoders import Encoder
from extract.engines import Plan, Sink, choose_device
from extract.engines.device import DeviceFacts
from extract.engines.local import READERS, LocalEngine, describe_passes
from extract.errors import ActorsError, DeviceError, EngineError, MachineError
from extract.progress import Timings
from extract.settings import RunSettings, silent
from features_store import MismatchError, Status

BATCHES_A_CALL = 4  # within a call, reading and decoding go on while the network runs
_PATIENCE = 300  # seconds for the first actor of a cluster, which may have to start a machine
_PARTS = ("read", "decode", "transform", "forward", "wait for images", "wait for the device", "wait for vectors")
"""The parts of an actor's time."""


class RayEngine:
    """Actors of Ray Data; an `Engine`. A process without a GPU may drive actors that have one."""

    def __init__(self, settings: RunSettings) -> None:
        import_ray()
        self._settings, self._gpus = settings, settings.actor_gpus
        self.remarks: Counter[str] = Counter()
        self.n_readers = READERS * settings.actors
        self.n_decoders = (settings.decode_threads or 1) * settings.actors

    def __enter__(self) -> RayEngine:
        self._session = session()
        self._ray = self._session.__enter__()
        try:
            self._gpus, self.facts = ask_cluster(self._ray, self._settings)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        self._threads = self._settings.actor_threads or max(1, torch.get_num_threads() // self._settings.actors)
        return self

    def __exit__(self, *error: Any) -> None:
        self._session.__exit__(*error)

    def prepare(self, plans: Sequence[Plan], timings: Timings) -> list[Plan]:
        """Each actor builds its own networks, and none compiles."""
        del timings
        return [replace(plan, compiled=False) for plan in plans]

    def run(
        self,
        dataset: Dataset,
        rows: NDArray[np.int64],
        sinks: Sequence[Sink],
        timings: Timings,
        step: Callable[[int], None],
    ) -> None:
        settings, ray = self._settings, self._ray
        words = ", ".join(describe_passes(self.facts.name, self.facts.autocast, sinks))
        settings.echo(f"{settings.actors} actors of Ray, each on {words}")
        size = max(sink.batch_size for sink in sinks) * max(1, BATCHES_A_CALL // settings.views)  # fills its batches
        # A call is (n, 1 + n_encoders * n_views): the row and what is needed of it.
        calls = [
            np.concatenate([some[:, None], *(sink.needed[some] for sink in sinks)], axis=1, dtype=np.int64)
            for some in np.split(rows, range(size, len(rows), size))
        ]
        actors = min(settings.actors, len(calls))
        cpus = settings.actor_cpus if settings.actor_cpus >= 1 else ray.cluster_resources().get("CPU", 1) / actors
        decode_threads = settings.decode_threads or max(1, int(cpus))
        self.n_decoders = decode_threads * settings.actors
        inside = replace(
            settings,
            device=self.facts.kind,
            precision=self.facts.autocast or "float32",
            decode_threads=decode_threads,
            compile="off",
            echo=silent,
        )
        encoders = [(sink.encoder, sink.batch_size) for sink in sinks]
        shared = ray.put((dataset, inside, encoders))  # once on each host
        vectors = ray.data.from_numpy(calls).map_batches(
            _Actor,
            fn_constructor_args=[(shared,), self._threads],
            batch_size=len(calls[0]),  # one call each: Ray asks for a number where actors have GPUs
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=settings.actor_cpus,
            num_gpus=self._gpus or None,
        )
        for found in _results(ray, vectors, timings):
            with timings.part("write"):
                for at, sink in enumerate(sinks):
                    _write(found, at, sink)
            for part, seconds in zip(_PARTS, found["seconds"].sum(axis=0).tolist(), strict=True):
                timings.add(part, seconds)
            self.remarks.update(json.loads(str(found["remarks"][0])))
            step(len(found["row"]))


class _Actor:
    """One actor: all networks, and a local engine."""

    def __init__(self, shared: tuple[Any], threads: int) -> None:
        import ray

        torch.set_num_threads(threads)
        self._dataset, self._settings, self._encoders = ray.get(shared[0])
        # In passes of one thread after another: the actors themselves run side by side.
        self._engine = LocalEngine(self._settings, choose_device(self._settings.device))
        plans = [Plan(encoder, 1, size, compiled=False) for encoder, size in self._encoders]
        self._engine.prepare(plans, Timings())

    def __call__(self, call: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return row, status, seconds by part (in the first row) and vectors (n, n_views, ...) of each block."""
        rows, n_encoders = call["data"][:, 0], len(self._encoders)
        needed = call["data"][:, 1:].reshape(len(rows), n_encoders, self._settings.views).astype(bool)
        status, reasons = np.full(len(rows), Status.WRITTEN, dtype=np.uint8), [""] * len(rows)
        sinks = [
            _Kept(encoder, size, needed[:, at], status, reasons) for at, (encoder, size) in enumerate(self._encoders)
        ]
        timings, seconds = Timings(), np.zeros((len(rows), len(_PARTS)))
        self._engine.remarks.clear()
        self._engine.run(self._dataset.take(rows), np.arange(len(rows)), sinks, timings, lambda _: None)
        seconds[0] = [timings.seconds().get(name, 0.0) for name in _PARTS]
        found = {"row": rows, "status": status, "seconds": seconds, "reason": np.array(reasons)}
        found["remarks"] = np.full(len(rows), json.dumps(self._engine.remarks))
        for at, sink in enumerate(sinks):
            found.update({f"{at}/{tap}": vectors for tap, vectors in sink.vectors.items()})
        return found


class _Kept:
    """Vectors of one encoder in memory; a `Sink`."""

    def __init__(
        self,
        encoder: Encoder,
        batch_size: int,
        needed: NDArray[np.bool_],
        status: NDArray[np.uint8],
        reasons: list[str],
    ) -> None:
        self.encoder, self.batch_size, self.needed = encoder, batch_size, needed
        self._status, self._reasons = status, reasons
        self.vectors = {
            tap: np.zeros((*needed.shape, *shape), dtype=np.float32) for tap, shape in encoder.shapes.items()
        }

    def write(
        self, rows: NDArray[np.int64], views: NDArray[np.int64], vectors: Mapping[str, NDArray[np.float32]]
    ) -> None:
        for tap, values in vectors.items():
            self.vectors[tap][rows, views] = values.reshape(len(rows), *self.vectors[tap].shape[2:])

    def fail(self, row: int, status: Status, reason: str) -> None:
        self._status[row], self._reasons[row] = status, reason


def _write(found: Mapping[str, NDArray[Any]], at: int, sink: Sink) -> None:
    """Give a sink what came back of its encoder."""
    rows, status = found["row"], found["status"]
    for row, failure, reason in zip(rows.tolist(), status.tolist(), found["reason"].tolist(), strict=True):
        if failure != Status.WRITTEN:
            sink.fail(row, Status(failure), str(reason))
    places, views = np.nonzero(sink.needed[rows] & (status == Status.WRITTEN)[:, None])
    if len(places):
        taps = [tap.name for tap in sink.encoder.spec.taps]
        sink.write(rows[places], views, {tap: found[f"{at}/{tap}"][places, views] for tap in taps})


def _results(ray: Any, vectors: Any, timings: Timings) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Iterate over what the actors send, as it comes."""
    batches = iter(vectors.iter_batches(batch_size=None, batch_format="numpy"))
    while True:
        try:
            with timings.part("wait for actors"):
                found = next(batches, None)
        except ray.exceptions.RayError as error:
            if isinstance(getattr(error, "cause", None), (MachineError, MismatchError)):
                raise error.cause from error
            cause = str(getattr(error, "cause", None) or error).strip().splitlines()[-1][:300]
            raise ActorsError(
                f"the actors of --engine ray stopped: {cause}; what was written stays, and the same command resumes it"
            ) from error
        if found is None:
            return
        yield found


def ask_cluster(ray: Any, settings: RunSettings) -> tuple[float, DeviceFacts]:
    """Return the GPUs of each actor, and the device that it will have: a task of the cluster reads it."""
    gpus = settings.actor_gpus
    if gpus is None:
        gpus = 1.0 if settings.device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    if not gpus:
        return gpus, _read_facts(settings.device, settings.precision)
    task = ray.remote(num_cpus=min(settings.actor_cpus, 0.5), num_gpus=gpus)(_read_facts)
    try:
        return gpus, ray.get(task.remote(settings.device, settings.precision), timeout=_PATIENCE)
    except ray.exceptions.GetTimeoutError as error:
        there = ray.cluster_resources().get("GPU", 0)
        raise EngineError(
            f"no actor with {gpus:g} GPUs was given in {_PATIENCE} s; the cluster has {there:g}: lower --actor-gpus"
        ) from error
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, DeviceError):
            raise error.cause from error
        raise


def _read_facts(device: str, precision: str) -> DeviceFacts:
    return choose_device(device).facts(precision)


def import_ray() -> Any:
    """Import Ray, quietly."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its use to its makers unless this is set
    # It also warns on the terminal that actors made anew need the networks again; they are held until the end.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EngineError(
            "--engine ray needs Ray, which is not installed; install it with: pip install 'affectory[ray]'"
        ) from error
    return ray


@contextmanager
def session() -> Iterator[Any]:
    """Join the cluster of RAY_ADDRESS, or start one here that ends with the run."""
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        # The option must be absent where a cluster is joined.
        dashboard = None if os.environ.get("RAY_ADDRESS") else False
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=dashboard)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the run has its own
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # not one of Ray's around it
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
