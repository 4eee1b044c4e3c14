"""CrowdFlower's image sentiment polarity: 15,613 images as urls, judged on five levels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from extract.corpora.dataset import Dataset, labelled
from extract.corpora.labels import POLARITY, groups_of, mapped, single
from extract.corpora.pictures import Pictures
from extract.corpora.splits import seeded_split
from extract.corpora.tables import read_table
from extract.corpora.texts import find_one
from extract.errors import CorpusError
from extract.inputs.trees import open_tree

LEVELS = ("highly negative", "negative", "neutral", "positive", "highly positive")
_QUESTION = "which_of_these_sentiment_scores_does_the_above_image_fit_into_best"
_LAYOUT = "image-Sentiment-polarity-DFE.csv and the images, which you fetch from its urls as <_unit_id>.jpg"
_REMEDY = "the columns are _unit_id, which_of_these_sentiment..., <the same>:confidence and imageurl"


def read(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read the table; ids are the unit ids."""
    try:
        least = float(options["confidence"])
    except ValueError as error:
        raise CorpusError(
            f"option 'confidence' of corpus 'crowdflower' must be a number from 0 to 1; got {options['confidence']!r}"
        ) from error
    tree = open_tree(data)
    path = find_one(tree, ["image-Sentiment-polarity-DFE.csv", "*sentiment*polarity*.csv"], layout=_LAYOUT)
    table = read_table(tree, path)
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
        raise CorpusError(f"no image has a confidence of {least:g} or more; use a smaller --option confidence=")
    names, n_left = [units[row] for row in kept], len(units) - len(kept)
    levels = [LEVELS.index(words[row]) for row in kept]
    sentiment = single("sentiment", LEVELS, levels, "CrowdFlower, the most trusted answer")
    polarity = mapped(sentiment, {one: one.removeprefix("highly ") for one in LEVELS}, POLARITY, name="polarity")
    groups = groups_of([urls[row] for row in kept])
    return labelled(
        name,
        options,
        names,
        Pictures(tree, ("images",)).files(names, suffix=".jpg"),
        labels=[sentiment, polarity],
        splits=[seeded_split("default", names, polarity.values, seed=options["seed"], groups=groups)],
        groups=groups,
        notes=[f"{n_left} images with a confidence below {least:g} were left out" if n_left else ""],
    )
