"""One run, on one page: store, task, head, fit, scores with intervals beside the baselines, calibration, folder."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from classify.config import RunConfig, dump_config
from classify.data.kinds import kind_of
from classify.data.rows import RowMatrix
from classify.data.tasks import TaskRows, joined
from classify.errors import ConfigError
from classify.evaluation.baselines import chance, fitted_part, id_only_scores, majority_scores
from classify.evaluation.bootstrap import Spread, intervals
from classify.evaluation.novelty import fit_novelty
from classify.evaluation.postprocessing import fit_postprocessing, postprocessed_report
from classify.evaluation.verdict import clean_scores, judge_head
from classify.runs.folder import Run, check_free, write_run
from classify.runs.layout import Layout, lay_out, unfitted_head
from classify.runs.record import by_kind, run_report
from classify.runs.time_budget import Interruption
from features_store.schema import Task

Scores = Mapping[str, NDArray[np.float64]]  # by part


def run(
    config: RunConfig,
    *,
    force: bool = False,
    notify: Callable[[str], None] = lambda line: None,
    interruption: Interruption | None = None,
    n_tried: int = 1,
) -> Run:
    """Fit one head on one task, score it beside the baselines, and write a run folder.

    *force* replaces a run that lies there, *notify* is called with a line of text before the work is done, and
    *n_tried* counts the runs or trials among which this one was chosen. Nothing is written where the place is taken, a
    name is unknown or the task cannot be run (AffectoryError); where the time budget ends, training keeps its state
    (UnfinishedError).
    """
    if config.tested:
        raise ConfigError(
            f"this is the file of a cross-corpus test of {config.tested}; repeat it with `classify evaluate`"
        )
    check_free(config.folder, force=force)
    timings: dict[str, float] = {}
    with _timed(timings, "open"):
        layout = lay_out(config)
        data, task, parts = layout.data, layout.data.task, layout.data.parts
        head = unfitted_head(config, layout)
    if interruption is not None:
        interruption.identify(config=dump_config(config), images={name: p.digest for name, p in parts.items()})
        interruption.identify(**{name: layout.store.blocks[name].digest for name in layout.blocks})
    known = [f"{part}: {n} left out ({reason})" for part, by in data.dropped.items() for reason, n in by.items()]
    for line in by_kind([*known, *([data.crossing.words()] if data.crossing else []), *data.warnings]):
        notify(line)
    resampling: dict[str, Any] = {"n_resamples": config.resamples, "seed": config.seed}
    with _timed(timings, "baselines"):  # first: what the data alone can make fail is not found after the long work
        weight = getattr(head, "class_weight", None)
        id_only = id_only_scores(data, refit=config.refit, class_weight=weight, seed=config.seed)
        spreads = {
            "majority": _spreads(data, majority_scores(data, refit=config.refit), **resampling),
            "id-only": _spreads(data, id_only, **resampling),
        }
    with _timed(timings, "fit"):
        heads, refit, caught = fit_head(head, layout, refit=config.refit, interruption=interruption)
    with _timed(timings, "score"):
        scores = {name: head_scores(heads[name], task, x) for name, x in layout.matrices.items()}
        every = np.concatenate(list(scores.values()))
        if np.ptp(every, axis=0).max() <= 1e-9 * np.abs(every).max() and config.head != "dummy" and not caught:
            caught.append("Every image gets the same prediction: the head learned nothing from these features.")
    with _timed(timings, "intervals"):
        spreads["head"] = _spreads(data, scores, **resampling)
        crossing = clean_scores(data, spreads, **resampling)
        verdicts = judge_head(data, spreads, **resampling)
        of_spreads = {
            name: {part: intervals(spread, part=part) for part, spread in by_part.items()}
            for name, by_part in spreads.items()
        }
        guesses = {
            name: chance(task, fitted_part(data, name, refit=config.refit).y, part.y, seed=config.seed)
            for name, part in parts.items()
            if name != "train"
        }
    with _timed(timings, "calibration"):
        postprocessing = fit_postprocessing(task, parts, scores, method=config.calibration)
        postprocessed = postprocessed_report(task, parts, scores, postprocessing, **resampling)
    with _timed(timings, "novelty"):  # of the training part alone, also after a refit: the others stay held out
        train = parts["train"]
        matrices = {name: RowMatrix(layout.store, [name], train.rows) for name in layout.blocks}
        novelty = fit_novelty(matrices, task, train.y, train.groups, seed=config.seed)
        held_out = {name: x for name, x in layout.matrices.items() if name != "train"}
        unlike = novelty.as_json(held_out, seed=config.seed)
    report = run_report(
        config,
        layout,
        head=heads["test"],
        scores=scores,
        warnings=caught,
        metrics=of_spreads["head"],
        baselines={"majority": of_spreads["majority"], "chance": guesses, "id-only": of_spreads["id-only"]},
        verdicts=verdicts,
        crossing=crossing,
        n_tried=n_tried,
        chosen_on=("validation" if "validation" in parts else "test") if n_tried > 1 else None,
        refit=refit,
        novelty=unlike,
        timings=timings,
        **postprocessed,
    )
    kept = {"head": heads["test"], "postprocessing": postprocessing, "novelty": novelty}
    done = write_run(config, report, parts, scores, **kept, force=force)
    if interruption is not None:
        interruption.done()
    return done


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = round(time.perf_counter() - start, 3)


def _spreads(data: TaskRows, scores: Scores, **resampling: int) -> dict[str, Spread]:
    parts = {name: data.parts[name] for name in scores}
    return {name: Spread.of(data.task, part.y, scores[name], part.groups, **resampling) for name, part in parts.items()}


def head_scores(head: Any, task: Task, matrix: RowMatrix) -> NDArray[np.float64]:
    """Return the scores of a fitted head, values cut to the scale of the task."""
    kind = kind_of(task)
    return kind.bounded(kind.scores(head, matrix))


def fit_head(
    head: Any, layout: Layout, *, refit: bool = False, interruption: Interruption | None = None
) -> tuple[dict[str, Any], dict[str, Any] | None, list[str]]:
    """Fit a head on the training part, with the validation part for early stopping where there is one.

    With *refit* a second head of the same options is fitted on training and validation images together, for as many
    epochs (rounds, of trees, label by label) as were best for the first where it stopped early, else for as many as
    are set. Returns the head that scores each part (``test`` has the one that is kept), the facts of the second fit for
    the report, and the warnings of libraries.
    """
    parts = layout.data.parts
    if refit and "validation" not in parts:
        raise ConfigError(f"refit is set, and the split has no validation images to add; it has {', '.join(parts)}")
    train = layout.to_train_on(parts["train"].rows)
    validation = (layout.matrices["validation"], parts["validation"].y) if "validation" in parts else None
    caught = _fit(head, train, parts["train"].y, parts["train"].groups, validation, "fit", interruption)
    facts, kept = None, head
    if refit:
        length = {head.length: head.best_length_} if head.best_length_ else {}
        kept = clone(head).set_params(**length)
        both = joined([parts["train"], parts["validation"]])
        caught += _fit(kept, layout.to_train_on(both.rows), both.y, both.groups, None, "refit", interruption)
        facts = {"parts": ["train", "validation"], "n": len(both), **length}
    return {"train": head, "validation": head, "test": kept}, facts, list(dict.fromkeys(caught))


def _fit(
    head: Any, x: Any, y: Any, groups: Any, validation: Any, stage: str, interruption: Interruption | None
) -> list[str]:
    """Fit, and return what libraries warn of."""
    options: dict[str, Any] = {"validation": validation}
    if interruption is not None:
        options["checkpoint"] = interruption.checkpoint(stage, head)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        # scikit-learn guesses from many classes that y is a regression; the task says what it is.
        warnings.filterwarnings("ignore", "The number of unique classes is greater")
        head.fit_in_groups(x, y, groups, **options)
    if interruption is not None and options["checkpoint"].unfinished:
        raise interruption.unfinished()
    return [" ".join(str(w.message).split()) for w in caught if issubclass(w.category, UserWarning)]
