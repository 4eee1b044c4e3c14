"""A CSV table of images: any mixture of single-label, multi-label and regression columns, mapped by options.

==============  ===============================================================================
``file``        the table, inside the folder or archive of ``--data`` (where that is the table itself: not needed)
``image``       column with the path of the image, relative to ``root``
``root``        folder, tar or zip of the images, relative to the table's folder
``suffix``      is added to each path, for tables that name images without ``.jpg``
``single``      ``COLUMN`` or ``TASK=COLUMN``, several parted by ``,``
``multi``       ``TASK=COLUMN|COLUMN|...`` of 0 and 1; or one column of names parted by ``;`` or ``|`` (a single
                column of nothing but 0 and 1 is one label, of the column's name)
``regression``  ``COLUMN``, ``TASK=COLUMN|COLUMN``; ends of the scale as ``TASK=COLUMN@1..9``
``split``       column of train, val, test; or of fold numbers from 0
``group``       column whose equal values must not be parted by a split (same tweet, same person)
``none``        words parted by ``|`` that mean no label, as ``NA|nan``
==============  ===============================================================================

An empty cell is no label; every other one is, unless `none` names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.cells import BrokenTableError, plain, rows_of_cells, width_misfit
from extract.corpora.columns import Rows, labels_of, split_of
from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.listing import Listing, open_listing
from extract.corpora.partition import grouped
from extract.corpora.pictures import Pictures
from extract.corpora.vocabulary import twins_in_case
from extract.errors import CorpusError
from features_store import Index, Labels, Split
from features_store.schema import KINDS


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read a table and the places of its images.

    Raises CorpusError.
    """
    table = open_listing(data, options["file"], options["root"])
    rows = _rows(table, options)
    names = [
        table.relative(rows.cell(row, options["image"]) + options["suffix"], line)
        for row, line in enumerate(rows.lines)
    ]
    table.refuse_twice(names, rows.lines)
    none = frozenset(plain(word) for word in options["none"].split("|") if word.strip())
    found = [one for kind in KINDS for one in labels_of(rows, kind, options[kind], none=none)]
    labels = {one.task.name: one for one in found}
    if len(labels) < len(found):
        tasks = [one.task.name for one in found]
        again = next(name for name in tasks if tasks.count(name) > 1)
        msg = f"two tasks are named {again!r}; name them apart with TASK=COLUMN"
        raise CorpusError(msg)
    groups = rows.numbered(options["group"]) if options["group"] else None
    split = split_of(rows, options["split"]) if options["split"] else _own_split(names, labels, groups, options["seed"])
    index = Index(
        np.array(names),
        labels,
        {"default": split},
        groups,
        corpus={"name": "csv", "options": table.recorded(options)},
    )
    notes = () if options["split"] else ("split 'default' is 70/10/20, seeded: no split column was named",)
    cased = [twins_in_case(one.task.classes) for one in found if one.task.kind != "regression"]
    return Reading(index, Pictures(table.root).source(names), (*notes, *filter(None, cased)))


def _rows(table: Listing, options: Mapping[str, Any]) -> Rows:
    try:
        text = table.data.decode(options["encoding"])
        # Old tables end their lines with a carriage return alone.
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        found = list(rows_of_cells(text, delimiter=options["delimiter"].replace("\\t", "\t")))
    except (UnicodeDecodeError, LookupError) as error:
        msg = f"{table.name} cannot be read: {error}; name its --option encoding="
        raise CorpusError(msg) from error
    except BrokenTableError as error:
        where = f", line {error.line}" if error.line else ""
        msg = f"{table.name}{where} cannot be read: {error}; --option delimiter= names another delimiter"
        raise CorpusError(msg) from error
    if len(found) < 2:
        msg = f"{table.name} needs a header and at least one row; it has {len(found)} lines that are not empty"
        raise CorpusError(msg)
    header = found[0][1]
    for line, cells in found[1:]:
        if misfit := width_misfit(cells, header):
            msg = (
                f"{table.name}, line {line}: {misfit}: {options['delimiter'].join(cells)[:200]!r}; put a cell that "
                "holds the delimiter into quotes, or give --option delimiter="
            )
            raise CorpusError(msg)
    return Rows(table.name, header, [cells for _, cells in found[1:]], [line for line, _ in found[1:]])


def _own_split(ids: Sequence[str], labels: Mapping[str, Labels], groups: Any, seed: int) -> Split:
    """Part by the first single-label task; whole groups stay together."""
    single = next((one.values for one in labels.values() if one.task.kind == "single"), np.zeros(len(ids), np.int16))
    return Split("default", grouped(ids, single.tolist(), groups, seed=seed), source="made")


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
        "none": Option("", "words parted by | that mean no label, as NA|nan; an empty cell always does"),
        "delimiter": Option(",", "one character, or \\t"),
        "encoding": Option("utf-8-sig", "of the table, such as latin-1"),
        "seed": Option(0, "seed of the split where no column gives one", minimum=0),
    },
)
