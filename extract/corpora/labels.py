"""Labels of a corpus: the vocabularies of the field, the maps between them, and columns of a user's table as labels."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from extract.corpora.tables import NUMBER, Table
from extract.errors import CorpusError
from extract.inputs.trees import Tree
from features_store import Labels, Task
from features_store.errors import unknown_name
from features_store.label_kinds import LABEL_KINDS
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
Ends = tuple[float, float] | None  # of a scale
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
    values = _recoded(labels, to, classes)
    pairs = ", ".join(f"{one} > {to[one]}" for one in labels.task.classes if one in to)
    return single(name, classes, values, f"{labels.task.source}; {pairs}")


def _recoded(labels: Labels, to: Mapping[str, str], classes: Sequence[str]) -> NDArray[np.int16]:
    """Return single-label values as positions in other classes; -1 for what `to` does not name."""
    table = [classes.index(to[one]) if one in to else -1 for one in labels.task.classes]
    return np.asarray(np.array([*table, -1], dtype=np.int16)[labels.values])  # the last entry is for -1


def groups_of(keys: Sequence[str]) -> NDArray[np.int64]:
    """Number equal keys by first occurrence: (n_images,) int64; a key that occurs once, or an empty one, is -1."""
    counts = Counter(keys)
    number = {key: at for at, key in enumerate(key for key, n in counts.items() if key and n > 1)}
    return np.fromiter((number.get(key, -1) for key in keys), np.int64, len(keys))


def class_codes(words: Sequence[str], place: object) -> tuple[tuple[str, ...], NDArray[np.int16]]:
    """Sort the words of a column into classes, in Unicode form NFC; an empty word is no label, -1."""
    plain = [unicodedata.normalize("NFC", word) for word in words]
    classes = tuple(sorted(set(plain) - {""}))
    if len(classes) > MAX_CLASSES:
        raise CorpusError(
            f"{place}: {len(classes)} classes; at most {MAX_CLASSES} can be stored (is it a column of names?)"
        )
    position = {name: at for at, name in enumerate(classes)}
    return classes, np.array([position.get(word, -1) for word in plain], dtype=np.int16)


def case_note(classes: Sequence[str]) -> str:
    """Return the note on classes that look alike: but for case, blanks, width, shapeless characters, or 1 and 1.0."""
    folded = [re.sub(r"(\d)\.0+$", r"\1", " ".join(_shown(one, "", form="NFKC").casefold().split())) for one in classes]
    counts = Counter(folded)
    alike = [_shown(one, None) for one, seen in zip(classes, folded, strict=True) if counts[seen] > 1]
    listed = ", ".join(alike[:10])
    return f"classes that look alike are kept apart: {listed}" if alike else ""


def _shown(name: str, put: str | None, *, form: Literal["NFC", "NFKC"] = "NFC") -> str:
    """Replace what has no shape in a name, as a zero-width space has none; None: that and odd blanks by their code."""
    kinds = ("Cf",) if put is not None else ("Cf", "Zs")
    odd = {one for one in name if not one.isascii() and unicodedata.category(one) in kinds}
    return unicodedata.normalize(
        form, "".join((put if put is not None else f"\\u{ord(one):04x}") if one in odd else one for one in name)
    )


def find_class_folders(tree: Tree, classes: Sequence[str]) -> tuple[str, list[str], NDArray[np.int16]]:
    """Find the images in folders named after classes: the folder above those, the names below it, and the classes."""
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


# ---- one task from several corpora ----------------------------------------------------------------------------------

Maps = dict[tuple[str, str], tuple[str, dict[str, str]]]
"""By member and task: the new name of the task, and those of its classes."""


def parse_maps(text: str, members: Sequence[str]) -> Maps:
    """Read comma-separated ``MEMBER.TASK=TASK`` and ``MEMBER.TASK:CLASS>CLASS|CLASS>CLASS``."""
    maps: Maps = {}
    for item in filter(None, (one.strip() for one in text.split(","))):
        head, colon, pairs = item.partition(":")
        place, equals, to = head.partition("=")
        member, dot, task = place.strip().partition(".")
        if member not in members or not dot or not (colon or equals):
            raise CorpusError(
                f"option 'map': {item!r} is neither MEMBER.TASK=TASK nor MEMBER.TASK:CLASS>CLASS|CLASS>CLASS; "
                f"members: {', '.join(members)}"
            )
        renamed, classes = maps.get((member, task), (task, {}))
        for pair in filter(None, pairs.split("|")):
            old, _, new = pair.partition(">")
            classes[old.strip()] = new.strip() or old.strip()
        maps[member, task] = (to.strip() if equals else renamed, classes)
    return maps


def translated(member: str, labels: Mapping[str, Labels], maps: Maps) -> dict[str, Labels]:
    """Return the labels of a member with its tasks and classes renamed."""
    for owner, task in maps:
        if owner == member and task not in labels:
            raise CorpusError(unknown_name(f"task of {member} in option 'map'", task, labels))
    found: dict[str, Labels] = {}
    for task, one in labels.items():
        name, words = maps.get((member, task), (task, {}))
        if name in found:
            raise CorpusError(f"option 'map' gives {member} two tasks {name!r}; give one of them another name")
        classes = one.task.classes if one.values.ndim == 1 else ()
        for word in words:
            if word not in classes:
                raise CorpusError(unknown_name(f"class of {member}.{name} in option 'map'", word, classes))
        found[name] = replace(one, task=replace(one.task, name=name))
        if words:
            to = {word: words.get(word, word) for word in classes}
            source = f"{one.task.source}; {', '.join(f'{old} > {new}' for old, new in words.items())}"
            united = tuple(dict.fromkeys(to.values()))
            found[name] = single(name, united, _recoded(one, to, united), source)
    return found


def joined(
    task: str, members: Mapping[str, Mapping[str, Labels]], sizes: Mapping[str, int], scale: tuple[float, float]
) -> Labels | None:
    """Join one task of several corpora; None if its kind, its outputs or its scale differ.

    Classes are one class if their names are equal. Valence and arousal are brought to `scale`; images of a corpus
    without the task have no label. `sizes` are the numbers of images.
    """
    present = {member: labels[task] for member, labels in members.items() if task in labels}
    first, *others = (labels.task for labels in present.values())
    classes, ends, form = first.classes, first.range, first.form
    is_single = all(labels.values.ndim == 1 for labels in present.values())
    if is_single:
        words = dict.fromkeys(word for labels in present.values() for word in labels.task.classes)
        classes = tuple(word for word in POLARITY if word in words) if {*words} <= {*POLARITY} else tuple(words)
    elif any((other.form, other.classes) != (form, classes) for other in others):
        return None
    if ends is not None and classes == VALENCE_AROUSAL:
        ends = scale
    elif any(other.range != ends for other in others):
        return None
    parts = []
    for member, size in sizes.items():
        if member not in present:
            parts.append(np.full(form.shape(size, len(classes)), form.none, dtype=form.dtype))
        elif is_single:
            parts.append(_recoded(present[member], {word: word for word in classes}, classes))
        else:
            old = present[member].task.range
            values = present[member].values
            parts.append(values if old is None or ends is None or old == ends else rescaled(values, old, ends))
    source = "; ".join(f"{member}: {one.task.source}" for member, one in present.items())
    return Labels(replace(first, name=task, classes=classes, range=ends, source=source), np.concatenate(parts))


def rescaled(values: NDArray[Any], old: tuple[float, float], new: tuple[float, float]) -> NDArray[np.float32]:
    """Carry ratings from one scale to another: ((v - oldmin) (newmax - newmin) / (oldmax - oldmin)) + newmin."""
    wide = values.astype(np.float64)
    return ((wide - old[0]) * (new[1] - new[0]) / (old[1] - old[0]) + new[0]).astype(np.float32)


# ---- labels from columns of a user's table --------------------------------------------------------------------------


def labels_of_columns(table: Table, kind: str, option: str, *, none: Set[str]) -> list[Labels]:
    """Read the tasks of one kind from an option such as ``TASK=COLUMN|COLUMN@1..9``, several separated by commas."""
    found: list[Labels] = []
    for text in filter(None, (one.strip() for one in option.split(","))):
        task, equals, titles = text.partition("=")
        titles = titles if equals else task
        scale = None if LABEL_KINDS[kind].has_classes else re.fullmatch(r"(.*)@([^@]*\.\.[^@]*)", titles)
        titles = scale[1] if scale else titles
        columns = [one.strip() for one in titles.split("|")]
        # A column title may hold what the name of a task may not; the task is then named after what is left of it.
        name = task.strip() if equals else re.sub(r"[^A-Za-z0-9_.-]+", "_", columns[0]).strip("_.-")
        ends = scale_ends(scale[2], f"the scale of {text!r}") if scale else None
        found.append(_READERS[kind](table, name, columns, ends, none))
    return found


def _cells(table: Table, column: str, none: Set[str]) -> list[str]:
    """Return the cells of a column, "" where there is no label."""
    cells = ["" if cell in none else cell for cell in table.cells(table.position(column, case=True))]
    if not any(cells):
        raise CorpusError(f"{table.place}: column {column!r} holds no label; is it the right one?")
    return cells


def _refuse(table: Table, row: int, column: str, expected: str, found: str) -> NoReturn:
    hint = f"if it means no label, give --option none={found}" if found.lower() in _LIKELY_NONE else ""
    table.refuse(row, expected, found, hint, column=table.position(column, case=True))


def _single(table: Table, task: str, columns: Sequence[str], _ends: Ends, none: Set[str]) -> Labels:
    if len(columns) > 1:
        raise CorpusError(
            f"single={task}={'|'.join(columns)} names {len(columns)} columns, and a single label has one; several "
            "columns of 0 and 1 are --option multi="
        )
    classes, values = class_codes(_cells(table, columns[0], none), f"{table.place}, column {columns[0]!r}")
    return single(task, classes, values, f"column {columns[0]}")


def _multi(table: Table, task: str, columns: Sequence[str], _ends: Ends, none: Set[str]) -> Labels:
    """Read columns of 0 and 1, or one column of names separated by ; or |; one of nothing but 0 and 1 is one label."""
    cells = [_cells(table, column, none) for column in columns]
    if len(columns) == 1 and not all(cell.lower() in (*_TRUE, *_FALSE) for cell in cells[0] if cell):
        row = next((at for at, cell in enumerate(cells[0]) if "," in cell), None)
        if row is not None and not any(re.search(r"[;|]", cell) for cell in cells[0]):
            _refuse(table, row, columns[0], "names separated by ; or |", cells[0][row])
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


def _regression(table: Table, task: str, columns: Sequence[str], ends: Ends, none: Set[str]) -> Labels:
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


_READERS = {"single": _single, "multi": _multi, "regression": _regression}


def scale_ends(text: str, what: str) -> tuple[float, float]:
    """Read the ends of a scale, ``LOW..HIGH``."""
    low, _, high = (one.strip() for one in text.partition(".."))
    if not (NUMBER.fullmatch(low) and NUMBER.fullmatch(high)) or not -math.inf < float(low) < float(high) < math.inf:
        raise CorpusError(f"{what} must be LOW..HIGH, as in 1..9; got {text!r}")
    return float(low), float(high)
