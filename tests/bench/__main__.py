"""Run benches by name, each in a process of its own: ``python -m tests.bench [--keep] [--folder DIR] [NAME...]``.

With ``--record`` their figures replace those in ``results.csv``; ``python -m tests.pages`` writes docs/benchmarks.md.

Adding one is one module with a function ``main()`` that prints its table, and one line here.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.results import COLUMNS, FACTS, NEW_RESULTS, RESULTS, read_results

BENCHES = {
    "coverage": (
        "tests.bench.bench_coverage",
        "how often intervals cover and noise is called knowledge, by simulation; hours, resumable (see its docstring)",
    ),
    "store": ("tests.bench.bench_store", "the store against raw memory maps, h5py and .npy"),
    "extract": (
        "tests.bench.bench_extract",
        "four networks over JPEGs against one after the other; minutes to compile",
    ),
    "gpu": ("tests.bench.bench_gpu", "what only a GPU can tell, in ten minutes; DEVICE=cpu is a dry run"),
    "heads": ("tests.bench.bench_heads", "a network, and a grid of support vector machines, against scikit-learn"),
    "auto": (
        "tests.bench.bench_auto",
        "heads that choose for themselves against scikit-learn's searches and LightGBM; minutes",
    ),
    "load": ("tests.bench.bench_load", "fitting heads beside busy processes, against their fair share of the machine"),
    "large": ("tests.bench.bench_large", "368,586 x 11,368: an epoch, its memory, and the full ridge path (8.4 GB)"),
}
FOLDER = "AFFECTORY_BENCH_FOLDER"


def machine() -> str:
    """Name the processor, its cores in use, and how busy it is."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    load = f", load average {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores{load}, Python {platform.python_version()}"


def replace_results(name: str, new: Path, facts: tuple[str, ...]) -> None:
    """Put the rows of a bench that has just run in the place of its older ones."""
    with new.open(newline="", encoding="utf-8") as file:
        rows = [dict(zip((*COLUMNS, *FACTS), (*row, *facts), strict=True)) for row in csv.reader(file)]
    kept = [row for row in read_results() if row["bench"] != name]
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, (*COLUMNS, *FACTS), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])


def main() -> None:
    """Read the names and run them in turn."""
    listed = "; ".join(f"{name}: {what}" for name, (_, what) in BENCHES.items())
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=listed)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all but coverage")
    parser.add_argument("--folder", type=Path, help="where large stores are made (default: a temporary folder)")
    parser.add_argument("--keep", action="store_true", help="leave what was made in --folder")
    parser.add_argument("--record", action="store_true", help="replace the figures of these benches in results.csv")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in BENCHES]
    if unknown or (asked.keep and not asked.folder):
        parser.error(
            f"unknown bench {unknown[0]!r}; valid: {', '.join(BENCHES)}" if unknown else "--keep needs --folder"
        )
    existed = asked.folder is not None and asked.folder.exists()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="affectory-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name in asked.names or [name for name in BENCHES if name != "coverage"]:
            print(f"\n== {name}: {BENCHES[name][1]}\n   {machine()}", flush=True)
            new = folder / f"{name}.results"
            new.unlink(missing_ok=True)
            environment = {**os.environ, FOLDER: str(folder), NEW_RESULTS: str(new)}
            facts = (machine(), importlib.metadata.version("affectory"), datetime.date.today().isoformat())
            subprocess.run([sys.executable, "-m", BENCHES[name][0]], check=True, env=environment)
            if asked.record and new.exists():
                replace_results(name, new, (*facts, f"python -m tests.bench {name}"))
    finally:
        if not asked.keep and not existed:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
