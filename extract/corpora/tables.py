"""A CSV table of images: any mixture of single-label, multi-label and regression columns, mapped by options.

==============  ===============================================================================
``file``        the table, relative to ``--data`` (where ``--data`` is the table itself: not needed)
``image``       column with the path of the image, relative to ``root``
``root``        folder of the images, relative to the table's folder
``suffix``      is added to each path, for tables that name images without ``.jpg``
``single``      ``COLUMN`` or ``TASK=COLUMN``, several parted by ``,``
``multi``       ``TASK=COLUMN|COLUMN|...`` of 0 and 1; or one column of names parted by ``;`` or ``|``
``regression``  ``COLUMN``, ``TASK=COLUMN|COLUMN``; ends of the scale as ``TASK=COLUMN@1..9``
``split``       column of train, val, test; or of fold numbers from 0
``group``       column whose equal values must not be parted by a split (same tweet, same person)
==============  ===============================================================================

An empty cell is no label.
"""

from __future__ import annotations

import csv
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.columns import Rows, labels_of, split_of
from extract.corpora.partition import grouped
from extract.corpora.record import Corpus, Option, Reading
from extract.errors import CorpusError
from extract.sources import Files
from features_store import Index, Labels, Split


@dataclass(frozen=True)
class _Place:
    table: Path
    root: Path


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read a table and the places of its images.

    Parameters
    ----------
    data : Path
        The table, or the folder that holds it.
    options : mapping
        See the module's docstring.

    Raises
    ------
    CorpusError
        If a file, a column or a value is not what the options say; naming row and value.
    """
    place = _place(data, options)
    rows = _rows(place.table, options)
    names = [_relative(place, rows.cell(row, options["image"]) + options["suffix"]) for row in range(len(rows))]
    ids = np.array([unicodedata.normalize("NFC", name) for name in names])
    labels = {
        found.task.name: found
        for kind in ("single", "multi", "regression")
        for found in labels_of(rows, kind, options[kind])
    }
    groups = rows.numbered(options["group"]) if options["group"] else None
    split = split_of(rows, options["split"]) if options["split"] else _own_split(ids, labels, groups, options["seed"])
    recorded = {key: value for key, value in options.items() if key != "root"}
    index = Index(ids, labels, {"default": split}, groups, corpus={"name": "csv", "options": recorded})
    notes = () if options["split"] else ("split 'default' is 70/10/20, seeded: no split column was named",)
    return Reading(index, Files(place.root, np.array(names)), notes)


def _place(data: Path, options: Mapping[str, Any]) -> _Place:
    table = data if data.is_file() else data / options["file"]
    if not table.is_file():
        msg = f"there is no table {table}; give the CSV file with --data, or name it with --option file=NAME"
        raise CorpusError(msg)
    root = table.parent / options["root"]
    if not root.is_dir():
        msg = f"there is no folder {root} of images; name it with --option root=FOLDER"
        raise CorpusError(msg)
    return _Place(table, root)


def _rows(table: Path, options: Mapping[str, Any]) -> Rows:
    try:
        # Universal newlines: old tables end their lines with a carriage return alone.
        with table.open(encoding=options["encoding"], newline=None) as file:
            lines = list(csv.reader(file, delimiter=options["delimiter"].replace("\\t", "\t")))
    except (UnicodeDecodeError, LookupError, csv.Error, TypeError) as error:
        msg = f"{table} cannot be read: {error}; name its --option encoding= and delimiter= (one character)"
        raise CorpusError(msg) from error
    filled = [line for line in lines if any(cell.strip() for cell in line)]
    if len(filled) < 2:
        msg = f"{table} needs a header and at least one row; it has {len(filled)} lines"
        raise CorpusError(msg)
    return Rows(str(table), filled[0], filled[1:])


def _relative(place: _Place, cell: str) -> str:
    """Return the path of an image below the root, POSIX separators."""
    path = cell.strip().replace("\\", "/")
    if os.path.isabs(path):
        try:
            path = Path(path).relative_to(place.root.resolve()).as_posix()
        except ValueError as error:
            msg = f"{place.table}: image {cell!r} lies outside {place.root}; name its folder with --option root=FOLDER"
            raise CorpusError(msg) from error
    path = os.path.normpath(path).replace(os.sep, "/")
    if path in (".", "") or path.startswith("../") or path == "..":
        msg = f"{place.table}: {cell!r} names no image below {place.root}"
        raise CorpusError(msg)
    return path


def _own_split(ids: Any, labels: Mapping[str, Labels], groups: Any, seed: int) -> Split:
    """Part by the first single-label task; whole groups stay together."""
    single = next((one.values for one in labels.values() if one.task.kind == "single"), np.zeros(len(ids), np.int16))
    return Split("default", grouped(ids.tolist(), single.tolist(), groups, seed=seed))


CORPUS = Corpus(
    name="csv",
    title="your own images, labelled in a CSV table",
    obtain="give the table, or the folder that holds it, with --data; map its columns with --option",
    licence="yours",
    citation="",
    reader=read,
    splits={"default": "the column named by the option `split`; else 70/10/20, seeded"},
    options={
        "file": Option("labels.csv", "the table, relative to --data"),
        "image": Option("image", "column with the path of the image"),
        "root": Option(".", "folder of the images, relative to the table"),
        "suffix": Option("", "added to each path, such as .jpg"),
        "single": Option("", "COLUMN or TASK=COLUMN, several parted by ,"),
        "multi": Option("", "TASK=COLUMN|COLUMN|... of 0 and 1, or a COLUMN of names parted by ; or |"),
        "regression": Option("", "COLUMN or TASK=COLUMN|COLUMN, with the scale as TASK=COLUMN@1..9"),
        "split": Option("", "column of train, val, test, or of fold numbers"),
        "group": Option("", "column whose equal values stay in one part"),
        "delimiter": Option(",", "one character, or \\t"),
        "encoding": Option("utf-8-sig", "of the table, such as latin-1"),
        "seed": Option(0, "seed of the split where no column gives one", minimum=0),
    },
)
