"""A file of answers to hand in, written by a program that checks what it wrote.

A file of this kind once cost a team a fifth of its F1 (MediaEval 2021, subtask 1: 0.595 handed in, 0.740 meant).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.config import load_config
from classify.errors import SubmissionError
from classify.inference.model import run_model
from classify.inference.submission import Answers, Submission, check_ids, check_submission, read_table
from classify.runs.folder import CONFIG, Run
from classify.runs.identity import check_same_data
from classify.runs.layout import Layout, lay_out
from features_store.atomic import atomic_write
from features_store.errors import AffectoryError
from features_store.schema import PART_NAMES

__all__ = ["plan_submission", "write_submission"]

Floats = NDArray[np.float64]
_KEYS = ("id", "filename")


def plan_submission(
    runs: Sequence[Run], *, template: Path | None = None, part: str = "test", at_half: bool = False
) -> Submission:
    """Lay out what the file must hold: the images of a part of the index, labelled or not, as each run answers.

    Raises SubmissionError, RunError.
    """
    layouts = [_laid_out(run) for run in runs]
    named = [run.task.name for run in runs]
    if len(set(named)) != len(named):
        message = f"two runs answer for the same task ({', '.join(named)}); give one run for each task"
        raise SubmissionError(message)
    lists = [_ids_of(layout, run, part) for layout, run in zip(layouts, runs, strict=True)]
    if any(sorted(one) != sorted(lists[0]) for one in lists):
        message = f"the runs answer for different images of the {part} part; make them on one store and split"
        raise SubmissionError(message)
    ids, key = (lists[0], "id") if template is None else _template(template, lists[0])
    answers = [_answers(run, layout, ids, at_half=at_half) for run, layout in zip(runs, layouts, strict=True)]
    return Submission(tuple(ids), tuple(answers), key)


def _laid_out(run: Run) -> Layout:
    config = load_config(run.folder / CONFIG)
    if config.limit:
        message = f"{run.folder} was made on a few images only (limit = {config.limit}); make a whole run to submit"
        raise SubmissionError(message)
    if config.tested:
        message = f"{run.folder} tests a head on another corpus; submit from a run that was fitted on the corpus itself"
        raise SubmissionError(message)
    layout = lay_out(replace(config, allow_split_groups=True))  # the run was scored on it already
    check_same_data(run, config, layout.store, layout.blocks, layout.data)
    return layout


def _ids_of(layout: Layout, run: Run, part: str) -> list[str]:
    split = layout.store.split(run.report.split)
    ids: list[str] = layout.store.ids[split.values == PART_NAMES.index(part)].tolist()
    if not ids:
        message = f"split {split.name!r} has no {part} images to submit"
        raise SubmissionError(message)
    return ids


def _template(path: Path, expected: Sequence[str]) -> tuple[list[str], str]:
    header, rows = read_table(path)
    at = next((i for i, title in enumerate(header) if title.strip().lower() in _KEYS), None)
    if at is None:
        message = f"{path} has no column 'id' or 'filename'; its titles are {', '.join(header)}"
        raise SubmissionError(message)
    known, ids = set(expected), []
    for row in rows:
        name = row[at].strip()
        ids.append(name if name in known else name.rsplit(".", 1)[0])
    check_ids(path, ids, expected, ordered=False)
    return ids, "id"


def _answers(run: Run, layout: Layout, ids: Sequence[str], *, at_half: bool) -> Answers:
    """Let the run's head answer for the images, and see that it says what it said when it was scored."""
    store, model = layout.store, run_model(run)
    position = {image: at for at, image in enumerate(store.ids.tolist())}
    rows = np.array([position[image] for image in ids])
    lacking = np.flatnonzero(~store.usable(model.blocks)[rows])
    if len(lacking):
        message = (
            f"{len(lacking)} of {len(ids)} images have no vector in {', '.join(model.blocks)}, the first "
            f"{ids[lacking[0]]!r}; every image needs an answer: extract them, or train on blocks that have them"
        )
        raise SubmissionError(message)
    scores = model.scores(store.matrix(model.blocks, rows))
    said, truth = _said(run)
    for at, image in enumerate(ids):
        if image in said:
            if not np.allclose(scores[at], said[image], rtol=0, atol=1e-4):
                message = f"{run.folder} said {said[image]} of {image!r}, and its head says {scores[at]}; run it again"
                raise SubmissionError(message)
            scores[at] = said[image]  # to the last digit what was scored
    return Answers(model.task, scores, None if at_half else model.postprocessing.thresholds, truth, str(run.folder))


def _said(run: Run) -> tuple[dict[str, Floats], dict[str, Any]]:
    said, truth = {}, {}
    for part in run.predictions.values():
        for image, score, label in zip(part.ids.tolist(), part.y_score, part.y_true, strict=True):
            said[image], truth[image] = np.atleast_1d(score), label
    return said, truth


def write_submission(plan: Submission, path: Path, *, force: bool = False) -> dict[str, dict[str, Any]]:
    """Write the file, whole, and only if what was written is right.

    Raises ExistsError, SubmissionError.
    """
    columns = [one.cells() for one in plan.answers]
    try:
        with atomic_write(path, force=force) as temporary:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(plan.titles)
                for image, *cells in zip(plan.ids, *columns, strict=True):
                    writer.writerow([image, *(cell for some in cells for cell in some)])
            return check_submission(temporary, plan)
    except AffectoryError:
        raise
    except OSError as error:
        message = f"can't write {path}: {error.strerror or error}"
        raise SubmissionError(message) from error
