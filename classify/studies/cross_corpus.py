"""The cross-corpus test: a fitted head, as it is, on the images of another store."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.config import RunConfig, user_path
from classify.data.kinds import kind_of
from classify.data.rows import RowMatrix
from classify.data.seen import Seen, count_seen, find_seen, seen_words
from classify.data.tasks import Part, TaskRows
from classify.errors import TaskError
from classify.evaluation.baselines import chance, constant_scores
from classify.evaluation.bootstrap import Spread, intervals
from classify.evaluation.novelty import read_novelty
from classify.evaluation.postprocessing import postprocessed_report
from classify.evaluation.verdict import judge_head
from classify.heads.persistence import load_model
from classify.runs import train
from classify.runs.folder import Run, check_free, read_run, write_run
from classify.runs.layout import Layout
from classify.runs.record import run_report
from features_store import Labels, Store, Task, open_store
from features_store import passport as passports
from features_store.errors import AffectoryError, MismatchError, unknown_name

LEFT_OUT = "none"


def run_config(config: RunConfig, *, force: bool = False, **options: Any) -> Run:
    """Do what the file of a run describes: fit a head, or test a fitted one on another corpus."""
    if not config.tested:
        return train.run(config, force=force, **options)
    return cross_corpus_test(
        user_path(config.tested),
        config.store,
        task=config.task,
        class_map=config.class_map,
        resamples=config.resamples,
        seed=config.seed,
        out=config.out,
        force=force,
    )


def cross_corpus_test(
    tested: Path,
    store: str,
    *,
    task: str | None = None,
    class_map: Mapping[str, str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    out: str | None = None,
    force: bool = False,
) -> Run:
    """Score the head of the run in folder *tested* on another store; leave a run whose one part, ``test``, has all.

    *task* is one of that store, by default of the name of the run's. *class_map* gives the run's class for a class of
    the store; equal names need no entry, and "none" leaves the images of a class out, unless it is a class of the head.
    By default the run goes to ``runs/CORPUS/TASK/HEAD-from-CORPUS_OF_THE_RUN``.

    Images that the head was fitted on, or that calibrated it, are left out and counted: by name, by the bytes of the
    picture where both stores know them, by equal vectors, and as group mates of one of them. A class of the head that
    the store lacks keeps its row, with support 0. Nothing is fitted; calibration and thresholds are those of the run.
    """
    run, started, class_map = read_run(tested), time.perf_counter(), dict(class_map or {})
    other = open_store(user_path(store))
    config = _config(run, tested, store, task, class_map, out)
    config = replace(config, resamples=resamples, seed=seed)
    check_free(config.folder, force=force)
    blocks = tuple(run.passports)
    _check_making(run, other, blocks)
    y, known = _mapped_labels(run.task, other.task_labels(config.task), class_map)
    seen = _seen_images(run, other, blocks)
    part, dropped = _unseen_part(other, blocks, y, known, seen)
    run_task = replace(run.task, name=config.task)
    head, files = load_model(tested / "model")
    novelty = read_novelty(files, blocks, head.n_features_in_)
    rows = RowMatrix(other, blocks, part.rows)
    scores = {"test": train.head_scores(head, run_task, rows)}
    novel = None if novelty is None else novelty.as_json({"test": rows}, seed=seed)
    options: dict[str, Any] = {"n_resamples": resamples, "seed": seed}
    fitted = ("train", "validation") if run.report.refit else ("train",)
    truth = np.concatenate([run.part(name).y_true for name in fitted])
    majority = constant_scores(run_task, truth, len(part))
    spreads = {
        name: {"test": Spread.of(run_task, part.y, y_score, part.groups, **options)}
        for name, y_score in {"head": scores["test"], "majority": majority}.items()
    }
    metrics = {name: {"test": intervals(spread["test"])} for name, spread in spreads.items()}
    guesses = {"test": chance(run_task, truth, part.y, seed=seed)}
    scorable = known & other.usable(blocks)
    warnings = _warnings(run, run_task, part, seen_words(seen, scorable))
    data = TaskRows(run_task, {"test": part}, dropped, warnings=warnings)
    report = run_report(
        config,
        Layout(other, blocks, data),
        head=head,
        scores=scores,
        metrics=metrics["head"],
        baselines={"majority": metrics["majority"], "chance": guesses},
        verdicts=judge_head(data, spreads, **options),
        novelty=novel,
        transfer={
            "trained_on": run.report.corpus,
            "index_digest": run.report.index_digest,
            "class_map": class_map,
            "left_out": count_seen(seen, scorable),
        },
        timings={"fit": 0.0, "score": round(time.perf_counter() - started, 3)},
        history=[],
        **postprocessed_report(run_task, {"test": part}, scores, run.postprocessing, **options),
    )
    kept = {"head": head, "postprocessing": run.postprocessing, "novelty": novelty}
    return write_run(config, report, data.parts, scores, **kept, force=force)


def _config(
    run: Run, tested: Path, store: str, task: str | None, class_map: Mapping[str, str], out: str | None
) -> RunConfig:
    fitted = run.config
    config = replace(fitted, store=store, task=task or run.report.task, split="all", merge={}, refit=False, limit=None)
    config = replace(config, tested=str(tested), class_map=class_map, out=out)
    if out:
        return config
    corpus = re.sub(r"[^A-Za-z0-9_.-]+", "-", run.report.corpus).strip(".-") or "another"
    return replace(config, out=str(config.beside(f"{fitted.preset or fitted.head}-from-{corpus}")))


def _check_making(run: Run, store: Store, blocks: tuple[str, ...]) -> None:
    """Refuse the run's own store, and blocks that were made in another way."""
    if store.index_digest == run.report.index_digest:
        raise TaskError(f"the store holds the images of {run.folder} itself; a cross-corpus test needs other ones")
    for name in blocks:
        differing = passports.differences(run.report.passports[name], store.block(name).passport)
        if differing:
            raise MismatchError(
                f"block {name!r} of the store was made in another way than the one the head was fitted on (fitted / "
                f"here): {'; '.join(differing[:5])}"
            )


def _mapped_labels(task: Task, labels: Labels, class_map: Mapping[str, str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the labels in the classes of the run's task, and which images have one."""
    theirs, kind = labels.task, kind_of(task)
    if theirs.kind != task.kind:
        raise TaskError(
            f"task {theirs.name!r} of the store is {theirs.kind}, the head was fitted on a task that is {task.kind}"
        )
    if kind.has_classes:
        places = _class_places(task, labels, class_map)
        labels = Labels(task, kind.mapped(labels.values, places, len(task.classes)))
    elif (theirs.classes, theirs.range) != (task.classes, task.range):
        raise TaskError(
            f"task {theirs.name!r} of the store has outputs {theirs.classes} on {theirs.range}, the head "
            f"{task.classes} on {task.range}; they must be the same"
        )
    return kind.targets(labels.values), labels.known


def _class_places(task: Task, labels: Labels, class_map: Mapping[str, str]) -> NDArray[np.int64]:
    """Return for each class of the store its place among the run's, -1 where its images are left out."""
    theirs, kind = labels.task, kind_of(labels.task)
    for name, ours in class_map.items():
        if name not in theirs.classes:
            raise TaskError(unknown_name(f"class of the store's task {theirs.name!r}", name, theirs.classes))
        if ours != LEFT_OUT and ours not in task.classes:
            raise TaskError(unknown_name(f"class of the head (for {name!r})", ours, [*task.classes, LEFT_OUT]))
    places = []
    leave_out = f", or leave its images out with --map NAME={LEFT_OUT}" if LEFT_OUT not in task.classes else ""
    for name, count in kind.class_counts(kind.targets(labels.values[labels.known])).items():
        ours = class_map.get(name, name)
        if count and name not in class_map and ours not in task.classes:
            raise TaskError(
                f"the store's class {name!r} has images, and the head knows {', '.join(task.classes)}; say which it is "
                f"with --map {name}=CLASS{leave_out.replace('NAME', name)}"
            )
        # A class of the head that is called so comes before the word for "left out".
        places.append(task.classes.index(ours) if ours in task.classes else -1)
    return np.array(places)


def _seen_images(run: Run, store: Store, blocks: tuple[str, ...]) -> Seen:
    """Find the images that the head was fitted on, and those that stopped or calibrated it."""
    ids = np.concatenate([run.part(name).ids for name in ("train", "validation") if name in run.predictions])
    try:
        trained_on = open_store(user_path(run.config.store))
    except AffectoryError:  # the store of the run is not here any more
        trained_on = None
    return find_seen(store, ids, trained_on, blocks)


def _unseen_part(
    store: Store, blocks: tuple[str, ...], y: NDArray[Any], known: NDArray[np.bool_], seen: Seen
) -> tuple[Part, dict[str, dict[str, int]]]:
    """Return the images that are scored, and how many are dropped for which reason."""
    whole, left_out = store.usable(blocks), np.any(list(seen.values()), axis=0)
    rows = np.flatnonzero(known & whole & ~left_out)
    if not len(rows) and (known & whole).any():
        raise TaskError(
            f"the head was fitted on or chosen by all images of the store that could be scored, "
            f"{seen_words(seen, known & whole)}, so nothing is left to test; give a store of other images"
        )
    if not len(rows):
        raise TaskError("no image of the store has both a label and its vectors, so there is nothing to score")
    counts = {"no label": int((~known).sum()), "no vector": int((known & ~whole).sum())}
    counts["seen in training"] = int((known & whole & left_out).sum())
    groups = None if store.groups is None else np.asarray(store.groups)[rows]
    dropped = {reason: count for reason, count in counts.items() if count}
    return Part("test", rows, y[rows], np.asarray(store.ids)[rows], groups), {"test": dropped} if dropped else {}


def _warnings(run: Run, task: Task, part: Part, seen: str) -> tuple[str, ...]:
    counts = kind_of(task).class_counts(part.y)
    return (
        f"Of the images that the head was fitted on or chosen by, {seen} lie here and are left out.",
        f"The head was fitted on {run.report.corpus} and is tested here as it is.",
        *(f"No image here has the class {name!r}: its row stays, empty." for name, n in counts.items() if not n),
    )
