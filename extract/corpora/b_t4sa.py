"""B-T4SA, and the balanced random subset of it that transfer-learning studies use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.partition import order_of
from extract.corpora.tweets import CODES, Lists, groups_of_tweets, parted, read_lists, root_of
from extract.corpora.vocabulary import POLARITY, single
from extract.errors import CorpusError
from extract.inputs.trees import Tree, open_tree
from features_store import Index, Split

LAYOUT = "b-t4sa_imgs/ with b-t4sa_train.txt, b-t4sa_val.txt, b-t4sa_test.txt and data/<5 digits>/<tweet id>-<k>.jpg"
_LINE = "'data/<5 digits>/<tweet id>-<k>.jpg <code>' (0 negative, 1 neutral, 2 positive)"
_SOURCE = "sentiment of the tweet's text, by a machine (distant supervision)"


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read the three lists.

    Raises CorpusError.
    """
    tree = open_tree(data)
    lists = _lists(tree, options)
    return _reading("b-t4sa", tree, lists, np.arange(len(lists.names)), options)


def read_subset(data: Path, options: Mapping[str, Any]) -> Reading:
    """Draw the same number of images of each class from each official part.

    Raises CorpusError.
    """
    tree = open_tree(data)
    lists = _lists(tree, options)
    sizes = (options["train"], options["validation"], options["test"])
    chosen = np.sort(np.concatenate([_draw(lists, part, sizes[part], options["seed"]) for part in range(3)]))
    return _reading("b-t4sa-tfm", tree, lists, chosen, options)


def _lists(tree: Tree, options: Mapping[str, Any]) -> Lists:
    if "{part}" not in options["lists"]:
        msg = f"option 'lists' must hold {{part}}, as in b-t4sa_{{part}}.txt; got {options['lists']!r}"
        raise CorpusError(msg)
    return read_lists(tree, options["lists"], codes=CODES, layout=LAYOUT, expected=_LINE)


def _draw(lists: Lists, part: int, size: int, seed: int) -> NDArray[np.int64]:
    """Return `size` rows of a part, a third of each class, in the order of a seeded hash."""
    name = ("train", "validation", "test")[part]
    each, rest = divmod(size, len(POLARITY))
    if rest:
        msg = f"option {name!r} of corpus 'b-t4sa-tfm' is the size of all three classes; {size} is not divisible by 3"
        raise CorpusError(msg)
    drawn = []
    for code, label in enumerate(POLARITY):
        rows = np.flatnonzero((lists.parts == part) & (lists.values == code))
        if len(rows) < each:
            msg = f"{size} images for {name} need {each} {label} ones, and there are {len(rows)}; give --option {name}="
            raise CorpusError(msg)
        drawn += sorted(rows.tolist(), key=lambda row: order_of(lists.names[row], seed))[:each]
    return np.array(drawn, dtype=np.int64)


def _reading(name: str, tree: Tree, lists: Lists, rows: NDArray[np.int64], options: Mapping[str, Any]) -> Reading:
    ids = np.array(lists.names)[rows] if len(rows) < len(lists.names) else np.array(lists.names)
    names = ids.tolist() if len(rows) < len(lists.names) else lists.names
    groups, parts = groups_of_tweets(names), lists.parts[rows]
    n_parted = parted(groups, parts)
    index = Index(
        ids,
        {"polarity": single("polarity", POLARITY, lists.values[rows], _SOURCE)},
        {"default": Split("default", parts, source="published")},
        groups,
        corpus={"name": name, "options": dict(options)},
    )
    source = tree.below(root_of(tree, lists.folder, names)).source(index.ids)
    notes = (f"{n_parted} tweets have images in more than one part of the split",) if n_parted else ()
    return Reading(index, source, notes)


_LISTS = Option("b-t4sa_{part}.txt", "name of the lists, with {part}; the relabelled ones are b-t4sa_{part}.tsv")
_ABOUT: dict[str, Any] = {
    "obtain": "request form on http://www.t4sa.it; give b-t4sa_imgs.tar (read in place) or the folder it unpacks to",
    "licence": "no licence is known to us; the images belong to the users of Twitter; the form states the terms",
    "citation": "Vadicamo et al., Cross-Media Learning for Image Sentiment Analysis in the Wild, ICCV Workshops 2017",
    "tasks": {"polarity": "single: negative, neutral, positive; in the lists 0, 1, 2"},
    "defects": (
        "labels come from the text of the tweet, not from the picture",
        "the test image data/78439/784393626990194689-4.jpg is corrupt, and some JPEGs are cut",
        "tweet ids leak time: negative tweets were collected for longer; `extract check` measures it",
        "up to four images of one tweet share its label; they form a group",
    ),
}
CORPUS = Corpus(
    name="b-t4sa",
    title="B-T4SA: 470,586 images of tweets, balanced by the sentiment of their text",
    reader=read,
    splits={"default": "the official lists: train, val, test"},
    options={"lists": _LISTS},
    published={
        "images": 470_586,
        "default/train": 368_586,
        "default/validation": 51_000,
        "default/test": 51_000,
        **{f"polarity/{one}": 156_862 for one in POLARITY},
    },
    **_ABOUT,
)
SUBSET = Corpus(
    name="b-t4sa-tfm",
    title="a seeded, balanced random subset of B-T4SA: 60,000 train, 9,000 validation, 6,000 test",
    reader=read_subset,
    splits={"default": "drawn within the official parts"},
    options={
        "train": Option(60_000, "images of all three classes", minimum=3),
        "validation": Option(9_000, "images of all three classes", minimum=3),
        "test": Option(6_000, "images of all three classes", minimum=3),
        "seed": Option(0, "seed of the draw", minimum=0),
        "lists": _LISTS,
    },
    published={},
    **_ABOUT,
)
