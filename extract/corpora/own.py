"""Your own images: a folder of class folders, a CSV table, or a list of paths.

`extract corpora csv` describes the options of a table. An empty cell is no label; every other word is a label, unless
`none` names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Dataset, labelled
from extract.corpora.labels import case_note, class_codes, labels_of_columns, single
from extract.corpora.pictures import Pictures
from extract.corpora.splits import PARTS, seeded_split
from extract.corpora.tables import Table, plain_cell, read_table
from extract.corpora.texts import read_text, refuse_twice
from extract.errors import CorpusError
from extract.inputs.disk import left_out_words
from extract.inputs.files import canonical, place_of
from extract.inputs.images import SUFFIXES
from extract.inputs.trees import Tree, open_tree
from features_store import Split
from features_store.label_kinds import LABEL_KINDS
from features_store.schema import repeated_name

LAYOUTS = ("auto", "parts", "classes")
_SHOWN = 5  # names in a message
_WORDS = re.compile("[a-z]+")
_ARCHIVES = (".tar", ".zip")


# ---- a folder -------------------------------------------------------------------------------------------------------


def read_folder(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read a folder, tar or zip: sub-folders are classes, or ``train/``, ``val/``, ``test/`` above class folders."""
    if options["layout"] not in LAYOUTS:
        raise CorpusError(f"option 'layout' of corpus 'folder' is {', '.join(LAYOUTS)}; got {options['layout']!r}")
    tree = _without_top(open_tree(data))
    census, place = tree.census(), tree.place
    if not census.images:
        left = f" ({left_out_words(census.left_out)})" if census.left_out else ""
        raise CorpusError(
            f"--data {place} holds no image file; it needs one sub-folder per class, or train/, val/, test/ above "
            f"them{left}"
        )
    parted = _has_parts(place, census.images, options["layout"])
    strays = [path for path in census.images if parted and path.split("/")[0].lower() not in PARTS]
    ids = [path for path in census.images if not parted or path.split("/")[0].lower() in PARTS]
    folders = [path.split("/")[:-1] for path in ids]
    words = [_class_of(path, parted=parted) for path in folders]
    if options["layout"] == "auto" and (named := sorted({word for word in words if word.lower() in PARTS})):
        raise CorpusError(
            f"{place}: the class folder {named[0]!r} is named like a part of a split; say --option layout=parts or "
            "--option layout=classes if that is meant, or rename it"
        )
    classes, values = class_codes(words, f"the folders of {place}")
    if parted:
        split = Split("default", np.array([PARTS[path[0].lower()] for path in folders]), source="published")
    else:
        split = seeded_split("default", ids, values, seed=options["seed"])
    lost = sorted({_class_of(folder.split("/"), parted=parted) for folder in census.folders} - {"", *classes})
    n_unlabelled, more = int((values < 0).sum()), f" and {len(strays) - _SHOWN} more" if len(strays) > _SHOWN else ""
    notes = [
        "" if parted else "split 'default' is 70/10/20, by class and seed: the folder has no train/val/test",
        f"{n_unlabelled} images lie in no class folder and have no label" if n_unlabelled else "",
        f"left out, beside the folders of the parts: {', '.join(strays[:_SHOWN])}{more}" if strays else "",
        case_note(classes),
        f"no readable picture lies in the class folders {', '.join(lost[:_SHOWN])}" if lost else "",
        f"{census.n_escaped} file names are not UTF-8; in ids their bytes are written %XX" if census.n_escaped else "",
    ]
    below = sorted({path[1] for path in folders if len(path) > 1}) if len(classes) == 1 and not parted else []
    if len(below) > 1:
        inner, listed = place / classes[0], ", ".join(below[:_SHOWN])
        notes.append(
            f"every image has the class {classes[0]!r}; if its folders are the classes ({listed}), give {inner}"
        )
    left_out = {**census.left_out, **({"beside train/, val/, test/": len(strays)} if strays else {})}
    labels = [single(options["task"], classes, values, "names of the folders")] if classes else []
    array = np.array(ids)
    return labelled(
        name, options, array, tree.source(array), labels=labels, splits=[split], notes=notes, left_out=left_out
    )


def _class_of(folders: Sequence[str], *, parted: bool) -> str:
    return "".join(folders[1:2] if parted else folders[:1])


def _has_parts(place: Any, images: Sequence[str], layout: str) -> bool:
    """Tell whether the top folders are parts; the folders decide, whatever files lie beside them."""
    inside: dict[str, int] = {}  # of each top folder: the images in sub-folders, which would be classes
    for path in images:
        top, *below = path.split("/")
        if below:
            inside[top] = inside.get(top, 0) + (len(below) > 1)
    parts = [top for top in inside if top.lower() in PARTS]
    others = [top for top in inside if top.lower() not in PARTS]
    if layout == "parts" and not parts:
        raise CorpusError(
            f"--option layout=parts: {place} has no folder named like a part ({', '.join(PARTS)}); use layout=classes"
        )
    if layout != "auto":
        return layout == "parts"
    if not parts:
        _refuse_hidden_parts(place, images)
    codes = {PARTS[top.lower()] for top in parts if inside[top]}
    if not parts or not others or (0 in codes and len(codes) > 1):
        return bool(parts)
    raise CorpusError(
        f"{place}: the folder {parts[0]!r} is named like a part of a split, and beside it lie others "
        f"({', '.join(map(repr, others[:_SHOWN]))}); say --option layout=classes if all are classes, or "
        "--option layout=parts if only the parts are to be read"
    )


def _refuse_hidden_parts(place: Any, images: Sequence[str]) -> None:
    """Refuse folders that hold a split which a new draw would mix: ``a/train``, ``a/test``, or ``train_set``."""
    named: dict[str, str] = {}
    for folder in sorted({path.rpartition("/")[0] for path in images}):
        tops = folder.split("/")
        for depth, top in enumerate(tops, start=1):
            for word in PARTS.keys() & _WORDS.findall(top.lower()):
                named.setdefault(word, "/".join(tops[:depth]))
    codes = {PARTS[word] for word in named}
    if 0 in codes and len(codes) > 1:
        raise CorpusError(
            f"{place}: folders are named like parts of a split ({', '.join(sorted({*named.values()}))}), but do not "
            "lie as train/CLASS/ and test/CLASS/; arrange them so, name the part of each image in a table (corpus "
            "`csv`, --option split=COLUMN), or say --option layout=classes if a new split is to be drawn"
        )


def _without_top(tree: Tree) -> Tree:
    """Enter the one top folder that archives are often packed with, and one that alone holds parts."""
    names = [path for path in tree.images() if "/" in path]
    tops = {path.split("/", 1)[0] for path in names}
    if len(tops) != 1 or min(tops).lower() in PARTS:
        return tree
    seconds = {path.split("/", 2)[1].lower() for path in names if path.count("/") > 1}
    packed = not tree.on_disk and len(names) == len(tree.images())
    all_deeper = min(path.count("/") for path in names) > 1
    return tree.below(min(tops)) if (packed and all_deeper) or len(seconds & PARTS.keys()) > 1 else tree


# ---- a table and a list ---------------------------------------------------------------------------------------------


def read_csv(name: str, data: Any, options: Mapping[str, Any]) -> Dataset:
    """Read a table of single-label, multi-label and regression columns, mapped by options."""
    tree, path, images = _open_table(data, options)
    table = read_table(
        tree,
        path,
        delimiter=options["delimiter"].replace("\\t", "\t"),
        encoding=options["encoding"],
        own=True,
        remedy="put a cell that holds the delimiter into quotes, or name the delimiter with --option delimiter=",
    )
    column = table.position(options["image"], case=True)
    table.refuse_swallowed(
        column,
        lambda cell: os.path.splitext(cell)[1].lower() in SUFFIXES or images.has(canonical(cell + options["suffix"])),
    )
    cells = table.cells(column)
    suffixed = [cell + options["suffix"] for cell in cells]
    names = [_image_path(images, cell, table.place, line) for cell, line in zip(suffixed, table.lines, strict=True)]
    table.refuse_twice(names)
    none = frozenset(plain_cell(word) for word in options["none"].split("|") if word.strip())
    labels = [one for kind in LABEL_KINDS for one in labels_of_columns(table, kind, options[kind], none=none)]
    tasks = [one.task.name for one in labels]
    if (again := repeated_name(tasks)) is not None:
        raise CorpusError(f"two tasks are named {again!r}; give them different names with TASK=COLUMN")
    groups = _group_numbers(table, options["group"]) if options["group"] else None
    if options["split"]:
        split = _split_of_column(table, options["split"])
    else:
        strata = next((one.values for one in labels if one.values.ndim == 1), np.zeros(len(names), np.int16))
        split = seeded_split("default", names, strata, seed=options["seed"], groups=groups)
    notes = [case_note(one.task.classes) for one in labels if one.task.form.has_classes]
    notes.insert(0, "" if options["split"] else "split 'default' is 70/10/20, seeded: no split column was named")
    recorded, files = _recorded(data, options), Pictures(images).files(names)
    return labelled(name, recorded, names, files, labels=labels, splits=[split], groups=groups, notes=notes)


def read_list(name: str, data: Any, options: Mapping[str, Any]) -> Dataset:
    """Read a list; a line is ``PATH`` or ``PATH<tab>CLASS``, empty lines do not count."""
    tree, path, images = _open_table(data, options)
    place, text = tree.place / path, read_text(tree, path, "utf-8-sig")
    numbered = [(number, row.split("\t")) for number, row in enumerate(text.split("\n"), start=1) if row.strip()]
    if not numbered:
        raise CorpusError(f"{place} names no image; write one path a line, and a class behind a tab if there is one")
    for number, cells in numbered:
        if len(cells) > 2:
            raise CorpusError(f"{place}, line {number}: {len(cells)} cells; write a path, and a class behind one tab")
    names = [_image_path(images, cells[0], place, number) for number, cells in numbered]
    refuse_twice(place, names, [number for number, _ in numbered], own=True)
    classes, values = class_codes(["".join(cells[1:]).strip() for _, cells in numbered], place)
    return labelled(
        name,
        _recorded(data, options),
        names,
        Pictures(images).files(names),
        labels=[single(options["task"], classes, values, "second column of the list")] if classes else [],
        splits=[seeded_split("default", names, values, seed=options["seed"])],
        notes=["split 'default' is 70/10/20, by class and seed", case_note(classes)],
    )


def _table_of_data(data: Any, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the folder or archive that holds the table, and the table's path in it: --data may be the table itself."""
    place = place_of(data)
    if place.is_file() and not place.name.lower().endswith(_ARCHIVES):
        return place.parent, place.name
    return place, options["file"]


def _open_table(data: Any, options: Mapping[str, Any]) -> tuple[Tree, str, Tree]:
    """Open the tree of a table, and that of the images which it names; return both, the table's path between them."""
    place, file = _table_of_data(data, options)
    tree = open_tree(place) if place.is_dir() or place.is_file() else None
    if tree is None or not tree.has(file):
        raise CorpusError(
            f"there is no table {place / file}; give the file with --data, or name it with --option file=NAME"
        )
    folder, root = file.rpartition("/")[0], options["root"]
    if not place.is_dir():
        inside = os.path.normpath(f"{folder}/{root}".lstrip("/")).replace(os.sep, "/")
        return tree, file, tree.below("" if inside == "." else inside)
    below = place / folder / root if folder else place / root  # anywhere that a path can name
    if not below.is_dir() and not below.is_file():
        raise CorpusError(f"there is no folder {below} of images; name it with --option root=FOLDER")
    return tree, file, open_tree(below)


def _recorded(data: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with which a table can be read again, whether --data was the table or its folder."""
    known = {**options, "file": _table_of_data(data, options)[1]}
    return {key: value for key, value in known.items() if (key, value) != ("root", ".")}


def _image_path(images: Tree, cell: str, table: Any, line: int) -> str:
    """Return the canonical path of an image below the folder of the images."""
    path = cell.strip().replace("\\", "/")
    if os.path.isabs(path) and images.on_disk:
        try:
            path = Path(path).relative_to(images.place.resolve()).as_posix()
        except ValueError as error:
            raise CorpusError(
                f"{table}, line {line}: image {cell!r} lies outside {images.place}; name its folder with "
                "--option root=FOLDER"
            ) from error
    path = os.path.normpath(path).replace(os.sep, "/")
    if path in (".", "..") or path.startswith(("../", "/")):
        raise CorpusError(f"{table}, line {line}: {cell!r} names no image below {images.place}; write a relative path")
    return canonical(path)


def _split_of_column(table: Table, column: str) -> Split:
    """Read names of parts, or numbers of folds; an empty cell is unused."""
    at = table.position(column, case=True)
    cells = [cell.lower() for cell in table.cells(at)]
    if all(re.fullmatch("[0-9]{1,6}", cell) for cell in cells if cell):
        return Split("default", np.array([int(cell) if cell else -1 for cell in cells]), "folds", "published")
    for row, cell in enumerate(cells):
        if cell and cell not in PARTS:
            table.refuse(row, f"a part ({', '.join(PARTS)}), or a fold number in every row,", cell, column=at)
    return Split("default", np.array([PARTS[cell] if cell else -1 for cell in cells]), source="published")


def _group_numbers(table: Table, column: str) -> NDArray[np.int64]:
    """Number the values of a column as groups; an empty cell is -1: (n_rows,) int64."""
    numbers: dict[str, int] = {}
    cells = table.cells(table.position(column, case=True))
    return np.array([numbers.setdefault(cell, len(numbers)) if cell else -1 for cell in cells], dtype=np.int64)
