"""Building what a passport names without fetching anything: what is in the caches is found, nothing else."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_network"]


@contextmanager
def no_network() -> Iterator[None]:
    """Let no connection be made: what is in the caches is found, and nothing is fetched."""

    def refuse(self: socket.socket, address: object) -> None:
        raise OSError(errno.ENETUNREACH, "downloads weren't asked for")

    before = socket.socket.connect
    socket.socket.connect = refuse  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        socket.socket.connect = before  # type: ignore[method-assign]
