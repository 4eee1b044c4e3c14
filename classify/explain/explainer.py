"""Explanations of decisions: where each encoder looked, the value of each block, the named features that count.

One of the two modules that go back to pixels, and so import `extract`, when they are used. The gradient of the head at
the image is carried back through each encoder: Grad-CAM (Selvaraju et al. 2017) on its last map. Where there is no
gradient (trees) or no map (encoders without convolutions), cells of the picture are covered one by one, and what the
decision loses is the map (occlusion, Zeiler and Fergus 2014).

::

    RUN/explanations/explanations.json   the numbers, see `Explanation.as_json`, and those of the deletion check
    RUN/explanations/001-NAME.png        all encoders' maps together, over the picture
    RUN/explanations/encoders/           the map of each encoder alone
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.kinds import kind_of
from classify.errors import ClassifyError, ModelError, RunError
from classify.evaluation.wording import p_text
from classify.explain.attribution import (
    Target,
    Vector,
    block_shares,
    block_values,
    choose_target,
    feature_values,
    gradient,
    training_mean,
)
from classify.explain.saliency import WHOLE, SaliencyMap, combined, covered, grad_cam, last_map, overlay
from classify.inference.model import Prediction, run_model
from classify.inference.predictor import Predictor
from classify.json_file import write_json
from classify.pages.pictures import Pictures
from classify.runs.findings_json import EXPLANATIONS, read_explanations
from classify.runs.folder import Run
from features_store.atomic import atomic_folder, recover
from features_store.errors import ExistsError

GRID = 7  # rows and columns that are covered one by one, as many as the last map of most networks has
MAX_CONCEPTS = 5
NUMBERS = "explanations.json"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Picture:
    """A decoded image with its vectors."""

    path: str
    pixels: list[NDArray[np.uint8]]  # (height, width, 3), by network, of its decoder
    vector: Vector


@dataclass(frozen=True)
class Explanation:
    """What one decision rests on."""

    prediction: Prediction
    target: Target
    logit: float  # log-odds of the target (or its value) for the image
    mean_logit: float  # the same for the mean training image
    # Shapley value of each block; they sum to the difference of the two. For a value below that of the mean image, the
    # blocks that draw it down are negative.
    blocks: Mapping[str, float]
    concepts: list[tuple[str, float]]  # named features without which the decision loses most, and their contribution
    maps: Mapping[str, SaliencyMap]  # by encoder
    field: Floats  # all maps together, (64, 64), see `Explainer.field`

    @property
    def shares(self) -> dict[str, float]:
        """Each block's share of what speaks for the decision, from 0 to 1."""
        return block_shares({name: self.target.sign * value for name, value in self.blocks.items()})

    def as_json(self, run: Run, file: str) -> dict[str, Any]:
        """Return the entry of ``explanations.json`` whose overlay is *file*.

        ``id`` and ``truth`` (where the image is one of the run's), ``predicted``, ``probabilities`` (or ``values``),
        ``explained`` (the target), ``method`` of the maps, ``blocks`` (the shares), ``log_odds`` (or
        ``value_by_block``) from the mean image to the image, ``concepts``, ``novelty`` and ``novelty_note``.
        """
        prediction, kind = self.prediction, kind_of(run.task)
        image = matching_id(run, prediction.image)  # of one part
        truths = (kind.truth_text(t) for part in run.predictions.values() for t in part.y_true[part.ids == image])
        scores = prediction.scores if prediction.calibrated is None else prediction.calibrated
        named = {} if scores is None else dict(zip(run.task.classes, scores.tolist(), strict=True))
        values = [f"{name} {value:.2f}" for name, value in named.items()]
        return {
            "file": file,
            "id": image or Path(prediction.image).name,
            "truth": next(truths, None),
            "predicted": (list(prediction.predicted) or ["none"]) if kind.has_classes else values,
            kind.scores_word: named,
            "explained": self.target.name,
            "method": " and ".join(dict.fromkeys(one.method for one in self.maps.values())),
            "blocks": self.shares,
            "log_odds" if kind.has_classes else "value_by_block": {
                "mean image": self.mean_logit,
                **self.blocks,
                "image": self.logit,
            },
            "concepts": [f"{name} ({value:+.2f})" for name, value in self.concepts],
            "novelty": prediction.novelty,
            "novelty_note": prediction.novelty_note or None,
        }

    def __str__(self) -> str:
        unit, sign = kind_of(self.target.task).unit, self.target.sign
        end = f"{self.logit:+.2f}{unit} (mean image {self.mean_logit:+.2f})"
        lines = [f"{self.prediction.image}: {self.target.name}, {end}"]
        for name, value in sorted(self.blocks.items(), key=lambda pair: -sign * pair[1]):
            lines.append(f"  {name:<28} {value:+.2f}  {self.shares[name]:4.0%}")
        if self.concepts:
            lines.append(f"  by name: {', '.join(f'{name} {value:+.2f}' for name, value in self.concepts)}")
        if self.prediction.novelty_note:
            lines.append(f"  {self.prediction.novelty_note}")
        return "\n".join(lines)


class Explainer:
    """Explains the decisions of a run, its encoders kept loaded; see `Predictor` for the options."""

    def __init__(self, run: Run, *, weights: Mapping[str, Path] | None = None, allow_download: bool = False) -> None:
        try:
            import captum.attr  # noqa: F401
        except ImportError as error:
            raise ClassifyError(
                "explaining needs Captum, which is not installed; install it with: pip install 'affectory[explain]'"
            ) from error
        self.model = run_model(run)
        predictor = Predictor(self.model, device="cpu", weights=weights, allow_download=allow_download)
        self.encoders = predictor.encoders
        self.mean = training_mean(self.model, run)
        self.columns = {output.block: output.columns for output in self.encoders.outputs}
        named = {output.block: self.encoders.networks[output.network].names for output in self.encoders.outputs}
        self.names = {o.block: named[o.block][o.tap] for o in self.encoders.outputs if o.tap in named[o.block]}
        self._last_maps = [last_map(network) for network in self.encoders.networks]

    def open(self, path: str) -> Picture:
        """Decode an image and make its vectors."""
        from extract.errors import RefusedImageError

        try:
            pixels = self.encoders.decode(path)
        except RefusedImageError as refused:
            raise ModelError(f"{path} cannot be explained: {refused}") from refused
        return Picture(path, pixels, self.vectors([pixels])[0])

    def vectors(self, pictures: list[list[NDArray[np.uint8]]]) -> NDArray[np.float32]:
        """Return the vectors of decoded pictures, each by network: (n, n_features)."""
        return self.encoders.vectors([self.encoders.prepare(pixels) for pixels in pictures])

    def target(self, picture: Picture) -> Target:
        """Return the target for an image: the predicted class."""
        scores = self.model.scores(np.stack([picture.vector, self.mean]))
        return choose_target(self.model.task, scores[0], scores[1])

    def logits(self, vectors: NDArray[np.float32], target: Target) -> Floats:
        """Return the logits (or values) of the target: (n, n_features) to (n,)."""
        return target.logits(self.model.scores(vectors))

    def explain(self, picture: Picture) -> Explanation:
        """Explain the decision for one image."""
        target = self.target(picture)
        values = self.block_values(picture, target)
        maps = self.maps(picture, target, values)
        logit, mean_logit = self.logits(np.stack([picture.vector, self.mean]), target).tolist()
        concepts: list[tuple[str, float]] = []
        for block, names in self.names.items():
            columns = self.columns[block]
            lost = feature_values(lambda rows: self.logits(rows, target), picture.vector, self.mean, columns)
            concepts += [(names[i], float(lost[i])) for i in np.argsort(-lost)[:MAX_CONCEPTS] if lost[i] > 0]
        concepts.sort(key=lambda pair: -pair[1])
        return Explanation(
            self.model.predict(picture.path, self.model.scores(picture.vector[None])[0], picture.vector),
            target,
            target.sign * logit,
            target.sign * mean_logit,
            {block: target.sign * value for block, value in values.items()},
            [(concept, target.sign * value) for concept, value in concepts[:MAX_CONCEPTS]],
            maps,
            self.field(maps, values),
        )

    def block_values(self, picture: Picture, target: Target) -> dict[str, float]:
        """Return the Shapley value of each block."""
        return block_values(lambda rows: self.logits(rows, target), picture.vector, self.mean, self.columns)

    def field(self, maps: Mapping[str, SaliencyMap], values: Mapping[str, float]) -> Floats:
        """Return all maps together, each weighted by the share of the decision that its encoder carries, (64, 64)."""
        shares = block_shares(values)
        weights = [sum(shares[block] for block in self._blocks(at)) for at in range(len(maps))]
        return combined(list(maps.values()), weights if any(weights) else [1.0] * len(weights))

    def _blocks(self, at: int) -> list[str]:
        return [output.block for output in self.encoders.outputs if output.network == at]

    def maps(self, picture: Picture, target: Target, values: Mapping[str, float]) -> dict[str, SaliencyMap]:
        """Return the map of each encoder, its cells shifted alike so that they sum to the values of its blocks."""
        slope = gradient(self.model, picture.vector, target)
        found = {}
        for at, network in enumerate(self.encoders.networks):
            layer = self._last_maps[at]
            if slope is None or layer is None:
                one = self._occlusion(picture, at, target)
            else:
                slopes = {o.tap: slope[o.columns] for o in self.encoders.outputs if o.network == at}
                one = grad_cam(network, layer, picture.pixels[at], slopes)
            whole = sum(values[block] for block in self._blocks(at))
            cells = one.cells + (whole - one.cells.sum()) / one.cells.size
            found[network.spec.name] = SaliencyMap(cells, one.region, one.method)
        return found

    def _occlusion(self, picture: Picture, at: int, target: Target) -> SaliencyMap:
        """Cover cells of the picture for one network, and see what the decision loses."""
        network = self.encoders.networks[at]
        prepared = [network.prepare(covered(picture.pixels[at], np.array([cell]), GRID)) for cell in range(GRID**2)]
        rows = np.repeat(picture.vector[None], GRID**2, axis=0)
        taps = self.encoders.taps(at, np.stack(prepared))
        for output in self.encoders.outputs:
            if output.network == at:
                rows[:, output.columns] = taps[output.tap].reshape(len(rows), -1).astype(output.dtype)
        lost = self.logits(picture.vector[None], target) - self.logits(rows, target)
        return SaliencyMap(lost.reshape(GRID, GRID), WHOLE, "occlusion")


def explain_images(
    run: Run,
    explainer: Explainer,
    paths: Sequence[str],
    *,
    deletion: Mapping[str, Any] | None = None,
    force: bool = False,
    step: Callable[[], object] = lambda: None,
) -> list[Explanation]:
    """Explain images, and write the folder of explanations into the run, whole or not at all."""
    check_explanations(run, force=force)
    found, entries = [], []
    with atomic_folder(run.folder / EXPLANATIONS, force=force) as folder:
        (folder / "encoders").mkdir()
        for number, path in enumerate(paths, start=1):
            picture = explainer.open(path)
            explained = explainer.explain(picture)
            name = f"{number:03}-{_file_name(Path(path).stem)}"
            overlay(picture.pixels[0], explained.field).save(folder / f"{name}.png")
            for encoder, one in explained.maps.items():
                alone = overlay(picture.pixels[0], combined([one], [1.0]))
                alone.save(folder / "encoders" / f"{name}-{_file_name(encoder)}.png")
            found.append(explained)
            entries.append(explained.as_json(run, f"{name}.png"))
            step()
        shown = _deletion_row(deletion)
        write_json(folder / NUMBERS, {"images": entries, "deletion": shown, "deletion_check": deletion})
        read_explanations(folder / NUMBERS)  # the page must be able to read it
    return found


def check_explanations(run: Run, *, force: bool) -> None:
    """Refuse to explain a run that has explanations, unless they may be replaced."""
    folder = run.folder / EXPLANATIONS
    if folder.is_symlink():
        raise RunError(f"{folder} is a symbolic link; remove it, for explanations lie in their run")
    recover(folder)
    if folder.exists() and not force:
        raise ExistsError(f"{folder} exists; replace it with --force")


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:60].strip("-") or "image"


def _deletion_row(deletion: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the deletion check as the page shows it."""
    if not deletion or deletion["passed"] is None:
        return None
    gap = deletion["difference"]
    return {
        **{name: deletion[name] for name in ("hottest", "random", "n_images")},
        "difference": f"{gap['value']:.3f} (p {p_text(gap['p'])})",
        "passed": "yes" if deletion["passed"] else "no",
    }


def matching_id(run: Run, path: str) -> str | None:
    """Return the id of an image of the run that a path ends with; None where it is none of them."""
    known = {str(i) for part in run.predictions.values() for i in part.ids}
    parts = PurePosixPath(Path(path).as_posix()).parts
    ends = ["/".join(parts[at:]) for at in range(len(parts))]
    bare = [str(PurePosixPath(end).with_suffix("")) for end in ends]
    return next((end for end in (*ends, *bare) if end in known), None)


def scored_images(run: Run, data: Path | None) -> dict[str, str]:
    """Return the picture files of the judged part, by id; those that are not there are left out."""
    pictures = Pictures.of_corpus(run.report.corpus, data)
    ids = run.part(run.report.judged_part).ids.tolist()
    found = {image: str(path) for image in ids if (path := pictures.path_of(image)) is not None}
    if not found:
        raise RunError(f"no picture of {run.folder} is in {pictures.root}; say where they are with --data FOLDER")
    return found


def chosen_images(run: Run, files: Mapping[str, str], n: int = 6, *, each_class: int | None = None) -> list[str]:
    """Return the pictures with the surest decisions, half of them right, half wrong (regression: the extremes).

    *each_class* are the first so many pictures of each class instead, whatever the run says of them: the same for every
    run on the same images.
    """
    part, kind = run.part(run.report.judged_part), kind_of(run.task)
    if each_class is not None:
        if not kind.has_classes:
            raise RunError(f"{run.folder} predicts values, so no picture has a class; name the pictures instead")
        there = np.array([str(image) in files for image in part.ids])
        truth = kind.indicators(part.y_true)
        rows = [np.flatnonzero(truth[:, k] & there)[:each_class] for k in range(len(run.task.classes))]
        return [files[str(part.ids[row])] for row in dict.fromkeys(np.concatenate(rows).tolist())]
    scores = np.asarray(part.y_score, dtype=np.float64).reshape(len(part.ids), -1)
    if kind.has_classes:
        right = kind.indicators(part.y_true)[np.arange(len(scores)), scores.argmax(axis=1)]
        sure = np.argsort(-scores.max(axis=1), kind="stable")
        halves = [sure[right[sure]], sure[~right[sure]]]
    else:
        order = np.argsort(scores[:, 0], kind="stable")
        halves = [order[::-1], order]
    lists = [[str(i) for i in part.ids[half] if str(i) in files][: n // 2] for half in halves]
    return [files[image] for image in dict.fromkeys([*lists[0], *lists[1]])]
