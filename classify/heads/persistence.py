"""A fitted head as a folder: ``head.json``, arrays as safetensors, boosters as text. Never code, never pickle."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from classify.errors import HeadError, OutdatedHeadError, RunError
from classify.heads import HEADS, head_class, head_options
from classify.heads.base import FittedState
from classify.json_file import (
    Check,
    anything,
    choice,
    flag,
    items,
    optional,
    parse_json,
    read_regular,
    record,
    table,
    text,
    umask,
    whole,
    wrong,
)
from features_store.errors import first_line
from features_store.schema import KINDS

__all__ = ["head_files", "load_head", "load_model", "restored_head", "save_head"]

FORMAT = "affectory-head"
FORMAT_VERSION = 2
RECORD = "head.json"
_ARRAYS = "model.safetensors"
_MAX_BYTES = 4 * 2**30
_LIBRARIES = ("affectory", "lightgbm", "numpy", "scikit-learn", "torch")


def save_head(head: Any, folder: Path, beside: Mapping[str, bytes] | None = None) -> None:
    """Write a fitted head to a new folder, whole or not at all.

    Raises HeadError.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        message = f"can't save the head to {folder}: there is something already; choose another folder"
        raise HeadError(message)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(head, scratch, beside or {})
        scratch.chmod(0o777 & ~umask())
        if folder.exists():
            folder.rmdir()
        scratch.replace(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def load_head(folder: Path) -> Any:
    """Read a head that `save_head` wrote; it predicts the same.

    Raises HeadError.
    """
    return load_model(folder)[0]


def load_model(folder: Path) -> tuple[Any, dict[str, bytes]]:
    """Read a head as `load_head` does, and return its files by name beside it."""
    try:
        files = head_files(Path(folder))
        return restored_head(files), files
    except OutdatedHeadError as error:
        run = Path(folder).parent
        line = shlex.join(["classify", "run", "--config", str(run / "config.toml"), "--out", str(run), "--force"])
        message = f"can't load a head from {folder}: {error}; make it again with: {line}"
        raise OutdatedHeadError(message) from error
    except HeadError as error:
        message = f"can't load a head from {folder}: {error}"
        raise HeadError(message) from error


def head_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a head by name: ``head.json`` and those that it lists, each as its digest says.

    Raises HeadError.
    """
    if folder.is_symlink():
        message = f"{folder} is a symbolic link; a head is a folder"
        raise HeadError(message)
    try:
        files = {RECORD: read_regular(folder / RECORD)}
        listed = _record(files[RECORD])["files"]
        files |= {name: read_regular(folder / name, _MAX_BYTES) for name in listed}
    except FileNotFoundError as error:
        message = f"{Path(error.filename).name} is missing"
        raise HeadError(message) from error
    except RunError as error:
        raise HeadError(str(error)) from error
    for name, digest in listed.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            message = f"{name} is not the file that was saved (its checksum differs)"
            raise HeadError(message)
    return files


def restored_head(files: Mapping[str, bytes], *, foreign: bool = False) -> Any:
    """Make a head from its files.

    Raises HeadError.
    """
    from safetensors.numpy import load

    try:
        record = _record(files[RECORD])
        if set(record["files"]) | {RECORD} != set(files):
            odd = sorted(set(record["files"]) ^ (set(files) - {RECORD}))
            message = f"{odd[0]!r} is listed in {RECORD} or lies beside it, and not both"
            raise HeadError(message)
        texts = {n.removesuffix(".txt"): data.decode("ascii") for n, data in files.items() if n.endswith(".txt")}
        arrays = load(files[_ARRAYS]) if _ARRAYS in files else {}
        return _restored(record, FittedState(record["values"], arrays, texts, foreign))
    except HeadError:
        raise
    except Exception as error:  # whatever a damaged file provokes in safetensors, LightGBM or torch
        message = f"damaged or not a head ({type(error).__name__}: {first_line(error)})"
        raise HeadError(message) from error


def _write(head: Any, folder: Path, beside: Mapping[str, bytes]) -> None:
    from safetensors.numpy import save

    name, kind = _place(head)
    state = head.fitted_state()
    files = {f"{label}.txt": text.encode("ascii") for label, text in state.texts.items()} | dict(beside)
    if state.arrays:
        files[_ARRAYS] = save({k: np.ascontiguousarray(v) for k, v in state.arrays.items()})
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "head": name,
        "kind": kind,
        "params": {k: _plain(k, v) for k, v in head.get_params(deep=False).items()},
        "classes": _labels(head.classes_) if hasattr(head, "classes_") else None,
        "attributes": {k: _plain(k, getattr(head, k)) for k in ATTRIBUTES if hasattr(head, k)},
        "values": state.values,
        "files": {file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
        "versions": _versions(),
    }
    files[RECORD] = (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()
    for file, data in files.items():  # by our own hand: then a full disk is an OSError, and the umask holds
        with (folder / file).open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())


def _restored(record: dict[str, Any], state: FittedState) -> Any:
    known = head_options(record["head"], record["kind"])
    unknown = sorted(set(record["params"]) - set(known))
    if unknown:
        message = f"it has options that this version doesn't know: {', '.join(unknown)}"
        raise HeadError(message)
    _check_arrays(state.arrays)
    for name in ("hidden", "n_experts"):  # modules are made one by one before their weights are filled in
        asked = record["params"].get(name)
        if (len(asked) if isinstance(asked, list) else asked if isinstance(asked, int) else 0) > len(state.arrays):
            message = f"its option {name} is {str(asked)[:60]}, and it has {len(state.arrays)} arrays"
            raise HeadError(message)
    head = head_class(record["head"], record["kind"])(**record["params"])
    head.check_options()
    for name, value in record["attributes"].items():
        if name in ATTRIBUTES:
            setattr(head, name, value)
    if record["classes"] is not None:
        head.classes_ = np.array(record["classes"]["values"], dtype=record["classes"]["dtype"])
    head.restore(state)
    return head


def _check_arrays(arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            message = f"its array {ascii(name)[:60]} is {array.dtype}, or holds a number that isn't finite"
            raise HeadError(message)


def _dtype(value: Any, where: str) -> str:
    kinds = isinstance(value, str) and re.fullmatch(r"object|[<>|=]?(i[1248]|u[1248]|f[248]|b1|U[0-9]{1,4})", value)
    return str(value) if kinds else wrong(where, value, "the type of numbers or texts")


def _file(value: Any, where: str) -> Any:
    for name, digest in table(text)(value, where).items():
        if not re.fullmatch(r"(model|novelty)\.safetensors|novelty\.json|booster-[0-9]{1,5}\.txt", name):
            wrong(where, name, f"{_ARRAYS}, booster-NUMBER.txt and the files of the novelty")
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            wrong(f"{where}.{name}", digest, "a SHA-256")
    return value


_CLASSES = record({"dtype": _dtype, "values": items(anything, 1, 100_000)})
ATTRIBUTES: dict[str, Check] = {
    "n_features_in_": whole(1, 10_000_000),
    "blocks_in_": items(text),
    "n_parameters_": whole(),
    "history_": items(table(anything)),
    "multilabel_": flag,
    "single_output_": flag,
}
"""Learned attributes that a head has or not, beside what its own `fitted_state` returns."""
_HEAD = record(
    {
        "head": text,
        "kind": choice(*KINDS),
        "params": table(anything),
        "classes": optional(_CLASSES),
        "attributes": record({"n_features_in_": whole(1)}),
        "values": table(anything),
        "files": _file,
    }
)


def _record(data: bytes) -> dict[str, Any]:
    """Return what ``head.json`` says, once it is what a head's says."""
    try:
        found = parse_json(data, RECORD, clean=False)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            message = f'{RECORD} doesn\'t say "format": "{FORMAT}"'
            raise HeadError(message)
        if found.get("format_version") == 1:
            message = "it was saved by affectory 0.1, whose heads this version does not read"
            raise OutdatedHeadError(message)
        if found.get("format_version") != FORMAT_VERSION:
            message = (
                f"it has format version {found.get('format_version')!r}, this program reads {FORMAT_VERSION}; "
                "update affectory"
            )
            raise HeadError(message)
        made: dict[str, Any] = _HEAD(found, "the head")
        for name, check in ATTRIBUTES.items():
            if name in made["attributes"]:
                check(made["attributes"][name], f"the head.attributes.{name}")
    except RunError as error:
        message = f"damaged or not a head ({error})"
        raise HeadError(message) from error
    return made


def _place(head: Any) -> tuple[str, str]:
    """Return the name in the table and the kind of task of a fitted head."""
    for name, entry in HEADS.items():
        for place in (entry.classifier, entry.regressor):
            if place == f"{type(head).__module__}:{type(head).__name__}":
                if not hasattr(head, "n_features_in_"):
                    message = f"the {name} head isn't fitted; call fit before saving it"
                    raise HeadError(message)
                classifier = "multi" if getattr(head, "multilabel_", False) else "single"
                return name, "regression" if place == entry.regressor else classifier
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


def _versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
