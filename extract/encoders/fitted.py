"""Encoders that `extract fit` trained: checkpoints as safetensors and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.encoders.checkpoints import read_state
from extract.encoders.from_timm import pooled
from extract.encoders.networks import find_architecture, probe
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

__all__ = ["read_spec", "save_checkpoint"]

PREFIX = "fit:"
_NETWORKS = Path("networks")  # where `extract fit` puts them
_FORMAT, _VERSION = "affectory-network", 1
_RECORD, _WEIGHTS, _HISTORY = "network.json", "weights.safetensors", "history.csv"
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


def check_new(folder: Path) -> None:
    """Refuse a place that is taken.

    Raises WeightsError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WeightsError(f"{folder} exists; choose another place with --out, or remove it")


def save_checkpoint(folder: Path, record: Mapping[str, Any], module: torch.nn.Module) -> dict[str, Any]:
    """Write a trained network to a new folder, whole or not at all: weights, record, and the curves as a table.

    Raises WeightsError.
    """
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}
    whole = {"format": _FORMAT, "format_version": _VERSION, **record, "sha256": sha256_of_state(state)}
    columns = list(record["history"][0])
    lines = [columns, *([str(epoch[name]) for name in columns] for epoch in record["history"])]
    check_new(folder)
    try:
        with atomic_folder(folder) as temporary:
            (temporary / _WEIGHTS).write_bytes(save(state))
            (temporary / _RECORD).write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            (temporary / _HISTORY).write_text("".join(",".join(line) + "\n" for line in lines), encoding="utf-8")
    except StoreError:  # a full disk, which is no mistake of the user
        raise
    except OSError as error:
        raise WeightsError(f"cannot write the network {folder}: {error.strerror or error}") from error
    return whole


def read_spec(folder: Path) -> EncoderSpec:
    """Return the record of the encoder that a checkpoint is: its pooled vector, and what its last layer gives.

    Raises WeightsError.
    """
    record = _read_record(folder)
    architecture = find_architecture(record["architecture"])
    return EncoderSpec(
        name=check_name("block", record["name"]),
        description=f"{architecture.description}; trained on {record['fitted_on'].get('corpus')}",
        library="affectory",
        architecture=architecture.name,
        taps=(Tap("pool"), Tap("outputs", (record["n_outputs"],))),
        builder="fit",
        needs_hub=False,
        folder=folder,
    )


def locate_network(name: str, weights: Mapping[str, Any], folders: Iterable[Path] = ()) -> str:
    """Return the name under which the encoder of a passport is found, given its name and record of weights.

    That of a network that was trained is the folder with the same SHA-256, among *folders* and those in ``networks``.

    Raises WeightsError.
    """
    if not str(weights.get("source", "")).startswith(PREFIX):
        return name
    for folder in (*folders, *sorted(path.parent for path in _NETWORKS.glob(f"*/{_RECORD}"))):
        if _read_record(folder)["sha256"] == weights.get("sha256"):
            return f"{PREFIX}{folder}"
    raise WeightsError(
        f"the network {name!r} was trained by `extract fit`, and none of {_NETWORKS}/ here has its weights (SHA-256 "
        f"{str(weights.get('sha256'))[:12]}); name its folder: verify takes --network FOLDER, the others --weights "
        f"{name}=FOLDER"
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
    transform = _transform(folder, record, resizer)
    with seeded_weights(weights.seed):
        module = architecture.build(record["n_outputs"], record["options"], size=transform.crop[0])
    if weights.kind == "auto":
        _load_weights(folder, record, module)
    source = published(spec) if weights.kind == "auto" else weights.source
    n_features = probe(module, record["n_outputs"], transform.crop[0], spec.name)
    module.eval().requires_grad_(requires_grad=False)
    return Encoder(
        spec=spec,
        prepare=transform.apply,
        input_shape=transform.input_shape,
        shapes={"pool": (n_features,), "outputs": (record["n_outputs"],)},
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
    folder = encoder.spec.folder or Path()
    record = _read_record(folder)
    exact, outputs = _transform(folder, record, "pillow"), _outputs(record["kind"])

    def vectors(picture: Any) -> dict[str, Any]:
        with torch.inference_mode():
            found = outputs(module, exact.normalise(torch.from_numpy(exact.apply(np.asarray(picture)))[None]))
        return {tap: tensor[0].numpy() for tap, tensor in found.items()}

    return vectors


def _outputs(kind: str) -> Callable[[Any, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the function that gives the pooled vector and the outputs: values, or probabilities."""

    def outputs(module: Any, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        pool = pooled(module, batch)
        with full_precision(pool):
            logits = module.get_classifier()(pool.float())
            if kind == "single":
                return {"pool": pool, "outputs": logits.softmax(dim=1)}
            return {"pool": pool, "outputs": logits if kind == "regression" else logits.sigmoid()}

    return outputs


def _transform(folder: Path, record: Mapping[str, Any], resizer: str) -> Transform:
    """Return the input of a checkpoint; one of version 0.1 has that of its architecture.

    Raises WeightsError.
    """
    given = record.get("input", {})
    try:
        if not isinstance(given, dict):
            raise EncoderError(f"its input is {type(given).__name__}")
        return find_architecture(record["architecture"]).transform(given, resizer)
    except EncoderError as error:
        raise WeightsError(f"{folder / _RECORD} is damaged: {error}") from error


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
