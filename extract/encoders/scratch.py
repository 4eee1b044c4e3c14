"""Encoders that were trained here from scratch: their architectures, and checkpoints as safetensors and JSON."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.encoders.readout import full_precision
from extract.encoders.spec import Encoder, EncoderSpec, Tap
from extract.encoders.weights import Weights, seeded_weights, sha256_of_state, weights_record
from extract.errors import EncoderError, WeightsError
from extract.inputs.transforms import Transform
from features_store.errors import first_line, unknown_name
from features_store.schema import check_name

if TYPE_CHECKING:
    import torch

__all__ = ["ARCHITECTURES", "Architecture", "find_architecture", "fitted_encoder", "save_checkpoint"]

PREFIX = "fit:"
_FORMAT, _VERSION = "affectory-network", 1
_RECORD, _WEIGHTS = "network.json", "weights.safetensors"


@dataclass(frozen=True)
class Architecture:
    """A small network that can be trained from scratch.

    Parameters
    ----------
    name, class_name : str
        On the command line; in `extract.encoders.architectures`.
    description : str
        One line.
    size : int
        Height and width of its input, pixels.
    recipe : mapping
        How it is trained, where nothing else is asked: fields of `extract.fit.training.Recipe`.
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
        try:
            made: torch.nn.Module = getattr(architectures, self.class_name)(n_outputs, **options)
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            msg = f"{self.name} can't be built with {dict(options)}: {error}"
            raise EncoderError(msg) from error
        return made

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


def save_checkpoint(folder: Path, record: Mapping[str, Any], module: torch.nn.Module) -> dict[str, Any]:
    """Write a trained network to a new folder, whole or not at all.

    Raises WeightsError.
    """
    from safetensors.torch import save_file

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    whole = {"format": _FORMAT, "format_version": _VERSION, **record, "sha256": sha256_of_state(state)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            save_file(state, scratch / _WEIGHTS)
            (scratch / _RECORD).write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            for path in scratch.iterdir():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
            check_new(folder)
            scratch.chmod(0o755)
            scratch.replace(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        msg = f"can't write the network {folder}: {error.strerror or error}"
        raise WeightsError(msg) from error
    return whole


def check_new(folder: Path) -> None:
    """Refuse a place that is taken.

    Raises WeightsError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder} exists; choose another place with --out, or remove it"
        raise WeightsError(msg)


def fitted_encoder(folder: Path) -> EncoderSpec:
    """Return the encoder that a checkpoint is: its pooled vector, and what its own last layer says.

    Raises WeightsError.
    """
    record = _read(folder)
    architecture = find_architecture(record["architecture"])
    n_features = int(architecture.build(record["n_outputs"], record["options"]).dense.in_features)  # type: ignore[union-attr, arg-type]
    return EncoderSpec(
        name=check_name("block", record["name"]),
        description=f"{architecture.description}; trained on {record['fitted_on']['corpus']}",
        library="affectory",
        architecture=architecture.name,
        build=partial(_build, folder),
        taps=(Tap("pool", (n_features,)), Tap("outputs", (record["n_outputs"],))),
        needs_hub=False,
    )


def _build(folder: Path, encoder: EncoderSpec, weights: Weights, resizer: str) -> Encoder:
    record = _read(folder)
    architecture = find_architecture(record["architecture"])
    if weights.kind == "file":
        msg = f"encoder {encoder.name!r} is a checkpoint already; leave out --weights {weights.path}"
        raise WeightsError(msg)
    with seeded_weights(weights.seed):
        module = architecture.build(record["n_outputs"], record["options"])
    if weights.kind == "auto":
        _load(folder, record, module)
    source = f"fit:{architecture.name}" if weights.kind == "auto" else weights.source
    identity = {**weights_record(source, module), "fitted_on": record["fitted_on"]}
    module.eval().requires_grad_(requires_grad=False)
    transform = architecture.transform(resizer)
    return Encoder(
        spec=encoder,
        prepare=transform.apply,
        input_shape=transform.input_shape,
        shapes={tap.name: tap.shape for tap in encoder.taps},
        weights=identity,
        transform=transform.record(),
        module=module,
        normalise=transform.normalise,
        outputs=_outputs(record["kind"]),
        names={"outputs": tuple(record["outputs"])},
    )


def _outputs(kind: str) -> Callable[[Any, torch.Tensor], dict[str, torch.Tensor]]:
    """Return what gives the pooled vector and the answers: values, or probabilities."""

    def outputs(module: Any, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        pool = module.pooled(batch)
        with full_precision(pool):
            said = module.dense(pool.float())
            if kind != "regression":
                said = said.softmax(dim=1) if kind == "single" else said.sigmoid()
        return {"pool": pool, "outputs": said}

    return outputs


def _read(folder: Path) -> dict[str, Any]:
    path = folder / _RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        needed = ("name", "architecture", "options", "n_outputs", "outputs", "kind", "fitted_on", "sha256")
        lacking = [key for key in needed if key not in record]
    except FileNotFoundError as error:
        msg = f"{folder} holds no network: {_RECORD} is missing; `extract fit` makes one"
        raise WeightsError(msg) from error
    except (OSError, ValueError, TypeError) as error:
        msg = f"{path} can't be read: {error}"
        raise WeightsError(msg) from error
    if record.get("format") != _FORMAT or record.get("format_version") != _VERSION or lacking:
        msg = f"{path} isn't a network of format version {_VERSION}" + (
            f": it lacks {', '.join(lacking)}" * bool(lacking)
        )
        raise WeightsError(msg)
    found: dict[str, Any] = record
    return found


def _load(folder: Path, record: Mapping[str, Any], module: torch.nn.Module) -> None:
    from safetensors.torch import load_file

    path = folder / _WEIGHTS
    try:
        state = load_file(path)
        module.load_state_dict(state)
    except Exception as error:  # a file can be wrong in as many ways as there are files
        msg = f"{path} does not fit {record['architecture']}: {first_line(error)}"
        raise WeightsError(msg) from error
    if sha256_of_state(state) != record["sha256"]:
        msg = f"{path} isn't the file that was saved: its SHA-256 is not the one in {_RECORD}"
        raise WeightsError(msg)
