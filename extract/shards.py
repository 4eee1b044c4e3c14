"""Several devices: one process a device, each over rows of its own into a shard, and the shards merged into the store.

Shards lie in ``STORE/shards/A-B`` until the blocks of the store are whole. A process that dies leaves its rows there,
and those of the others, and the same call resumes them all.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from extract.engines import choose_device
from extract.engines.local import count_processors
from extract.errors import DeviceError, DeviceFault, ExtractError, TooManyFailedError
from extract.progress import Summary
from extract.settings import RunSettings
from features_store import open_store
from features_store.console import child_program
from features_store.dump import dumps_of
from features_store.merge import merge
from features_store.schema import INDEX_FILE, Status
from features_store.writer import allowed_failures, failures_file, read_failures, write_failures

COMMAND = child_program("extract", "shard")
"""Reads keyword arguments of `extract.extract` from its standard input, and prints the summary as JSON."""


def choose_devices(settings: RunSettings, rows: str | None = None) -> list[str]:
    """Return the name of each device; several are tried here, and unlike ones named."""
    kind, _, numbers = settings.device.partition(":")
    if "," not in numbers:
        return [settings.device]
    for option, value, default in (
        ("--rows", rows, None),
        ("--limit", settings.limit, None),
        ("--engine", settings.engine, "local"),
    ):
        if value != default:
            raise DeviceError(f"--device {settings.device} and {option} {value} exclude each other; give one device")
    names = [f"{kind}:{number}" for number in numbers.split(",")]
    devices = [choose_device(name) for name in names]
    if len({device.index for device in devices}) < len(devices):
        raise DeviceError(f"--device {settings.device} names a device twice; give each once")
    facts = [device.facts(settings.precision) for device in devices]
    words = " / ".join(f"{one.name}: {one.autocast or 'float32'}" for one in facts)
    if len({one.autocast for one in facts}) > 1:
        raise DeviceError(f"--device {settings.device}: blocks have one precision ({words}); give --precision float32")
    if any(one.identity != facts[0].identity for one in facts):
        settings.echo(f"warning: unlike devices ({words}): the last bits of vectors differ, and passports name all")
    return names


def extract_shards(
    call: Mapping[str, Any],
    devices: Sequence[str],
    store: Path,
    blocks: Sequence[str],
    n_images: int,
    settings: RunSettings,
) -> list[Summary]:
    """Make the blocks that a store lacks, as `call` describes them; returns the summary of each shard."""
    begun = time.perf_counter()
    folders, missing = shard_folders(store, n_images, len(devices)), [b for b in blocks if not _dump(store, b).exists()]
    if not missing:
        _remove(folders, blocks)
        return []
    share = max(1, (settings.decode_threads or count_processors()) // len(devices))
    # What one process judges, shows or does over all rows is left to this one.
    call = {key: value for key, value in call.items() if key not in ("echo", "progress", "content")}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)  # all, so that they are cut in the same way when they are resumed
    call.update(max_failed="100%", decode_threads=share)
    todo = [folder for folder in folders if settings.retry_failed or not all(_done(folder, block) for block in missing)]
    summaries = _run_children(call, devices, todo, settings) if todo else []
    n_failed = max(sum(_count_failed(_dump(folder, block)) for folder in folders) for block in missing)
    n_allowed = allowed_failures(settings.max_failed, n_images)
    if n_failed > n_allowed:
        raise TooManyFailedError(
            f"unfinished: {n_failed} images failed and at most {n_allowed} may, so the shards in "
            f"{folders[0].parent} are not merged; mend the images and add --retry-failed, or accept them with a higher "
            "--max-failed"
        )
    for block in missing:
        parts = [_dump(folder, block) for folder in folders]
        path = _dump(store, block)
        merge([[folder / INDEX_FILE, part] for folder, part in zip(folders, parts, strict=True)], path, labels=False)
        write_failures(path, ((*key, why) for part in parts for key, why in read_failures(part).items()))
    _remove(folders, blocks)
    settings.echo(f"{len(folders)} shards were merged")
    return [replace(one, seconds=time.perf_counter() - begun) for one in summaries]


def add_shards(summary: Summary, shards: Sequence[Summary]) -> Summary:
    """Return the summary of a store with the work that was done in its shards."""
    if not shards:
        return summary
    parts: dict[str, float] = {}
    for one in (*shards, summary):
        for name, seconds in one.parts.items():
            parts[name] = parts.get(name, 0.0) + seconds
    return replace(
        summary,
        n_done=sum(one.n_done for one in shards) + summary.n_done,
        seconds=shards[0].seconds + summary.seconds,
        parts=parts,
        bottleneck=max(shards, key=lambda one: sum(one.parts.values())).bottleneck,
        notes=(*dict.fromkeys(note for one in shards for note in one.notes), *summary.notes),
    )


def shard_folders(store: Path, n_images: int, n: int) -> list[Path]:
    """Return the folders of the shards, named A-B by their share of the rows: those that are there, or n new ones."""
    parent = store / "shards"
    names = [path.name for path in parent.glob("*") if re.fullmatch(r"\d+-\d+", path.name)]
    for folder in (parent, *(parent / name for name in names)):
        if folder.is_symlink():
            raise ExtractError(f"{folder} is a symbolic link; remove it, for shards are removed when they are merged")
    cuts = sorted((int(first), int(last)) for first, last in (name.split("-") for name in names))
    edges = [0, *(last for _, last in cuts)]
    if cuts != list(pairwise(edges)) or edges[-1] != n_images:
        edges = np.linspace(0, n_images, min(n, n_images) + 1).astype(int).tolist()
    return [parent / f"{first}-{last}" for first, last in pairwise(edges)]


def _run_children(
    call: Mapping[str, Any], devices: Sequence[str], folders: Sequence[Path], settings: RunSettings
) -> list[Summary]:
    """Run a process for each shard, one at a time on each device; one that fails leaves the others alone."""
    free: SimpleQueue[str] = SimpleQueue()
    for device in devices:
        free.put(device)
    children: list[Any] = []  # processes, whose three pipes are there

    def run(folder: Path) -> Summary:
        device = free.get()
        try:
            pipe = subprocess.PIPE
            with subprocess.Popen(
                COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8", errors="replace"
            ) as child:
                children.append(child)
                return _finish(child, {**call, "device": device, "store": str(folder)}, folder, settings)
        finally:
            free.put(device)

    pool = ThreadPoolExecutor(len(devices), "device")
    try:
        futures = [pool.submit(run, folder) for folder in folders]
        wait(futures)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in children:
            with suppress(OSError):
                child.stdin.close()  # a child whose input has ended ends itself
        pool.shutdown(wait=True)
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    if errors:
        raise errors[0]
    return [future.result() for future in futures]


def _finish(child: Any, call: Mapping[str, Any], folder: Path, settings: RunSettings) -> Summary:
    """Tell a process what to do, show what it says, and wait for its end."""
    rows, last = folder.name.replace("-", ":"), ""
    with suppress(OSError):  # it died at once
        child.stdin.write(json.dumps({**call, "rows": rows}, default=str) + "\n")
        child.stdin.flush()
    for line in child.stderr:
        last = line.strip() or last
        if not line.startswith(("note: ", "error: ")) and "has random weights" not in line:
            settings.echo(f"{call['device']}, rows {rows}: {line.rstrip()}")
    printed = child.stdout.read()
    code = child.wait()
    if not code:
        return Summary(**{key: value for key, value in json.loads(printed).items() if key != "images_per_second"})
    cause = f"was killed by signal {-code}" if code < 0 else f"failed: {last.removeprefix('error: ')}"
    words = f"the process of {call['device']} for the rows {rows} {cause}"
    if code == ExtractError.exit_code:
        raise ExtractError(words)
    raise DeviceFault(
        words if "resumes it" in words else f"{words}; what was written stays; the same command resumes it"
    )


def _dump(folder: Path, block: str) -> Path:
    return folder / f"{block}.h5"


def _done(folder: Path, block: str) -> bool:
    path = _dump(folder, block)
    return path.exists() and open_store(path).blocks[block].sealed


def _count_failed(path: Path) -> int:
    (block,) = open_store(path).blocks.values()
    return int((np.asarray(block.status) > Status.WRITTEN).any(axis=1).sum())


def _remove(folders: Sequence[Path], blocks: Sequence[str]) -> None:
    """Remove the shards of blocks that are in the store; those of other blocks stay."""
    for folder in folders:
        for block in blocks:
            _dump(folder, block).unlink(missing_ok=True)
            failures_file(_dump(folder, block)).unlink(missing_ok=True)
        if folder.is_dir() and dumps_of(folder) in ([], [folder / INDEX_FILE]):
            shutil.rmtree(folder)
    with suppress(OSError):
        folders[0].parent.rmdir()
