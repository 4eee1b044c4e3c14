"""The cross-corpus test: a fitted head, as it is, on the images of another store."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.config import RunConfig, load_config
from classify.data.rows import RowMatrix
from classify.data.seen import Seen, find_seen
from classify.data.tasks import Part, TaskRows
from classify.errors import TaskError
from classify.evaluation.baselines import chance, constant_scores
from classify.evaluation.bootstrap import Spread, intervals
from classify.evaluation.novelty import read_novelty
from classify.evaluation.postprocessing import postprocessed_report
from classify.evaluation.verdict import judge_head
from classify.heads.persistence import load_model
from classify.inference.model import run_passports
from classify.runs import train
from classify.runs.folder import CONFIG, Run, check_free, new_folder, read_run, write_run
from classify.runs.predictions import PartPredictions
from classify.runs.record import run_report
from features_store import Labels, Store, Task, open_store
from features_store import passport as passports
from features_store.errors import AffectoryError, MismatchError, unknown_name

__all__ = ["TransferConfig", "run_config", "transfer"]

LEFT_OUT = "none"


@dataclass(frozen=True)
class TransferConfig:
    """What is tested on what.

    Parameters
    ----------
    run : Path
        Folder of the run whose head is tested.
    store : str
        A store with the run's blocks, of other images.
    task : str or None
        A task of that store. None: the one that has the name of the run's.
    class_map : mapping of str to str
        Of the store's classes to the run's; a class that both have needs no word, and "none" leaves images out.
    resamples : int
        Behind each interval.
    out : str or None
        Folder of the result. None: ``runs/CORPUS/TASK/HEAD-from-CORPUS OF THE RUN``.
    """

    run: Path
    store: str
    task: str | None = None
    class_map: Mapping[str, str] = field(default_factory=dict)
    resamples: int = 1000
    seed: int = 0
    out: str | None = None

    @classmethod
    def of(cls, config: RunConfig) -> TransferConfig:
        """Return the test that a run's file describes."""
        tested = Path(config.tested or "").expanduser()
        more = {"resamples": config.resamples, "seed": config.seed, "out": config.out}
        return cls(tested, config.store, config.task, config.class_map, **more)  # type: ignore[arg-type]


def run_config(config: RunConfig, *, force: bool = False, **options: Any) -> Run:
    """Do what the file of a run describes: fit a head, or test a fitted one on another corpus."""
    if config.tested:
        return transfer(TransferConfig.of(config), force=force)
    return train.run(config, force=force, **options)


def transfer(config: TransferConfig, *, force: bool = False) -> Run:
    """Score a fitted head on another corpus, and leave a run folder with one part, ``test``: all its labelled images.

    Images that the head was fitted on, or that calibrated it, are left out, and counted: by name, by the bytes of the
    picture where both stores know them, by equal vectors, and as group mates of one of them.

    The head keeps its classes: a class that the other corpus hasn't keeps its row, with support 0, and images said to
    be of it are wrong. Nothing is fitted; calibration and thresholds are those of the run.

    Raises MismatchError, TaskError.
    """
    run, started = read_run(config.run), time.perf_counter()
    store = open_store(Path(config.store).expanduser())
    asked = _config(run, config)
    check_free(asked.folder, force=force)
    blocks = tuple(run_passports(run))
    _same_making(run, store, blocks)
    labels = store.task_labels(asked.task)
    y, known = _mapped(run.task, labels, config.class_map)
    seen = find_seen(store, _fitted_ids(run), _trained_on(run), blocks)
    part, dropped = _part(store, blocks, y, known, seen)
    task = replace(run.task, name=asked.task)
    head, files = load_model(config.run / "model")
    novelty = read_novelty(files, blocks, head.n_features_in_)
    rows = RowMatrix(store, blocks, part.rows)
    scores = {"test": train.head_scores(head, task, rows)}
    novel = None if novelty is None else novelty.as_json({"test": rows}, seed=config.seed)
    options: dict[str, Any] = {"n_resamples": config.resamples, "seed": config.seed}
    fitted = ("train", "validation") if run.report.refit else ("train",)
    truth = np.concatenate([run.part(name).y_true for name in fitted])
    guess = constant_scores(task, truth, len(part))
    spreads = {
        name: {"test": Spread.of(task, part.y, y_score, part.groups, **options)}
        for name, y_score in {"head": scores["test"], "majority": guess}.items()
    }
    metrics = {name: {"test": intervals(of["test"])} for name, of in spreads.items()}
    guesses = {"test": chance(task, truth, part.y, seed=config.seed)}
    postprocessing = run.postprocessing
    postprocessed = postprocessed_report(task, {"test": part}, scores, postprocessing, **options)
    scored = known & store.usable(blocks)
    told = f"Of the images that the head was fitted on or chosen by, {seen.words(scored)} lie here and are left out."
    data = TaskRows(task, {"test": part}, dropped, warnings=(told, *_words(run, task, part)))
    verdicts = judge_head(data, spreads, **options)
    facts = {
        "trained_on": run.report.corpus,
        "index_digest": run.report.index_digest,
        "class_map": dict(config.class_map),
        "left_out": seen.counts(scored),
    }
    report = run_report(
        asked,
        store,
        blocks,
        data,
        head=head,
        scores=scores,
        metrics=metrics["head"],
        baselines={"majority": metrics["majority"], "chance": guesses},
        verdicts=verdicts,
        novelty=novel,
        transfer=facts,
        timings={"fit": 0.0, "score": round(time.perf_counter() - started, 3)},
        history=[],
        **postprocessed,
    )
    calibrated = postprocessing.calibrated(scores["test"])
    predictions = {"test": PartPredictions(part.ids, part.y, scores["test"], part.groups, calibrated)}
    with new_folder(asked.folder, force=force) as folder:
        kept = {"head": head, "postprocessing": postprocessing, "novelty": novelty}
        write_run(folder, asked, report=report, predictions=predictions, **kept)
    return read_run(asked.folder)


def _config(run: Run, config: TransferConfig) -> RunConfig:
    fitted = load_config(run.folder / CONFIG)
    asked = replace(fitted, store=config.store, task=config.task or run.report.task, split="all", merge={})
    asked = replace(asked, refit=False, limit=None, resamples=config.resamples, seed=config.seed, out=config.out)
    asked = replace(asked, tested=str(config.run), class_map=dict(config.class_map))
    if config.out:
        return asked
    corpus = re.sub(r"[^A-Za-z0-9_.-]+", "-", run.report.corpus).strip(".-") or "another"
    name = f"{fitted.preset or fitted.head}-from-{corpus}"
    return replace(asked, out=str(asked.folder.with_name(name)))


def _same_making(run: Run, store: Store, blocks: tuple[str, ...]) -> None:
    if store.index_digest == run.report.index_digest:
        message = f"the store holds the images of {run.folder} itself; a cross-corpus test needs other ones"
        raise TaskError(message)
    for name in blocks:
        differing = passports.differences(run.report.passports[name], store.block(name).passport)
        if differing:
            message = (
                f"block {name!r} of the store was made in another way than the one the head was fitted on (fitted / "
                f"here): {'; '.join(differing[:5])}"
            )
            raise MismatchError(message)


def _mapped(task: Task, labels: Labels, class_map: Mapping[str, str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the labels in the classes of the run's task, and which images are scored."""
    theirs = labels.task
    if theirs.kind != task.kind:
        message = (
            f"task {theirs.name!r} of the store is {theirs.kind}, the head was fitted on a task that is {task.kind}"
        )
        raise TaskError(message)
    if task.kind == "regression":
        if (theirs.classes, theirs.range) != (task.classes, task.range):
            message = (
                f"task {theirs.name!r} of the store has outputs {theirs.classes} on {theirs.range}, the head "
                f"{task.classes} on {task.range}; they must be the same"
            )
            raise TaskError(message)
        values = labels.values.astype(np.float64)
        return (values[:, 0] if values.shape[1] == 1 else values), labels.known
    place = _places(task, labels, class_map)
    if task.kind == "single":
        codes = np.where(labels.values < 0, -1, place[labels.values.clip(min=0)]).astype(np.int64)
        return codes, codes >= 0
    columns = [labels.values[:, place == k] == 1 for k in range(len(task.classes))]
    return np.stack([one.any(axis=1) for one in columns], axis=1).astype(np.uint8), labels.known


def _places(task: Task, labels: Labels, class_map: Mapping[str, str]) -> NDArray[np.int64]:
    """Return for each class of the store its place among the run's, -1 where its images are left out."""
    theirs = labels.task.classes
    for name, ours in class_map.items():
        if name not in theirs:
            raise TaskError(unknown_name(f"class of the store's task {labels.task.name!r}", name, theirs))
        if ours != LEFT_OUT and ours not in task.classes:
            raise TaskError(unknown_name(f"class of the head (for {name!r})", ours, [*task.classes, LEFT_OUT]))
    present = [
        bool((labels.values == k).any() if task.kind == "single" else (labels.values[:, k] == 1).any())
        for k in range(len(theirs))
    ]
    places = []
    for name, has_images in zip(theirs, present, strict=True):
        ours = class_map.get(name, name if name in task.classes else LEFT_OUT)
        if has_images and name not in class_map and ours == LEFT_OUT:
            message = (
                f"the store's class {name!r} has images, and the head knows {', '.join(task.classes)}; say which it is "
                f"with --map {name}=CLASS, or leave its images out with --map {name}={LEFT_OUT}"
            )
            raise TaskError(message)
        places.append(-1 if ours == LEFT_OUT else task.classes.index(ours))
    return np.array(places)


def _fitted_ids(run: Run) -> NDArray[np.str_]:
    """Return the images that the head was fitted on, and those that stopped or calibrated it."""
    return np.concatenate([run.part(name).ids for name in ("train", "validation") if name in run.predictions])


def _trained_on(run: Run) -> Store | None:
    """Open the store that the run was made from; None where it is not there any more."""
    try:
        return open_store(Path(load_config(run.folder / CONFIG).store).expanduser())
    except AffectoryError:
        return None


def _part(
    store: Store, blocks: tuple[str, ...], y: NDArray[Any], known: NDArray[np.bool_], seen: Seen
) -> tuple[Part, dict[str, dict[str, int]]]:
    whole = store.usable(blocks)
    rows = np.flatnonzero(known & whole & ~seen.rows)
    if not len(rows) and (known & whole).any():
        message = (
            f"the head was fitted on or chosen by all images of the store that could be scored, "
            f"{seen.words(known & whole)}, so nothing is left to test; give a store of other images"
        )
        raise TaskError(message)
    if not len(rows):
        message = "no image of the store has both a label and its vectors, so there is nothing to score"
        raise TaskError(message)
    counts = {"no label": int((~known).sum()), "no vector": int((known & ~whole).sum())}
    counts["seen in training"] = int((known & whole & seen.rows).sum())
    groups = None if store.groups is None else np.asarray(store.groups)[rows]
    dropped = {reason: count for reason, count in counts.items() if count}
    return Part("test", rows, y[rows], np.asarray(store.ids)[rows], groups), {"test": dropped} if dropped else {}


def _words(run: Run, task: Task, part: Part) -> tuple[str, ...]:
    words = [f"The head was fitted on {run.report.corpus} and is tested here as it is."]
    if task.kind != "regression":
        counts = np.bincount(part.y, minlength=len(task.classes)) if task.kind == "single" else part.y.sum(axis=0)
        absent = [name for name, count in zip(task.classes, counts, strict=True) if not count]
        words += [f"No image here has the class {name!r}: its row stays, empty." for name in absent]
    return tuple(words)
