"""One run, on one page: store, task, head, fit, scores with intervals beside the baselines, calibration, folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.config import RunConfig, dump_config
from classify.evidence.adjustment import adjust, adjusted_report
from classify.evidence.baselines import baselines
from classify.evidence.intervals import Interval, bootstrap
from classify.fitting import Fitted, fit_head
from classify.inputs.matrix import RowMatrix
from classify.inputs.tasks import TaskRows
from classify.interruption import Interruption
from classify.layout import lay_out, unfitted_head
from classify.predictions import PartPredictions
from classify.record import Outcome, by_kind, run_report
from classify.runs import Run, check_free, new_folder, read_run, write_run
from features_store.schema import Task

__all__ = ["head_scores", "run", "train_together"]


def run(
    config: RunConfig,
    *,
    force: bool = False,
    notify: Callable[[str], None] = lambda line: None,
    fitted: Any = None,
    interruption: Interruption | None = None,
) -> Run:
    """Fit one head on one task, score it beside the baselines, and leave a run folder.

    Parameters
    ----------
    config : RunConfig
        What to do.
    force : bool
        Whether a run that lies in the same place may be replaced.
    notify : callable
        Called with a line of text when there is something to tell before the work is done.
    fitted : estimator, default=None
        The head of this run, where `train_together` has fitted it already.
    interruption : Interruption or None
        A time budget for the training, and the place where its state waits.

    Returns
    -------
    Run
        The run as it lies on disk.

    Raises
    ------
    AffectoryError
        The place is taken, a name is unknown, or the task can't be run. Nothing is written then.
    UnfinishedError
        The time budget is used up. The state of training is kept, and no run is written.
    """
    check_free(config.folder, force=force)
    timings: dict[str, float] = {}
    with _timed(timings, "open"):
        layout = lay_out(config)
        data = layout.data
        head = fitted or unfitted_head(config, layout)
    if interruption is not None:
        interruption.identify(config=dump_config(config), images={name: p.digest for name, p in data.parts.items()})
        interruption.identify(**{name: layout.store.blocks[name].digest for name in layout.blocks})
    for line in by_kind([*_losses(data), *data.warnings]):
        notify(line)
    with _timed(timings, "fit"):
        fit = Fitted(head, head) if fitted else fit_head(head, layout, refit=config.refit, interruption=interruption)
    with _timed(timings, "score"):
        scores = {name: head_scores(fit.of_part(name), data.task, x) for name, x in layout.matrices.items()}
    bootstrapped: dict[str, Any] = {"n_resamples": config.resamples, "seed": config.seed}
    with _timed(timings, "intervals"):
        metrics = _intervals(data, scores, **bootstrapped)
    with _timed(timings, "baselines"):
        beside = baselines(data, **bootstrapped)
    with _timed(timings, "calibration"):
        adjustment = adjust(data.task, data.parts, scores, method=config.calibration)
        adjusted = adjusted_report(data.task, data.parts, scores, adjustment, **bootstrapped)
    outcome = Outcome(fit.head, scores, metrics, beside, adjusted, fit.noted, timings, fit.refit)
    report = run_report(config, store=layout.store, blocks=layout.blocks, data=data, outcome=outcome)
    predictions = {
        name: PartPredictions(part.ids, part.y, scores[name], part.groups, adjustment.calibrated(scores[name]))
        for name, part in data.parts.items()
    }
    with new_folder(config.folder, force=force) as folder:
        write_run(folder, config, report=report, predictions=predictions, head=fit.head, adjustment=adjustment)
    if interruption is not None:
        interruption.done()
    return read_run(config.folder)


def train_together(configs: Sequence[RunConfig]) -> list[Any]:
    """Fit the networks of several runs on the same images in one scan, see `classify.heads.together`.

    Parameters
    ----------
    configs : sequence of RunConfig
        Of the same store, blocks and images; tasks, seeds and options may differ.

    Returns
    -------
    list of estimator
        Each as it would have become alone.
    """
    from classify.heads.together import fit_together

    layouts = [lay_out(config) for config in configs]
    heads = [unfitted_head(config, layout) for config, layout in zip(configs, layouts, strict=True)]
    if layouts[0].n_views > 1:  # each draws its own views: there is no scan to share
        return [fit_head(head, layout).head for head, layout in zip(heads, layouts, strict=True)]
    parts, matrices = layouts[0].data.parts, layouts[0].matrices
    ys = {name: [layout.data.parts[name].y for layout in layouts] for name in parts}
    validation = (matrices["validation"], ys["validation"]) if "validation" in parts else None
    fit_together(heads, matrices["train"], ys["train"], validation=validation)
    return heads


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = round(time.perf_counter() - start, 3)


def _losses(data: TaskRows) -> list[str]:
    return [
        f"{part}: {count} left out ({reason})"
        for part, counts in data.dropped.items()
        for reason, count in counts.items()
    ]


def head_scores(head: Any, task: Task, matrix: RowMatrix) -> NDArray[np.float64]:
    """Return what a fitted head says of images.

    Parameters
    ----------
    head : estimator
    task : Task
    matrix : RowMatrix of shape (n_images, n_features)

    Returns
    -------
    ndarray of float64
        Probabilities (n_images, n_classes) over *all* classes of the task, or the values of a regression.
    """
    if task.kind == "regression":
        return np.asarray(head.predict(matrix), dtype=np.float64)
    said = np.asarray(head.predict_proba(matrix), dtype=np.float64)
    if task.kind == "multi":
        return said
    spread = np.zeros((len(said), len(task.classes)))
    spread[:, head.classes_] = said  # a class that training never saw keeps probability 0
    return spread


def _intervals(
    data: TaskRows, scores: Mapping[str, NDArray[np.float64]], *, n_resamples: int, seed: int
) -> dict[str, dict[str, Interval]]:
    return {
        name: bootstrap(data.task, p.y, scores[name], groups=p.groups, n_resamples=n_resamples, seed=seed)
        for name, p in data.parts.items()
    }
