"""One run, on one page: store, task, head, fit, scores with intervals beside the baselines, calibration, folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.config import RunConfig, dump_config
from classify.data.rows import RowMatrix
from classify.data.tasks import TaskRows
from classify.evaluation.baselines import baseline_scores, fitted_labels
from classify.evaluation.chance import chance
from classify.evaluation.clean_scores import clean_scores, clean_verdicts
from classify.evaluation.intervals import Interval, intervals
from classify.evaluation.novelty import fit_novelty
from classify.evaluation.postprocessing import adjust, adjusted_report
from classify.evaluation.resamples import Spread
from classify.evaluation.verdict import verdicts
from classify.runs.fitting import fit_head
from classify.runs.folder import Run, check_free, new_folder, read_run, write_run
from classify.runs.layout import lay_out, unfitted_head
from classify.runs.predictions import PartPredictions
from classify.runs.record import Outcome, by_kind, run_report
from classify.runs.time_budget import Interruption
from features_store.schema import Task

__all__ = ["head_scores", "run"]


def run(
    config: RunConfig,
    *,
    force: bool = False,
    notify: Callable[[str], None] = lambda line: None,
    interruption: Interruption | None = None,
    n_tried: int = 1,
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
    interruption : Interruption or None
        A time budget for the training, and the place where its state waits.
    n_tried : int
        Runs or trials among which this one was chosen, or stands to be.

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
    if config.tested:
        from classify.studies.cross_corpus import cross_corpus_test

        return cross_corpus_test(
            Path(config.tested).expanduser(),
            config.store,
            task=config.task,
            class_map=config.class_map,
            resamples=config.resamples,
            seed=config.seed,
            out=config.out,
            force=force,
        )
    check_free(config.folder, force=force)
    timings: dict[str, float] = {}
    with _timed(timings, "open"):
        layout = lay_out(config)
        data = layout.data
        head = unfitted_head(config, layout)
    if interruption is not None:
        interruption.identify(config=dump_config(config), images={name: p.digest for name, p in data.parts.items()})
        interruption.identify(**{name: layout.store.blocks[name].digest for name in layout.blocks})
    stamp = [data.crossing.words()] if data.crossing else []
    for line in by_kind([*_losses(data), *stamp, *data.warnings]):
        notify(line)
    bootstrapped: dict[str, Any] = {"n_resamples": config.resamples, "seed": config.seed}
    with _timed(timings, "baselines"):  # first: what the data alone can make fail is not found after the long work
        weight = head.get_params(deep=False).get("class_weight")
        said = baseline_scores(data, refit=config.refit, class_weight=weight, seed=config.seed)
        beside = {name: _spreads(data, of, **bootstrapped) for name, of in said.items()}
    with _timed(timings, "fit"):
        fit = fit_head(head, layout, refit=config.refit, interruption=interruption)
    with _timed(timings, "score"):
        scores = {name: head_scores(fit.of_part(name), data.task, x) for name, x in layout.matrices.items()}
    with _timed(timings, "intervals"):
        spreads = _spreads(data, scores, **bootstrapped)
        metrics = {name: intervals(spread, part=name) for name, spread in spreads.items()}
        answers = {"head": scores, **said}
        clean = clean_scores(data, answers, **bootstrapped)
        judged = clean_verdicts(data, answers, **bootstrapped) or verdicts(
            data.parts, spreads, beside["majority"], beside["id-only"], seed=config.seed
        )
    with _timed(timings, "calibration"):
        adjustment = adjust(data.task, data.parts, scores, method=config.calibration)
        adjusted = adjusted_report(data.task, data.parts, scores, adjustment, **bootstrapped)
    with _timed(timings, "novelty"):  # of the training part alone, also after a refit: the others stay held out
        train = data.parts["train"]
        matrices = {name: RowMatrix(layout.store, [name], train.rows) for name in layout.blocks}
        novelty = fit_novelty(matrices, data.task, train.y, train.groups, seed=config.seed)
        held_out = {name: x for name, x in layout.matrices.items() if name != "train"}
        novel = novelty.as_json(held_out, seed=config.seed)
    outcome = Outcome(
        fit.head,
        scores,
        metrics,
        _baselines(data, config, beside),
        adjusted,
        fit.noted,
        timings,
        fit.refit,
        judged,
        n_tried,
        clean,
        novel,
    )
    report = run_report(config, store=layout.store, blocks=layout.blocks, data=data, outcome=outcome)
    predictions = {
        name: PartPredictions(part.ids, part.y, scores[name], part.groups, adjustment.calibrated(scores[name]))
        for name, part in data.parts.items()
    }
    with new_folder(config.folder, force=force) as folder:
        kept = {"head": fit.head, "adjustment": adjustment, "novelty": novelty}
        write_run(folder, config, report=report, predictions=predictions, **kept)
    if interruption is not None:
        interruption.done()
    return read_run(config.folder)


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

    Shapes: matrix (n_images, n_features).
    """
    if task.kind == "regression":
        values = np.asarray(head.predict(matrix), dtype=np.float64)
        return values if task.range is None else np.clip(values, *task.range)  # as every answer is, later
    said = np.asarray(head.predict_proba(matrix), dtype=np.float64)
    if task.kind == "multi":
        return said
    spread = np.zeros((len(said), len(task.classes)))
    spread[:, head.classes_] = said  # a class that training never saw keeps probability 0
    return spread


def _spreads(
    data: TaskRows, scores: Mapping[str, NDArray[np.float64]], *, n_resamples: int, seed: int
) -> dict[str, Spread]:
    return {
        name: Spread.of(
            data.task, data.parts[name].y, said, data.parts[name].groups, n_resamples=n_resamples, seed=seed
        )
        for name, said in scores.items()
    }


def _baselines(
    data: TaskRows, config: RunConfig, beside: Mapping[str, Mapping[str, Spread]]
) -> dict[str, dict[str, dict[str, Interval]]]:
    """By baseline, part and metric; the training part has the majority only."""
    found = {
        name: {part: intervals(spread, part=part) for part, spread in spreads.items()}
        for name, spreads in beside.items()
    }
    guesses = {
        name: chance(data.task, fitted_labels(data, name, refit=config.refit), part.y, seed=config.seed)
        for name, part in data.parts.items()
        if name != "train"
    }
    return {"majority": found["majority"], "chance": guesses, "id-only": found["id-only"]}
