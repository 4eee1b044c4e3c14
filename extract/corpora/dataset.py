"""What a corpus is: the frozen record in the table, its options, and the result of reading it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import CorpusError
from extract.inputs.files import Source
from extract.inputs.formats import left_out_words
from features_store import Index, Split
from features_store.errors import unknown_name
from features_store.schema import PART_NAMES

Place = Path | str | Mapping[str, Path | str]  # a text is a URL


@dataclass(frozen=True)
class Option:
    """One option of a reader, given as ``--option key=value``.

    Parameters
    ----------
    default : int or str
        Its type is the option's type.
    help : str
        One line.
    minimum : int, optional
        For whole numbers. None = no bound.
    """

    default: int | str
    help: str
    minimum: int | None = None

    def parse(self, corpus: str, key: str, text: str) -> int | str:
        """Turn the text of the command line into a value.

        Raises CorpusError.
        """
        if isinstance(self.default, str):
            return text
        try:
            value = int(text)
        except ValueError as error:
            msg = f"option {key!r} of corpus {corpus!r} must be a whole number; got {text!r}"
            raise CorpusError(msg) from error
        if self.minimum is not None and value < self.minimum:
            msg = f"option {key!r} of corpus {corpus!r} must be at least {self.minimum}; got {value}"
            raise CorpusError(msg)
        return value


@dataclass(frozen=True)
class Reading:
    """What a reader found: the index, and where the bytes of its images are.

    Parameters
    ----------
    source : Source
        As long as the index, in its order.
    notes : tuple of str
        What a user should know of this reading: what was left out, and why.
    left_out : mapping of str to int
        Files beside the images, by the reason why they are none; it is told, and stored with the index.
    """

    index: Index
    source: Source
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.index) != len(self.source):
            msg = f"the reader found {len(self.index)} ids and {len(self.source)} places of images"
            raise CorpusError(msg)


@dataclass(frozen=True)
class Corpus:
    """A labelled image collection in its official layout.

    Parameters
    ----------
    name, title : str
        As on the command line; in words.
    obtain, licence, citation : str
        How to get it, under which terms, whom to cite.
    tasks, splits : mapping
        By name, one line each. Empty where they depend on the user's data.
    defects : tuple of str
        What is known to be wrong with it.
    reader : callable
        ``reader(data, options) -> Reading``.
    default_data : str
        Where its data lie if ``--data`` is not given; "" = it must be given.
    default_profile : str
        The set of encoders that is used if none is named.
    options : mapping
        By key.
    published : mapping
        Counts in the literature by ``images``, ``SPLIT/PART`` and ``TASK/CLASS``; only those that were verified.
    members : tuple of str
        Of a union: the corpora that it joins, each with a place of its own.
    """

    name: str
    title: str
    obtain: str
    licence: str
    citation: str
    reader: Callable[[Any, Mapping[str, Any]], Reading]
    tasks: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    defects: tuple[str, ...] = ()
    default_data: str = ""
    default_profile: str = "card"
    options: Mapping[str, Option] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    members: tuple[str, ...] = ()

    def read(self, data: Place | None = None, given: Mapping[str, str] | None = None) -> Reading:
        """Read the corpus.

        Raises CorpusError.
        """
        if data is None and not self.default_data:
            wanted = " ".join(f"--data {one}=PATH" for one in self.members) or "--data PATH"
            msg = f"corpus {self.name!r} needs {wanted}; {self.obtain}"
            raise CorpusError(msg)
        if (data is not None) and isinstance(data, Mapping) != bool(self.members):
            wanted = " ".join(f"--data {one}=PATH" for one in self.members) or "one --data PATH"
            msg = f"corpus {self.name!r} needs {wanted}"
            raise CorpusError(msg)
        for key in given or {}:
            if key not in self.options:
                raise CorpusError(unknown_name(f"option of corpus {self.name!r}", key, self.options))
        options = {key: option.default for key, option in self.options.items()}
        for key, text in (given or {}).items():
            options[key] = self.options[key].parse(self.name, key, text)
        return told(self.reader(data or Path(self.default_data), options))


def told(reading: Reading) -> Reading:
    """Add to a reading what every corpus tells: files that were left out, parts that are empty."""
    left_out = left_out_of(reading)
    notes = [*reading.notes, *map(empty_parts, reading.index.splits.values())]
    index = reading.index
    if left_out:
        notes.append(left_out_words(left_out))
        index = replace(index, corpus={**index.corpus, "left_out": left_out})
    return replace(reading, index=index, notes=tuple(filter(None, notes)), left_out=left_out)


def left_out_of(reading: Reading) -> dict[str, int]:
    """Return the files that were left out, by reason: as the reader says, else as the archive does."""
    return dict(reading.left_out) or dict(getattr(reading.source, "left_out", {}))


def empty_parts(split: Split) -> str:
    """Word the note on parts without images; "" = there is none."""
    if split.kind != "parts":
        return ""
    empty = [name for code, name in enumerate(PART_NAMES) if not (split.values == code).any()]
    return f"split {split.name!r} has no image in its part {' and '.join(empty)}" if empty else ""


class Cut:
    """Some rows of a source, numbered anew."""

    def __init__(self, source: Source, rows: NDArray[np.int64]) -> None:
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, row: int) -> bytes:
        """See `extract.inputs.files.Source.read`."""
        return self._source.read(int(self._rows[row]))

    def modified(self, row: int) -> float:
        """See `extract.inputs.files.Source.modified`."""
        return self._source.modified(int(self._rows[row]))


def shard(reading: Reading, text: str) -> Reading:
    """Cut a corpus to the rows from A to just before B.

    A shard has an index of its own, so a store of it is as large as its rows, and it keeps where they came from, so
    that merging puts them back into their order.

    Raises CorpusError.
    """
    n_images = len(reading.index)
    match = re.fullmatch(r"(\d*):(\d*)", text)
    first, last = (int(match[1] or 0), int(match[2] or n_images)) if match else (0, 0)
    if not first < last <= n_images:
        msg = f"--rows {text} names no rows of {n_images}; write A:B with 0 <= A < B <= {n_images}: A to just before B"
        raise CorpusError(msg)
    rows = np.arange(first, last)
    if len(rows) == n_images:
        return reading
    return replace(reading, index=reading.index.take(rows), source=Cut(reading.source, rows))
