"""T4SA, the whole collection with class probabilities per tweet; and its successor of 2022, T4SA 2.0."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.partition import grouped
from extract.corpora.texts import find_one, lines_of, misfit
from extract.corpora.tweets import CODES, groups_of_tweets, parted, read_lists, root_of, tweet_of
from extract.corpora.vocabulary import POLARITY, majority, ratings, single
from extract.errors import CorpusError
from extract.inputs.trees import Tree, open_tree
from features_store import Index, Split

_COLUMNS = ("TWID", "NEG", "NEU", "POS")
_LAYOUT = "t4sa_text_sentiment.tsv and, below the same folder, images named <tweet id>-<k>.jpg"
_LAYOUT_2 = "<name>_train.csv, <name>_val.csv, <name>_test.csv and <5 digits>/<tweet id>-<k>.jpg"
_LINE_2 = "'<5 digits>/<tweet id>-<k>.jpg,<code>' (0 negative, 1 neutral, 2 positive)"
_SOURCE = "sentiment of the tweet's text, by a machine (distant supervision)"


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read the table of tweets, and give each image the label of its tweet.

    Raises CorpusError.
    """
    tree = open_tree(data)
    path = find_one(tree, [options["table"]], layout=_LAYOUT)
    tweets, probabilities = _tweets(tree, path)
    images = tree.images()
    wanted = np.array([number_of(tweet_of(name) or "-1") for name in images], dtype=np.int64)
    at = np.searchsorted(tweets, wanted).clip(max=len(tweets) - 1)
    known = np.flatnonzero(tweets[at] == wanted)
    if not len(known):
        found = images[0] if images else "no image"
        raise misfit(tree, path, 0, expected="images named <tweet id>-<k>.jpg of its tweets", found=found)
    names = [images[row] for row in known.tolist()]
    values = probabilities[at[known]]
    groups, labels = groups_of_tweets(names), majority(values)
    index = Index(
        np.array(names),
        {
            "polarity": single("polarity", POLARITY, labels, f"{_SOURCE}; the most probable class"),
            "probabilities": ratings(values, (0.0, 1.0), _SOURCE, name="probabilities", outputs=POLARITY),
        },
        {"default": Split("default", grouped(names, labels.tolist(), groups, seed=options["seed"]), source="made")},
        groups,
        corpus={"name": "t4sa", "options": dict(options)},
    )
    left = len(images) - len(names)
    notes = (f"{left} images belong to no tweet of the table and were left out",) if left else ()
    return Reading(index, tree.source(index.ids), notes, tree.census().left_out)


def _tweets(tree: Tree, path: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return tweet ids, sorted, and their class probabilities (n_tweets, 3)."""
    lines = lines_of(tree, path)
    if tuple(lines[0].upper().split("\t")) != _COLUMNS:
        raise misfit(tree, path, 1, expected="the columns TWID NEG NEU POS, parted by tabs", found=lines[0])
    ids, values = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        cells = line.split("\t")
        try:
            ids.append(number_of(cells[0]))
            values.append((float(cells[1]), float(cells[2]), float(cells[3])))
        except (ValueError, IndexError) as error:
            expected = "a tweet id and three numbers, parted by tabs"
            raise misfit(tree, path, number, expected=expected, found=line) from error
    tweets = np.array(ids, dtype=np.int64)
    order = np.argsort(tweets, kind="stable")
    return tweets[order], np.array(values, dtype=np.float32).reshape(-1, 3)[order]


def number_of(text: str) -> int:
    """Return the number of a tweet.

    Raises ValueError.
    """
    if re.fullmatch("-?[0-9]{1,19}", text) is None or int(text) >= 1 << 63:
        msg = "no number of a tweet"
        raise ValueError(msg)
    return int(text)


def read_second(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read the lists of one variant of T4SA 2.0."""
    tree = open_tree(data)
    pattern = f"{options['variant']}_{{part}}.csv"
    if "{" in options["variant"] or "/" in options["variant"]:
        msg = f"option 'variant' is the name of the lists before _train.csv; got {options['variant']!r}"
        raise CorpusError(msg)
    lists = read_lists(tree, pattern, codes=CODES, layout=_LAYOUT_2, expected=_LINE_2)
    groups = groups_of_tweets(lists.names)
    n_parted = parted(groups, lists.parts)
    index = Index(
        np.array(lists.names),
        {"polarity": single("polarity", POLARITY, lists.values, _SOURCE)},
        {"default": Split("default", lists.parts, source="published")},
        groups,
        corpus={"name": "t4sa2", "options": dict(options)},
    )
    source = tree.below(root_of(tree, lists.folder, lists.names)).source(index.ids)
    notes = (f"{n_parted} tweets have images in more than one part of the split",) if n_parted else ()
    return Reading(index, source, notes)


CORPUS = Corpus(
    name="t4sa",
    title="T4SA: images of tweets with the class probabilities of their text",
    obtain="request form on http://www.t4sa.it; give the folder with t4sa_text_sentiment.tsv and the images",
    licence="no licence is known to us; the images belong to the users of Twitter; the form states the terms",
    citation="Vadicamo et al., Cross-Media Learning for Image Sentiment Analysis in the Wild, ICCV Workshops 2017",
    reader=read,
    tasks={
        "polarity": "single: the most probable of negative, neutral, positive",
        "probabilities": "regression: the three probabilities, 0 to 1",
    },
    splits={"default": "70/10/20, whole tweets, stratified by polarity, seeded; there is no official one"},
    defects=(
        "labels come from the text of the tweet, not from the picture",
        "some JPEGs are cut",
        "up to four images of one tweet share its label; they form a group",
    ),
    options={
        "table": Option("t4sa_text_sentiment.tsv", "the table of tweets"),
        "seed": Option(0, "seed of the split", minimum=0),
    },
)
SECOND = Corpus(
    name="t4sa2",
    title="T4SA 2.0: images of tweets of 2022",
    obtain="lists: github.com/codiceSpaghetti/T4SA-2.0; the images are announced there and not yet published",
    licence="no licence is known to us; the images belong to the users of Twitter",
    citation="Serra, Carrara, Tesconi, Falchi, ECAI 2023, arXiv 2304.14942",
    reader=read_second,
    tasks={"polarity": "single: negative, neutral, positive; in the lists 0, 1, 2"},
    splits={"default": "the lists: train, val, test"},
    defects=(
        "labels come from the text of the tweet, not from the picture",
        "photo numbers start at 0 here and at 1 in T4SA",
    ),
    options={"variant": Option("bal_T4SA2.0", "unb_T4SA2.0, bal_T4SA2.0 or bal_flat_T4SA2.0")},
)
