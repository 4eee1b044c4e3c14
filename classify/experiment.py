"""One run, on one page: store, task, head, fit, scores with intervals beside the baselines, calibration, folder."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.config import RunConfig
from classify.errors import ConfigError
from classify.evidence.adjustment import adjust, adjusted_report
from classify.evidence.baselines import baselines
from classify.evidence.intervals import Interval, bootstrap
from classify.heads import make_head
from classify.inputs.matrix import RowMatrix
from classify.inputs.tasks import Part, TaskRows, choose_blocks, task_rows
from classify.predictions import PartPredictions
from classify.record import Outcome, run_report
from classify.runs import Run, check_free, new_folder, read_run, write_run
from features_store import open_store
from features_store.schema import Task

__all__ = ["head_scores", "run", "train_together"]


def run(
    config: RunConfig,
    *,
    force: bool = False,
    notify: Callable[[str], None] = lambda line: None,
    fitted: Any = None,
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

    Returns
    -------
    Run
        The run as it lies on disk.

    Raises
    ------
    AffectoryError
        The place is taken, a name is unknown, or the task can't be run. Nothing is written then.
    """
    check_free(config.folder, force=force)
    timings: dict[str, float] = {}
    with _timed(timings, "open"):
        store = open_store(Path(config.store).expanduser())
        blocks = choose_blocks(store, config.blocks)
        data = task_rows(store, config.task, split=config.split, blocks=blocks, on_failed=config.on_failed)
        head = fitted or _head(config, data.task)
        matrices = {name: RowMatrix(store, blocks, part.rows) for name, part in data.parts.items()}
    for line in (*_losses(data), *data.warnings):
        notify(line)
    with _timed(timings, "fit"):
        noted = [] if fitted else _fit(head, matrices, data.parts)
    with _timed(timings, "score"):
        scores = {name: head_scores(head, data.task, matrix) for name, matrix in matrices.items()}
    bootstrapped: dict[str, Any] = {"n_resamples": config.resamples, "seed": config.seed}
    with _timed(timings, "intervals"):
        metrics = _intervals(data, scores, **bootstrapped)
    with _timed(timings, "baselines"):
        beside = baselines(data, **bootstrapped)
    with _timed(timings, "calibration"):
        adjustment = adjust(data.task, data.parts, scores, method=config.calibration)
        adjusted = adjusted_report(data.task, data.parts, scores, adjustment, **bootstrapped)
    outcome = Outcome(head, scores, metrics, beside, adjusted, noted, timings)
    report = run_report(config, store=store, blocks=blocks, data=data, outcome=outcome)
    predictions = {
        name: PartPredictions(part.ids, part.y, scores[name], part.groups, adjustment.calibrated(scores[name]))
        for name, part in data.parts.items()
    }
    with new_folder(config.folder, force=force) as folder:
        write_run(folder, config, report=report, predictions=predictions, head=head, adjustment=adjustment)
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

    store = open_store(Path(configs[0].store).expanduser())
    blocks = choose_blocks(store, configs[0].blocks)
    tasks = [task_rows(store, c.task, split=c.split, blocks=blocks, on_failed=c.on_failed) for c in configs]
    heads = [_head(config, data.task) for config, data in zip(configs, tasks, strict=True)]
    parts = tasks[0].parts
    matrices = {name: RowMatrix(store, blocks, part.rows) for name, part in parts.items()}
    ys = {name: [data.parts[name].y for data in tasks] for name in parts}
    validation = (matrices["validation"], ys["validation"]) if "validation" in parts else None
    fit_together(heads, matrices["train"], ys["train"], validation=validation)
    return heads


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = round(time.perf_counter() - start, 3)


def _head(config: RunConfig, task: Task) -> Any:
    for name in ("random_state", "name", "kind"):
        if name in config.settings:
            instead = "give the seed of the run instead" if name == "random_state" else "the task decides it"
            message = f"{name!r} isn't an option of a head: {instead}"
            raise ConfigError(message)
    return make_head(config.head, task.kind, random_state=config.seed, **config.settings)


def _losses(data: TaskRows) -> list[str]:
    return [
        f"{part}: {count} left out ({reason})"
        for part, counts in data.dropped.items()
        for reason, count in counts.items()
    ]


def _fit(head: Any, matrices: Mapping[str, RowMatrix], parts: Mapping[str, Part]) -> list[str]:
    """Fit on the training part, with the validation part where there is one; return what libraries warned of."""
    validation = (matrices["validation"], parts["validation"].y) if "validation" in parts else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        head.fit(matrices["train"], parts["train"].y, validation=validation)
    texts = [" ".join(str(w.message).split()) for w in caught if issubclass(w.category, UserWarning)]
    return list(dict.fromkeys(texts))


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
