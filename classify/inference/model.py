"""What predicts from vectors: a fitted head with its task, its blocks and their passports, and its post-processing.

A prediction is written as a line of text for people, or as a line of CSV or JSON for programs.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.console import on_one_line
from classify.data.kinds import TaskKind, kind_of
from classify.errors import ModelError
from classify.evaluation.novelty import NOT_RECORDED, Novelty, read_novelty
from classify.evaluation.postprocessing import Postprocessing
from classify.heads.persistence import load_model
from classify.runs.folder import Run
from classify.runs.report_json import random_sources
from features_store.errors import first_line
from features_store.schema import Task

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image."""

    image: str  # as the caller named it
    scores: Floats | None = None  # probabilities, or values: (n_classes,); None where the image cannot be used
    calibrated: Floats | None = None  # probabilities after the run's calibration, where it has one
    predicted: tuple[str, ...] = ()  # the predicted class, or classes
    reason: str = ""  # why there is no prediction
    out_of_range: Mapping[str, float] = field(default_factory=dict)  # by output, the value that was cut to the scale
    novelty: float | None = None  # distance from the training images over its threshold; None: not measured
    novelty_note: str = ""  # that the image is unlike the training images, or why nothing is measured


@dataclass(frozen=True)
class Model:
    """A fitted head and what a prediction needs beside it."""

    task: Task
    head: Any
    blocks: tuple[str, ...]  # whose vectors are concatenated, in order
    passports: Mapping[str, Mapping[str, Any]]  # by block, how its vectors were made
    postprocessing: Postprocessing
    novelty: Novelty | None = None  # None: of a version that did not record it

    @property
    def kind(self) -> TaskKind:
        """The task, seen by its kind."""
        return kind_of(self.task)

    def scores(self, vectors: NDArray[np.float32]) -> Floats:
        """Return probabilities, or values as the head gives them: (n_images, n_features) to (n_images, n_classes)."""
        return self.kind.scores(self.head, vectors).reshape(len(vectors), -1)

    def predict(self, image: str, scores: Floats, vector: NDArray[np.float32] | None = None) -> Prediction:
        """Return the prediction for one image from its row of `scores`; its *vector* also gives its novelty."""
        novelty, note = None, ""
        if vector is not None:
            novelty, note = (None, NOT_RECORDED) if self.novelty is None else self.novelty.judge(vector)
        if not self.kind.has_classes:
            clipped = self.kind.bounded(scores)
            values = zip(self.task.classes, scores.tolist(), clipped.tolist(), strict=True)
            outside = {name: value for name, value, inside in values if value != inside}
            return Prediction(image, clipped, out_of_range=outside, novelty=novelty, novelty_note=note)
        calibrated = self.postprocessing.calibrated(scores[None])
        given = self.kind.decided(scores[None], self.postprocessing.thresholds)[0]
        return Prediction(
            image,
            scores,
            None if calibrated is None else calibrated[0],
            tuple(name for name, yes in zip(self.task.classes, given, strict=True) if yes),
            novelty=novelty,
            novelty_note=note,
        )

    def as_json(self, prediction: Prediction) -> str:
        """Return a prediction as one line of JSON."""
        classes = self.task.classes
        line: dict[str, Any] = {
            "image": prediction.image,
            self.kind.scores_word: _by_class(classes, prediction.scores),
        }
        if not self.kind.has_classes:
            line["beyond_the_scale"] = dict(prediction.out_of_range)
        else:
            several: Any = None if prediction.reason else list(prediction.predicted)
            line["said"] = several if self.kind.independent else next(iter(prediction.predicted), None)
            line["calibrated"] = _by_class(classes, prediction.calibrated)
        if self.postprocessing.thresholds:
            line["thresholds"] = dict(zip(classes, self.postprocessing.thresholds, strict=True))
        line |= {"novelty": prediction.novelty, "novelty_note": prediction.novelty_note or None}
        return json.dumps({**line, "reason": prediction.reason or None}, ensure_ascii=False)

    def as_csv(self, prediction: Prediction) -> str:
        """Return a prediction as one line of CSV; an image that cannot be used has its reason, and empty cells."""
        empty = [""] * len(self.task.classes)
        cells: list[Any] = [prediction.image]
        cells += ["; ".join(prediction.predicted)] if self.kind.has_classes else []
        cells += empty if prediction.scores is None else prediction.scores.tolist()
        if self.postprocessing.calibration:
            cells += empty if prediction.calibrated is None else prediction.calibrated.tolist()
        if not self.kind.has_classes:
            cells.append("; ".join(f"{name} {value!r}" for name, value in prediction.out_of_range.items()))
        cells.append("" if prediction.novelty is None else prediction.novelty)
        return _csv_line([*cells, prediction.novelty_note, prediction.reason])

    def as_text(self, prediction: Prediction) -> str:
        """Return a prediction as one line for people: the classes, the largest first, and the calibrated values."""
        if prediction.scores is None:
            return on_one_line(f"{prediction.image}: no prediction ({prediction.reason})")
        classes, scores = self.task.classes, prediction.scores.tolist()
        novelty = "" if prediction.novelty is None else f"; novelty {prediction.novelty:.3g}"
        novelty += f"; {prediction.novelty_note}" if prediction.novelty_note else ""
        if not self.kind.has_classes:
            clipped = prediction.out_of_range
            values = [
                f"{name} {value:.3f}" + (f" (cut to the scale from {clipped[name]:.3f})" if name in clipped else "")
                for name, value in zip(classes, scores, strict=True)
            ]
            return on_one_line(f"{prediction.image}: {', '.join(values)}{novelty}")
        order = sorted(range(len(classes)), key=lambda k: -scores[k])
        at = self.postprocessing.thresholds
        listed = ", ".join(f"{classes[k]} {scores[k]:.2f}" + (f", given from {at[k]:.2f}" if at else "") for k in order)
        if prediction.calibrated is not None:
            listed += f"; calibrated {', '.join(f'{classes[k]} {prediction.calibrated[k]:.2f}' for k in order)}"
        return on_one_line(f"{prediction.image}: {' + '.join(prediction.predicted) or 'none'} ({listed}){novelty}")


def csv_header(model: Model) -> str:
    """Return the titles of `Model.as_csv`; those of the scores are the same as in ``predictions.csv``."""
    titles = ["image", *(["said"] if model.kind.has_classes else []), *model.kind.score_columns]
    if model.postprocessing.calibration:
        titles += [f"calibrated/{name}" for name in model.task.classes]
    if not model.kind.has_classes:
        titles.append("beyond the scale")
    return _csv_line([*titles, "novelty", "novelty note", "reason"])


def _by_class(classes: Sequence[str], scores: Floats | None) -> dict[str, float] | None:
    return None if scores is None else dict(zip(classes, scores.tolist(), strict=True))


def _csv_line(cells: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def random_weights(passports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a warning for each block of an untrained network."""
    return [
        f"block {name!r} comes from a network with random weights ({source}): its predictions mean nothing"
        for name, source in random_sources(passports).items()
    ]


def run_model(run: Run) -> Model:
    """Load the model of a run."""
    blocks = tuple(run.passports)
    head, files = load_model(run.folder / "model")
    novelty = read_novelty(files, blocks, head.n_features_in_)
    return tried(Model(run.task, head, blocks, run.passports, run.postprocessing, novelty))


def tried(model: Model) -> Model:
    """Predict once from zeros, so that parts that do not fit each other are found here and not at the first image."""
    task, n_classes = model.task, len(model.task.classes)
    try:
        scores = model.scores(np.zeros((1, model.head.n_features_in_), dtype=np.float32))
        calibrated = model.postprocessing.calibrated(scores)
        shapes = {scores.shape, *([] if calibrated is None else [calibrated.shape])}
        fits = shapes == {(1, n_classes)} and bool(np.isfinite(scores).all())
    except ModelError:
        raise
    except Exception as error:  # whatever arrays and options that do not fit provoke in numpy or torch
        raise ModelError(
            f"the head and task {task.name!r} do not fit: {type(error).__name__}: {first_line(error)}"
        ) from error
    if not fits:
        raise ModelError(
            f"the head, calibration and thresholds do not fit the {n_classes} classes of task {task.name!r}"
        )
    return model
