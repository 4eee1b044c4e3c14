"""Why a head says what it says of one image: where it looked, which blocks carried it, which named features.

One of the two modules that go back to pixels, and so import `extract`, when they are used. The head's slope at the
image is carried back through each encoder: Grad-CAM (Selvaraju et al. 2017, by Captum's LayerGradCam) on its last map.
Where there is no slope (trees) or no map to carry it to (encoders without convolutions), cells of the picture are
covered one by one, and what that takes from the decision is the map (occlusion, Zeiler and Fergus 2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import ClassifyError, ModelError
from classify.explain.attribution import (
    Target,
    Vector,
    block_parts,
    centre_of,
    choose_target,
    feature_parts,
    gradient,
    shares_of,
)
from classify.explain.saliency import WHOLE, Heat, combined, covered, region_of
from classify.inference.model import Answer, run_model
from classify.inference.predictor import Predictor
from classify.runs.folder import Run

__all__ = ["Explainer", "Explanation", "Picture"]

GRID = 7  # rows and columns that are covered one by one, as many as the last map of most networks has
MAX_WORDS = 5
_GRAD_CAM, _OCCLUSION = "Grad-CAM", "occlusion"


@dataclass(frozen=True)
class Picture:
    """An image, decoded, with its vectors.

    Parameters
    ----------
    pixels : list of ndarray of shape (height, width, 3), uint8
        By network, as its decoder gives them.
    """

    path: str
    pixels: list[NDArray[np.uint8]]
    vector: Vector


@dataclass(frozen=True)
class Explanation:
    """What a decision rests on.

    Parameters
    ----------
    target : Target
        The class, or output, that is explained.
    worth, centre_worth : float
        Log-odds (or value) of the image, and of the mean training image.
    blocks : mapping of str to float
        What each block adds to them; they sum to the difference of the two. A value below that of the mean image is
        explained by what draws it down, which is negative here.
    words : list of (str, float)
        Named features that the decision loses most without, and what they add.
    heats : mapping of str to Heat
        By encoder.
    field : ndarray of shape (64, 64)
        All maps together, see `Explainer.field`.
    """

    answer: Answer
    target: Target
    worth: float
    centre_worth: float
    blocks: Mapping[str, float]
    words: list[tuple[str, float]]
    heats: Mapping[str, Heat]
    field: NDArray[np.float64]

    @property
    def shares(self) -> dict[str, float]:
        """Each block's part of what speaks for the decision, from 0 to 1; 0 for blocks that speak against it."""
        return shares_of({name: self.target.sign * value for name, value in self.blocks.items()})

    @property
    def methods(self) -> str:
        """How the maps were made, in words."""
        return " and ".join(dict.fromkeys(heat.method for heat in self.heats.values()))


class Explainer:
    """Explains the decisions of a run, its encoders kept loaded.

    Parameters
    ----------
    weights : mapping of str to Path, optional
        Checkpoints of encoders that were extracted with one.
    allow_download : bool
        Whether weights that aren't here may be fetched from a model hub.

    Raises
    ------
    ClassifyError
        The run can't answer for new images, or Captum isn't installed.
    """

    def __init__(self, run: Run, *, weights: Mapping[str, Path] | None = None, allow_download: bool = False) -> None:
        _need_captum()
        self.model = run_model(run)
        self.predictor = Predictor(self.model, device="cpu", weights=weights, allow_download=allow_download)
        self.encoders = self.predictor.encoders
        self.centre = centre_of(self.model, run)
        self.columns = {place.block: place.columns for place in self.encoders.places}
        self.names = {
            place.block: self.encoders.networks[place.network].names[place.tap]
            for place in self.encoders.places
            if place.tap in self.encoders.networks[place.network].names
        }
        self._layers = [_last_map(network) for network in self.encoders.networks]

    def open(self, path: str) -> Picture:
        """Decode an image and make its vectors.

        Raises ModelError.
        """
        from extract.errors import RefusedImageError

        try:
            pixels = self.encoders.decode(self.encoders.read(path))
        except RefusedImageError as refused:
            message = f"{path} can't be explained: {refused}"
            raise ModelError(message) from refused
        return Picture(path, pixels, self.vectors([pixels])[0])

    def vectors(self, pictures: list[list[NDArray[np.uint8]]]) -> NDArray[np.float32]:
        """Return the vectors of decoded pictures, each by network: (n, n_features)."""
        return self.encoders.vectors([self.encoders.prepare(pixels) for pixels in pictures])

    def target(self, picture: Picture, name: str | None = None) -> Target:
        """Return what is explained of an image: the named class, else what it is decided for."""
        scores = self.model.scores(np.stack([picture.vector, self.centre]))
        return choose_target(self.model.task, scores[0], scores[1], name)

    def worth(self, vectors: NDArray[np.float32], target: Target) -> NDArray[np.float64]:
        """Return log-odds (or values) of the target: (n, n_features) to (n,)."""
        return target.worth(self.model.scores(vectors))

    def explain(self, picture: Picture, name: str | None = None) -> Explanation:
        """Explain one image."""
        target = self.target(picture, name)
        parts = self.parts(picture, target)
        heats = self.heats(picture, target, parts)

        def worth(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
            return self.worth(vectors, target)

        whole, middle = worth(np.stack([picture.vector, self.centre]))
        words = []
        for block, names in self.names.items():
            lost = feature_parts(worth, picture.vector, self.centre, self.columns[block])
            words += [(names[i], float(lost[i])) for i in np.argsort(-lost)[:MAX_WORDS] if lost[i] > 0]
        return Explanation(
            answer=self.model.answer(picture.path, self.model.scores(picture.vector[None])[0], picture.vector),
            target=target,
            worth=target.sign * float(whole),
            centre_worth=target.sign * float(middle),
            blocks={name: target.sign * value for name, value in parts.items()},
            words=[(n, target.sign * value) for n, value in sorted(words, key=lambda pair: -pair[1])[:MAX_WORDS]],
            heats=heats,
            field=self.field(heats, parts),
        )

    def parts(self, picture: Picture, target: Target) -> dict[str, float]:
        """Return what each block adds to the decision."""
        return block_parts(lambda rows: self.worth(rows, target), picture.vector, self.centre, self.columns)

    def field(self, heats: Mapping[str, Heat], parts: Mapping[str, float]) -> NDArray[np.float64]:
        """Return all maps together, each with the share of the decision that its encoder carries, (64, 64)."""
        shares = shares_of(parts)
        weights = [sum(shares[block] for block in self._blocks(at)) for at in range(len(heats))]
        return combined(list(heats.values()), weights if any(weights) else [1.0] * len(weights))

    def _blocks(self, at: int) -> list[str]:
        return [place.block for place in self.encoders.places if place.network == at]

    def heats(self, picture: Picture, target: Target, parts: Mapping[str, float]) -> dict[str, Heat]:
        """Return the map of each encoder; its cells are shifted alike, so that they sum to what its blocks add."""
        slope = gradient(self.model, picture.vector, target)
        found = {}
        for at, network in enumerate(self.encoders.networks):
            layer = self._layers[at]
            if slope is None or layer is None:
                heat = self._occlusion(picture, at, target)
            else:
                heat = self._grad_cam(picture, at, layer, slope)
            whole = sum(parts[block] for block in self._blocks(at))
            cells = heat.cells + (whole - heat.cells.sum()) / heat.cells.size
            found[network.spec.name] = Heat(cells, heat.region, heat.method)
        return found

    def _grad_cam(self, picture: Picture, at: int, layer: Any, slope: Vector) -> Heat:
        """Carry the slope of the head back to the last map of a network; the ReLU of the paper comes later."""
        import torch
        from captum.attr import LayerGradCam

        network, pixels = self.encoders.networks[at], picture.pixels[at]
        slopes = {p.tap: torch.from_numpy(slope[p.columns]) for p in self.encoders.places if p.network == at}
        batch = torch.from_numpy(network.prepare(pixels)[None])
        x = (network.normalise(batch) if network.normalise else batch.float()).requires_grad_()
        cam = LayerGradCam(_weighted(network, slopes), layer).attribute(x, target=0, relu_attributions=False)
        cells = cam[0, 0].detach().double().numpy()
        return Heat(cells, region_of(network.transform, *pixels.shape[:2]), _GRAD_CAM)

    def _occlusion(self, picture: Picture, at: int, target: Target) -> Heat:
        """Cover cells of the picture for one network, and see what the decision loses."""
        network = self.encoders.networks[at]
        prepared = [network.prepare(covered(picture.pixels[at], np.array([cell]), GRID)) for cell in range(GRID**2)]
        rows = np.repeat(picture.vector[None], GRID**2, axis=0)
        taps = self.encoders.taps(at, np.stack(prepared))
        for place in self.encoders.places:
            if place.network == at:
                rows[:, place.columns] = taps[place.tap].reshape(len(rows), -1).astype(place.dtype)
        lost = self.worth(picture.vector[None], target) - self.worth(rows, target)
        return Heat(lost.reshape(GRID, GRID), WHOLE, _OCCLUSION)


def _need_captum() -> None:
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        message = "explaining needs Captum, which isn't installed; install it with: pip install 'affectory[explain]'"
        raise ClassifyError(message) from error


def _weighted(network: Any, slopes: Mapping[str, Any]) -> Any:
    """Return the network with a linear end: from pixels to the sum of its values times the slopes of the head."""
    import torch

    class Weighted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = network.module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            taps = network.outputs(self.module, x)
            parts = [(taps[tap].flatten(1).float() * slope).sum(dim=1) for tap, slope in slopes.items()]
            return torch.stack(parts).sum(dim=0)[:, None]

    return Weighted()


def _last_map(network: Any) -> Any:
    """Return the module that gives the last map (channels, height, width) of a network.

    None where there is no network, or positions live on after it as tokens, which a map before them doesn't show.
    """
    module = network.module
    if module is None or network.outputs is None or getattr(module, "output_fmt", "NCHW") != "NCHW":
        return None
    import torch

    seen: list[tuple[Any, tuple[int, ...]]] = []

    def note(one: Any, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            seen.append((one, tuple(output.shape)))

    hooks = [one.register_forward_hook(note) for one in module.modules() if one is not module]
    try:
        with torch.no_grad():
            blank = torch.zeros((1, *network.input_shape), dtype=getattr(torch, network.input_dtype))
            network.outputs(module, network.normalise(blank) if network.normalise else blank.float())
    finally:
        for hook in hooks:
            hook.remove()
    found = None
    for one, shape in seen:
        if len(shape) == 4 and min(shape[2:]) > 1:
            found = one
        elif len(shape) == 3 and shape[1] > 1:
            found = None
    return found
