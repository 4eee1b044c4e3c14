"""The index of a store: written once, compared ever after; and the SHA-256 of each image file, if that is wanted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora import Dataset
from extract.errors import RefusedImageError
from features_store import (
    ExistsError,
    Index,
    Labels,
    MismatchError,
    Split,
    Store,
    open_regular,
    open_store,
    write_index,
)
from features_store.align import rows_that_differ
from features_store.atomic import recover
from features_store.disk import refuse_special
from features_store.schema import INDEX_FILE

JOURNAL = "content.sha256.part"
_SHOWN = 200  # characters of a value in a message
_BYTES = 32  # of a digest
_READERS = 8  # threads


def check_or_write_index(store: Path, dataset: Dataset) -> None:
    """Write ``index.h5`` if the store has none; else check that it lists the same images and means the same."""
    path, index = store / INDEX_FILE, dataset.index
    if not path.exists():
        refuse_special(store)
        try:
            store.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ExistsError(
                f"--store {store} cannot be made: it, or something above it, is a file or a link to nothing; "
                "give the name of a folder"
            ) from error
        try:
            write_index(path, index)
            return
        except ExistsError:  # another process began at the same time, and was faster
            if not path.is_file():
                raise
    recover(path)  # what a killed run left beside the files that it had just made
    there = open_store(path)
    if there.index_digest != index.digest:
        raise MismatchError(
            f"{path} lists other images than the corpus: {_ids_differ(there, index)}; "
            "choose another --store, or the options and data that it was made with"
        )
    differing = _meaning_differs(there, index)
    if differing:
        details = "; ".join(detail for found in differing.values() for detail in found)
        raise MismatchError(
            f"{path} has the images of the corpus, but other {', '.join(differing)}: {details} (there / here); choose "
            "the data and options that it was made with, or move index.h5 away and run again: the vectors stay valid, "
            "and none is extracted anew"
        )


def _ids_differ(there: Store, index: Index) -> str:
    ours, theirs = set(index.ids.tolist()), set(map(str, there.ids))
    parts = [f"{len(theirs)} there, {len(ours)} here"]
    for words, names in (("only there", theirs - ours), ("only here", ours - theirs)):
        if names:
            parts.append(f"{len(names)} {words} such as {min(names)!r}")
    if len(parts) == 1:
        parts.append("the same images in another order")
    if dict(there.corpus) != dict(index.corpus):
        parts.append(f"made as {dict(there.corpus)}, now {dict(index.corpus)}")
    return "; ".join(parts)


def _meaning_differs(there: Store, index: Index) -> dict[str, list[str]]:
    """Name each part of what a store means that differs, with both sides."""
    found: dict[str, list[str]] = {}
    for kind, before, now in (("labels", there.labels, index.labels), ("split", there.splits, index.splits)):
        for name in sorted(before.keys() | now.keys()):
            found[f"{kind} {name!r}"] = _item_differs(before.get(name), now.get(name), index.ids)
    if there.groups is not None and index.groups is not None:
        found["groups"] = _values_differ(there.groups, index.groups, index.ids)
    elif there.groups is not index.groups:
        found["groups"] = [_absent(there.groups)]
    found["options"] = _options_differ(there.corpus, index.corpus)
    return {part: details for part, details in found.items() if details}


def _item_differs(before: Labels | Split | None, now: Labels | Split | None, ids: NDArray[np.str_]) -> list[str]:
    if before is None or now is None:
        return [_absent(before)]
    left, right = _facts(before), _facts(now)
    facts = [f"{field} {_short(left[field])} / {_short(right[field])}" for field in left if left[field] != right[field]]
    if not (left.get("source") and right.get("source")):  # a split made before sources were recorded
        facts = [fact for fact in facts if not fact.startswith("source ")]
    return facts + _values_differ(before.values, now.values, ids)


def _facts(item: Labels | Split) -> dict[str, Any]:
    if isinstance(item, Split):
        return {"kind": item.kind, "source": item.source}
    return {"kind": item.task.kind, "classes": item.task.classes, "range": item.task.range}


def _absent(there: object) -> str:
    return "not there, but here" if there is None else "there, but not here"


def _short(value: object) -> str:
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"


def _values_differ(there: NDArray[Any], here: NDArray[Any], ids: NDArray[np.str_]) -> list[str]:
    if there.shape != here.shape:
        return [f"shape {there.shape} / {here.shape}"]
    rows = np.flatnonzero(rows_that_differ(there, here))
    if not len(rows):
        return []
    first = rows[0]
    return [f"values of {len(rows)} images, the first is {str(ids[first])!r}: {there[first]} / {here[first]}"]


def _options_differ(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Compare name and options of the reader; an option that one side does not know is none of its differences."""
    found = [f"name {there['name']!r} / {here['name']!r}"] if _differs(there, here, "name") else []
    before, now = there.get("options"), here.get("options")
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        found += [f"{key} {before[key]!r} / {now[key]!r}" for key in sorted(before) if _differs(before, now, key)]
    return found


def _differs(there: Mapping[str, Any], here: Mapping[str, Any], key: str) -> bool:
    if key not in there or key not in here:
        return False
    values = [json.loads(json.dumps(side[key], default=str)) for side in (there, here)]
    paths = all(isinstance(value, str) and any(mark in value for mark in ("/", "\\")) for value in values)
    return values[0] != values[1] and not paths  # where a table lies says nothing about what is in it


def has_digests(store: Path) -> bool:
    """Tell whether the index of a store knows the SHA-256 of any image file."""
    content = open_store(store / INDEX_FILE).content
    return content is not None and bool(content.any())


def _compared(data: bytes, known: NDArray[np.uint8], image_id: str) -> NDArray[np.uint8]:
    """Return the SHA-256 of a file, which must be the one that is known; zeros = none is."""
    digest = hashlib.sha256(data).digest()
    if known.any() and known.tobytes() != digest:
        raise MismatchError(
            f"image {image_id!r} was another picture when its digest was recorded "
            f"(SHA-256 {known.tobytes().hex()[:12]}, now {digest.hex()[:12]}); put the old file back, or "
            "extract into another --store"
        )
    return np.frombuffer(digest, dtype=np.uint8)


class ComparedFiles:
    """Image files of which each is compared with the SHA-256 that is known, in whichever process it is read."""

    def __init__(self, dataset: Dataset, known: NDArray[np.uint8]) -> None:
        self._files, self._ids, self._known = dataset.files, dataset.index.ids, known

    def __len__(self) -> int:
        return len(self._files)

    def read(self, row: int) -> bytes:
        data = self._files.read(row)
        _compared(data, self._known[row], str(self._ids[row]))
        return data

    def modified(self, row: int) -> float:
        return self._files.modified(row)


class ContentDigests:
    """A source of images that records the SHA-256 of every file it reads.

    The index is one file that appears whole, so the digests wait in a journal next to it: 32 bytes per row, which lie
    in one page of memory each and so are whole or zero after any kill. At the end the index is written anew. Digests of
    the index, and those of a journal that a killed run left, are taken over.
    """

    def __init__(self, dataset: Dataset, store: Path) -> None:
        self._dataset, self._source, self._path = dataset, dataset.files, store / INDEX_FILE
        stored, n_images = open_store(self._path), len(dataset.files)
        self._journal = store / JOURNAL
        # Behind the digests stands that of the index: those that were recorded for other images are none of these.
        mark = bytes.fromhex(stored.index_digest)
        with open_regular(self._journal, mode="a+b") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _BYTES))
            if file.tell() != n_images * _BYTES or file.read() != mark:
                file.truncate(0)
                file.truncate(n_images * _BYTES)
                file.write(mark)
                file.flush()
            self._digests = np.memmap(file, np.uint8, "r+", shape=(n_images, _BYTES))
        if stored.content is not None:
            known = stored.content.any(axis=1)
            self._digests[known] = stored.content[known]
        self._known = np.asarray(self._digests.any(axis=1))
        self._recorded_at = self._path.stat().st_mtime
        self._tried = np.zeros(n_images, dtype=bool)

    def __len__(self) -> int:
        return len(self._source)

    def elsewhere(self) -> ComparedFiles:
        """Return the same files for other processes, which compare what is known and record nothing."""
        return ComparedFiles(self._dataset, np.array(self._digests))

    def read(self, row: int) -> bytes:
        self._tried[row] = True
        data = self._source.read(row)
        self._digests[row] = _compared(data, self._digests[row], str(self._dataset.index.ids[row]))
        return data

    def modified(self, row: int) -> float:
        return self._source.modified(row)

    def finish(self, rows: Iterable[int], extracted_now: Iterable[int]) -> list[str]:
        """Write the index with all digests; return what was not checked, in words.

        Files without a digest are read. So are files that have one and were changed after it was recorded, and files
        that were extracted in this run by other processes: they are compared with their digest.
        """
        rows, extracted = list(rows), set(extracted_now)
        changed = [row for row in rows if self._known[row] and self._source.modified(row) > self._recorded_at]
        wanted = {row for row in rows if not self._known[row]} | set(changed) | extracted
        with ThreadPoolExecutor(_READERS, thread_name_prefix="digest") as pool:
            for _ in pool.map(self._try, sorted(row for row in wanted if not self._tried[row])):
                pass
        content: NDArray[np.uint8] = np.array(self._digests)
        stored = open_store(self._path).content
        if content.any() and (stored is None or not np.array_equal(stored, content)):
            write_index(self._path, replace(self._dataset.index, content=content), force=True)
        del self._digests  # Windows removes no file that is mapped
        self._journal.unlink()
        late = [row for row in rows if not self._known[row] and row not in extracted and content[row].any()]
        unread = sum(1 for row in rows if self._known[row] and not self._tried[row])
        notes = []
        if late:
            notes.append(
                f"the SHA-256 of {len(late)} files was recorded now; none was when their vectors were made, so "
                "these files were not compared with what was extracted (`features-store verify --recompute` samples it)"
            )
        if unread:
            notes.append(
                f"{unread} files have a SHA-256 from an earlier run and look unchanged since (time of change); they "
                "were not read again"
            )
        return notes

    def _try(self, row: int) -> None:
        try:
            self.read(row)
        except RefusedImageError:
            return
