"""What the corpora of emotion categories share: class folders, and labels of polarity made from emotions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.vocabulary import BINARY, EMOTION_POLARITY, mapped, single, spelled
from extract.errors import CorpusError
from extract.inputs.trees import Tree
from features_store import Labels


def class_folders(tree: Tree, classes: Sequence[str]) -> tuple[str, list[str], NDArray[np.int16], int]:
    """Find the images in folders named after classes, wherever those folders lie together.

    Shapes: values (n_images,) int16.
    Raises CorpusError.
    """
    by_root: dict[str, list[tuple[str, int]]] = {}
    for path in tree.images():
        folders = path.split("/")[:-1]
        for depth, folder in enumerate(folders):
            if spelled(folder) in classes and (depth == 0 or folders[depth - 1] != "ground_truth"):
                root = "/".join(folders[:depth])
                name = path[len(root) + 1 :] if root else path
                by_root.setdefault(root, []).append((name, classes.index(spelled(folder))))
                break
    if not by_root:
        msg = (
            f"{tree.place} holds no image in a folder named after a class ({', '.join(classes)}); give the folder "
            "above those, or read your own folders with corpus `folder`"
        )
        raise CorpusError(msg)
    root = max(sorted(by_root), key=lambda one: len(by_root[one]))
    found = sorted(by_root[root])
    values = np.array([value for _, value in found], dtype=np.int16)
    return root, [name for name, _ in found], values, len(tree.images()) - len(found)


def left_out_of_folders(tree: Tree, n_others: int) -> dict[str, int]:
    """Count what a corpus of class folders does not read, by reason."""
    return {**tree.census().left_out, **({"in no folder of a class": n_others} if n_others else {})}


def emotion_labels(classes: Sequence[str], values: Any, source: str) -> dict[str, Labels]:
    """Make the tasks ``emotion`` and ``polarity``; an emotion without polarity, as neutral, has no label there."""
    emotion = single("emotion", classes, values, source)
    return {"emotion": emotion, "polarity": mapped(emotion, EMOTION_POLARITY, BINARY, name="polarity")}


def rows_of(names: Iterable[str], row_of: Mapping[str, int], *, size: int, value: int) -> NDArray[np.int8]:
    """Return (size,) int8: `value` in the rows of these names, -1 elsewhere; unknown names are passed over."""
    parts = np.full(size, -1, dtype=np.int8)
    rows = [row_of[name] for name in names if name in row_of]
    parts[rows] = value
    return parts
