"""Where the time of a run goes: timings over all threads, a bar while it runs, and a summary at its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from features_store import BlockWriter, Status
from features_store.schema import FAILURES
from features_store.writer import allowed_failures

_WAITS = {"input": "wait for images", "forward": "wait for the device", "write": "wait for the writer"}
"""What the main thread waits for. Its waits are compared with each other, never with the time of other threads."""
_WORK = ("compile", "read", "decode", "transform", "forward", "write", "content")
_SHOW_EVERY = 0.5  # seconds
_SHOWN_FAILURES = 5


class Timings:
    """Add up seconds by part; safe in several threads."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self._started = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of a ``with`` block under `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        with self._lock:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """Return the seconds by part."""
        with self._lock:
            return dict(self._seconds)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started


@contextmanager
def progress_bar(total: int, timings: Timings, *, show: bool) -> Iterator[Any]:
    """Show images/s, the time left and the shares of the main thread's time; gives the function that counts images."""
    from tqdm import tqdm

    shown = 0.0
    with tqdm(total=total, desc="extract", unit=" images", disable=not show, leave=False, smoothing=0.1) as bar:

        def step(n: int = 1) -> None:
            nonlocal shown
            bar.update(n)
            if show and timings.elapsed - shown > _SHOW_EVERY:
                shown, parts = timings.elapsed, timings.seconds()
                shares = (f"{name} {parts.get(part, 0.0) / shown:.0%}" for name, part in _WAITS.items())
                bar.set_postfix_str(", ".join(shares), refresh=False)

        yield step


@dataclass(frozen=True)
class Summary:
    """The end of a run; printed, it is a text for people.

    Parameters
    ----------
    store : str
        Folder of the blocks.
    n_images : int
        Images of the index.
    n_done : int
        Images that this run read.
    seconds : float
        From the opening of the blocks to the last byte.
    parts : mapping
        Seconds by part: the work, added over threads (read, decode, transform, forward in the device's own time,
        write), and the waits of the main thread and of the writer.
    bottleneck : str
        The part that the others waited for.
    blocks : mapping
        By block, the number of vectors (images times views) by state, in words.
    n_failed, n_allowed : int
        Images that failed in any block, in this run or before, and how many may.
    n_open_failed : int
        The most that failed in a block that is not sealed; what a sealed block holds was accepted before.
    failed : tuple of str
        The first of them with their reasons.
    notes : tuple of str
        What was not checked, and what a user should know of the images.
    """

    store: str
    n_images: int
    n_done: int
    seconds: float
    parts: Mapping[str, float]
    bottleneck: str
    blocks: Mapping[str, Mapping[str, int]]
    n_failed: int
    n_allowed: int
    n_open_failed: int
    failed: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def too_many_failed(self) -> bool:
        """Whether more images failed than are accepted, so that a block stays open."""
        return self.n_open_failed > self.n_allowed

    @property
    def images_per_second(self) -> float:
        """Images read per second of this run."""
        return self.n_done / self.seconds if self.seconds else 0.0

    def record(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return {**asdict(self), "images_per_second": self.images_per_second}

    def lines(self) -> list[str]:
        """Return the summary as text for people."""
        rate = f"{self.n_done} of {self.n_images} images in {self.seconds:.1f} s"
        if self.n_done:
            shares = ", ".join(f"{part} {self.parts[part]:.1f}" for part in _WORK if part in self.parts)
            lines = [f"{rate} ({self.images_per_second:.1f} images/s)"]
            lines += [f"seconds by part, over all threads: {shares}", f"bottleneck: {self.bottleneck}"]
        else:
            lines = [f"{rate}: {'no vector was left to make' if self.notes else 'nothing was left to do'}"]
        for block, counts in self.blocks.items():
            lines.append(f"  {block}: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
        return [*lines, *self._failure_lines(), *(f"note: {note}" for note in self.notes), f"store: {self.store}"]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _failure_lines(self) -> list[str]:
        if not self.n_failed:
            return []
        more = [f"  ... and {self.n_failed - len(self.failed)} more"] if self.n_failed > len(self.failed) else []
        lines = [f"{self.n_failed} of the images failed:", *(f"  {line}" for line in self.failed), *more]
        lines.append("`features-store info STORE --failed` lists all; --retry-failed tries them again")
        if self.too_many_failed:
            lines.append(
                f"unfinished: {self.n_open_failed} images failed and at most {self.n_allowed} may, so the blocks stay "
                "open; mend the images and add --retry-failed, or accept them with a higher --max-failed"
            )
        return lines


def summarize(
    store: str,
    writers: Sequence[BlockWriter],
    failures: Mapping[str, tuple[Status, str]],
    max_failed: str,
    timings: Timings,
    *,
    n_images: int,
    n_done: int,
    n_decoders: int,
    n_readers: int,
    notes: Sequence[str] = (),
) -> Summary:
    """Put a summary together; the blocks must be flushed, `failures` has state and reason by image id."""
    order, blocks = (Status.WRITTEN, Status.PENDING, *FAILURES), {}
    for writer in writers:
        counts = writer.counts()
        blocks[writer.spec.name] = {status.reason: counts[status] for status in order if counts.get(status)}
    reasons = [f"{status.reason}: {name}" + (f" ({why})" if why else "") for name, (status, why) in failures.items()]
    n_tried = n_images - min(len(writer.pending()) for writer in writers)
    parts = timings.seconds()
    return Summary(
        store=store,
        n_images=n_images,
        n_done=n_done,
        seconds=timings.elapsed,
        parts=parts,
        bottleneck=find_bottleneck(parts, n_decoders=n_decoders, n_readers=n_readers),
        blocks=blocks,
        n_failed=len(failures),
        n_allowed=allowed_failures(max_failed, n_tried),
        n_open_failed=max((len(writer.failed()) for writer in writers if not writer.sealed), default=0),
        failed=tuple(reasons[:_SHOWN_FAILURES]),
        notes=tuple(notes),
    )


def find_bottleneck(parts: Mapping[str, float], *, n_decoders: int, n_readers: int) -> str:
    """Name what the main thread waited for longest; if that is images, the slowest step of making them."""
    longest = max(_WAITS, key=lambda name: parts.get(_WAITS[name], 0.0))
    if longest == "write":  # the writer waits for vectors, too
        return "write" if parts.get("write", 0.0) > parts.get("wait for vectors", 0.0) else "forward"
    if longest == "forward":
        return longest
    threads = {"read": n_readers, "decode": n_decoders, "transform": n_decoders}
    return max(threads, key=lambda part: parts.get(part, 0.0) / threads[part])
