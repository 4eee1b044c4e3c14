"""Encoders that `extract fit` trained: the table of their architectures, and checkpoints as safetensors and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.encoders.checkpoints import read_state
from extract.encoders.readout import full_precision
from extract.encoders.spec import Encoder, EncoderSpec, Tap
from extract.encoders.weights import Weights, seeded_weights, sha256_of_state, weights_record
from extract.errors import EncoderError, WeightsError
from extract.inputs.transforms import Transform
from features_store import StoreError
from features_store.atomic import atomic_folder, read_regular
from features_store.errors import first_line, unknown_name
from features_store.schema import KINDS, Task, check_name

if TYPE_CHECKING:
    import torch

__all__ = ["ARCHITECTURES", "Architecture", "find_architecture", "read_spec", "save_checkpoint"]

PREFIX = "fit:"
_FORMAT, _VERSION = "affectory-network", 1
_RECORD, _WEIGHTS = "network.json", "weights.safetensors"
_MAX_RECORD = 64 << 20  # bytes
_FIELDS: dict[str, type] = {
    "name": str,
    "architecture": str,
    "options": dict,
    "n_outputs": int,
    "outputs": list,
    "kind": str,
    "fitted_on": dict,
    "sha256": str,
}


_MOST = {"dropout": 1, "drop_path": 1, "columns": 4, "widths": 1024}  # a file of a stranger must not build for ever
_MAX_VALUES = 16


def _is_number(value: object, most: int) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most


@dataclass(frozen=True)
class Architecture:
    """A small network that can be trained from scratch.

    Parameters
    ----------
    name, class_name : str
        On the command line; in `extract.encoders.architectures`.
    size : int
        Height and width of its input, pixels.
    recipe : mapping
        The published way to train it: fields of `extract.fit.training.Recipe`.
    options : tuple of str
        Options of its class.
    """

    name: str
    class_name: str
    description: str
    size: int
    recipe: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ("dropout",)

    def build(self, n_outputs: int, options: Mapping[str, Any]) -> torch.nn.Module:
        """Return the untrained network.

        Raises EncoderError.
        """
        from extract.encoders import architectures

        for name in options:
            if name not in self.options:
                raise EncoderError(unknown_name(f"option of {self.name}", name, self.options))
            values = options[name] if isinstance(options[name], (list, tuple)) else [options[name]]
            if not (0 < len(values) <= _MAX_VALUES and all(_is_number(value, _MOST[name]) for value in values)):
                raise EncoderError(
                    f"option {name!r} of {self.name} is a number from 0 to {_MOST[name]}, or up to {_MAX_VALUES} of "
                    f"them; got {str(options[name])[:100]}"
                )
        try:
            module: torch.nn.Module = getattr(architectures, self.class_name)(n_outputs, **options)
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise EncoderError(f"{self.name} cannot be built with {dict(options)}: {error}") from error
        return module

    def transform(self, resizer: str = "torchvision") -> Transform:
        """Return its input transform: squashed to a square, grey levels brought to -1..1."""
        half = (0.5, 0.5, 0.5)
        return Transform((self.size, self.size), (self.size, self.size), "bilinear", half, half, resizer)


ARCHITECTURES: dict[str, Architecture] = {
    one.name: one
    for one in (
        Architecture(
            "emosepar",
            "Emosepar",
            "separable convolutions, 534,786 numbers, 150 x 150 (Noguera 2018)",
            150,
            {"learning_rate": 1e-5, "decay": 1e-6, "batch_size": 64, "epochs": 100},
        ),
        Architecture(
            "resnet32",
            "ResNet32",
            "residual network of 32 layers, 32 x 32 (He et al. 2016)",
            32,
            {"learning_rate": 0.1, "weight_decay": 1e-4, "batch_size": 128, "epochs": 160, "halve_every": 40},
        ),
        Architecture(
            "fractalnet",
            "FractalNet",
            "fractal network with drop-path, 32 x 32 (Larsson et al. 2017)",
            32,
            {"learning_rate": 0.02, "batch_size": 100, "epochs": 100, "halve_every": 25, "clip": 1.0},
            ("widths", "columns", "drop_path", "dropout"),
        ),
    )
}


def find_architecture(name: str) -> Architecture:
    """Look an architecture up.

    Raises EncoderError.
    """
    if name not in ARCHITECTURES:
        raise EncoderError(unknown_name("network to fit", name, ARCHITECTURES))
    return ARCHITECTURES[name]


def check_new(folder: Path) -> None:
    """Refuse a place that is taken.

    Raises WeightsError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WeightsError(f"{folder} exists; choose another place with --out, or remove it")


def save_checkpoint(folder: Path, record: Mapping[str, Any], module: torch.nn.Module) -> dict[str, Any]:
    """Write a trained network to a new folder, whole or not at all.

    Raises WeightsError.
    """
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    whole = {"format": _FORMAT, "format_version": _VERSION, **record, "sha256": sha256_of_state(state)}
    check_new(folder)
    try:
        with atomic_folder(folder) as temporary:
            (temporary / _WEIGHTS).write_bytes(save(state))
            (temporary / _RECORD).write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise WeightsError(f"cannot write the network {folder}: {error.strerror or error}") from error
    return whole


def read_spec(folder: Path) -> EncoderSpec:
    """Return the record of the encoder that a checkpoint is: its pooled vector, and what its last layer gives.

    Raises WeightsError.
    """
    record = _read_record(folder)
    architecture = find_architecture(record["architecture"])
    module: Any = architecture.build(record["n_outputs"], record["options"])
    return EncoderSpec(
        name=check_name("block", record["name"]),
        description=f"{architecture.description}; trained on {record['fitted_on'].get('corpus')}",
        library="affectory",
        architecture=architecture.name,
        taps=(Tap("pool", (int(module.dense.in_features),)), Tap("outputs", (record["n_outputs"],))),
        builder="fit",
        needs_hub=False,
        folder=folder,
    )


def published(spec: EncoderSpec) -> str:
    """Return what passports call the trained weights."""
    return f"{PREFIX}{spec.architecture}"


def build(spec: EncoderSpec, weights: Weights, resizer: str) -> Encoder:
    """Build a trained network with the weights of its checkpoint, or random ones.

    Raises EncoderError, WeightsError.
    """
    folder = spec.folder or Path()
    record, architecture = _read_record(folder), find_architecture(spec.architecture)
    if weights.kind == "file":
        raise WeightsError(f"encoder {spec.name!r} is a checkpoint already; leave out --weights {weights.path}")
    with seeded_weights(weights.seed):
        module = architecture.build(record["n_outputs"], record["options"])
    if weights.kind == "auto":
        _load_weights(folder, record, module)
    source = published(spec) if weights.kind == "auto" else weights.source
    module.eval().requires_grad_(requires_grad=False)
    transform = architecture.transform(resizer)
    return Encoder(
        spec=spec,
        prepare=transform.apply,
        input_shape=transform.input_shape,
        shapes={tap.name: tap.shape for tap in spec.taps},
        weights={
            **weights_record(source, module),
            "fitted_on": record["fitted_on"],
            "recipe": record.get("recipe", {}),
        },
        transform=transform.record(),
        module=module,
        normalise=transform.normalise,
        outputs=_outputs(record["kind"]),
        names={"outputs": tuple(record["outputs"])},
    )


def reference(encoder: Encoder) -> Callable[[Any], dict[str, Any]]:
    """Return the way from a Pillow image to vectors with Pillow's own resize, eager, one image at a time."""
    import numpy as np
    import torch

    module: Any = encoder.module
    exact = find_architecture(encoder.spec.architecture).transform("pillow")
    outputs = _outputs(_read_record(encoder.spec.folder or Path())["kind"])

    def vectors(picture: Any) -> dict[str, Any]:
        with torch.inference_mode():
            found = outputs(module, exact.normalise(torch.from_numpy(exact.apply(np.asarray(picture)))[None]))
        return {tap: tensor[0].numpy() for tap, tensor in found.items()}

    return vectors


def _outputs(kind: str) -> Callable[[Any, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the function that gives the pooled vector and the outputs: values, or probabilities."""

    def outputs(module: Any, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        pool = module.pooled(batch)
        with full_precision(pool):
            logits = module.dense(pool.float())
            if kind == "single":
                return {"pool": pool, "outputs": logits.softmax(dim=1)}
            return {"pool": pool, "outputs": logits if kind == "regression" else logits.sigmoid()}

    return outputs


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / _RECORD
    try:
        record = json.loads(read_regular(path, _MAX_RECORD, links=True))
    except FileNotFoundError as error:
        raise WeightsError(f"{folder} holds no network: {_RECORD} is missing; `extract fit` makes one") from error
    except (OSError, ValueError, RecursionError, StoreError) as error:
        raise WeightsError(f"{path} cannot be read: {first_line(error)}") from error
    record = record if isinstance(record, dict) else {}
    wrong = [key for key, kind in _FIELDS.items() if not isinstance(record.get(key), kind)]
    if (record.get("format"), record.get("format_version")) != (_FORMAT, _VERSION) or wrong:
        detail = f": it lacks {', '.join(wrong)}, or has them as another type" if wrong else ""
        raise WeightsError(f"{path} is not a network of format version {_VERSION}{detail}")
    n_outputs, outputs = record["n_outputs"], record["outputs"]
    if len(outputs) != n_outputs or not outputs or not all(isinstance(name, str) for name in outputs):
        raise WeightsError(f"{path} is damaged: it names {len(outputs)} outputs, and n_outputs is {n_outputs}")
    if record["kind"] not in KINDS:
        raise WeightsError(f"{path} is damaged: {unknown_name('kind of task', record['kind'], KINDS)}")
    try:
        Task("outputs", "multi", tuple(outputs))  # names as those of classes: plain text, each once
    except StoreError as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    return record


def _load_weights(folder: Path, record: Mapping[str, Any], module: torch.nn.Module) -> None:
    path = folder / _WEIGHTS
    what = f"{path} does not fit {record['architecture']}"
    state = read_state(what, path)
    try:
        module.load_state_dict(state)
    except Exception as error:  # names and shapes can be wrong in many ways
        raise WeightsError(f"{what}: {first_line(error)}") from error
    if sha256_of_state(state) != record["sha256"]:
        raise WeightsError(f"{path} is not the file that was saved: its SHA-256 is not the one in {_RECORD}")
