"""The vocabularies of the field, and labels made of them; every map between two of them is written out here."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import CorpusError
from features_store import Labels, Task

POLARITY = ("negative", "neutral", "positive")
BINARY = ("negative", "positive")
EKMAN = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
MIKELS = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
EMOTION_POLARITY = {
    **dict.fromkeys(("amusement", "awe", "contentment", "excitement", "joy", "surprise"), "positive"),
    **dict.fromkeys(("anger", "disgust", "fear", "sadness"), "negative"),
}
"""Emotion to polarity: Mikels' four pleasant emotions; of Ekman's six, joy and surprise."""
SPELLINGS = {"sad": "sadness", "content": "contentment", "happiness": "joy", "happy": "joy"}
VALENCE_AROUSAL = ("valence", "arousal")


def spelled(word: str) -> str:
    """Return the vocabulary's word for an emotion, from the spellings that corpora use."""
    plain = word.strip().strip("'\"").lower()
    return SPELLINGS.get(plain, plain)


MAX_CLASSES = 32_767  # codes are stored as int16


def class_codes(words: Sequence[str], place: str) -> tuple[tuple[str, ...], NDArray[np.int16]]:
    """Sort the words of a column into classes; an empty one is no label.

    Shapes: codes (n_words,) int16.
    Raises CorpusError.
    """
    plain = [unicodedata.normalize("NFC", word) for word in words]
    classes = tuple(sorted(set(plain) - {""}))
    if len(classes) > MAX_CLASSES:
        msg = f"{place}: {len(classes)} classes; at most {MAX_CLASSES} can be stored (is it a column of names?)"
        raise CorpusError(msg)
    position = {name: at for at, name in enumerate(classes)}
    return classes, np.array([position.get(word, -1) for word in plain], dtype=np.int16)


def twins_in_case(classes: Sequence[str]) -> str:
    """Word the note on classes that differ in case alone; "" = there are none."""
    folded = Counter(one.casefold() for one in classes)
    pairs = [one for one in classes if folded[one.casefold()] > 1]
    return f"classes that differ in case alone are different ones: {', '.join(pairs[:10])}" if pairs else ""


def single(name: str, classes: Sequence[str], values: Any, source: str) -> Labels:
    """Make single-label labels; `values` are positions in `classes`, -1 = none."""
    return Labels(Task(name, "single", tuple(classes), source=source), np.asarray(values, dtype=np.int16))


def ratings(
    values: Any, ends: tuple[float, float], source: str, *, name: str = "", outputs: Sequence[str] = ()
) -> Labels:
    """Make regression labels, (n_images, n_outputs); without a name: valence and arousal."""
    outputs = tuple(outputs) or VALENCE_AROUSAL
    task = Task(name or "valence_arousal", "regression", outputs, ends, source)
    return Labels(task, np.asarray(values, dtype=np.float32))


def majority(votes: NDArray[Any]) -> NDArray[np.int16]:
    """Return the position of the most votes per row, (n_images,) int16; -1 for a tie or no votes."""
    top = votes.max(axis=1, keepdims=True)
    unique = ((votes == top).sum(axis=1) == 1) & (top[:, 0] > 0)
    return np.where(unique, votes.argmax(axis=1), -1).astype(np.int16)


def shares(votes: NDArray[Any]) -> NDArray[np.float32]:
    """Return each row divided by its sum; NaN where the sum is 0: (n_images, n_classes) float32."""
    totals = votes.sum(axis=1, keepdims=True).astype(float)
    divided = np.divide(votes, totals, out=np.full(votes.shape, np.nan), where=totals > 0)
    return np.asarray(divided, dtype=np.float32)


def mapped(labels: Labels, to: Mapping[str, str], classes: Sequence[str], *, name: str) -> Labels:
    """Carry single-label labels over to another vocabulary; classes that `to` does not name lose their label."""
    table = [classes.index(to[one]) if one in to else -1 for one in labels.task.classes]
    table.append(-1)  # what -1 finds
    values = np.array(table, dtype=np.int16)[labels.values]
    pairs = ", ".join(f"{one} > {to[one]}" for one in labels.task.classes if one in to)
    return single(name, classes, values, f"{labels.task.source}; {pairs}")


def groups_of(keys: Sequence[str]) -> NDArray[np.int64]:
    """Number equal keys: (n_images,) int64; a key that occurs once, or an empty one, is -1."""
    counts = Counter(keys)
    # Numbered by first occurrence, so that the numbers do not depend on how keys sort.
    number = {key: at for at, key in enumerate(key for key, n in counts.items() if key and n > 1)}
    return np.fromiter((number.get(key, -1) for key in keys), np.int64, len(keys))
