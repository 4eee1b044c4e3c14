"""Labels of a corpus: the vocabularies of the field, the maps between them, and columns of a user's table as labels."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from extract.corpora.tables import NUMBER, Table
from extract.errors import CorpusError
from extract.inputs.trees import Tree
from features_store import Labels, Task
from features_store.schema import MAX_CLASSES

POLARITY = ("negative", "neutral", "positive")
BINARY = ("negative", "positive")
EKMAN = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
MIKELS = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
EMOTION_POLARITY = {
    **dict.fromkeys(("amusement", "awe", "contentment", "excitement", "joy", "surprise"), "positive"),
    **dict.fromkeys(("anger", "disgust", "fear", "sadness"), "negative"),
}
"""Polarity of Mikels' and of Ekman's emotions."""
SPELLINGS = {"sad": "sadness", "content": "contentment", "happiness": "joy", "happy": "joy"}
VALENCE_AROUSAL = ("valence", "arousal")
_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
_LIKELY_NONE = ("nan", "na", "n/a", "null", "none", "-", ".", "?")  # only to word an error


def emotion_word(word: str) -> str:
    """Return the vocabulary's word for an emotion, from the spellings that corpora use."""
    plain = word.strip().strip("'\"").lower()
    return SPELLINGS.get(plain, plain)


# ---- labels from values ---------------------------------------------------------------------------------------------


def single(name: str, classes: Sequence[str], values: Any, source: str) -> Labels:
    """Make single-label labels; `values` are positions in `classes`, -1 = none."""
    return Labels(Task(name, "single", tuple(classes), source=source), np.asarray(values, dtype=np.int16))


def ratings(
    values: Any, ends: tuple[float, float], source: str, *, name: str = "", outputs: Sequence[str] = VALENCE_AROUSAL
) -> Labels:
    """Make regression labels, (n_images, n_outputs); without a name: valence and arousal."""
    task = Task(name or "valence_arousal", "regression", tuple(outputs), ends, source)
    return Labels(task, np.asarray(values, dtype=np.float32))


def emotions(classes: Sequence[str], values: Any, source: str) -> list[Labels]:
    """Make the tasks ``emotion`` and ``polarity``; an emotion without polarity, such as neutral, has no label there."""
    emotion = single("emotion", classes, values, source)
    return [emotion, mapped(emotion, EMOTION_POLARITY, BINARY, name="polarity")]


def emotion_votes(classes: Sequence[str], votes: NDArray[Any], source: str) -> list[Labels]:
    """Make the tasks ``emotion`` (the most votes), ``polarity`` and ``distribution``; votes: (n_images, n_classes)."""
    spread = ratings(shares(votes), (0.0, 1.0), "shares of the votes", name="distribution", outputs=classes)
    return [*emotions(classes, majority(votes), source), spread]


def majority(votes: NDArray[Any]) -> NDArray[np.int16]:
    """Return the position of the most votes per row, (n_images,) int16; -1 for a tie or no votes."""
    top = votes.max(axis=1, keepdims=True)
    unique = ((votes == top).sum(axis=1) == 1) & (top[:, 0] > 0)
    return np.where(unique, votes.argmax(axis=1), -1).astype(np.int16)


def shares(votes: NDArray[Any]) -> NDArray[np.float64]:
    """Return each row divided by its sum; NaN where the sum is 0."""
    totals = votes.sum(axis=1, keepdims=True).astype(float)
    return np.divide(votes, totals, out=np.full(votes.shape, np.nan), where=totals > 0)


def mapped(labels: Labels, to: Mapping[str, str], classes: Sequence[str], *, name: str) -> Labels:
    """Translate single-label labels into another vocabulary; classes that `to` does not name lose their label."""
    table = [classes.index(to[one]) if one in to else -1 for one in labels.task.classes]
    values = np.array([*table, -1], dtype=np.int16)[labels.values]  # the last entry is for -1
    pairs = ", ".join(f"{one} > {to[one]}" for one in labels.task.classes if one in to)
    return single(name, classes, values, f"{labels.task.source}; {pairs}")


def groups_of(keys: Sequence[str]) -> NDArray[np.int64]:
    """Number equal keys by first occurrence: (n_images,) int64; a key that occurs once, or an empty one, is -1."""
    counts = Counter(keys)
    number = {key: at for at, key in enumerate(key for key, n in counts.items() if key and n > 1)}
    return np.fromiter((number.get(key, -1) for key in keys), np.int64, len(keys))


def class_codes(words: Sequence[str], place: object) -> tuple[tuple[str, ...], NDArray[np.int16]]:
    """Sort the words of a column into classes, in Unicode form NFC; an empty word is no label, -1.

    Raises CorpusError.
    """
    plain = [unicodedata.normalize("NFC", word) for word in words]
    classes = tuple(sorted(set(plain) - {""}))
    if len(classes) > MAX_CLASSES:
        raise CorpusError(
            f"{place}: {len(classes)} classes; at most {MAX_CLASSES} can be stored (is it a column of names?)"
        )
    position = {name: at for at, name in enumerate(classes)}
    return classes, np.array([position.get(word, -1) for word in plain], dtype=np.int16)


def case_note(classes: Sequence[str]) -> str:
    """Return the note on classes that differ only in case, or ""."""
    folded = Counter(one.casefold() for one in classes)
    pairs = [one for one in classes if folded[one.casefold()] > 1]
    return f"classes that differ only in case are kept apart: {', '.join(pairs[:10])}" if pairs else ""


def find_class_folders(tree: Tree, classes: Sequence[str]) -> tuple[str, list[str], NDArray[np.int16]]:
    """Find the images in folders named after classes: the folder above those, the names below it, and the classes.

    Raises CorpusError.
    """
    by_root: dict[str, list[tuple[str, int]]] = {}
    for path in tree.images():
        folders = path.split("/")[:-1]
        for depth, folder in enumerate(folders):
            if emotion_word(folder) in classes and (depth == 0 or folders[depth - 1] != "ground_truth"):
                root = "/".join(folders[:depth])
                name = path[len(root) + 1 :] if root else path
                by_root.setdefault(root, []).append((name, classes.index(emotion_word(folder))))
                break
    if not by_root:
        raise CorpusError(
            f"{tree.place} holds no image in a folder named after a class ({', '.join(classes)}); give the folder "
            "above those, or read your own folders with corpus `folder`"
        )
    root = max(sorted(by_root), key=lambda one: len(by_root[one]))
    found = sorted(by_root[root])
    return root, [name for name, _ in found], np.array([value for _, value in found], dtype=np.int16)


def left_out_of_folders(tree: Tree, n_used: int) -> dict[str, int]:
    """Count by reason what a corpus of class folders does not read."""
    n_others = len(tree.images()) - n_used
    return {**tree.census().left_out, **({"in no folder of a class": n_others} if n_others else {})}


# ---- labels from columns of a user's table --------------------------------------------------------------------------


def labels_of_columns(table: Table, kind: str, option: str, *, none: Set[str]) -> list[Labels]:
    """Read the tasks of one kind from an option such as ``TASK=COLUMN|COLUMN@1..9``, several separated by commas.

    Raises CorpusError.
    """
    found: list[Labels] = []
    for text in filter(None, (one.strip() for one in option.split(","))):
        task, equals, titles = text.partition("=")
        titles = titles if equals else task
        scale = re.fullmatch(r"(.*)@([^@]*\.\.[^@]*)", titles) if kind == "regression" else None
        titles = scale[1] if scale else titles
        columns = [one.strip() for one in titles.split("|")]
        # A column title may hold what the name of a task may not; the task is then named after what is left of it.
        name = task.strip() if equals else re.sub(r"[^A-Za-z0-9_.-]+", "_", columns[0]).strip("_.-")
        if kind == "regression":
            ends = scale_ends(scale[2], f"the scale of {text!r}") if scale else None
            found.append(_regression(table, name, columns, ends, none))
        else:
            found.append((_single if kind == "single" else _multi)(table, name, columns, none))
    return found


def _cells(table: Table, column: str, none: Set[str]) -> list[str]:
    """Return the cells of a column, "" where there is no label.

    Raises CorpusError.
    """
    cells = ["" if cell in none else cell for cell in table.cells(table.position(column, case=True))]
    if not any(cells):
        raise CorpusError(f"{table.place}: column {column!r} holds no label; is it the right one?")
    return cells


def _refuse(table: Table, row: int, column: str, expected: str, found: str) -> NoReturn:
    hint = f"if it means no label, give --option none={found}" if found.lower() in _LIKELY_NONE else ""
    table.refuse(row, expected, found, hint, column=table.position(column, case=True))


def _single(table: Table, task: str, columns: Sequence[str], none: Set[str]) -> Labels:
    if len(columns) > 1:
        raise CorpusError(
            f"single={task}={'|'.join(columns)} names {len(columns)} columns, and a single label has one; several "
            "columns of 0 and 1 are --option multi="
        )
    classes, values = class_codes(_cells(table, columns[0], none), f"{table.place}, column {columns[0]!r}")
    return single(task, classes, values, f"column {columns[0]}")


def _multi(table: Table, task: str, columns: Sequence[str], none: Set[str]) -> Labels:
    """Read columns of 0 and 1, or one column of names separated by ; or |."""
    cells = [_cells(table, column, none) for column in columns]
    if len(columns) == 1 and not all(cell.lower() in (*_TRUE, *_FALSE) for cell in cells[0] if cell):
        words = [[one.strip() for one in re.split(r"[;|]", cell) if one.strip()] for cell in cells[0]]
        classes = tuple(sorted({one for names in words for one in names}))
        values = [[name in names for name in classes] if names else [255] * len(classes) for names in words]
        source = f"names in column {columns[0]}"
        return Labels(Task(task, "multi", classes, source=source), np.array(values).astype(np.uint8))
    codes = np.full((len(table), len(columns)), 255, dtype=np.uint8)
    for row, given in enumerate(zip(*cells, strict=True)):
        for at, cell in enumerate(given if any(given) else ()):
            if cell.lower() not in _TRUE + _FALSE:
                _refuse(table, row, columns[at], "0 or 1 (all empty for an image without labels)", cell)
            codes[row, at] = cell.lower() in _TRUE
    return Labels(Task(task, "multi", tuple(columns), source=f"columns {', '.join(columns)}"), codes)


def _regression(
    table: Table, task: str, columns: Sequence[str], ends: tuple[float, float] | None, none: Set[str]
) -> Labels:
    """Read columns of numbers; without `ends` the scale runs from the smallest to the largest of them."""
    values = np.full((len(table), len(columns)), np.nan, dtype=np.float32)
    for at, column in enumerate(columns):
        for row, cell in enumerate(_cells(table, column, none)):
            if cell and not NUMBER.fullmatch(cell):
                _refuse(table, row, column, "a number", cell)
        values[:, at] = table.numbers(table.position(column, case=True), empty=("", *none), comma=False)
    source = f"columns {', '.join(columns)}"
    if ends is None:
        known = values[np.isfinite(values)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        ends = (low, high) if low < high else (low - 0.5, low + 0.5)
        source += "; scale = observed ends"
    outside = np.argwhere((values < ends[0]) | (values > ends[1]))
    if len(outside):
        row, at = outside[0].tolist()
        _refuse(table, row, columns[at], f"a value within the scale {ends[0]:g}..{ends[1]:g}", f"{values[row, at]:g}")
    return Labels(Task(task, "regression", tuple(columns), ends, source), values)


def scale_ends(text: str, what: str) -> tuple[float, float]:
    """Read the ends of a scale, ``LOW..HIGH``.

    Raises CorpusError.
    """
    low, _, high = (one.strip() for one in text.partition(".."))
    if not (NUMBER.fullmatch(low) and NUMBER.fullmatch(high)) or not -math.inf < float(low) < float(high) < math.inf:
        raise CorpusError(f"{what} must be LOW..HIGH, as in 1..9; got {text!r}")
    return float(low), float(high)
