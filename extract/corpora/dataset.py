"""What a corpus is (its card, its options), and the dataset that reading one gives: an index, and the image files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from extract.errors import CorpusError
from extract.inputs.disk import left_out_words
from extract.inputs.files import ImageFiles, is_url
from features_store import Index, Labels, Split
from features_store.errors import unknown_name
from features_store.schema import PART_NAMES

Place = Path | str | Mapping[str, Path | str]  # a text may be a URL; a mapping has the place of each member of a union


@dataclass(frozen=True)
class Option:
    """One option of a reader, given as ``--option key=value``; its type is that of the default.

    A `path` is stored with the index by its name alone where it is absolute or leads outside the corpus.
    """

    default: int | str
    help: str
    minimum: int | None = None
    path: bool = False

    def parse(self, corpus: str, key: str, given: object) -> int | str:
        """Turn what the user gave into a value."""
        if isinstance(self.default, str):
            return str(given)
        try:
            value = int(str(given))
        except ValueError as error:
            raise CorpusError(f"option {key!r} of corpus {corpus!r} must be a whole number; got {given!r}") from error
        if self.minimum is not None and value < self.minimum:
            raise CorpusError(f"option {key!r} of corpus {corpus!r} must be at least {self.minimum}; got {value}")
        return value


@dataclass(frozen=True)
class Dataset:
    """A corpus that was read: everything known of its images, and where their bytes are.

    Attributes
    ----------
    index : Index
        Ids, labels, splits and groups.
    files : ImageFiles
        ``files.read(row)`` returns the bytes of the image in that row of the index.
    notes : tuple of str
        What a user should know: what was left out, and why.
    left_out : mapping of str to int
        Files that are not read, counted by reason; also stored with the index.
    """

    index: Index
    files: ImageFiles
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.index) != len(self.files):
            raise CorpusError(f"a reader gave {len(self.index)} ids and {len(self.files)} image files; they must match")

    def take(self, rows: NDArray[np.int64]) -> Dataset:
        """Return some rows, which remember the numbers that they have in the whole."""
        return replace(self, index=self.index.take(rows), files=RowSubset(self.files, rows))


def labelled(
    name: str,
    options: Mapping[str, Any],
    ids: ArrayLike,
    files: ImageFiles,
    *,
    labels: Sequence[Labels],
    splits: Sequence[Split],
    groups: NDArray[np.int64] | None = None,
    notes: Sequence[str] = (),
    left_out: Mapping[str, int] | None = None,
) -> Dataset:
    """Put together what a reader found; empty notes are dropped, an archive counts its own left-out files."""
    left_out = dict(left_out or getattr(files, "left_out", {}))
    corpus = {"name": name, "options": dict(options), **({"left_out": left_out} if left_out else {})}
    by_task = {one.task.name: one for one in labels}
    index = Index(np.asarray(ids), by_task, {one.name: one for one in splits}, groups, corpus=corpus)
    return Dataset(index, files, tuple(filter(None, notes)), left_out)


@dataclass(frozen=True)
class Corpus:
    """The card of a corpus (an entry of ``cards.toml``) with its reader: ``reader(name, data, options) -> Dataset``.

    `published` holds verified counts of the literature by ``images``, ``SPLIT/PART`` and ``TASK/CLASS``; `members` are
    the corpora that a union joins; without `default_data` the user must say where the data are.
    """

    name: str
    title: str
    obtain: str
    licence: str
    reader: Callable[[str, Any, Mapping[str, Any]], Dataset]
    citation: str = ""
    tasks: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    defects: Sequence[str] = ()
    default_data: str = ""
    default_profile: str = "fusion"
    options: Mapping[str, Option] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    members: tuple[str, ...] = ()

    def read(self, data: Place | None = None, given: Mapping[str, object] | None = None) -> Dataset:
        """Read the corpus."""
        given = given or {}
        wanted = " ".join(f"--data {member}=PATH" for member in self.members) or "one --data PATH"
        if data is None and not self.default_data:
            raise CorpusError(f"corpus {self.name!r} needs {wanted}; {self.obtain}")
        if data is not None and isinstance(data, Mapping) != bool(self.members):
            raise CorpusError(f"corpus {self.name!r} needs {wanted}")
        for key in given:
            if key not in self.options:
                raise CorpusError(unknown_name(f"option of corpus {self.name!r}", key, self.options))
        options = {
            key: option.parse(self.name, key, given[key]) if key in given else option.default
            for key, option in self.options.items()
        }
        dataset = self.load(data, options)
        general = [*map(_empty_parts, dataset.index.splits.values())]
        general += [left_out_words(dataset.left_out)] if dataset.left_out else []
        return replace(dataset, notes=(*dataset.notes, *filter(None, general)))

    def load(self, data: Place | None, options: Mapping[str, Any]) -> Dataset:
        """Call the reader with values of all options; its index keeps no path of this machine."""
        dataset = self.reader(self.name, data or Path(self.default_data), options)
        known = dataset.index.corpus["options"]
        stored = {
            key: portable_path(known[key]) for key, option in self.options.items() if option.path and key in known
        }
        if all(known[key] == value for key, value in stored.items()):
            return dataset
        corpus = {**dataset.index.corpus, "options": {**known, **stored}}
        return replace(dataset, index=replace(dataset.index, corpus=corpus))


def portable_path(path: str) -> str:
    """Return a path as it may be stored: one that is absolute, a URL, or leads outside by its name alone."""
    plain = path.replace("\\", "/").rstrip("/") or "."
    outside = is_url(plain) or os.path.isabs(path) or path[1:2] == ":" or ".." in plain.split("/")
    return plain.rpartition("/")[2] if outside else plain if path else ""


def _empty_parts(split: Split) -> str:
    """Return the note on parts without images, or ""."""
    empty = [name for code, name in enumerate(PART_NAMES) if not (split.values == code).any()]
    found = f"split {split.name!r} has no image in its part {' and '.join(empty)}"
    return found if split.has_parts and empty else ""


class RowSubset:
    """Some rows of the image files of a corpus, numbered from 0."""

    def __init__(self, files: ImageFiles, rows: NDArray[np.int64]) -> None:
        self._files, self._rows = files, rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, row: int) -> bytes:
        return self._files.read(int(self._rows[row]))

    def modified(self, row: int) -> float:
        return self._files.modified(int(self._rows[row]))


def shard(dataset: Dataset, text: str) -> Dataset:
    """Return the rows from A to just before B of a dataset, for the text ``A:B``.

    A shard has an index of its own, so its store is only as large as its rows; the rows that it came from are kept,
    so that merging restores the order of the whole.
    """
    n_images = len(dataset.index)
    match = re.fullmatch("([0-9]{0,15}):([0-9]{0,15})", text)
    first, last = (int(match[1] or 0), int(match[2] or n_images)) if match else (0, 0)
    if not first < last <= n_images:
        raise CorpusError(
            f"--rows {text} names no rows of {n_images}; write A:B with 0 <= A < B <= {n_images}: A to just before B"
        )
    rows = np.arange(first, last)
    if len(rows) == n_images:
        return dataset
    return dataset.take(rows)
