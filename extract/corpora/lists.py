"""A text file that lists images, one path a line, with or without a label behind it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.listing import Listing, open_listing
from extract.corpora.partition import stratified
from extract.corpora.record import Corpus, Option, Reading
from extract.errors import CorpusError
from features_store import Index, Labels, Split, Task


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read a list; a line is ``PATH`` or ``PATH<tab>CLASS``, empty lines do not count.

    Parameters
    ----------
    data : Path
        The list, or the folder or archive that holds it.
    options : mapping
        ``file``, ``root``, ``task`` (str), ``seed`` (int).

    Raises
    ------
    CorpusError
        If the list names no image, or one twice.
    """
    listing = open_listing(data, options["file"], options["root"])
    lines = [line.split("\t") for line in _lines(listing)]
    names = [listing.relative(line[0]) for line in lines]
    ids = np.array([unicodedata.normalize("NFC", name) for name in names])
    _refuse_twice(listing, ids.tolist())
    words = [line[1].strip() if len(line) > 1 else "" for line in lines]
    classes = tuple(sorted(set(words) - {""}))
    position = {name: at for at, name in enumerate(classes)}
    values = np.array([position.get(word, -1) for word in words], dtype=np.int16)
    task = options["task"]
    labels = (
        {task: Labels(Task(task, "single", classes, source="second column of the list"), values)} if classes else {}
    )
    parts = stratified(ids.tolist(), values.tolist(), seed=options["seed"])
    recorded = {key: value for key, value in options.items() if key != "root"}
    index = Index(ids, labels, {"default": Split("default", parts)}, corpus={"name": "list", "options": recorded})
    notes = ("split 'default' is 70/10/20, by class and seed",)
    return Reading(index, listing.root.source(np.array(names)), notes)


def _lines(listing: Listing) -> list[str]:
    try:
        lines = [line for line in listing.data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        msg = f"{listing.name} is no UTF-8 text: {error.reason}; save it as UTF-8"
        raise CorpusError(msg) from error
    if not lines:
        msg = f"{listing.name} names no image; write one path a line, and a class behind a tab if there is one"
        raise CorpusError(msg)
    return lines


def _refuse_twice(listing: Listing, ids: list[str]) -> None:
    seen: set[str] = set()
    for image_id in ids:
        if image_id in seen:
            msg = f"{listing.name} names {image_id!r} twice; keep one line of each image"
            raise CorpusError(msg)
        seen.add(image_id)


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
