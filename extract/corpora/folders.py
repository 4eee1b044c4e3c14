"""A folder of images, or a tar or zip of it: sub-folders are classes, or ``train/``, ``val/``, ``test/`` above them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.partition import stratified
from extract.corpora.vocabulary import class_codes, twins_in_case
from extract.errors import CorpusError
from extract.inputs.disk import left_out_words
from extract.inputs.trees import Tree, open_tree
from features_store import Index, Labels, Split, Task

PARTS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2}
"""Names of the folders (and, in tables, of the values) that mean a part of a split."""


LAYOUTS = ("auto", "parts", "classes")
_SHOWN = 5  # names in a message


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read a folder; class names are the names of the sub-folders.

    Raises CorpusError.
    """
    if options["layout"] not in LAYOUTS:
        msg = f"option 'layout' of corpus 'folder' is {', '.join(LAYOUTS)}; got {options['layout']!r}"
        raise CorpusError(msg)
    tree = _without_top(open_tree(data))
    census, place = tree.census(), tree.place
    if not census.images:
        left = f" ({left_out_words(census.left_out)})" if census.left_out else ""
        msg = (
            f"--data {place} holds no image file; it needs one sub-folder per class, or train/, val/, test/ above "
            f"them{left}"
        )
        raise CorpusError(msg)
    given = _has_parts(place, census.images, options["layout"])
    ids = [name for name in census.images if not given or name.split("/")[0].lower() in PARTS]
    folders = [image_id.split("/")[:-1] for image_id in ids]
    words = [_class_of(path, given=given) for path in folders]
    if options["layout"] == "auto":
        _refuse_parts(place, words)
    classes, values = class_codes(words, f"the folders of {place}")
    if given:
        parts = np.array([PARTS[path[0].lower()] for path in folders], dtype=np.int8)
    else:
        parts = stratified(ids, values.tolist(), seed=options["seed"])
    task = options["task"]
    labels = {task: Labels(Task(task, "single", classes, source="names of the folders"), values)} if classes else {}
    index = Index(
        np.array(ids),
        labels,
        {"default": Split("default", parts, source="published" if given else "made")},
        corpus={"name": "folder", "options": dict(options)},
    )
    strays = [name for name in census.images if given and name.split("/")[0].lower() not in PARTS]
    notes = _notes(classes, values, strays, given=given)
    if lost := sorted({_class_of(folder.split("/"), given=given) for folder in census.folders} - {"", *classes}):
        notes += (f"no picture that is read lies in the class folders {', '.join(lost[:_SHOWN])}",)
    if census.n_escaped:
        notes += (f"{census.n_escaped} file names are not UTF-8; in ids their bytes are written %XX",)
    left_out = {**census.left_out, **({"beside train/, val/, test/": len(strays)} if strays else {})}
    return Reading(index, tree.source(index.ids), notes, left_out)


def _class_of(folders: Sequence[str], *, given: bool) -> str:
    return "".join(folders[1:2] if given else folders[:1])


def _has_parts(place: Any, images: Sequence[str], layout: str) -> bool:
    """Tell whether the top folders are parts; that is decided by the folders, whatever lies beside them.

    Raises CorpusError.
    """
    inside: dict[str, int] = {}  # of the top folders: images in folders of their own, which would be classes
    for name in images:
        top, *below = name.split("/")
        if below:
            inside[top] = inside.get(top, 0) + (len(below) > 1)
    parts = [top for top in inside if top.lower() in PARTS]
    others = [top for top in inside if top.lower() not in PARTS]
    if layout != "auto":
        if layout == "parts" and not parts:
            msg = f"{place} has no folder named like a part ({', '.join(PARTS)}), as --option layout=parts says"
            raise CorpusError(msg)
        return layout == "parts"
    codes = {PARTS[top.lower()] for top in parts if inside[top]}
    if not parts or not others or (0 in codes and len(codes) > 1):
        return bool(parts)
    msg = (
        f"{place}: the folder {parts[0]!r} is named like a part of a split, and beside it lie others "
        f"({', '.join(map(repr, others[:_SHOWN]))}); say --option layout=classes if all are classes, or "
        "--option layout=parts if only the parts are to be read"
    )
    raise CorpusError(msg)


def _refuse_parts(place: Any, words: Sequence[str]) -> None:
    if named := sorted({word for word in words if word.lower() in PARTS}):
        msg = (
            f"{place}: the class folder {named[0]!r} is named like a part of a split; say --option layout=parts or "
            "--option layout=classes if that is meant, or rename it"
        )
        raise CorpusError(msg)


def _without_top(tree: Tree) -> Tree:
    """Go into the one folder that archives are often packed with, and into one that alone holds parts."""
    names = [name for name in tree.images() if "/" in name]
    tops = {name.split("/", 1)[0] for name in names}
    if len(tops) != 1 or min(tops).lower() in PARTS:
        return tree
    seconds = {name.split("/", 2)[1].lower() for name in names if name.count("/") > 1}
    packed = not tree.on_disk and len(names) == len(tree.images())
    all_deeper = min(name.count("/") for name in names) > 1
    return tree.below(min(tops)) if (packed and all_deeper) or len(seconds & PARTS.keys()) > 1 else tree


def _notes(classes: Sequence[str], values: NDArray[np.int16], strays: Sequence[str], *, given: bool) -> tuple[str, ...]:
    notes = [] if given else ["split 'default' is 70/10/20, by class and seed: the folder has no train/val/test"]
    unlabelled = int((values < 0).sum())
    if unlabelled:
        notes.append(f"{unlabelled} images lie in no class folder and have no label")
    if strays:
        more = f" and {len(strays) - _SHOWN} more" if len(strays) > _SHOWN else ""
        notes.append(f"beside the folders of the parts, and left out: {', '.join(strays[:_SHOWN])}{more}")
    if words := twins_in_case(classes):
        notes.append(words)
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
        "layout": Option("auto", "parts: the top folders are parts; classes: they are classes; auto: by their names"),
        "seed": Option(0, "seed of the split where the folder has none", minimum=0),
    },
)
