"""Twitter I (DeepSent): 1,269 tweeted images, labelled by five people each; and the 603 photo tweets of VSO."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.partition import grouped
from extract.corpora.pictures import Pictures
from extract.corpora.texts import find_one, labelled_list, lines_of, misfit, no_file
from extract.corpora.tweets import media_of
from extract.corpora.vocabulary import BINARY, POLARITY, groups_of, single
from extract.inputs.trees import Tree, open_tree
from features_store import Index, Labels, Split

SUBSETS = ("three", "four", "five")
_LAYOUT = "Agg_AMT_Candidates/*.jpg with twitter_three_agrees.txt, twitter_four_agrees.txt, twitter_five_agrees.txt"
_LINE = "'<user>_<tweet>_<media>.jpg <code>' (0 negative, 1 positive)"
_CODES = {"0": 0, "1": 1}


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read the lists of the images on which at least three, four and five people agreed.

    Raises CorpusError.
    """
    tree = open_tree(data)
    lists = _subsets(tree)
    names = list(dict.fromkeys(name for found in lists.values() for name in found))
    row_of = {name: row for row, name in enumerate(names)}
    labels = {}
    for subset, found in lists.items():
        values = np.full(len(names), -1, dtype=np.int16)
        for name, value in found.items():
            values[row_of[name]] = value
        labels[subset] = single(subset, BINARY, values, f"at least {subset} of five people agree (AMT)")
    groups = groups_of([media_of(name) for name in names])
    first = next(iter(labels.values())).values
    splits = {"default": Split("default", grouped(names, first.tolist(), groups, seed=options["seed"]), source="made")}
    splits |= _folds(tree, row_of)
    index = Index(np.array(names), labels, splits, groups, corpus={"name": "twitter1", "options": dict(options)})
    source = Pictures(tree, ("Agg_AMT_Candidates", "images")).source(names)
    return Reading(index, source, _notes(labels, splits))


def _subsets(tree: Tree) -> dict[str, dict[str, int]]:
    lists: dict[str, dict[str, int]] = {}
    for subset in SUBSETS:
        paths = [path for path in tree.find(f"*{subset}_agree*.txt") if "/test" not in f"/{path}"]
        if paths:
            names, values = labelled_list(tree, paths[0], _CODES, expected=_LINE)
            files = [name.rpartition("/")[2] for name in names]
            if len(set(files)) < len(files):
                again = next(file for file in files if files.count(file) > 1)
                raise misfit(tree, paths[0], 0, expected="each image once, whatever its folder", found=again)
            lists[subset] = dict(zip(files, values.tolist(), strict=True))
    if not lists:
        raise no_file(tree, "twitter_five_agrees.txt (nor four, nor three)", layout=_LAYOUT)
    return lists


def _folds(tree: Tree, row_of: Mapping[str, int]) -> dict[str, Split]:
    """Read the public five folds, ``SUBSET_agrees/test{1..5}/test.txt``; what they leave out is unused."""
    splits: dict[str, Split] = {}
    for path in tree.find("test.txt"):
        found = re.search(r"(three|four|five)_agrees/test([1-5])/test\.txt$", path)
        if not found:
            continue
        name = f"folds-{found[1]}"
        if name not in splits:
            splits[name] = Split(name, np.full(len(row_of), -1, dtype=np.int8), "folds", "published")
        for line in lines_of(tree, path):
            row = row_of.get(line.rpartition(" ")[0].rpartition("/")[2])
            if row is not None:
                splits[name].values[row] = int(found[2]) - 1
    return splits


def _notes(labels: Mapping[str, Labels], splits: Mapping[str, Split]) -> tuple[str, ...]:
    missing = [subset for subset in SUBSETS if subset not in labels]
    notes = [f"there is no list of the images on which {', '.join(missing)} agree"] if missing else []
    if len(splits) == 1:
        notes.append("the public five folds (five_agrees/test1/test.txt ...) are not there; split 'default' is seeded")
    return tuple(notes)


def read_photo_tweets(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read a list of image and label that the user names."""
    tree = open_tree(data)
    patterns = [options["list"]] if options["list"] else ["ground_truth.*", "labels.*", "*.csv", "*.txt"]
    path = find_one(tree, patterns, layout="a list of lines '<image> <label>' that you name with --option list=FILE")
    codes = {code: 0 for code in options["negative"].split("|")} | {code: 1 for code in options["positive"].split("|")}
    remedy = "name the list with --option list=FILE and its codes with --option negative=A|B --option positive=C|D"
    names, values = labelled_list(tree, path, codes, expected="'<image> <label>'", remedy=remedy)
    source_words = "people on AMT, 603 photo tweets"
    groups = groups_of([media_of(name) for name in names])
    parts = grouped(names, values.tolist(), groups, seed=options["seed"])
    index = Index(
        np.array(names),
        {
            "polarity": single("polarity", POLARITY, values * 2, f"{source_words}; no image is neutral"),
            "binary": single("binary", BINARY, values, source_words),
        },
        {
            "default": Split("default", np.full(len(names), 2), source="made"),
            "seeded": Split("seeded", parts, source="made"),
        },
        groups,
        corpus={"name": "vso-603", "options": dict(options)},
    )
    return Reading(index, Pictures(tree, ()).source(names))


CORPUS = Corpus(
    name="twitter1",
    title="Twitter I (DeepSent): 1,269 images of tweets, labelled by five people each",
    obtain="the original page is gone; a mirror is linked in the README of imatge-upc/sentiment-2017-imavis",
    licence="no licence is known to us; the images belong to the users of Twitter",
    citation="You, Luo, Jin, Yang, Robust Image Sentiment Analysis Using Progressively Trained and Domain "
    "Transferred Deep Networks, AAAI 2015",
    reader=read,
    tasks={
        "three": "single: negative, positive; at least three of five people agree (all images)",
        "four": "single: negative, positive; at least four agree",
        "five": "single: negative, positive; all five agree",
    },
    splits={
        "default": "70/10/20, whole media ids, stratified, seeded",
        "folds-three, folds-four, folds-five": "the public five folds (Campos et al. 2017), where they are there",
    },
    defects=(
        "13 images (of the five-agree list 5) stand under two tweet ids; the public folds part such pairs",
        "the public folds leave out the images that do not divide by five",
    ),
    options={"seed": Option(0, "seed of the split 'default'", minimum=0)},
    published={
        "images": 1269,
        "three/negative": 500,
        "three/positive": 769,
        "four/negative": 427,
        "four/positive": 689,
        "five/negative": 301,
        "five/positive": 581,
    },
)
PHOTO_TWEETS = Corpus(
    name="vso-603",
    title="Twitter II: the 603 photo tweets of the Visual Sentiment Ontology",
    obtain="www.ee.columbia.edu/ln/dvmm/vso; give the folder of the images with a list '<image> <label>'",
    licence="no licence is known to us; the images belong to the users of Twitter",
    citation="Borth, Ji, Chen, Breuel, Chang, Large-scale Visual Sentiment Ontology and Detectors Using Adjective "
    "Noun Pairs, ACM Multimedia 2013",
    reader=read_photo_tweets,
    tasks={
        "polarity": "single: negative, neutral (empty), positive: for the test of three-class models",
        "binary": "single: negative, positive",
    },
    splits={"default": "all images are test", "seeded": "70/10/20, stratified, seeded"},
    defects=(
        "another set of 557 images with a label before each file name also goes by the name Twitter II",
        "its official list format could not be verified: the list is yours",
    ),
    options={
        "list": Option("", "the list, relative to --data; default: the only one there"),
        "negative": Option("0|-1|negative|neg", "codes of negative"),
        "positive": Option("1|2|positive|pos", "codes of positive"),
        "seed": Option(0, "seed of the split 'seeded'", minimum=0),
    },
    published={"images": 603, "polarity/negative": 133, "polarity/positive": 470},
)
