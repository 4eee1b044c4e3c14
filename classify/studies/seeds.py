"""What chance in training is worth: the head of a run fitted again with other seeds, and on vectors moved by 1e-6.

An interval is about the images of one fitted head; another seed gives another head. And on another processor the last
bits of the vectors differ, which a head must not turn into another score.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.rows import RowMatrix
from classify.errors import RunError
from classify.evaluation.metrics import metrics, shown_metrics
from classify.runs.folder import Run
from classify.runs.identity import lay_out_again
from classify.runs.layout import Layout, unfitted_head
from classify.runs.train import fit_head, head_scores

MAX_SEEDS = 1000
MAX_VALUES = 2**28  # of the vectors that are moved: 1 GiB
MOVED = 1e-6  # of each value


class _Moved(Layout):
    """The same task on vectors that differ in their last digits."""

    @cached_property
    def matrices(self) -> dict[str, Any]:
        """The moved vectors of each part."""
        return {name: self.to_train_on(part.rows) for name, part in self.data.parts.items()}

    def to_train_on(self, rows: NDArray[np.int64]) -> Any:
        """Return moved vectors; a row moves alike wherever it is used."""
        vectors = RowMatrix(self.store, self.blocks, rows).take(np.arange(len(rows)))
        width = vectors.shape[1]
        for i, row in enumerate(rows.tolist()):
            vectors[i] *= 1 + MOVED * np.random.default_rng(row).standard_normal(width, dtype=np.float32)
        return vectors


def seeds_of(run: Run, n_seeds: int = 5) -> dict[str, Any]:
    """Fit the head of a run with *n_seeds* seeds, its own the first, and once on vectors moved by 1e-6."""
    if not 2 <= n_seeds <= MAX_SEEDS:
        raise RunError(f"a spread over seeds takes at least 2 seeds; got {n_seeds} (at most {MAX_SEEDS})")
    config, layout = lay_out_again(run)
    report, task = run.report, layout.data.task
    name = report.judged_part
    part = layout.data.parts[name]

    def fitted(seed: int, on: Layout) -> dict[str, float]:
        heads, _, _ = fit_head(unfitted_head(replace(config, seed=seed), on), on, refit=config.refit)
        return metrics(task, part.y, head_scores(heads[name], task, on.matrices[name]))

    seeds = [(config.seed + i) % 2**32 for i in range(n_seeds)]
    every = [fitted(seed, layout) for seed in seeds]
    moved = None
    n_images = sum(map(len, layout.data.parts.values()))
    if layout.n_views == 1 and layout.store.n_features(layout.blocks) * n_images <= MAX_VALUES:
        moved = fitted(config.seed, _Moved(layout.store, layout.blocks, layout.data, layout.map_shape))
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "part": name,
        "seeds": seeds,
        "moved_by": None if moved is None else MOVED,
        "metrics": {
            metric: _compared(
                report.metrics[name][metric], [one[metric] for one in every], None if moved is None else moved[metric]
            )
            for metric in shown_metrics(task.kind, task.classes)
        },
    }


def _compared(interval: dict[str, Any], values: list[float], moved: float | None) -> dict[str, Any]:
    """Return the spread over seeds beside the interval, and whether moved vectors move the score by half of it."""
    numbers = {"lowest": min(values), "highest": max(values), "moved": moved}
    known = {name: None if one is None or np.isnan(one) else float(one) for name, one in numbers.items()}
    ends = [interval["low"], interval["high"]]
    sensitive = None
    if known["moved"] is not None and None not in ends:
        sensitive = abs(known["moved"] - values[0]) > (ends[1] - ends[0]) / 2
    return {**{name: interval[name] for name in ("value", "low", "high")}, **known, "sensitive": sensitive}
