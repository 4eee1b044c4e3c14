"""What a store holds beside its vectors: labels, splits and groups against their digests, and the list of its blocks.

``store.json`` in the folder of a store names its blocks with their seals, so that a block that was removed or exchanged
is noticed. It is written when the user asks for it, and is no part of any seal.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from features_store.atomic import atomic_write, read_regular
from features_store.contents import read_contents
from features_store.errors import FormatError, MismatchError
from features_store.hdf5 import json_object
from features_store.meaning import meaning_digest, parted
from features_store.store import Store, dumps_of

LIST_FILE = "store.json"
_FORMAT = "affectory-store"
_MAX_BYTES = 16 * 2**20


@dataclass
class Meaning:
    """What was found of a store beside its vectors, one sentence each."""

    contradictions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)


def check_meaning(store: Store) -> Meaning:
    """Compare labels, splits, groups and the list of blocks with what was written down of them."""
    found = Meaning(checked=["ids against their digest"])
    for path in store.paths:
        _check_dump(path, found)
    _check_splits(store, found)
    for folder in sorted({path.parent for path in store.paths}):
        if set(dumps_of(folder)) <= set(store.paths):
            _check_list(store, folder, found)
    return found


def write_list(store: Store, folder: Path) -> Path:
    """Write the list of the blocks of a folder store; an older list is replaced.

    Raises MismatchError.
    """
    if not folder.is_dir():
        raise MismatchError(f"{folder} is no folder; a list of blocks is kept for a store that is one")
    blocks = {}
    for name, block in sorted(store.blocks.items()):
        seal = block.stored_seal.hex() if block.sealed else None
        blocks[name] = {"file": block.path.name, "passport": block.digest, "seal": seal}
    values = {"format": _FORMAT, "version": 1, "index_digest": store.index_digest, "blocks": blocks}
    path = folder / LIST_FILE
    with atomic_write(path, force=True) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return path


def _check_dump(path: Path, found: Meaning) -> None:
    contents = read_contents(path)
    if not contents.labels and not contents.splits:
        return
    what = f"labels, splits and groups of {path.name}"
    if not contents.meaning:
        found.not_checked.append(f"{what}: it keeps no digest of them (`features-store relabel` writes one)")
    elif contents.meaning != meaning_digest(contents.labels, contents.splits, contents.groups):
        found.contradictions.append(
            f"{path}: labels, splits or groups do not agree with their digest; they were changed after they were made"
        )
    else:
        found.checked.append(f"{what} against their digest")


def _check_splits(store: Store, found: Meaning) -> None:
    for name, split in store.splits.items():
        rows = parted(split, store.groups)
        if not rows.any() or store.groups is None:
            continue
        n_groups = len(set(store.groups[rows].tolist()))
        words = f"split {name!r} parts {n_groups:,} groups of {int(rows.sum()):,} images"
        if split.source == "made":
            found.contradictions.append(f"{words}, and splits that were made here keep groups whole: it was changed")
        else:
            source = "was published so" if split.source else "does not say who made it"
            found.notes.append(f"{words}; it {source}, and a score on it counts images that training has seen alike")


def _check_list(store: Store, folder: Path, found: Meaning) -> None:
    path = folder / LIST_FILE
    try:
        listed = json_object(read_regular(path, _MAX_BYTES).decode("utf-8"), str(path))
    except FileNotFoundError:
        found.not_checked.append(f"whether blocks are missing from {folder} (--write-list writes them down)")
        return
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8; write it again with `features-store verify --write-list`") from error
    blocks = listed.get("blocks")
    good = isinstance(blocks, dict) and all(isinstance(one, dict) for one in blocks.values())
    if listed.get("format") != _FORMAT or not isinstance(blocks, dict) or not good:
        raise FormatError(f"{path} is no list of blocks; write it again with `features-store verify --write-list`")
    if listed.get("index_digest") != store.index_digest:
        found.contradictions.append(f"{path} is of a store with other images")
    here = {name: block for name, block in store.blocks.items() if block.path.parent == folder}
    for name, known in sorted(blocks.items()):
        block = here.get(name)
        if block is None:
            found.contradictions.append(f"{folder}: block {name[:120]!r} is in {LIST_FILE}, and its file is gone")
        elif known.get("passport") != block.digest or known.get("seal") not in (None, block.stored_seal.hex()):
            found.contradictions.append(f"{folder}: block {name!r} is another one than {LIST_FILE} names")
    new = sorted(here.keys() - blocks.keys())
    if new:
        found.notes.append(f"{folder}: {', '.join(new)} came after {LIST_FILE} was written (--write-list renews it)")
    found.checked.append(f"that the {len(blocks)} block(s) of {path} are there")
