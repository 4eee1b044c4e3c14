"""Competitors timed side by side, and their figures kept in ``results.csv``, from which docs/benchmarks.md is written.

Each competitor runs once a round, so that a busy machine slows all alike.
"""

from __future__ import annotations

import csv
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RESULTS = Path(__file__).with_name("results.csv")
COVERAGE = Path(__file__).with_name("coverage.jsonl")
NEW_RESULTS = "AFFECTORY_BENCH_RESULTS"  # names the file that a bench adds its rows to
COLUMNS = ("bench", "case", "measure", "value", "unit")
FACTS = ("machine", "version", "date", "command")  # of a whole run, added by `python -m tests.bench --record`


def record(bench: str, case: str, **measures: tuple[float, str]) -> None:
    """Keep figures with their units, where a run is recorded."""
    if place := os.environ.get(NEW_RESULTS):
        with Path(place).open("a", newline="", encoding="utf-8") as file:
            for measure, (value, unit) in measures.items():
                csv.writer(file).writerow([bench, case, measure.replace("_", " "), f"{value:.3g}", unit])


def read_results() -> list[dict[str, str]]:
    """Return the rows of results.csv."""
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
