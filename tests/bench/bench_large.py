"""The true size: 368,586 x 11,368 in half precision. An epoch, its memory, and ridge regression for every subset.

An epoch is some hundred steps of it, in turn with the same step on one batch that is ready in memory.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from classify.data.rows import RowMatrix
from classify.data.standardizer import Standardizer
from classify.heads import make_head
from classify.heads.product_sums import sum_products
from classify.studies.ablation import subsets_of
from classify.studies.subset_scores import ridge_path
from features_store import Store
from tests.bench.results import record
from tests.bench.synthetic import B_T4SA, CARD, make_store

WARM, STEPS = 20, 50 * int(os.environ.get("AFFECTORY_BENCH_ROUNDS", "6"))
STRENGTHS = tuple(10.0**k for k in range(-2, 6))  # over n_features


def anonymous_memory() -> float:
    """Return this process's anonymous memory in GiB, by the system's own account; NaN where it keeps none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("RssAnon")), float("nan"))


def epoch(store: Store, shuffle: str) -> None:
    """Take turns between steps on gathered batches and the same steps on a ready one."""
    x, y = RowMatrix(store, list(CARD)), store.labels["polarity"].values
    head = make_head("mlp", "single", random_state=0, hidden=(1000, 200), batch_size=64, shuffle=shuffle)
    # The scale of a sample stands for that of all rows: measuring it is not part of an epoch.
    head._standardizer = lambda rows: Standardizer.fit(rows[np.arange(0, len(rows), 97)], standardize=True)
    with torch.random.fork_rng(devices=[]):
        training = head.training(x, y)
        batches = iter(training.train)
        first = next(batches)
        ready = (first[0].clone(), first[1].clone())
        times: dict[str, list[float]] = {"gathered": [], "ready": [], "gathering": []}
        peak = 0.0
        for turn in range(WARM + STEPS):
            start = time.perf_counter()
            pair = next(batches)
            gathered = time.perf_counter()
            training.train_step(*pair)
            times["gathered"].append(time.perf_counter() - start)
            times["gathering"].append(gathered - start)
            start = time.perf_counter()
            training.train_step(*ready)
            times["ready"].append(time.perf_counter() - start)
            if turn % 50 == 0:
                peak = max(peak, anonymous_memory())
    middle = {name: 1000 * statistics.median(taken[WARM:]) for name, taken in times.items()}
    print(
        f"  MLP 11,368-1000-200-3, batch 64, shuffle={shuffle:<7} {64000 / middle['gathered']:6.0f} rows/s; "
        f"{middle['gathered']:.1f} ms a step, of which gathering {middle['gathering']:.1f}; on a ready batch "
        f"{middle['ready']:.1f} ms: {middle['gathered'] / middle['ready']:.3f}x (means: "
        f"{sum(times['gathered'][WARM:]) / sum(times['ready'][WARM:]):.3f}x); anonymous memory {peak:.2f} GiB",
        flush=True,
    )
    record(
        "large",
        f"an epoch of an MLP, shuffle={shuffle}",
        step_against_a_ready_batch=(middle["gathered"] / middle["ready"], "x"),
        anonymous_memory=(peak, "GiB"),
    )


def ridge(store: Store) -> None:
    """Sum the products of all rows in one pass, then solve for every subset of blocks and every strength."""
    from tqdm import tqdm

    x, y = RowMatrix(store, list(CARD)), store.labels["polarity"].values
    targets = (y[:, None] == np.arange(3)).astype(np.float64)
    start, own = time.perf_counter(), time.process_time()
    standardizer = Standardizer.fit(x[np.arange(0, len(x), 97)])  # rough: each subset is standardized by its own sums
    with tqdm(total=len(x), desc="sums", unit="row", disable=not sys.stderr.isatty()) as bar:
        sums = sum_products(x, standardizer, targets, progress=bar.update)
    passed, busy = time.perf_counter() - start, time.process_time() - own
    check = np.arange(0, len(x), 91)
    held, best = standardizer(np.asarray(x[check])), {}
    starts = dict(zip(CARD, np.cumsum([0, *CARD.values()]), strict=False))
    for subset in subsets_of(list(CARD)):
        columns = np.concatenate([np.arange(starts[name], starts[name] + CARD[name]) for name in subset])
        coef, intercept = ridge_path(sums.of_columns(columns), STRENGTHS)[3]
        said = (held[:, columns] @ coef.T + intercept).argmax(axis=1)
        best[subset] = float(np.mean(said == y[check]))
    taken, spent = time.perf_counter() - start, time.process_time() - own
    print(
        f"  ridge, one pass: {passed:.0f} s ({busy:.0f} s of the processor); 15 subsets x {len(STRENGTHS)} strengths: "
        f"{taken - passed:.0f} s ({spent - busy:.0f}); together {taken / 60:.1f} min "
        f"({spent / 60:.1f} min of the processor); anonymous memory {anonymous_memory():.2f} GiB at the end"
    )
    case = f"ridge for 15 subsets of blocks x {len(STRENGTHS)} strengths, the pass over the data included"
    record("large", case, time=(taken / 60, "min"), anonymous_memory=(anonymous_memory(), "GiB"))
    print("  accuracy of single blocks and of all:")
    print(
        "   ",
        ", ".join(f"{'+'.join(s) if len(s) == 1 else 'all'} {a:.3f}" for s, a in best.items() if len(s) in (1, 4)),
    )


def main() -> None:
    """Make the store and print the table."""
    folder = Path(os.environ.get("AFFECTORY_BENCH_FOLDER", "."))
    store = make_store(folder / "large", B_T4SA)
    print(f"  store of {sum(path.stat().st_size for path in store.paths) / 1e9:.1f} GB, page cache as it is")
    for shuffle in ("full", "blocks"):
        epoch(store, shuffle)
    if os.environ.get("AFFECTORY_BENCH_RIDGE", "1") == "1":
        ridge(store)


if __name__ == "__main__":
    main()
