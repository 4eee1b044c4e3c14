"""Work that flows through threads in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Iterator[Result]:
    """Map in threads; results come in the order of `items`, and at most `ahead` are under way or waiting.

    While the consumer is busy with one result, up to `ahead` others are made. An exception of `function` is raised
    where its result would have come.
    """
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class OneWorker:
    """One thread that does what it is given, in order; the giver waits once `ahead` things are undone.

    An exception of the work is raised in the giver, at one of the next calls or at the end.
    """

    def __init__(self, *, ahead: int) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._waiting: deque[Future[None]] = deque()
        self._ahead = ahead

    def do(self, work: Callable[[], None]) -> None:
        """Hand over one piece of work."""
        self._waiting.append(self._pool.submit(work))
        while self._waiting and (len(self._waiting) > self._ahead or self._waiting[0].done()):
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait until all work is done."""
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> OneWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread; what was handed over before an error is still done."""
        self._pool.shutdown(wait=True)
        if kind is None:
            self.finish()
