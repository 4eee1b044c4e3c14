"""A folder of images, or a tar or zip of it: sub-folders are classes, or ``train/``, ``val/``, ``test/`` above them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.partition import stratified
from extract.corpora.record import Corpus, Option, Reading
from extract.errors import CorpusError
from extract.trees import Folder, Tree, open_tree
from features_store import Index, Labels, Split, Task

PARTS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2}
"""Names of the folders (and, in tables, of the values) that mean a part of a split."""


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read a folder; class names are the names of the sub-folders.

    Parameters
    ----------
    data : Path
        A folder, or a tar or zip of it.
    options : mapping
        ``task`` (str), ``seed`` (int).

    Raises
    ------
    CorpusError
        If the folder is not there, or holds no image.
    """
    tree = _without_top(open_tree(data))
    names = _images(tree)
    ids = np.array([unicodedata.normalize("NFC", name) for name in names])
    folders = [image_id.split("/")[:-1] for image_id in ids.tolist()]
    # Parts only if every top folder is one: a class may be called "test", but then not all of them are parts.
    given = all(path and path[0].lower() in PARTS for path in folders)
    classes_of = [path[1:2] if given else path[:1] for path in folders]
    classes = tuple(sorted({path[0] for path in classes_of if path}))
    position = {name: at for at, name in enumerate(classes)}
    values = np.array([position[path[0]] if path else -1 for path in classes_of], dtype=np.int16)
    if given:
        parts = np.array([PARTS[path[0].lower()] for path in folders], dtype=np.int8)
    else:
        parts = stratified(ids.tolist(), values.tolist(), seed=options["seed"])
    task = options["task"]
    labels = {task: Labels(Task(task, "single", classes, source="names of the folders"), values)} if classes else {}
    split, origin = Split("default", parts), {"name": "folder", "options": dict(options)}
    index = Index(ids, labels, {"default": split}, corpus=origin)
    return Reading(index, tree.source(np.array(names)), _notes(values, given=given))


def _images(tree: Tree) -> list[str]:
    names = tree.images()
    if not names:
        msg = (
            f"--data {tree.place} holds no image file; it needs one sub-folder per class, or train/, val/, test/ above "
            "them"
        )
        raise CorpusError(msg)
    return names


def _without_top(tree: Tree) -> Tree:
    """Go into the one folder that archives are often packed with; it is neither a class nor a part."""
    names = [] if isinstance(tree, Folder) else tree.images()
    tops = {name.split("/", 1)[0] for name in names}
    if len(tops) != 1 or min(name.count("/") for name in names) < 2 or min(tops).lower() in PARTS:
        return tree
    return tree.below(min(tops))


def _notes(values: NDArray[np.int16], *, given: bool) -> tuple[str, ...]:
    notes = [] if given else ["split 'default' is 70/10/20, by class and seed: the folder has no train/val/test"]
    unlabelled = int((values < 0).sum())
    if unlabelled:
        notes.append(f"{unlabelled} images lie in no class folder and have no label")
    return tuple(notes)


CORPUS = Corpus(
    name="folder",
    title="your own images, one sub-folder per class",
    obtain="give the folder, or a tar or zip of it, with --data: CLASS/*.jpg, or {train,val,test}/CLASS/*.jpg",
    licence="yours",
    citation="",
    reader=read,
    tasks={"label": "single: the name of the sub-folder (its name is the option `task`)"},
    splits={"default": "train/, val/, test/ where they are there; else 70/10/20, stratified by class, seeded"},
    options={
        "task": Option("label", "name of the task"),
        "seed": Option(0, "seed of the split where the folder has none", minimum=0),
    },
)
