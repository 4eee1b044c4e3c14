"""CrowdFlower's image sentiment polarity: 15,613 images as urls, judged on five levels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.partition import grouped
from extract.corpora.pictures import Pictures
from extract.corpora.texts import find_one, table_of
from extract.corpora.vocabulary import POLARITY, groups_of, mapped, single
from extract.errors import CorpusError
from extract.inputs.trees import open_tree
from features_store import Index, Split

LEVELS = ("highly negative", "negative", "neutral", "positive", "highly positive")
_POLARITY_OF = {one: one.removeprefix("highly ") for one in LEVELS}
_QUESTION = "which_of_these_sentiment_scores_does_the_above_image_fit_into_best"
_LAYOUT = "image-Sentiment-polarity-DFE.csv and the images, which you fetch from its urls as <_unit_id>.jpg"
_REMEDY = "the columns are _unit_id, which_of_these_sentiment..., <the same>:confidence and imageurl"


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read the table; ids are the unit ids."""
    try:
        least = float(options["confidence"])
    except ValueError as error:
        msg = f"option 'confidence' of corpus 'crowdflower' must be a number from 0 to 1; got {options['confidence']!r}"
        raise CorpusError(msg) from error
    tree = open_tree(data)
    path = find_one(tree, ["image-Sentiment-polarity-DFE.csv", "*sentiment*polarity*.csv"], layout=_LAYOUT)
    table = table_of(tree, path)
    units = table.cells(table.position("_unit_id", remedy=_REMEDY))
    words = [cell.lower() for cell in table.cells(table.position(_QUESTION, remedy=_REMEDY))]
    confidence = table.numbers(table.position(f"{_QUESTION}:confidence", remedy=_REMEDY), remedy=_REMEDY)
    urls = table.cells(table.position("imageurl", remedy=_REMEDY))
    for row, word in enumerate(words):
        if word not in LEVELS:
            table.refuse(row, f"a level ({', '.join(LEVELS)})", word, _REMEDY)
    table.refuse_twice(units, _REMEDY)
    kept = [row for row in range(len(units)) if not confidence[row] < least]
    if not kept:
        msg = f"no image has a confidence of {least:g} or more; use a smaller --option confidence="
        raise CorpusError(msg)
    names = [units[row] for row in kept]
    levels = single(
        "sentiment", LEVELS, [LEVELS.index(words[row]) for row in kept], "CrowdFlower, the most trusted answer"
    )
    groups = groups_of([urls[row] for row in kept])
    polarity = mapped(levels, _POLARITY_OF, POLARITY, name="polarity")
    parts = grouped(names, polarity.values.tolist(), groups, seed=options["seed"])
    index = Index(
        np.array(names),
        {"sentiment": levels, "polarity": polarity},
        {"default": Split("default", parts, source="made")},
        groups,
        corpus={"name": "crowdflower", "options": dict(options)},
    )
    left = len(units) - len(kept)
    notes = (f"{left} images with a confidence below {least:g} were left out",) if left else ()
    return Reading(index, Pictures(tree, ("images",)).source(names, suffix=".jpg"), notes)


CORPUS = Corpus(
    name="crowdflower",
    title="CrowdFlower image sentiment polarity: 15,613 images on five levels",
    obtain="the CSV is in several public repositories; fetch the urls in it yourself, as <_unit_id>.jpg beside it",
    licence="no licence is known to us; the images belong to their owners on Flickr",
    citation="CrowdFlower (Figure Eight), Image Sentiment Polarity, Data for Everyone library",
    reader=read,
    tasks={
        "sentiment": f"single: {', '.join(LEVELS)}",
        "polarity": "single: negative, neutral, positive; the two high levels joined to theirs",
    },
    splits={"default": "70/10/20, equal urls together, stratified by polarity, seeded; there is no official one"},
    defects=(
        "many urls are dead: their images count as missing",
        "cells of the gold columns run over several lines",
    ),
    options={
        "confidence": Option("0", "least confidence of the answer, 0 to 1; 0.66 leaves 13,134 images"),
        "seed": Option(0, "seed of the split", minimum=0),
    },
    published={
        "images": 15_613,
        "sentiment/positive": 8551,
        "sentiment/neutral": 4227,
        "sentiment/negative": 2119,
        "sentiment/highly positive": 433,
        "sentiment/highly negative": 283,
    },
)
