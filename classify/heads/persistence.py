"""A fitted head as a folder: ``head.json``, arrays as safetensors, boosters as text. Never code, never pickle."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from classify.errors import HeadError
from classify.heads import HEADS, head_class, head_options
from classify.heads.estimator import FittedState

__all__ = ["load_head", "save_head"]

FORMAT = "affectory-head"
FORMAT_VERSION = 1
_ARRAYS = "model.safetensors"
_LIBRARIES = ("affectory", "lightgbm", "numpy", "scikit-learn", "torch")
# Learned attributes that a head has or not, beside what its own `fitted_state` returns.
_ATTRIBUTES = ("n_features_in_", "blocks_in_", "n_parameters_", "history_", "multilabel_", "single_output_")


def save_head(head: Any, folder: Path) -> None:
    """Write a fitted head to a new folder, whole or not at all.

    Parameters
    ----------
    head : estimator
        A fitted head of the table.
    folder : Path
        Must not exist, or be empty.

    Raises
    ------
    HeadError
        When the folder holds something, or the head is not one of the table.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        message = f"can't save the head to {folder}: there is something already; choose another folder"
        raise HeadError(message)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(head, scratch)
        scratch.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        scratch.replace(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def load_head(folder: Path) -> Any:
    """Read a head that `save_head` wrote; it predicts the same.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    estimator
        Fitted.

    Raises
    ------
    HeadError
        When a file is missing, damaged, or not a head of this version.
    """
    folder = Path(folder)
    try:
        record = json.loads((folder / "head.json").read_text(encoding="utf-8"))
        _check_record(record)
        for name, digest in record["files"].items():
            if _digest(folder / Path(name).name) != digest:
                message = f"{name} is not the file that was saved (its checksum differs)"
                raise HeadError(message)
        return _restored(record, folder)
    except FileNotFoundError as error:
        message = f"can't load a head from {folder}: {Path(error.filename).name} is missing"
        raise HeadError(message) from error
    except HeadError as error:
        message = f"can't load a head from {folder}: {error}"
        raise HeadError(message) from error
    except Exception as error:  # whatever a damaged file provokes in json, safetensors, LightGBM or torch
        message = f"can't load a head from {folder}: damaged or not a head ({type(error).__name__}: {error})"
        raise HeadError(message) from error


def _write(head: Any, folder: Path) -> None:
    from safetensors.numpy import save_file

    name, kind = _place(head)
    state = head.fitted_state()
    files = []
    if state.arrays:
        save_file({k: np.ascontiguousarray(v) for k, v in state.arrays.items()}, folder / _ARRAYS)
        files.append(_ARRAYS)
    for label, text in state.texts.items():
        (folder / f"{label}.txt").write_text(text, encoding="utf-8", newline="\n")
        files.append(f"{label}.txt")
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "head": name,
        "kind": kind,
        "params": {k: _plain(k, v) for k, v in head.get_params(deep=False).items()},
        "classes": _labels(head.classes_) if hasattr(head, "classes_") else None,
        "attributes": {k: _plain(k, getattr(head, k)) for k in _ATTRIBUTES if hasattr(head, k)},
        "values": state.values,
        "files": {file: _digest(folder / file) for file in files},
        "versions": _versions(),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (folder / "head.json").write_text(text, encoding="utf-8")
    for file in (*files, "head.json"):
        with (folder / file).open("rb+") as handle:
            os.fsync(handle.fileno())


def _restored(record: dict[str, Any], folder: Path) -> Any:
    from safetensors.numpy import load_file

    names = [Path(name) for name in record["files"]]
    texts = {p.stem: (folder / p.name).read_text(encoding="utf-8") for p in names if p.suffix == ".txt"}
    arrays = load_file(folder / _ARRAYS) if _ARRAYS in record["files"] else {}
    known = head_options(record["head"], record["kind"])
    unknown = sorted(set(record["params"]) - set(known))
    if unknown:
        message = f"it has options that this version doesn't know: {', '.join(unknown)}"
        raise HeadError(message)
    head = head_class(record["head"], record["kind"])(**record["params"])
    head.check_options()
    for name in _ATTRIBUTES:
        if name in record["attributes"]:
            setattr(head, name, record["attributes"][name])
    if record["classes"] is not None:
        head.classes_ = np.array(record["classes"]["values"], dtype=record["classes"]["dtype"])
    head.restore(FittedState(values=record["values"], arrays=arrays, texts=texts))
    return head


def _check_record(record: Any) -> None:
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        message = f'head.json doesn\'t say "format": "{FORMAT}"'
        raise HeadError(message)
    if record.get("format_version") != FORMAT_VERSION:
        message = (
            f"it has format version {record.get('format_version')!r}, this program reads {FORMAT_VERSION}; "
            "update affectory"
        )
        raise HeadError(message)


def _place(head: Any) -> tuple[str, str]:
    """Return the name in the table and the kind of task of a fitted head."""
    for name, record in HEADS.items():
        for place in (record.classifier, record.regressor):
            if place == f"{type(head).__module__}:{type(head).__name__}":
                if not hasattr(head, "n_features_in_"):
                    message = f"the {name} head isn't fitted; call fit before saving it"
                    raise HeadError(message)
                classifier = "multi" if getattr(head, "multilabel_", False) else "single"
                return name, "regression" if place == record.regressor else classifier
    message = f"{type(head).__name__} is not in the table of heads, so it could not be loaded again"
    raise HeadError(message)


def _labels(classes: np.ndarray) -> dict[str, Any]:
    dtype = "object" if classes.dtype == object else classes.dtype.str
    return {"dtype": dtype, "values": _plain("classes", classes.tolist())}


def _plain(name: str, value: Any) -> Any:
    """Return *value* as JSON has it, or refuse it by name."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(k): _plain(name, v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    message = f"{name} is a {type(value).__name__}, which can't be saved without code; use numbers, texts and lists"
    raise HeadError(message)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
