"""A file of predictions to submit to MediaEval or to another benchmark, checked after it is written.

The file is read back from the disk, compared with the index of the store (each image once, in order, the official
titles, the right kinds of values), scored again, and compared cell by cell with the predictions of the run. A file of
this kind once cost a team a fifth of its F1 (MediaEval 2021, subtask 1: 0.595 submitted, 0.740 meant).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.config import user_path
from classify.data.kinds import kind_of
from classify.errors import RunError, SubmissionError
from classify.evaluation.metrics import metrics, primary_metric
from classify.inference.model import run_model
from classify.json_file import MAX_JSON, whole_file
from classify.runs.folder import Run
from classify.runs.identity import lay_out_again
from classify.runs.layout import Layout
from classify.runs.predictions import read_rows
from features_store import Store, open_store
from features_store import passport as passports
from features_store.atomic import typed_path
from features_store.schema import PART_NAMES, Task

Floats = NDArray[np.float64]
SUBTASKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "subtask1": (("negative", "neutral", "positive"), ("T1",)),
    "subtask2": (
        ("joy", "sadness", "fear", "disgust", "anger", "surprise", "neutral"),
        (
            *("T2.1: Joy", "T2.2: Sadness", "T2.3: Fear", "T2.4: Disgust"),
            *("T2.5: Anger", "T2.6: Surprise", "T2.7: Neutral"),
        ),
    ),
    "subtask3": (
        ("anger", "anxiety", "craving", "empathic pain", "fear", "horror", "joy", "relief", "sadness", "surprise"),
        (
            *("T3.1: Anger", "T3.2: Anxiety", "T3.3: Craving", "T3.4: Emphatic pain", "T3.5: Fear"),
            *("T3.6: Horror", "T3.7: Joy", "T3.8: Relief", "T3.9: Sadness", "T3.10:surprise"),
        ),
    ),
}
"""MediaEval 2021, by subtask: its classes in the official order, and its titles in the official spelling, slips
included."""


@dataclass(frozen=True)
class TaskPredictions:
    """The predictions of one run for the images of a submission."""

    task: Task
    scores: Floats  # (n_images, n_classes), in the order of the submission
    thresholds: tuple[float, ...] | None  # multi: the probability from which a class is given; None = one half
    truth: Mapping[str, Any]  # by id, the label, for the images that have one
    run: str  # its folder, for messages

    @property
    def titles(self) -> tuple[str, ...]:
        """Column titles: of a single-label task one, else one for each class or output."""
        classes, titles = SUBTASKS.get(self.task.name, ((), ()))
        if classes == self.task.classes:
            return titles
        names = tuple(f"{self.task.name}: {name}" for name in self.task.classes)
        return (self.task.name,) if kind_of(self.task).exclusive else names

    def cells(self) -> list[list[str]]:
        """Return the predictions as text, a row for each image: a class name, or 0 and 1, or values."""
        kind = kind_of(self.task)
        if not kind.has_classes:
            return [[repr(value) for value in row] for row in self.scores.tolist()]
        rows = kind.truth_cells(kind.decide(self.scores, self.thresholds))
        return [[str(cell) for cell in row] for row in rows]


@dataclass(frozen=True)
class Submission:
    """What a file must hold: the predictions for each of *ids*, in this order, task by task."""

    ids: tuple[str, ...]
    tasks: tuple[TaskPredictions, ...]

    @property
    def titles(self) -> list[str]:
        """All titles."""
        return ["id", *(title for one in self.tasks for title in one.titles)]


def plan_submission(
    runs: Sequence[Run],
    *,
    store: str | None = None,
    template: Path | None = None,
    part: str = "test",
    own_thresholds: bool = False,
) -> Submission:
    """Predict for all images of a part of the index, labelled or not, by each run; or for all of another *store*.

    Each label is given from a probability of one half, as in the run's report, or from the run's *own_thresholds*.
    """
    names = [run.task.name for run in runs]
    if len(set(names)) != len(names):
        raise SubmissionError(f"two runs are of the same task ({', '.join(names)}); give one run for each task")
    if store is None:
        layouts = [_laid_out(run) for run in runs]
        stores = [layout.store for layout in layouts]
        lists = [_part_ids(layout, run, part) for layout, run in zip(layouts, runs, strict=True)]
    else:
        stores = [_other_store(run, open_store(user_path(store))) for run in runs]
        lists = [one.ids.tolist() for one in stores]
    if any(sorted(one) != sorted(lists[0]) for one in lists):
        raise SubmissionError(f"the runs have different images in the {part} part; make them on one store and split")
    ids, written = (lists[0], lists[0]) if template is None else _template_ids(template, lists[0])
    return Submission(
        tuple(written),
        tuple(
            _predictions(run, there, ids, written, own_thresholds=own_thresholds)
            for run, there in zip(runs, stores, strict=True)
        ),
    )


def _other_store(run: Run, store: Store) -> Store:
    """Refuse a store whose blocks were made in another way than those that the head was fitted on."""
    if run.config.limit:
        raise SubmissionError(f"{run.folder} is a quick run; make a whole run to submit")
    for name, fitted in run.passports.items():
        # Answers are given by view 0, the image itself, whatever other views a store has.
        pair = ({k: v for k, v in one.items() if k != "views"} for one in (fitted, store.block(name).passport))
        if different := passports.differences(*pair):
            raise SubmissionError(
                f"block {name!r} of the store was made in another way than the one of {run.folder} (fitted / here): "
                f"{'; '.join(different[:5])}"
            )
    return store


def _laid_out(run: Run) -> Layout:
    config = run.config
    if config.limit:
        raise SubmissionError(
            f"{run.folder} is a quick run, of at most {config.limit} images of each part; make a whole run to submit"
        )
    if config.tested:
        raise SubmissionError(
            f"{run.folder} tests a head on another corpus; submit from a run that was fitted on the corpus itself"
        )
    return lay_out_again(run)[1]


def _part_ids(layout: Layout, run: Run, part: str) -> list[str]:
    split = layout.store.split(run.report.split)
    ids: list[str] = layout.store.ids[split.values == PART_NAMES.index(part)].tolist()
    if not ids:
        raise SubmissionError(f"split {split.name!r} has no {part} images to submit")
    return ids


def _template_ids(path: Path, expected: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the ids of the index in the order of a table, and how they are written.

    The table may name images with or without a suffix; a name that is no id of the index is written as it stands there.
    """
    header, rows = _read_table(path)
    at = next((i for i, title in enumerate(header) if title.strip().lower() in ("id", "filename")), None)
    if at is None:
        raise SubmissionError(f"{path} has no column 'id' or 'filename'; its titles are {', '.join(header)}")
    known, names = set(expected), [row[at].strip() for row in rows]
    stems = {PurePosixPath(image).stem: image for image in expected}
    stems = stems if len(stems) == len(expected) else {}  # else a stem would not say which image it is
    ids, written = [], []
    for name in names:
        bare = name.rpartition(".")[0] or name
        own = name if name in known else bare if bare in known else ""
        ids.append(own or stems.get(name, name))
        written.append(own or name)
    _check_ids(path, ids, expected)
    return ids, written


def _predictions(
    run: Run, store: Store, ids: Sequence[str], written: Sequence[str], *, own_thresholds: bool
) -> TaskPredictions:
    """Predict by the run's head, and see that it gives the scores that the run was judged by."""
    model = run_model(run)
    position = {image: at for at, image in enumerate(store.ids.tolist())}
    rows = np.array([position[image] for image in ids])
    lacking = np.flatnonzero(~store.usable(model.blocks)[rows])
    if len(lacking):
        raise SubmissionError(
            f"{len(lacking)} of {len(ids)} images have no vector in {', '.join(model.blocks)}, the first "
            f"{ids[lacking[0]]!r}; every image needs a prediction: extract them, or train on blocks that have them"
        )
    scores = model.kind.bounded(model.scores(store.matrix(model.blocks, rows)))
    scored: dict[str, Any] = {}
    truth: dict[str, Any] = {}
    judged = store.index_digest == run.report.index_digest  # else its images are others, whatever their names
    for part in run.predictions.values() if judged else ():
        scored.update(zip(part.ids.tolist(), part.y_score, strict=True))
        truth.update(zip(part.ids.tolist(), part.y_true, strict=True))
    for at, image in enumerate(ids):
        if image in scored:
            if not np.allclose(scores[at], scored[image], rtol=0, atol=1e-4):
                raise SubmissionError(
                    f"{run.folder} has the scores {scored[image]} of {image!r}, and its head now gives {scores[at]}; "
                    "run it again"
                )
            scores[at] = scored[image]  # to the last digit what was scored
    thresholds = model.postprocessing.thresholds if own_thresholds else None
    truth = {name: truth[image] for image, name in zip(ids, written, strict=True) if image in truth}
    return TaskPredictions(model.task, scores, thresholds, truth, str(run.folder))


def write_submission(plan: Submission, path: Path, *, force: bool = False) -> dict[str, dict[str, Any]]:
    """Write the file whole, and only if its check passes; return the scores as `check_submission` does."""
    columns = [one.cells() for one in plan.tasks]
    with whole_file(path, force=force) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(plan.titles)
            for image, *rows in zip(plan.ids, *columns, strict=True):
                writer.writerow([image, *(cell for row in rows for cell in row)])
        return check_submission(temporary, plan)


def check_submission(path: Path, plan: Submission) -> dict[str, dict[str, Any]]:
    """Read a file back and check it; return its score by task, with the number of labelled images."""
    header, rows = _read_table(path)
    if header != plan.titles:
        raise SubmissionError(
            f"{path} has the titles {', '.join(header)}; they must be {', '.join(plan.titles)}, in this order"
        )
    ids = [row[0] for row in rows]
    _check_ids(path, ids, plan.ids)
    if ids != list(plan.ids):
        at = next(i for i, pair in enumerate(zip(ids, plan.ids, strict=True)) if pair[0] != pair[1])
        raise SubmissionError(
            f"{path} has {ids[at]!r} in row {at + 1}, where {plan.ids[at]!r} must stand: its order is another"
        )
    found: dict[str, dict[str, Any]] = {}
    start = 1
    for one in plan.tasks:
        cells = [row[start : start + len(one.titles)] for row in rows]
        start += len(one.titles)
        found[one.task.name] = _compared_score(path, one, _file_scores(path, one, cells, ids), ids)
        for image, theirs, ours in zip(ids, cells, one.cells(), strict=True):
            if theirs != ours:
                raise SubmissionError(
                    f"{path} says {', '.join(theirs)} of {image!r}, and {one.run} says {', '.join(ours)}"
                )
    return found


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Read a CSV file: its titles, and its rows, each with as many cells."""
    try:
        header, *rows = read_rows(typed_path(path), MAX_JSON)
    except (OSError, ValueError, RunError, csv.Error) as error:
        raise SubmissionError(f"can't read {path} as a table: {error}") from error
    return header, rows


def _check_ids(path: Path, ids: Sequence[str], expected: Sequence[str]) -> None:
    """Refuse ids that do not name each expected image once."""
    problems = {
        "names an image twice": sorted(image for image, n in Counter(ids).items() if n > 1),
        "lacks an image": sorted(set(expected) - set(ids)),
        "names an image that isn't one of the part": sorted(set(ids) - set(expected)),
    }
    for words, images in problems.items():
        if images:
            raise SubmissionError(
                f"{path} {words}: {images[0]!r} ({len(images)} in all); it must name each of {len(expected)} once"
            )


def _file_scores(path: Path, one: TaskPredictions, cells: Sequence[Sequence[str]], ids: Sequence[str]) -> Floats:
    """Return the cells of a task as scores: 1 for a class that is given, or values."""
    kind = kind_of(one.task)
    if kind.has_classes:
        valid = one.task.classes if kind.exclusive else ("0", "1")
        for image, row in zip(ids, cells, strict=True):
            for title, cell in zip(one.titles, row, strict=True):
                if cell not in valid:
                    raise SubmissionError(
                        f"{path} says {cell!r} of {image!r} in column {title!r}; valid: {', '.join(valid)}"
                    )
        return kind.indicators(kind.read_truth(cells)).astype(np.float64)
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError as error:
        raise SubmissionError(
            f"{path} has a cell in the columns {', '.join(one.titles)} that is no number: {error}"
        ) from error
    if not np.isfinite(values).all():
        raise SubmissionError(f"{path} has a value in the columns {', '.join(one.titles)} that isn't finite")
    return values


def _compared_score(path: Path, one: TaskPredictions, theirs: Floats, ids: Sequence[str]) -> dict[str, Any]:
    """Score the file, joined to the labels by id; refuse it if the run's predictions score otherwise."""
    task, kind, metric = one.task, kind_of(one.task), primary_metric(one.task)
    known = [at for at, image in enumerate(ids) if image in one.truth]
    if not known:
        return {"metric": metric, "n_images": 0}
    y = np.array([one.truth[ids[at]] for at in known])
    ours = kind.decided(one.scores, one.thresholds).astype(np.float64) if kind.has_classes else one.scores
    file_score, run_score = (metrics(task, y, kind.shaped(scores[known]))[metric] for scores in (theirs, ours))
    if file_score != run_score:
        raise SubmissionError(
            f"{path} scores {metric} {file_score!r}, and the predictions of {one.run} score {run_score!r}: it isn't "
            "made of them"
        )
    return {"metric": metric, "value": file_score, "run": run_score, "n_images": len(known)}
