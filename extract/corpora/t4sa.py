"""The corpora of tweets labelled by their text: T4SA, its balanced part B-T4SA with a random subset, and T4SA 2.0."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Dataset, labelled
from extract.corpora.labels import POLARITY, groups_of, majority, ratings, single
from extract.corpora.splits import draw_key, seeded_split
from extract.corpora.texts import find_one, misfit, read_labelled_list, read_lines
from extract.errors import CorpusError
from extract.inputs.trees import Tree, open_tree
from features_store import Split

CODES = {"0": 0, "1": 1, "2": 2}  # of all lists: negative, neutral, positive
_LAYOUT = "t4sa_text_sentiment.tsv and, below the same folder, images named <tweet id>-<k>.jpg"
_LAYOUT_B = "b-t4sa_imgs/ with b-t4sa_train.txt, b-t4sa_val.txt, b-t4sa_test.txt and data/<5 digits>/<tweet id>-<k>.jpg"
_LAYOUT_2 = "<name>_train.csv, <name>_val.csv, <name>_test.csv and <5 digits>/<tweet id>-<k>.jpg"
_LINE_B = "'data/<5 digits>/<tweet id>-<k>.jpg <code>' (0 negative, 1 neutral, 2 positive)"
_LINE_2 = "'<5 digits>/<tweet id>-<k>.jpg,<code>' (0 negative, 1 neutral, 2 positive)"
_SOURCE = "sentiment of the tweet's text, by a machine (distant supervision)"


def read_t4sa(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read the table of tweets, and give each image the label of its tweet."""
    tree = open_tree(data)
    path = find_one(tree, [options["table"]], layout=_LAYOUT)
    tweets, probabilities = _read_tweets(tree, path)
    images = tree.images()
    wanted = np.array([_tweet_number(tweet_of(image) or "-1") for image in images], dtype=np.int64)
    at = np.searchsorted(tweets, wanted).clip(max=len(tweets) - 1)
    known = np.flatnonzero(tweets[at] == wanted)
    if not len(known):
        found = images[0] if images else "no image"
        raise misfit(tree.place / path, 0, expected="images named <tweet id>-<k>.jpg of its tweets", found=found)
    names = [images[row] for row in known.tolist()]
    values, groups = probabilities[at[known]], groups_of([tweet_of(image) for image in names])
    polarity = single("polarity", POLARITY, majority(values), f"{_SOURCE}; the most probable class")
    n_left = len(images) - len(names)
    ids = np.array(names)
    return labelled(
        name,
        options,
        ids,
        tree.source(ids),
        labels=[polarity, ratings(values, (0.0, 1.0), _SOURCE, name="probabilities", outputs=POLARITY)],
        splits=[seeded_split("default", names, polarity.values, seed=options["seed"], groups=groups)],
        groups=groups,
        notes=[f"{n_left} images belong to no tweet of the table and were left out" if n_left else ""],
        left_out=tree.census().left_out,
    )


def _read_tweets(tree: Tree, path: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return tweet ids, sorted, and their class probabilities (n_tweets, 3)."""
    place, lines = tree.place / path, read_lines(tree, path)
    if lines[0].upper().split("\t") != ["TWID", "NEG", "NEU", "POS"]:
        raise misfit(place, 1, expected="the tab-separated columns TWID NEG NEU POS", found=lines[0])
    ids, values = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        cells = line.split("\t")
        try:
            ids.append(_tweet_number(cells[0]))
            values.append((float(cells[1]), float(cells[2]), float(cells[3])))
        except (ValueError, IndexError) as error:
            raise misfit(place, number, expected="a tweet id and three numbers, tab-separated", found=line) from error
    tweets = np.array(ids, dtype=np.int64)
    order = np.argsort(tweets, kind="stable")
    return tweets[order], np.array(values, dtype=np.float32).reshape(-1, 3)[order]


def _tweet_number(text: str) -> int:
    if re.fullmatch("-?[0-9]{1,19}", text) is None or int(text) >= 1 << 63:
        raise ValueError("not the number of a tweet")
    return int(text)


def tweet_of(name: str) -> str:
    """Return the tweet id in ``.../<tweet id>-<photo number>.jpg``; "" if the name is not of this form."""
    tweet, dash, photo = name.rpartition("/")[2].rpartition(".")[0].rpartition("-")
    # Twitter's numbers have 64 bits; longer ones are other people's names.
    return tweet if dash and re.fullmatch("[0-9]{1,18}|[1-8][0-9]{18}", tweet) and photo.isdecimal() else ""


# ---- lists, one per part --------------------------------------------------------------------------------------------


def read_b_t4sa(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read the three lists of B-T4SA; the subset draws as many images of each class from each official part."""
    if "{part}" not in options["lists"]:
        raise CorpusError(f"option 'lists' must hold {{part}}, as in b-t4sa_{{part}}.txt; got {options['lists']!r}")
    sizes = [options[part] for part in ("train", "validation", "test")] if name == "b-t4sa-tfm" else []
    return _read_lists(name, data, options, options["lists"], (_LAYOUT_B, _LINE_B), sizes)


def read_t4sa2(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read the lists of one variant of T4SA 2.0."""
    variant = options["variant"]
    if "{" in variant or "/" in variant:
        raise CorpusError(f"option 'variant' is the name of the lists before _train.csv; got {variant!r}")
    return _read_lists(name, data, options, f"{variant}_{{part}}.csv", (_LAYOUT_2, _LINE_2), [])


def _read_lists(
    name: str,
    data: Path,
    options: Mapping[str, Any],
    pattern: str,
    words: tuple[str, str],
    sizes: Sequence[int],
) -> Dataset:
    """Read one list per part; `words` describe the layout and a line, `sizes` the subset to draw (empty = all)."""
    tree = open_tree(data)
    paths = [find_one(tree, [pattern.format(part=part)], layout=words[0]) for part in ("train", "val", "test")]
    lists = [read_labelled_list(tree, path, CODES, expected=words[1]) for path in paths]
    names = [image for images, _ in lists for image in images]
    values = np.concatenate([codes for _, codes in lists])
    parts = np.repeat(np.arange(3, dtype=np.int8), [len(images) for images, _ in lists])
    if sizes:
        rows = np.sort(np.concatenate([_draw(names, values, parts == part, part, sizes, options) for part in range(3)]))
        names, values, parts = [names[row] for row in rows.tolist()], values[rows], parts[rows]
    ids = np.array(names)
    groups, split = groups_of([tweet_of(image) for image in names]), Split("default", parts, source="published")
    n_crossing = len(np.unique(groups[split.crossed(groups)]))
    return labelled(
        name,
        options,
        ids,
        tree.below(_root_of(tree, paths[0].rpartition("/")[0], names)).source(ids),
        labels=[single("polarity", POLARITY, values, _SOURCE)],
        splits=[split],
        groups=groups,
        notes=[f"{n_crossing} tweets have images in more than one part of the split" if n_crossing else ""],
    )


def _draw(
    names: Sequence[str],
    values: NDArray[np.int16],
    inside: NDArray[np.bool_],
    part: int,
    sizes: Sequence[int],
    options: Mapping[str, Any],
) -> NDArray[np.int64]:
    """Return the rows of a seeded draw from a part, a third from each class."""
    option, size = ("train", "validation", "test")[part], sizes[part]
    each, rest = divmod(size, len(POLARITY))
    if rest:
        raise CorpusError(
            f"option {option!r} of corpus 'b-t4sa-tfm' is the size of all three classes; {size} is not divisible by 3"
        )
    drawn: list[int] = []
    for code, label in enumerate(POLARITY):
        rows = np.flatnonzero(inside & (values == code))
        if len(rows) < each:
            raise CorpusError(
                f"{size} images for {option} need {each} {label} ones, and there are {len(rows)}; "
                f"give --option {option}="
            )
        drawn += sorted(rows.tolist(), key=lambda row: draw_key(names[row], options["seed"]))[:each]
    return np.array(drawn, dtype=np.int64)


def _root_of(tree: Tree, folder: str, names: Sequence[str]) -> str:
    """Return the folder from which the paths of a list start: that of the list, the top, or that of the images."""
    base = f"{folder}/" if folder else ""
    for root in dict.fromkeys((folder, "", f"{base}data", f"{base}images", "data", "images")):
        within = tree.below(root)
        if any(within.has(name) for name in names[:20]):
            return root
    return folder
