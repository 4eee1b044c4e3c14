"""What the corpora of tweets share: the ids in their file names, lists per part, and the images of one tweet."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from extract.corpora.texts import find_one, labelled_list
from extract.corpora.vocabulary import groups_of
from extract.inputs.trees import Tree

PARTS = {"train": 0, "val": 1, "test": 2}
CODES = {"0": 0, "1": 1, "2": 2}
"""Label codes of all T4SA lists: 0 negative, 1 neutral, 2 positive."""


@dataclass(frozen=True)
class Lists:
    """The rows of the lists of all parts, one after the other."""

    names: list[str]
    values: NDArray[np.int16]
    parts: NDArray[np.int8]
    folder: str


def read_lists(tree: Tree, pattern: str, *, codes: Mapping[str, int], layout: str, expected: str) -> Lists:
    """Read one list per part."""
    names: list[str] = []
    values, parts, folder = [], [], ""
    for part, number in PARTS.items():
        path = find_one(tree, [pattern.format(part=part)], layout=layout)
        found, codes_found = labelled_list(tree, path, codes, expected=expected)
        names += found
        values.append(codes_found)
        parts.append(np.full(len(found), number, dtype=np.int8))
        folder = path.rpartition("/")[0] if part == "train" else folder
    return Lists(names, np.concatenate(values), np.concatenate(parts), folder)


def tweet_of(name: str) -> str:
    """Return the tweet id in ``.../<tweet id>-<photo number>.jpg``; "" if the name is not of this form."""
    tweet, dash, photo = name.rpartition("/")[2].rpartition(".")[0].rpartition("-")
    # Twitter's numbers have 64 bits; longer ones are other people's names.
    return tweet if dash and re.fullmatch("[0-9]{1,18}|[1-8][0-9]{18}", tweet) and photo.isdecimal() else ""


def media_of(name: str) -> str:
    """Return the media id in ``<user id>_<tweet id>_<media id>.jpg``, which may hold ``_`` and ``-`` itself."""
    pieces = PurePosixPath(name).stem.split("_", 2)
    return pieces[2] if len(pieces) == 3 else ""


def groups_of_tweets(names: Sequence[str]) -> NDArray[np.int64]:
    """Group the images of one tweet: (n_images,) int64, -1 = alone."""
    return groups_of([tweet_of(name) for name in names])


def parted(groups: NDArray[np.int64], parts: NDArray[np.int8]) -> int:
    """Count the groups whose images lie in more than one part; unused images do not count."""
    used = (groups >= 0) & (parts >= 0)
    if not used.any():
        return 0
    seen = np.zeros((int(groups.max()) + 1, int(parts.max()) + 1), dtype=bool)
    seen[groups[used], parts[used]] = True
    return int((seen.sum(axis=1) > 1).sum())


def root_of(tree: Tree, folder: str, names: Sequence[str]) -> str:
    """Return the folder from which the paths of a list count: the list's own, the top, or the images' within them."""
    base = f"{folder}/" if folder else ""
    for root in dict.fromkeys((folder, "", f"{base}data", f"{base}images", "data", "images")):
        within = tree.below(root)
        if any(within.has(name) for name in names[:20]):
            return root
    return folder
