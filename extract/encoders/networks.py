"""The networks that `extract fit` trains: ours by table, any of timm by bare name; their options, input and bounds."""

from __future__ import annotations

import copy
import difflib
import math
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.encoders.checkpoints import CLASSIFIERS, compare_states, read_state, recorded_fit, refuse_lacking
from extract.encoders.from_timm import check_name, pooled
from extract.encoders.readout import learn_shapes
from extract.encoders.spec import EncoderSpec
from extract.encoders.weights import hub_errors, seeded, silence_logging
from extract.errors import EncoderError, HubError, WeightsError
from extract.inputs.transforms import INTERPOLATIONS, Transform
from features_store.errors import first_line, unknown_name

if TYPE_CHECKING:
    import torch

__all__ = ["ARCHITECTURES", "Architecture", "find_architecture"]

Initial = Path | bool
"""Where training starts: at the weights of a file, at published ones (True), or at random ones (False)."""

MOST_PARAMETERS = 400_000_000
SIZES = (16, 1024)  # pixels
INPUTS: dict[str, dict[str, Any]] = {
    "symmetric": {"mean": (0.5,) * 3, "std": (0.5,) * 3},
    "imagenet": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "bgr255": {"mean": (0.0,) * 3, "std": (1 / 255,) * 3, "channels": "BGR"},
}
"""What a network is given: -1 to 1; ImageNet's mean and deviation; blue, green, red from 0 to 255, as OpenCV reads."""
_NUMBERS: dict[str, tuple[float, float]] = {  # by option: a file of a stranger must not build for ever
    "dropout": (0, 1),
    "drop_path": (0, 1),
    "columns": (1, 4),
    "widths": (1, 1024),
    "depth": (8, 1202),
    "width": (1, 256),
}
_UNSCALED = ("inception_v3",)  # whose normalisations have no scale in Keras
_WORDS: dict[str, tuple[Any, ...]] = {"init": ("own", "keras"), "top": (True, False)}
_MAX_VALUES = 16
_BARE = re.compile(r"[A-Za-z0-9_]{1,80}(\.[A-Za-z0-9_]{1,80})?")


@dataclass(frozen=True)
class Architecture:
    """A network that can be trained.

    Parameters
    ----------
    name : str
        On the command line, and in checkpoints.
    size : int
        Height and width of its input if nobody asks for another, pixels.
    make : callable
        ``make(n_outputs, size=..., initial=..., **options)`` to the network: one with timm's ``forward_features``,
        ``forward_head`` and ``get_classifier``.
    recipe : mapping
        The published way to train it: fields of `extract.fit.recipe.Recipe`.
    options : tuple of str
        Options of `make`, beside ``init``.
    input : mapping
        See `INPUTS`.
    """

    name: str
    description: str
    size: int
    make: Callable[..., torch.nn.Module]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ("dropout",)
    input: Mapping[str, Any] = field(default_factory=lambda: INPUTS["symmetric"])

    def build(
        self, n_outputs: int, options: Mapping[str, Any], *, size: int | None = None, initial: Initial = False
    ) -> torch.nn.Module:
        """Return the network for images of *size*; its parameters are counted before memory is taken for them.

        Raises EncoderError, WeightsError, HubError.
        """
        import torch

        size = check_size(size or self.size)
        for name, value in options.items():
            self._check_option(name, value)
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        keras = given.pop("init", "own") == "keras"
        if keras and initial is not False:
            raise EncoderError(
                "init=keras draws all weights anew; leave it out, or start without --weights and --pretrained"
            )
        try:
            with torch.device("meta"), silence_logging():
                n_parameters = sum(p.numel() for p in self.make(n_outputs, size=size, **given).parameters())
            if n_parameters > MOST_PARAMETERS:
                raise EncoderError(
                    f"{self.name} has {n_parameters:,} parameters with {dict(options)}; up to {MOST_PARAMETERS:,} are "
                    "trained here"
                )
            with silence_logging():
                module = self.make(n_outputs, size=size, initial=initial, **given)
        except (EncoderError, HubError):
            raise
        except Exception as error:  # libraries refuse an option in many ways
            raise EncoderError(
                f"{self.name} cannot be built for {size} x {size} pixels with {dict(options)}: {first_line(error)}"
            ) from error
        if keras:
            from extract.encoders.architectures import initialise_as_keras

            initialise_as_keras(module, scaled=self.name not in _UNSCALED)
        return module

    def _check_option(self, name: str, value: object) -> None:
        if name not in (*self.options, "init"):
            raise EncoderError(unknown_name(f"option of {self.name}", name, (*self.options, "init")))
        if name == "trunk":
            find_architecture(str(value))
            return
        if name in _WORDS:
            if not any(value is one or (isinstance(one, str) and value == one) for one in _WORDS[name]):
                raise EncoderError(unknown_name(f"value of option {name!r}", str(value), map(str, _WORDS[name])))
            return
        low, high = _NUMBERS[name]
        values = value if isinstance(value, (list, tuple)) else [value]
        if not (0 < len(values) <= _MAX_VALUES and all(_is_number(one, low, high) for one in values)):
            raise EncoderError(
                f"option {name!r} of {self.name} is a number from {low} to {high}, or up to {_MAX_VALUES} of them; got "
                f"{str(value)[:100]}"
            )

    def transform(self, given: Mapping[str, Any], resizer: str = "torchvision") -> Transform:
        """Return its input transform: squashed to a square, unless *given* has a ``crop`` below 1.

        *given* may hold ``size``; ``crop``, the share of the shorter edge that is seen, the aspect kept;
        ``interpolation``; ``input``, a name of `INPUTS`.

        Raises EncoderError.
        """
        size, crop = check_size(given.get("size", self.size)), given.get("crop", 1)
        if not _is_number(crop, 0.5, 1):
            raise EncoderError(f"crop is {crop!r}; it is the share of the shorter edge that is seen, from 0.5 to 1")
        levels, names = given.get("input"), given.get("interpolation", "bilinear")
        if levels is not None and levels not in INPUTS:
            raise EncoderError(unknown_name("input", str(levels), INPUTS))
        if names not in INTERPOLATIONS:
            raise EncoderError(unknown_name("interpolation", str(names), INTERPOLATIONS))
        resize = (size, size) if crop == 1 else math.floor(size / crop)
        return Transform(
            resize, (size, size), names, resizer=resizer, **(INPUTS[levels] if levels is not None else self.input)
        )


INPUT_OPTIONS = ("size", "crop", "interpolation", "input")
"""What `Architecture.transform` takes."""


def check_size(size: object) -> int:
    """Return the edge of an input, if it is within bounds.

    Raises EncoderError.
    """
    if not isinstance(size, int) or isinstance(size, bool) or not SIZES[0] <= size <= SIZES[1]:
        raise EncoderError(f"a size of {str(size)[:40]} pixels was asked for; valid: {SIZES[0]} to {SIZES[1]}")
    return size


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


# ---- how each is made -----------------------------------------------------------------------------------------------


def _own(class_name: str, n_outputs: int, *, size: int, initial: Initial = False, **options: Any) -> torch.nn.Module:
    """Make a network of `extract.encoders.architectures`."""
    from extract.encoders import architectures

    del size  # they pool whatever they are given
    module: torch.nn.Module = getattr(architectures, class_name)(n_outputs, **options)
    if initial is True and class_name == "AlexNet":
        from torchvision.models import AlexNet_Weights

        with hub_errors(EncoderSpec("alexnet", "", "torchvision", "alexnet", ())):
            _load(module, "the weights of torchvision", AlexNet_Weights.DEFAULT.get_state_dict(check_hash=True))
    elif initial is True:
        raise WeightsError(
            "nobody publishes weights of this network; give a file with --weights, or leave --pretrained"
        )
    elif initial is not False:
        _load(module, f"{initial} does not fit", read_state(f"{initial} does not fit", initial))
    return module


def _load(module: Any, what: str, state: Mapping[str, torch.Tensor]) -> None:
    """Load all weights but those of a last layer for other classes."""
    found = compare_states(module, state)
    last = next(name for name, one in module.named_modules() if one is module.get_classifier())
    new = refuse_lacking(what, found, (last,))
    module.load_state_dict({name: value for name, value in state.items() if name not in found.shapes}, strict=False)
    if new:
        _start_at_zero(module)


def _start_at_zero(module: Any) -> None:
    """Let a new last layer say nothing at first: large random answers would spoil what the others know."""
    for parameter in module.get_classifier().parameters():
        parameter.data.zero_()


def _timm(
    name: str,
    n_outputs: int,
    *,
    size: int,
    initial: Initial = False,
    top: bool = True,
    dropout: float | None = None,
    drop_path: float | None = None,
) -> torch.nn.Module:
    """Make a network of timm; without its *top* a pooled vector of its last maps goes into one dense layer."""
    import timm

    from extract.encoders.architectures import SmallNetwork

    given: dict[str, Any] = {"num_classes": n_outputs, "drop_rate": dropout, "drop_path_rate": drop_path}
    what, config = f"{initial} does not fit {name}", timm.get_pretrained_cfg(name)
    own = (config.classifier if config is not None else None) or ()
    classifiers = (own,) if isinstance(own, str) else tuple(own)
    if not isinstance(initial, bool):
        state = read_state(what, initial)
        given["pretrained_cfg_overlay"] = {"state_dict": state}
        for rows in (len(state[f"{one}.weight"]) for one in classifiers if f"{one}.weight" in state):
            given["pretrained_cfg_overlay"]["num_classes"] = rows  # else timm drops a last layer that is not of 1,000
    if config is not None and config.fixed_input_size and config.input_size[1:] != (size, size):
        given["img_size"] = size
    asked = hub_errors(EncoderSpec(name, "", "timm", name, ())) if initial is True else nullcontext()
    with asked, recorded_fit() as fit:
        module: Any = timm.create_model(name, pretrained=initial is not False, **given)
    if initial is not False:
        if refuse_lacking(what, fit, (*CLASSIFIERS, *classifiers)):
            _start_at_zero(module)
        module.pretrained_cfg.pop("state_dict", None)
    if top:
        return module
    n_features = int(module.num_features)
    module.prune_intermediate_layers(1, prune_head=True)
    return SmallNetwork(module, n_features, n_outputs, dropout or 0.0)


def _concepts(
    n_outputs: int, *, size: int, initial: Initial = False, trunk: str = "inception_v3", dropout: float = 0.5
) -> torch.nn.Module:
    """Make the concept classifier over a network of timm, of which `initial` has the weights."""
    from extract.encoders.architectures import Concepts

    below: Any = _timm(trunk, 1, size=size, initial=initial)
    n_features = int(below.get_classifier().in_features)
    below.reset_classifier(0)
    return Concepts(below, n_features, n_outputs, dropout=dropout)


ARCHITECTURES: dict[str, Architecture] = {
    one.name: one
    for one in (
        Architecture(
            "emosepar",
            "separable convolutions, 534,786 numbers, 150 x 150 (Noguera 2018)",
            150,
            partial(_own, "Emosepar"),
            {"learning_rate": 1e-5, "decay": 1e-6, "batch_size": 64, "epochs": 100},
        ),
        Architecture(
            "resnet32",
            "residual network of 32 layers, 32 x 32 (He et al. 2016)",
            32,
            partial(_own, "ResNet"),
            {"learning_rate": 0.1, "weight_decay": 1e-4, "batch_size": 128, "epochs": 160, "halve_every": 40},
            ("depth", "width", "dropout"),
        ),
        Architecture(
            "fractalnet",
            "fractal network with drop-path, 32 x 32 (Larsson et al. 2017)",
            32,
            partial(_own, "FractalNet"),
            {"learning_rate": 0.02, "batch_size": 100, "epochs": 100, "halve_every": 25, "clip": 1.0},
            ("widths", "columns", "drop_path", "dropout"),
        ),
        Architecture(
            "alexnet",
            "AlexNet as torchvision has it, in the place of CaffeNet, 224 x 224",
            224,
            partial(_own, "AlexNet"),
            input=INPUTS["imagenet"],
        ),
        Architecture(
            "concepts",
            "concept classifier over the last activations of Inception-v3, 299 x 299 (Pournaras et al. 2021)",
            299,
            _concepts,
            {"trainable": 2},
            ("trunk", "dropout"),
        ),
    )
}


def find_architecture(name: str) -> Architecture:
    """Look a network up: one of the table, or any of timm by its bare name, with or without the tag of its weights.

    Raises EncoderError.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if not _BARE.fullmatch(name):
        raise EncoderError(
            f"{name[:100]!r} is no bare name of a network; valid: {', '.join(ARCHITECTURES)}, or one that timm lists, "
            "such as resnet50, without a path or a hub before it"
        )
    import timm

    base = name.partition(".")[0]
    if not timm.is_model(base):
        known = [*ARCHITECTURES, *timm.list_models()]
        raise EncoderError(
            unknown_name("network to fit", name, difflib.get_close_matches(base, known, n=8, cutoff=0.4) or known[:8])
        )
    check_name(name)
    config = timm.get_pretrained_cfg(name)
    levels = {} if config is None else {"input": {"mean": tuple(config.mean), "std": tuple(config.std)}}
    size = 224 if config is None else int(config.input_size[-1])
    options = ("dropout", "drop_path", "top")
    return Architecture(name, f"timm {name}, {size} x {size}", size, partial(_timm, name), options=options, **levels)


def probe(module: Any, n_outputs: int, size: int, name: str) -> int:
    """Refuse a network that cannot be trained on images of this size; return the length of its pooled vector.

    Its answer must be one tensor, and its classifier over its pooled vector: what is stored as a block.

    Raises EncoderError.
    """
    import torch

    def outputs(network: Any, batch: torch.Tensor) -> dict[str, Any]:
        return {"pool": pooled(network, batch), "outputs": network(batch)}

    with seeded(0):  # some draw on the CPU whatever the device
        shapes = learn_shapes(name, copy.deepcopy(module).train(), outputs, (size, size))
    if not callable(module.get_classifier()):
        raise EncoderError(f"{name} has several classifiers, or none, and cannot be trained here; choose another")
    if shapes["outputs"] != (n_outputs,) or len(shapes["pool"]) != 1:
        raise EncoderError(f"{name} gives {shapes} in training and not a pooled vector and {n_outputs} outputs")
    batch = torch.linspace(-1, 1, 2 * 3 * size * size).view(2, 3, size, size)
    module.eval()
    with torch.no_grad():
        found = outputs(module, batch)
        again = module.get_classifier()(found["pool"])
    if not torch.allclose(again, found["outputs"], rtol=1e-3, atol=1e-3):
        raise EncoderError(f"the outputs of {name} are not those of its classifier over its pooled vector")
    return int(shapes["pool"][0])
