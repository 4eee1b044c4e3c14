"""What a run tells: a bar while it runs, and a summary at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any

from extract.blocks import Blocks
from extract.timings import Clock
from features_store import Status
from features_store.schema import FAILURES
from features_store.writer import FailureLimit

_WAITS = {"input": "wait for images", "forward": "wait for the device", "write": "wait for the writer"}
"""What the main thread waits for. Its waits are compared with each other, never with the time of other threads."""
_WORK = ("compile", "read", "decode", "transform", "forward", "write", "content")
_SHOW_EVERY = 0.5  # seconds
_SHOWN_FAILURES = 5


@dataclass(frozen=True)
class Summary:
    """The end of a run.

    Parameters
    ----------
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
    """

    n_images: int
    n_done: int
    seconds: float
    parts: Mapping[str, float]
    bottleneck: str
    blocks: Mapping[str, Mapping[str, int]]
    n_failed: int = 0
    n_allowed: int = 0
    n_open_failed: int = 0
    failed: tuple[str, ...] = ()

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
        lines = [rate + (f" ({self.images_per_second:.1f} images/s)" if self.n_done else ": nothing was left to do")]
        if self.n_done:
            shares = ", ".join(f"{part} {self.parts[part]:.1f}" for part in _WORK if part in self.parts)
            lines += [f"seconds by part, over all threads: {shares}", f"bottleneck: {self.bottleneck}"]
        for block, counts in self.blocks.items():
            lines.append(f"  {block}: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
        return lines + self._failure_lines()

    def _failure_lines(self) -> list[str]:
        if not self.n_failed:
            return []
        more = [f"  ... and {self.n_failed - len(self.failed)} more"] if self.n_failed > len(self.failed) else []
        lines = [f"{self.n_failed} of the images failed:", *(f"  {one}" for one in self.failed), *more]
        lines.append("`features-store info STORE --failed` lists all; --retry-failed tries them again")
        if self.too_many_failed:
            lines.append(
                f"unfinished: {self.n_open_failed} images failed and at most {self.n_allowed} may, so the blocks stay "
                "open; mend the images and add --retry-failed, or accept them with a higher --max-failed"
            )
        return lines


def summarise(
    made: list[Blocks], clock: Clock, *, n_done: int, n_images: int, n_decoders: int, n_readers: int
) -> Summary:
    """Put a summary together; the blocks must be flushed."""
    parts = clock.seconds()
    order = (Status.WRITTEN, Status.PENDING, *FAILURES)
    blocks = {}
    for one in made:
        for writer in one.writers.values():
            counts = writer.counts()
            blocks[writer.spec.name] = {status.reason: counts[status] for status in order if counts.get(status)}
    bottleneck = _bottleneck(parts, n_decoders=n_decoders, n_readers=n_readers)
    return Summary(n_images, n_done, clock.elapsed, parts, bottleneck, blocks)


def with_failures(summary: Summary, made: list[Blocks], limit: FailureLimit) -> Summary:
    """Add what failed, and how much of it is accepted."""
    failures: dict[str, str] = {}
    for one in made:
        for name, (status, why) in one.failures().items():
            failures.setdefault(name, f"{status.reason}: {name}" + (f" ({why})" if why else ""))
    shown = tuple(failures.values())[:_SHOWN_FAILURES]
    n_tried = summary.n_images - min(len(writer.pending()) for one in made for writer in one.writers.values())
    unsealed = [writer for one in made for writer in one.writers.values() if not writer.sealed]
    n_open = max((len(writer.failed()) for writer in unsealed), default=0)
    allowed = limit.allowed(n_tried)
    return replace(summary, n_failed=len(failures), n_allowed=allowed, n_open_failed=n_open, failed=shown)


def _bottleneck(parts: Mapping[str, float], *, n_decoders: int, n_readers: int) -> str:
    """Name what the main thread waited for longest; where that are images, the slowest step of their way."""
    waited = {name: parts.get(part, 0.0) for name, part in _WAITS.items()}
    longest = max(waited, key=lambda name: waited[name])
    if longest == "write":  # the writer waits for vectors, too
        return "write" if parts.get("write", 0.0) > parts.get("wait for vectors", 0.0) else "forward"
    if longest == "forward":
        return longest
    per_thread = {
        "read": parts.get("read", 0.0) / n_readers,
        "decode": parts.get("decode", 0.0) / n_decoders,
        "transform": parts.get("transform", 0.0) / n_decoders,
    }
    return max(per_thread, key=lambda name: per_thread[name])


class Bar:
    """The progress bar: images/s, time left, and the shares of the main thread's time."""

    def __init__(self, total: int, clock: Clock, *, show: bool) -> None:
        from tqdm import tqdm

        self._clock = clock
        self._shown = 0.0
        self._bar = tqdm(total=total, desc="extract", unit=" images", disable=not show, leave=False, smoothing=0.1)

    def step(self, n: int = 1) -> None:
        """Count some images."""
        self._bar.update(n)
        if not self._bar.disable and self._clock.elapsed - self._shown > _SHOW_EVERY:
            self._shown = self._clock.elapsed
            parts = self._clock.seconds()
            shares = (f"{name} {parts.get(part, 0.0) / self._shown:.0%}" for name, part in _WAITS.items())
            self._bar.set_postfix_str(", ".join(shares), refresh=False)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._bar.close()
