"""Competitors timed side by side: each runs once a round, so that a busy machine slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def medians(competitors: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time each competitor once a round, in turn; return the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(rounds):
        for name, work in competitors.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def cosines(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cosine of each row of one matrix with the same row of another: (n,)."""
    left, right = (vectors.reshape(len(vectors), -1).astype(np.float64) for vectors in (one, other))
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
