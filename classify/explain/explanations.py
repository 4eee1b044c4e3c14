"""The folder of explanations in a run: overlays as PNG, and one JSON file with the numbers, whole or not at all.

::

    RUN/explanations/explanations.json   see `entry`; and what the deletion check found
    RUN/explanations/001-NAME.png        all encoders' maps together, over the picture
    RUN/explanations/encoders/           the map of each encoder alone
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.errors import RunError
from classify.explain.saliency import combined, overlay
from classify.json_file import write_json
from classify.pages.pictures import EXPLANATIONS, Pictures
from classify.runs.folder import Run
from features_store.atomic import atomic_folder, recover
from features_store.errors import ExistsError

if TYPE_CHECKING:
    from classify.explain.explainer import Explainer, Explanation

__all__ = ["check_explanations", "chosen_images", "explain_images", "explanation_text", "scored_images"]


def explain_images(
    run: Run,
    explainer: Explainer,
    paths: Sequence[str],
    *,
    deletion: Mapping[str, Any] | None = None,
    force: bool = False,
    step: Callable[[], object] = lambda: None,
) -> list[Explanation]:
    """Explain images, and leave the folder of explanations in the run.

    Raises ExistsError, ModelError.
    """
    folder = run.folder / EXPLANATIONS
    found, entries = [], []
    check_explanations(run, force=force)
    with atomic_folder(folder, force=force) as temporary:
        (temporary / "encoders").mkdir()
        for number, path in enumerate(paths, start=1):
            picture = explainer.open(path)
            explained = explainer.explain(picture)
            name = f"{number:03}-{_safe(Path(path).stem)}"
            overlay(picture.pixels[0], explained.field).save(temporary / f"{name}.png")
            for encoder, heat in explained.heats.items():
                alone = overlay(picture.pixels[0], combined([heat], [1.0]))
                alone.save(temporary / "encoders" / f"{name}-{_safe(encoder)}.png")
            found.append(explained)
            entries.append(entry(run, f"{name}.png", explained))
            step()
        values = {"images": entries, "deletion": _told(deletion), "deletion_check": deletion}
        write_json(temporary / "explanations.json", values)
    return found


def check_explanations(run: Run, *, force: bool) -> None:
    """Refuse to explain a run that has explanations, unless they may be replaced."""
    folder = run.folder / EXPLANATIONS
    if folder.is_symlink():
        message = f"{folder} is a symbolic link; take it away, for explanations lie in their run"
        raise RunError(message)
    recover(folder)
    if folder.exists() and not force:
        message = f"{run.folder / EXPLANATIONS} is there already; replace it with --force"
        raise ExistsError(message)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:60].strip("-") or "image"


def _told(deletion: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the check as the page shows it."""
    if not deletion or deletion["passed"] is None:
        return None
    gap = deletion["difference"]
    return {
        "hottest": deletion["hottest"],
        "random": deletion["random"],
        "difference": f"{gap['value']:.3f} [{gap['low']:.3f}, {gap['high']:.3f}]",
        "n_images": deletion["n_images"],
        "passed": "yes" if deletion["passed"] else "no",
    }


def entry(run: Run, file: str, explained: Explanation) -> dict[str, Any]:
    """Return what the JSON file says of one image.

    ``file``, ``id`` and ``truth`` (where the image is one of the run's), ``predicted`` and ``probabilities``,
    ``explained`` (the class), ``method``, ``blocks`` (each one's share, from 0 to 1), ``log_odds`` (by block; of a
    regression ``value_by_block``, in units of the value; ``mean image`` and ``image`` are the two ends), ``concepts``
    (named features that the decision loses most without, with what they add), ``novelty`` and ``novelty_note`` (as
    `Answer` has them).
    """
    answer, image = explained.answer, matching_id(run, explained.answer.image)
    scores = answer.scores if answer.calibrated is None else answer.calibrated
    named = {} if scores is None else dict(zip(run.task.classes, map(float, scores), strict=True))
    regression = run.task.kind == "regression"
    return {
        "file": file,
        "id": image or Path(answer.image).name,
        "truth": _truth(run, image),
        "predicted": [f"{k} {v:.2f}" for k, v in named.items()] if regression else list(answer.said) or ["none"],
        "values" if regression else "probabilities": named,
        "explained": explained.target.name,
        "method": explained.methods,
        "blocks": explained.shares,
        "value_by_block" if regression else "log_odds": {
            "mean image": explained.centre_worth,
            **explained.blocks,
            "image": explained.worth,
        },
        "concepts": [f"{name} ({value:+.2f})" for name, value in explained.words],
        "novelty": answer.novelty,
        "novelty_note": answer.novelty_note or None,
    }


def matching_id(run: Run, path: str) -> str | None:
    """Return the id of an image of the run that a path ends with; None where it is none of them."""
    known = {str(i) for part in run.predictions.values() for i in part.ids}
    parts = PurePosixPath(Path(path).as_posix()).parts
    ends = ["/".join(parts[at:]) for at in range(len(parts))]
    bare = [str(PurePosixPath(end).with_suffix("")) for end in ends]
    return next((end for end in (*ends, *bare) if end in known), None)


def _truth(run: Run, image: str | None) -> list[str] | None:
    task = run.task
    for part in run.predictions.values():
        for at in np.flatnonzero(part.ids == image) if image else ():
            truth = part.y_true[at]
            if task.kind == "single":
                return [task.classes[int(truth)]]
            if task.kind == "multi":
                return [name for name, yes in zip(task.classes, truth, strict=True) if yes] or ["none"]
            return [f"{n} {v:.2f}" for n, v in zip(task.classes, np.atleast_1d(truth).tolist(), strict=True)]
    return None


def scored_images(run: Run, data: Path | None) -> dict[str, str]:
    """Return the picture files of the part that the run is judged by, by id; those that aren't there are left out.

    Raises RunError.
    """
    pictures = Pictures.of_corpus(run.report.corpus, data)
    ids = run.part(run.report.judged_part).ids.tolist()
    found = {image: str(path) for image in ids if (path := pictures.path_of(image)) is not None}
    if not found:
        message = f"no picture of {run.folder} is in {pictures.root}; say where they are with --data FOLDER"
        raise RunError(message)
    return found


def chosen_images(run: Run, files: Mapping[str, str], n: int = 6) -> list[str]:
    """Return pictures worth a look: the surest answers, half of them right, half wrong (regression: the extremes)."""
    part = run.part(run.report.judged_part)
    scores = np.asarray(part.y_score, dtype=np.float64).reshape(len(part.ids), -1)
    if run.task.kind == "regression":
        order = np.argsort(scores[:, 0], kind="stable")
        halves = [order[::-1], order]
    else:
        truth = np.eye(scores.shape[1])[part.y_true] if run.task.kind == "single" else part.y_true
        best = scores.argmax(axis=1)
        right, sure = truth[np.arange(len(best)), best] > 0, np.argsort(-scores.max(axis=1), kind="stable")
        halves = [sure[right[sure]], sure[~right[sure]]]
    lists = [[str(i) for i in part.ids[half] if str(i) in files][: n // 2] for half in halves]
    return [files[image] for image in dict.fromkeys([*lists[0], *lists[1]])]


def explanation_text(explained: Explanation) -> str:
    """Return a few lines for people."""
    answer, unit = explained.answer, "" if explained.target.kind == "regression" else " log-odds"
    end = f"{explained.worth:+.2f}{unit} (mean image {explained.centre_worth:+.2f})"
    lines = [f"{answer.image}: {explained.target.name}, {end}"]
    for name, value in sorted(explained.blocks.items(), key=lambda pair: -explained.target.sign * pair[1]):
        lines.append(f"  {name:<28} {value:+.2f}  {explained.shares[name]:4.0%}")
    if explained.words:
        lines.append(f"  by name: {', '.join(f'{name} {value:+.2f}' for name, value in explained.words)}")
    if answer.novelty_note:
        lines.append(f"  {answer.novelty_note}")
    return "\n".join(lines)
