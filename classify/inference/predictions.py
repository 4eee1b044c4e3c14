"""Answers about images as text for people, CSV and JSON lines for programs."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from classify.inference.model import Answer, Model
from classify.json_file import clean_text

__all__ = ["answer_csv", "answer_json", "answer_text", "csv_header"]


def answer_json(model: Model, answer: Answer) -> str:
    """Return one line of JSON: image, said, probabilities (or values, and those beyond the scale), novelty, reason."""
    task = model.task
    key = "values" if task.kind == "regression" else "probabilities"
    line: dict[str, Any] = {"image": answer.image, key: _by_class(model, answer.scores)}
    if task.kind != "regression":
        said: Any = (list(answer.said) if task.kind == "multi" else next(iter(answer.said), None)) or None
        line["said"] = [] if task.kind == "multi" and not answer.reason and said is None else said
        line["calibrated"] = _by_class(model, answer.calibrated)
    else:
        line["beyond_the_scale"] = dict(answer.beyond)
    if model.postprocessing.thresholds:
        line["thresholds"] = dict(zip(task.classes, model.postprocessing.thresholds, strict=True))
    line |= {"novelty": answer.novelty, "novelty_note": answer.novelty_note or None}
    return json.dumps({**line, "reason": answer.reason or None}, ensure_ascii=False)


def _by_class(model: Model, scores: Any) -> dict[str, float] | None:
    return None if scores is None else dict(zip(model.task.classes, map(float, scores), strict=True))


def csv_header(model: Model) -> str:
    """Return the titles of `answer_csv`; those of the probabilities are the same as in ``predictions.csv``."""
    names, titles = model.task.classes, ["image"]
    if model.task.kind != "regression":
        titles.append("said")
    told = "predicted" if model.task.kind == "regression" else "probability"
    titles += [f"{told}/{name}" for name in names]
    if model.postprocessing.calibration:
        titles += [f"calibrated/{name}" for name in names]
    if model.task.kind == "regression":
        titles.append("beyond the scale")
    return _line([*titles, "novelty", "novelty note", "reason"])


def answer_csv(model: Model, answer: Answer) -> str:
    """Return one line of CSV; the cells of an image without an answer are empty but for the reason."""
    cells: list[Any] = [answer.image]
    if model.task.kind != "regression":
        cells.append("; ".join(answer.said))
    empty = [""] * len(model.task.classes)
    cells += empty if answer.scores is None else answer.scores.tolist()
    if model.postprocessing.calibration:
        cells += empty if answer.calibrated is None else answer.calibrated.tolist()
    if model.task.kind == "regression":
        cells.append("; ".join(f"{name} {value!r}" for name, value in answer.beyond.items()))
    cells += ["" if answer.novelty is None else answer.novelty, answer.novelty_note]
    return _line([*cells, answer.reason])


def _line(cells: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def answer_text(model: Model, answer: Answer) -> str:
    """Return one line for people: the decision, what it was made on, the largest first, and the calibrated values."""
    if answer.scores is None:
        return clean_text(f"{answer.image}: no answer ({answer.reason})")
    classes, scores = model.task.classes, answer.scores.tolist()
    if model.task.kind == "regression":
        cut = {name: f" (cut to the scale from {value:.3f})" for name, value in answer.beyond.items()}
        values = (f"{name} {value:.3f}{cut.get(name, '')}" for name, value in zip(classes, scores, strict=True))
        return clean_text(f"{answer.image}: {', '.join(values)}{_novelty(answer)}")
    order = sorted(range(len(classes)), key=lambda k: -scores[k])
    at = model.postprocessing.thresholds
    listed = ", ".join(f"{classes[k]} {scores[k]:.2f}" + (f", given from {at[k]:.2f}" if at else "") for k in order)
    if answer.calibrated is not None:
        listed += f"; calibrated {', '.join(f'{classes[k]} {answer.calibrated[k]:.2f}' for k in order)}"
    return clean_text(f"{answer.image}: {' + '.join(answer.said) or 'none'} ({listed}){_novelty(answer)}")


def _novelty(answer: Answer) -> str:
    value = "" if answer.novelty is None else f"; novelty {answer.novelty:.3g}"
    return f"{value}; {answer.novelty_note}" if answer.novelty_note else value
