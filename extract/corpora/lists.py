"""A text file that lists images, one path a line, with or without a label behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.listing import Listing, open_listing
from extract.corpora.partition import stratified
from extract.corpora.pictures import Pictures
from extract.corpora.vocabulary import class_codes, twins_in_case
from extract.errors import CorpusError
from features_store import Index, Labels, Split, Task


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read a list; a line is ``PATH`` or ``PATH<tab>CLASS``, empty lines do not count.

    Raises CorpusError.
    """
    listing = open_listing(data, options["file"], options["root"])
    lines = _lines(listing)
    numbers = [number for number, _ in lines]
    names = [listing.relative(cells[0], number) for number, cells in lines]
    listing.refuse_twice(names, numbers)
    classes, values = class_codes([cells[1].strip() if len(cells) > 1 else "" for _, cells in lines], listing.name)
    task = options["task"]
    labels = (
        {task: Labels(Task(task, "single", classes, source="second column of the list"), values)} if classes else {}
    )
    index = Index(
        np.array(names),
        labels,
        {"default": Split("default", stratified(names, values.tolist(), seed=options["seed"]), source="made")},
        corpus={"name": "list", "options": listing.recorded(options)},
    )
    notes = ("split 'default' is 70/10/20, by class and seed", twins_in_case(classes))
    return Reading(index, Pictures(listing.root).source(names), tuple(filter(None, notes)))


def _lines(listing: Listing) -> list[tuple[int, list[str]]]:
    """Return the cells of each line that is not empty, with its number in the file."""
    try:
        text = listing.data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        msg = f"{listing.name} is no UTF-8 text: {error.reason}; save it as UTF-8"
        raise CorpusError(msg) from error
    lines = [(number, line.split("\t")) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        msg = f"{listing.name} names no image; write one path a line, and a class behind a tab if there is one"
        raise CorpusError(msg)
    for number, cells in lines:
        if len(cells) > 2:
            msg = f"{listing.name}, line {number}: {len(cells)} cells; write a path, and a class behind one tab"
            raise CorpusError(msg)
    return lines


CORPUS = Corpus(
    name="list",
    title="your own images, listed in a text file",
    obtain="give the list, or the folder, tar or zip that holds it, with --data; a line is PATH or PATH<tab>CLASS",
    licence="yours",
    citation="",
    reader=read,
    tasks={"label": "single: what stands behind the tab (its name is the option `task`)"},
    splits={"default": "70/10/20, stratified by class, seeded"},
    options={
        "file": Option("images.txt", "the list, inside --data"),
        "root": Option(".", "folder, tar or zip of the images, relative to the list"),
        "task": Option("label", "name of the task"),
        "seed": Option(0, "seed of the split", minimum=0),
    },
)
