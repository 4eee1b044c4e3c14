"""What answers for new images: a fitted head with its task, its blocks and their passports, and its postprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import ModelError
from classify.evaluation.novelty import NOT_RECORDED, Novelty, read_novelty
from classify.evaluation.postprocessing import Postprocessing
from classify.heads.persistence import load_model
from classify.runs.folder import Run
from classify.runs.report_json import passport_weights
from classify.runs.train import head_scores
from features_store.errors import first_line
from features_store.schema import Task

__all__ = ["Answer", "Model", "decisions", "random_weights", "run_model", "run_passports", "tried"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """A head that answers for vectors.

    Parameters
    ----------
    head : estimator
        Fitted.
    blocks : tuple of str
        Whose vectors stand side by side, in order.
    passports : mapping of str to mapping
        By block, how its vectors were made.
    novelty : Novelty or None
        None: the model is of a version that did not record it.
    """

    task: Task
    head: Any
    blocks: tuple[str, ...]
    passports: Mapping[str, Mapping[str, Any]]
    postprocessing: Postprocessing
    novelty: Novelty | None = None

    def scores(self, vectors: NDArray[np.float32]) -> Floats:
        """Return probabilities, or values of a regression, (n_images, n_classes), for (n_images, n_features)."""
        rows: Any = vectors  # heads take arrays as well as rows of a store
        return head_scores(self.head, self.task, rows).reshape(len(vectors), -1)

    def answer(self, image: str, scores: Floats, vector: NDArray[np.float32] | None = None) -> Answer:
        """Return what is said of one image, from its row of `scores`; a value beyond the task's scale is cut to it.

        With its *vector* it is also said how far that lies from the training images.
        """
        told: dict[str, Any] = {}
        if vector is not None:
            novelty, note = (None, NOT_RECORDED) if self.novelty is None else self.novelty.judge(vector)
            told = {"novelty": novelty, "novelty_note": note}
        if self.task.range is not None:
            cut = np.clip(scores, *self.task.range)
            values = zip(self.task.classes, scores.tolist(), cut.tolist(), strict=True)
            return Answer(image, cut, beyond={name: raw for name, raw, kept in values if raw != kept}, **told)
        calibrated = self.postprocessing.calibrated(scores[None])
        decided = decisions(self.task, scores[None], self.postprocessing.thresholds)[0]
        said = tuple(name for name, yes in zip(self.task.classes, decided, strict=True) if yes)
        return Answer(image, scores, None if calibrated is None else calibrated[0], said, **told)


@dataclass(frozen=True)
class Answer:
    """What is said of one image.

    Parameters
    ----------
    image : str
        As it was named by who asked.
    scores : ndarray of shape (n_classes,), or None
        Probabilities as the head gives them, or values; None where the image can't be used.
    calibrated : ndarray of shape (n_classes,), or None
        Probabilities after the run's calibration, where it has one.
    said : tuple of str
        The class decided for (single), the classes given (multi).
    reason : str
        Why there is no answer; empty where there is one.
    beyond : mapping of str to float
        By output, the value that the head gave, where it lay beyond the task's scale and was cut to its end.
    novelty : float or None
        The distance from the training images over its threshold, the largest of any block; above 1 the image is unlike
        them. None where it is not measured.
    novelty_note : str
        What is to be said of it: that the image is unlike the training images, or why nothing is measured.
    """

    image: str
    scores: Floats | None = None
    calibrated: Floats | None = None
    said: tuple[str, ...] = ()
    reason: str = ""
    beyond: Mapping[str, float] = field(default_factory=dict)
    novelty: float | None = None
    novelty_note: str = ""


def decisions(task: Task, scores: NDArray[Any], thresholds: Sequence[float] | None = None) -> NDArray[np.bool_]:
    """Return which classes are given to each image, (n_images, n_classes).

    Shapes: scores (n_images, n_classes).
    """
    if task.kind == "single":
        return np.eye(scores.shape[1], dtype=bool)[scores.argmax(axis=1)]
    if task.kind == "multi":
        return np.asarray(scores >= np.asarray(thresholds if thresholds else [0.5] * scores.shape[1]))
    return np.zeros(scores.shape, dtype=bool)


def random_weights(passports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a warning for each block that an untrained network made."""
    found = []
    for name, passport in passports.items():
        source = str(passport_weights(passport).get("source", ""))
        if source.startswith("random"):
            made = f"block {name!r} comes from a network with random weights ({source})"
            found.append(f"{made}: its answers mean nothing")
    return found


def run_model(run: Run) -> Model:
    """Load the model of a run.

    Raises ModelError, HeadError.
    """
    passports = run_passports(run)
    head, files = load_model(run.folder / "model")
    novelty = read_novelty(files, tuple(passports), head.n_features_in_)
    return tried(Model(run.task, head, tuple(passports), passports, run.postprocessing, novelty))


def tried(model: Model) -> Model:
    """Let a model answer once, so that what doesn't fit together shows here and not at the first image.

    Raises ModelError.
    """
    task, n_classes = model.task, len(model.task.classes)
    try:
        scores = model.scores(np.zeros((1, model.head.n_features_in_), dtype=np.float32))
        calibrated = model.postprocessing.calibrated(scores)
        shapes = {scores.shape, *([] if calibrated is None else [calibrated.shape])}
        fits = shapes == {(1, n_classes)} and bool(np.isfinite(scores).all())
    except ModelError:
        raise
    except Exception as error:  # whatever arrays and options that don't fit provoke in numpy or torch
        message = f"the head and task {task.name!r} don't fit: {type(error).__name__}: {first_line(error)}"
        raise ModelError(message) from error
    if not fits:
        message = f"the head, calibration and thresholds don't fit the {n_classes} classes of task {task.name!r}"
        raise ModelError(message)
    return model


def run_passports(run: Run) -> dict[str, Mapping[str, Any]]:
    """Return how the blocks of a run were made, in their order.

    Raises ModelError.
    """
    blocks, passports = run.report.blocks, run.report.passports
    if not blocks or not set(blocks) <= set(passports):
        message = f"{run.folder} doesn't say how its blocks were made; run it again with this version"
        raise ModelError(message)
    return {name: passports[name] for name in blocks}
