"""A bundle: one file with everything that a prediction needs but the encoders, and nothing that can run.

::

    manifest.json      format, version, and the SHA-256 and length of every other file
    task.json          task, classes, and the blocks in their order
    passports.json     by block, how its vectors were made: the encoders are built again from it
    adjustment.json    post-processing: calibration and thresholds
    MODEL_CARD.md      what it does, how well, its limits
    DATA_CARD.md       what it was trained on
    model/             the head: head.json, arrays as safetensors, boosters as text; the distance of a vector from the
                       training images: novelty.json, novelty.safetensors

A bundle is a ZIP file whose members are stored as they are, so that it is never larger inside than outside. The same
run gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classify.data.kinds import KINDS
from classify.errors import BundleError
from classify.evaluation.novelty import read_novelty
from classify.evaluation.postprocessing import Postprocessing
from classify.heads.persistence import RECORD, head_files, restored_head
from classify.inference.cards import data_card_text, model_card_text
from classify.inference.model import Model, run_model, tried
from classify.json_file import (
    anything,
    check_new,
    choice,
    items,
    number,
    optional,
    parse_json,
    record,
    table,
    text,
    whole,
    whole_file,
)
from classify.runs.folder import Run, read_run
from classify.runs.report_json import MAX_CLASSES
from features_store.atomic import open_regular, typed_path, zip_source
from features_store.errors import AffectoryError
from features_store.schema import Task, repeated_name

FORMAT, VERSION = "affectory-bundle", 1
MANIFEST = "manifest.json"
_TEXTS = ("task.json", "passports.json", "adjustment.json", "MODEL_CARD.md", "DATA_CARD.md")
_MODEL_FILES = re.compile(r"model/((head|novelty)\.json|(model|novelty)\.safetensors|booster-[0-9]{1,4}\.txt)")
_MAX_TEXT = 8 * 2**20  # bytes of a manifest, a card, a passport
MAX_BYTES = 4 * 2**30
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that the format knows


def write_bundle(run: Run, path: Path, *, force: bool = False) -> list[str]:
    """Pack a run into a bundle, whole or not at all; the file is opened again before it gets its name."""
    check_new(path, force=force)
    model = run_model(run)
    files = _contents(run, model)
    record = {name: {"sha256": _digest(data), "bytes": len(data)} for name, data in files.items()}
    manifest = {"format": FORMAT, "format_version": VERSION, "files": record}
    files = {MANIFEST: _json(manifest), **files}
    with whole_file(path, "the bundle ", force=force) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, data in files.items():
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(entry, data)
        read_bundle(temporary)
    return list(files)


def _contents(run: Run, model: Model) -> dict[str, bytes]:
    task = model.task
    record_of_task = {
        "name": task.name,
        "kind": task.kind,
        "classes": list(task.classes),
        "range": list(task.range) if task.range else None,
        "source": task.source,
        "blocks": list(model.blocks),
        "n_features": int(model.head.n_features_in_),
    }
    files = {
        "task.json": _json(record_of_task),
        "passports.json": _json({name: dict(model.passports[name]) for name in model.blocks}),
        "adjustment.json": _json(model.postprocessing.as_json()),
        "MODEL_CARD.md": model_card_text(run).encode(),
        "DATA_CARD.md": data_card_text(run).encode(),
    }
    folder = run.folder / "model"
    listed = head_files(folder)
    for path in sorted(folder.iterdir()):
        if path.name not in listed and not path.name.startswith("."):
            raise BundleError(
                f"{path} is not listed in {folder / RECORD}, so it is no file of the head; a bundle holds no other"
            )
    return files | {f"model/{name}": data for name, data in sorted(listed.items())}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def open_model(place: Path) -> Model:
    """Open the model of a run's folder, or of a bundle."""
    if place.is_dir() or not place.exists():
        return run_model(read_run(place))
    return read_bundle(place)


def read_bundle(path: Path) -> Model:
    """Open a bundle, which may come from a stranger.

    Nothing is unpacked under a name that the bundle chose, nothing in it is run, and every file is compared with the
    manifest before it is parsed.
    """
    try:
        # The path that a user types may be a link. Only the members are read: a file of holes fills no memory.
        with open_regular(typed_path(path), MAX_BYTES) as file, zipfile.ZipFile(zip_source(file)) as archive:
            files = _checked(archive, os.fstat(file.fileno()).st_size)
        return _model(files)
    except AffectoryError as error:
        raise BundleError(f"{path} is refused: {error}") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise BundleError(
            f"{path} is not a bundle: it is not a whole ZIP file ({error}); `classify bundle` makes one of a run"
        ) from error
    except Exception as error:  # whatever a damaged archive provokes in zipfile
        raise BundleError(f"{path} is refused: it is damaged ({type(error).__name__}: {str(error)[:200]})") from error


def _checked(archive: zipfile.ZipFile, size: int) -> dict[str, bytes]:
    """Return the files of a bundle, its names, types, lengths and digests checked."""
    entries = archive.infolist()
    for entry in entries:
        _check_entry(entry)
    names = [entry.filename for entry in entries]
    if sum(entry.file_size for entry in entries) > size:
        raise BundleError(f"its files have more bytes together than the {size} of the archive, so some overlap")
    if (twice := repeated_name(names)) is not None:
        raise BundleError(f"{twice!r} stands in it twice")
    if MANIFEST not in names:
        raise BundleError(f"it has no {MANIFEST}; `classify bundle` makes one of a run")
    manifest = _object(archive.read(MANIFEST), MANIFEST)
    if manifest.get("format") != FORMAT or manifest.get("format_version") != VERSION:
        found = f"{manifest.get('format')!r} version {manifest.get('format_version')!r}"
        raise BundleError(f"it is {found}, and this program reads {FORMAT!r} version {VERSION}")
    record = manifest.get("files")
    if not isinstance(record, Mapping):
        raise BundleError(f"{MANIFEST} lists no files")
    present, listed = set(names) - {MANIFEST}, set(record)
    if present != listed:
        odd = sorted(present ^ listed)[0]
        raise BundleError(f"{odd!r} is {'not listed in ' + MANIFEST if odd in present else 'missing'}")
    if lacking := [name for name in (*_TEXTS, "model/head.json") if name not in present]:
        raise BundleError(f"{lacking[0]!r} is missing")
    files = {name: archive.read(name) for name in sorted(present)}
    for name, data in files.items():
        if record[name] != {"sha256": _digest(data), "bytes": len(data)}:
            raise BundleError(
                f"{name!r} is not the file that was packed: its SHA-256 or length differs from {MANIFEST}"
            )
    return files


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name, mode = entry.filename, entry.external_attr >> 16
    if name not in (MANIFEST, *_TEXTS) and not _MODEL_FILES.fullmatch(name):
        raise BundleError(f"it holds {name[:200]!r}, which no bundle has")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):  # 0: an archive made where files have no kind
        raise BundleError(f"{name!r} is not a plain file (mode {mode:o})")
    if entry.flag_bits & 0x1:
        raise BundleError(f"{name!r} is encrypted")
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise BundleError(
            f"{name!r} is compressed; the files of a bundle are stored as they are, so that it cannot be a bomb"
        )
    if name in (MANIFEST, *_TEXTS) and entry.file_size > _MAX_TEXT:
        raise BundleError(f"{name!r} has {entry.file_size} bytes; at most {_MAX_TEXT} are read")


def _object(data: bytes, name: str) -> dict[str, Any]:
    value = parse_json(data, name, clean=False)
    if not isinstance(value, dict):
        raise BundleError(f"{name} holds no JSON object")
    return value


_TASK = record(
    {
        "name": text,
        "kind": choice(*KINDS),
        "classes": items(text, 1, MAX_CLASSES),
        "range": optional(items(number(), 2, 2)),
        "source": text,
        "blocks": items(text, 1, 1000),
        "n_features": whole(1, 10_000_000),
    }
)


def _model(files: Mapping[str, bytes]) -> Model:
    about = _TASK(_object(files["task.json"], "task.json"), "task.json")
    passports = table(table(anything))(_object(files["passports.json"], "passports.json"), "passports.json")
    if list(passports) != about["blocks"]:
        raise BundleError("its passports are not those of its blocks")
    span = None if about["range"] is None else (float(about["range"][0]), float(about["range"][1]))
    task = Task(about["name"], about["kind"], tuple(about["classes"]), span, about["source"])
    postprocessing = Postprocessing.from_json(_object(files["adjustment.json"], "adjustment.json")).check(task)
    parts = {name.removeprefix("model/"): data for name, data in files.items() if name.startswith("model/")}
    head = restored_head(parts, foreign=True)
    if head.n_features_in_ != about["n_features"]:
        raise BundleError(f"its head takes {head.n_features_in_} features, its task has {about['n_features']}")
    blocks = tuple(about["blocks"])
    novelty = read_novelty(parts, blocks, head.n_features_in_)
    return tried(Model(task, head, blocks, passports, postprocessing, novelty))
