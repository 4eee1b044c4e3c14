"""A CSV table of images: any mixture of single-label, multi-label and regression columns, mapped by options.

==============  ===============================================================================
``file``        the table, inside the folder or archive of ``--data`` (where that is the table itself: not needed)
``image``       column with the path of the image, relative to ``root``
``root``        folder, tar or zip of the images, relative to the table's folder
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
import io
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.columns import Rows, labels_of, split_of
from extract.corpora.listing import Listing, open_listing
from extract.corpora.partition import grouped
from extract.corpora.record import Corpus, Option, Reading
from extract.errors import CorpusError
from features_store import Index, Labels, Split


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read a table and the places of its images.

    Parameters
    ----------
    data : Path
        The table, or the folder or archive that holds it.
    options : mapping
        See the module's docstring.

    Raises
    ------
    CorpusError
        If a file, a column or a value is not what the options say; naming row and value.
    """
    table = open_listing(data, options["file"], options["root"])
    rows = _rows(table, options)
    names = [table.relative(rows.cell(row, options["image"]) + options["suffix"]) for row in range(len(rows))]
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
    return Reading(index, table.root.source(np.array(names)), notes)


def _rows(table: Listing, options: Mapping[str, Any]) -> Rows:
    try:
        # Universal newlines: old tables end their lines with a carriage return alone.
        text = io.StringIO(table.data.decode(options["encoding"]), newline=None)
        lines = list(csv.reader(text, delimiter=options["delimiter"].replace("\\t", "\t")))
    except (UnicodeDecodeError, LookupError, csv.Error, TypeError) as error:
        msg = f"{table.name} cannot be read: {error}; name its --option encoding= and delimiter= (one character)"
        raise CorpusError(msg) from error
    filled = [line for line in lines if any(cell.strip() for cell in line)]
    if len(filled) < 2:
        msg = f"{table.name} needs a header and at least one row; it has {len(filled)} lines"
        raise CorpusError(msg)
    return Rows(table.name, filled[0], filled[1:])


def _own_split(ids: Any, labels: Mapping[str, Labels], groups: Any, seed: int) -> Split:
    """Part by the first single-label task; whole groups stay together."""
    single = next((one.values for one in labels.values() if one.task.kind == "single"), np.zeros(len(ids), np.int16))
    return Split("default", grouped(ids.tolist(), single.tolist(), groups, seed=seed))


CORPUS = Corpus(
    name="csv",
    title="your own images, labelled in a CSV table",
    obtain="give the table, or the folder, tar or zip that holds it, with --data; map its columns with --option",
    licence="yours",
    citation="",
    reader=read,
    splits={"default": "the column named by the option `split`; else 70/10/20, seeded"},
    options={
        "file": Option("labels.csv", "the table, inside --data"),
        "image": Option("image", "column with the path of the image"),
        "root": Option(".", "folder, tar or zip of the images, relative to the table"),
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
