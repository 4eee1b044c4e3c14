"""Fitting heads beside busy neighbours, against their fair share of the processors: ``python -m tests.bench load``.

Alone, then beside three endless loops, five times in turn. With c processors and n neighbours a fit that uses all of
them has c / (c + n) of the machine, so its fair time is (c + n) / c of the time alone. Threads that spin at barriers
take many times that.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

from tests.bench.results import record

ROUNDS, NEIGHBOURS = int(os.environ.get("AFFECTORY_BENCH_ROUNDS", "5")), 3
HEADS = {"gbm": {}, "mlp": {"epochs": 20}, "svm": {}, "linear": {}}
_FIT = """
import json, sys, time
import features_store.console
features_store.console.wait_passively()
import numpy as np
from classify.heads import make_head
random = np.random.default_rng(0)
x = random.normal(size=(630, 3533)).astype("float32")
y = x[:, :2] + random.normal(size=(630, 2))
head = make_head(sys.argv[1], "regression", **json.loads(sys.argv[2]))
start = time.perf_counter()
head.fit(x, y)
print(time.perf_counter() - start)
"""


def seconds(name: str, options: dict[str, int], neighbours: int) -> float:
    """Fit one head in a process of its own, as the command line does."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
    try:
        command = [sys.executable, "-c", _FIT, name, json.dumps(options)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    finally:
        for one in loops:
            one.kill()
            one.wait()


def main() -> None:
    """Print the table."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = (cores + NEIGHBOURS) / cores
    print(f"\n630 x 3,533, two outputs, beside {NEIGHBOURS} busy processes on {cores} processors; fair: {share:.2g}x")
    for name, options in HEADS.items():
        pairs = [(seconds(name, options, 0), seconds(name, options, NEIGHBOURS)) for _ in range(ROUNDS)]
        alone, beside = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(
            f"  {name:<8} {alone:6.2f} s alone, {beside:6.2f} s beside: {beside / alone / share:.2f} of the fair time",
            flush=True,
        )
        record(
            "load", f"{name} beside {NEIGHBOURS} busy processes", **{"of its fair time": (beside / alone / share, "x")}
        )


if __name__ == "__main__":
    main()
