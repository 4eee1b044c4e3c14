"""A fitted head as a folder: ``head.json``, arrays as safetensors, boosters as text. Never code, never pickle.

One rule for all heads: every attribute that ends in ``_`` is saved by its type. Numeric arrays, standardizers and
weights of networks go to ``model.safetensors``, boosters to LightGBM's text, everything else to ``head.json``.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from classify.data.kinds import KINDS
from classify.data.standardizer import Standardizer
from classify.errors import HeadError, OutdatedHeadError, RunError
from classify.heads import ALL_HEADS, head_class, head_options
from classify.json_file import (
    Check,
    anything,
    choice,
    flag,
    items,
    number,
    optional,
    parse_json,
    read_regular,
    record,
    table,
    text,
    whole,
    wrong,
)
from features_store.atomic import atomic_folder
from features_store.errors import first_line

FORMAT = "affectory-head"
FORMAT_VERSION = 3
RECORD = "head.json"
_ARRAYS = "model.safetensors"
_MAX_BYTES = 4 * 2**30
_LIBRARIES = ("affectory", "lightgbm", "numpy", "scikit-learn", "torch")


def save_head(head: Any, folder: Path, beside: Mapping[str, bytes] | None = None) -> None:
    """Write a fitted head to a new folder, whole or not at all."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HeadError(f"cannot save the head to {folder}: it exists and is not empty; choose another folder")
    with atomic_folder(folder) as temporary:
        for file, data in _files(head, beside or {}).items():
            (temporary / file).write_bytes(data)


def load_head(folder: Path) -> Any:
    """Read a head that `save_head` wrote; it predicts the same."""
    return load_model(folder)[0]


def load_model(folder: Path) -> tuple[Any, dict[str, bytes]]:
    """Read a head as `load_head` does, and return its files by name beside it."""
    try:
        files = head_files(Path(folder))
        return restored_head(files), files
    except OutdatedHeadError as error:
        run = Path(folder).parent
        line = shlex.join(["classify", "run", "--config", str(run / "config.toml"), "--out", str(run), "--force"])
        raise OutdatedHeadError(f"cannot load a head from {folder}: {error}; make it again with: {line}") from error
    except HeadError as error:
        raise HeadError(f"cannot load a head from {folder}: {error}") from error


def head_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a head by name: ``head.json`` and those that it lists, each as its digest says."""
    if folder.is_symlink():
        raise HeadError(f"{folder} is a symbolic link; a head is a folder")
    try:
        files = {RECORD: read_regular(folder / RECORD)}
        listed = _record(files[RECORD])["files"]
        files |= {name: read_regular(folder / name, _MAX_BYTES) for name in listed}
    except FileNotFoundError as error:
        raise HeadError(f"{Path(error.filename).name} is missing") from error
    except RunError as error:
        raise HeadError(str(error)) from error
    for name, digest in listed.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise HeadError(f"{name} is not the file that was saved (its checksum differs)")
    return files


def restored_head(files: Mapping[str, bytes], *, foreign: bool = False) -> Any:
    """Make a head from its files."""
    from safetensors.numpy import load

    try:
        record = _record(files[RECORD])
        if set(record["files"]) | {RECORD} != set(files):
            odd = sorted(set(record["files"]) ^ (set(files) - {RECORD}))
            raise HeadError(f"{odd[0]!r} is listed in {RECORD} or lies beside it, and not both")
        texts = {n.removesuffix(".txt"): data.decode("ascii") for n, data in files.items() if n.endswith(".txt")}
        arrays = load(files[_ARRAYS]) if _ARRAYS in files else {}
        _check_arrays(arrays)
        return _restored(record, arrays, texts, foreign=foreign)
    except HeadError:
        raise
    except Exception as error:  # whatever a damaged file provokes in safetensors, LightGBM or torch
        raise HeadError(f"damaged or not a head ({type(error).__name__}: {first_line(error)})") from error


def _files(head: Any, beside: Mapping[str, bytes]) -> dict[str, bytes]:
    from safetensors.numpy import save

    name, kind = _place(head)
    attributes: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    files = dict(beside)
    for key in sorted(key for key in vars(head) if key.endswith("_")):
        value = getattr(head, key)
        if key == "boosters_":
            attributes[key] = [booster is not None for booster in value]
            texts = {f"booster-{k}.txt": one.model_to_string() for k, one in enumerate(value) if one is not None}
            files |= {file: text.encode("ascii") for file, text in texts.items()}
        elif isinstance(value, Standardizer):
            arrays |= {f"{key}.mean": value.mean, f"{key}.scale": value.scale}
        elif hasattr(value, "state_dict"):
            arrays |= {f"{key}.{part}": tensor.numpy() for part, tensor in value.state_dict().items()}
        elif isinstance(value, np.ndarray) and _is_numeric(value):
            arrays[key] = value
        else:
            attributes[key] = _plain(key, value)
    if arrays:
        files[_ARRAYS] = save({key: np.ascontiguousarray(value) for key, value in arrays.items()})
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "head": name,
        "kind": kind,
        "params": {key: _plain(key, value) for key, value in head.get_params(deep=False).items()},
        "attributes": attributes,
        "files": {file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
        "versions": library_versions(_LIBRARIES),
    }
    return files | {RECORD: (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()}


def _restored(record: dict[str, Any], arrays: dict[str, np.ndarray], texts: dict[str, str], *, foreign: bool) -> Any:
    """Make a head of the options and attributes of a record; *foreign*: no text reaches LightGBM's own parser."""
    known = head_options(record["head"], record["kind"])
    unknown = sorted(set(record["params"]) - set(known))
    if unknown:
        raise HeadError(f"it has options that this version does not know: {', '.join(unknown)}")
    hidden = record["params"].get("hidden")  # layers are made one by one before their weights are filled in
    if isinstance(hidden, list) and len(hidden) > len(arrays):
        raise HeadError(f"its option hidden is {str(hidden)[:60]}, and it has {len(arrays)} arrays")
    head = head_class(record["head"], record["kind"])(**record["params"])
    head.check_options()
    attributes = record["attributes"]
    learned = [name for name in (*_OPTIONAL, *head.learned()) if name in attributes or name not in _OPTIONAL]
    for name in learned:  # in this order: a network is built for its number of features and classes
        if name == "boosters_":
            head.boosters_ = head.read_boosters(attributes[name], texts, foreign=foreign)
        elif name in attributes:
            value = attributes[name]
            is_array = isinstance(value, dict) and "dtype" in value
            setattr(head, name, np.array(value["values"], dtype=value["dtype"]) if is_array else value)
        elif name in arrays:
            setattr(head, name, arrays.pop(name))
        else:
            parts = {key.partition(".")[2]: arrays.pop(key) for key in list(arrays) if key.startswith(f"{name}.")}
            setattr(head, name, Standardizer(**parts) if set(parts) == {"mean", "scale"} else head.loaded_module(parts))
    odd = [*arrays, *(set(attributes) - set(learned))]
    if odd:
        raise HeadError(f"it has {ascii(odd[0])[:60]}, which a {record['head']} head has not")
    return head


def _check_arrays(arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        # The scale of a feature that does not vary may be infinite: it is 0 in every row.
        finite = not np.isnan(array).any() if name.endswith(".scale") else np.isfinite(array).all()
        if not _is_numeric(array) or not finite:
            raise HeadError(f"its array {ascii(name)[:60]} is {array.dtype}, or holds a number that is not finite")


def _is_numeric(array: np.ndarray) -> bool:
    return np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)


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


_LABELS = record({"dtype": _dtype, "values": items(anything, 1, 100_000)})
_OPTIONAL = ("blocks_in_", "feature_names_in_", "best_length_", "C_", "alpha_", "search_")
"""Attributes of a head fitted on blocks of a store, on columns with names, that could stop early, or that chose a
strength, which heads saved before did not keep."""
_MAP = choice("l2", "sqrt", "standardize")
_MEMBER = record(
    {"family": choice("svm", "ridge", "knn", "mean"), "maps": items(_MAP, 1), "weights": items(number(0, 1e6), 1)},
    {
        "k": (optional(whole(1)), None),
        **dict.fromkeys(("gamma", "C", "alpha", "sharpness"), (optional(number()), None)),
    },
)
_ATTRIBUTES: dict[str, Check] = {
    "n_features_in_": whole(1, 10_000_000),
    "blocks_in_": items(text),
    "feature_names_in_": _LABELS,
    "classes_": _LABELS,
    "n_parameters_": whole(),
    "n_iter_": whole(),
    "history_": items(table(anything)),
    "best_length_": anything,
    "multilabel_": flag,
    "single_output_": flag,
    **dict.fromkeys(("C_", "alpha_", "gamma_", "sharpness_"), number(0)),
    "k_": whole(1),
    "boosters_": items(flag, 1, 32_767),
    "widths_": items(whole(1), 1),
    "maps_": items(_MAP, 1),
    "members_": items(_MEMBER, 1, 65),
    "search_": table(anything),
}
"""Attributes that stand in ``head.json``, with what each takes."""


def _attributes(value: Any, where: str) -> dict[str, Any]:
    made: dict[str, Any] = table(anything)(value, where)
    for name, one in made.items():
        if name not in _ATTRIBUTES:
            wrong(where, name, ", ".join(_ATTRIBUTES))
        _ATTRIBUTES[name](one, f"{where}.{name}")
    return made if "n_features_in_" in made else wrong(where, sorted(made), "n_features_in_ among them")


_HEAD = record(
    {"head": text, "kind": choice(*KINDS), "params": table(anything), "attributes": _attributes, "files": _file}
)


def _record(data: bytes) -> dict[str, Any]:
    """Return what ``head.json`` says, once it is what a head's says."""
    try:
        found = parse_json(data, RECORD, clean=False)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise HeadError(f'{RECORD} does not say "format": "{FORMAT}"')
        if found.get("format_version") in (1, 2):
            raise OutdatedHeadError(
                "it was saved by an earlier version of affectory, whose heads this one does not read (of a bundle: "
                "make the run again, then bundle it)"
            )
        if found.get("format_version") != FORMAT_VERSION:
            raise HeadError(
                f"it has format version {found.get('format_version')!r}, this program reads {FORMAT_VERSION}; "
                "update affectory"
            )
        made: dict[str, Any] = _HEAD(found, "the head")
    except RunError as error:
        raise HeadError(f"damaged or not a head ({error})") from error
    return made


def _place(head: Any) -> tuple[str, str]:
    """Return the name in the table and the kind of task of a fitted head."""
    for name, entry in ALL_HEADS.items():
        for has_classes in (True, False):
            if entry.class_name(has_classes=has_classes) == f"{type(head).__module__}:{type(head).__name__}":
                if not hasattr(head, "n_features_in_"):
                    raise HeadError(f"the {name} head is not fitted; call fit before saving it")
                classifier = "multi" if getattr(head, "multilabel_", False) else "single"
                return name, classifier if has_classes else "regression"
    raise HeadError(f"{type(head).__name__} is not in the table of heads, so it could not be loaded again")


def _plain(name: str, value: Any) -> Any:
    """Return *value* as JSON has it, or refuse it by name."""
    if isinstance(value, np.ndarray):
        dtype = "object" if value.dtype == object else value.dtype.str
        return {"dtype": dtype, "values": _plain(name, value.tolist())}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(k): _plain(name, v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise HeadError(
        f"{name} is a {type(value).__name__}, which cannot be saved without code; use numbers, texts and lists"
    )


def library_versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the versions of libraries; what is used from a checkout without being installed has none."""
    found = {}
    for library in libraries:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
