"""Mutation fuzzing of dumps: random bytes of the metadata of honest files are changed, and the files are opened.

``python tests/features_store/fuzz.py --seconds 60`` works through numbered mutations in child processes, so that a
crash or a hang of libhdf5 is seen and named. A mutation is good if it is refused by an `AffectoryError`, or read whole.
``--only NUMBER`` repeats one in this process.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import h5py
import honest
import numpy as np

import features_store as fs
from features_store.summary import summarise

_CASE_SECONDS = 10
_ADDRESS_SPACE = 3 * 2**30
_MAX_GROWTH = 100  # MiB
_CASES_PER_CHILD = 2_000
_SELF = (sys.executable, os.path.abspath(__file__))
_RAW = ("vectors", "status", "seal", "digests")


def seeds(folder: Path) -> list[tuple[bytes, np.ndarray]]:
    """Return honest files, and of each the places of its metadata."""
    plain, chunked, modern = folder / "plain.h5", folder / "chunked.h5", folder / "modern.h5"
    honest.write(plain)
    options = {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True}
    for path, libver, layout in ((chunked, "earliest", options), (modern, "latest", {"chunks": True})):
        with h5py.File(plain) as source, h5py.File(path, "w", libver=libver) as file:
            for name in source:
                source.copy(name, file)
            file.attrs.update(source.attrs)
            for where in ("images/content", "labels/tags", "splits/five"):
                values, attributes = file[where][:], dict(file[where].attrs)
                del file[where]
                file.create_dataset(where, data=values, **layout).attrs.update(attributes)
    return [(path.read_bytes(), metadata(path)) for path in (plain, chunked, modern)]


def metadata(path: Path) -> np.ndarray:
    """Return the positions of all bytes that are not the data of a block or of the content hashes."""
    good = np.ones(path.stat().st_size, dtype=bool)
    with h5py.File(path) as file:
        found = [file[f"blocks/{honest.BLOCK}/{part}"] for part in _RAW] + [file["images/content"]]
        for dataset in found:
            offset = dataset.id.get_offset()
            if offset is not None:
                good[offset : offset + dataset.nbytes] = False
    return np.flatnonzero(good)


def mutated(files: list[tuple[bytes, np.ndarray]], number: int) -> bytes:
    """Return mutation `number`: the same one for ever."""
    rng = np.random.default_rng(number)
    raw, places = files[number % len(files)]
    changed = np.frombuffer(raw, np.uint8).copy()
    where = rng.choice(places, rng.choice([1, 1, 2, 4, 16]))
    interesting = np.array([0, 1, 2, 0x7F, 0x80, 0xFF], np.uint8)
    for place in where:
        how = rng.integers(4)
        if how == 0:
            changed[place] ^= 1 << rng.integers(8)
        elif how == 1:
            changed[place] = rng.integers(256)
        elif how == 2:
            changed[place] = rng.choice(interesting)
        else:  # move one piece of metadata to another place
            source = rng.choice(places)
            piece = changed[source : source + 8]
            changed[place : place + len(piece)] = piece[: len(changed) - place]
    return changed.tobytes()


def read_whole(path: Path) -> str:
    """Open a dump and use all of it; return "read" or "refused"."""
    try:
        store = fs.open_store(path)
        summarise(store)
        for view in range(2):
            for name, block in store.blocks.items():
                if view < block.shape[1] and block.shape[2] < 10_000:
                    store.matrix([name], view=view, on_failed="nan")
    except fs.AffectoryError:
        return "refused"
    return "read"


def child(first: int, folder: Path) -> None:
    """Work through mutations; the number of each is said before it is tried."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("error")
    files, path = seeds(folder), folder / "mutated.h5"
    before = 0
    for number in range(first, first + _CASES_PER_CHILD):
        print(number, flush=True)
        path.write_bytes(mutated(files, number))
        signal.alarm(_CASE_SECONDS)
        print(read_whole(path), flush=True)
        signal.alarm(0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        before = before or peak
        if peak - before > _MAX_GROWTH:
            sys.exit(f"the memory grew by {peak - before} MiB")


def run(
    seconds: float, first: int, *, cases: int | None = None, program: tuple[str, ...] = ()
) -> tuple[dict[str, int], list[str]]:
    """Fuzz for some seconds, or so many cases; return how often each outcome came, and a line for each finding.

    `program` is the child to start, for a test of this function.
    """
    counts, findings = {"read": 0, "refused": 0}, []
    end = time.monotonic() + seconds
    number = first
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as folder:
            command = [*(program or _SELF), "--child", str(number), "--folder", folder]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                last = number
                assert process.stdout is not None
                assert process.stderr is not None
                for line in process.stdout:
                    said = line.strip()
                    if said in counts:
                        counts[said] += 1
                    else:
                        last = int(said)
                    if time.monotonic() > end or (cases is not None and sum(counts.values()) >= cases):
                        process.kill()
                        return counts, findings
                wrong = process.stderr.read().strip().splitlines()
            if process.returncode:
                findings.append(f"mutation {last}: exit code {process.returncode} {' | '.join(wrong[-3:])}")
            number = last + 1
    return counts, findings


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--only", type=int, help="repeat one mutation in this process")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        child(given.child, given.folder)
        return 0
    if given.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mutated.h5"
            path.write_bytes(mutated(seeds(Path(folder)), given.only))
            print(read_whole(path))
        return 0
    counts, findings = run(given.seconds, given.first)
    print(f"{counts['refused']:,} mutations refused, {counts['read']:,} read, {len(findings)} findings")
    print("\n".join(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
