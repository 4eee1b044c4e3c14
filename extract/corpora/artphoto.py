"""ArtPhoto and Abstract: the two sets of Machajdik and Hanbury."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.emotions import emotion_labels
from extract.corpora.partition import stratified
from extract.corpora.pictures import Pictures
from extract.corpora.texts import BY_HAND, find_one, table_of
from extract.corpora.vocabulary import MIKELS, majority, ratings, shares, spelled
from extract.errors import CorpusError
from extract.inputs.trees import open_tree
from features_store import Index, Split

_LAYOUT = "testImages_abstract/ and ABSTRACT_groundTruth.csv"


def read_artphoto(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read the emotion of each image from its file name: what stands before the first ``_``."""
    tree = open_tree(data)
    names, values, others = [], [], []
    for path in tree.images():
        emotion = spelled(path.rpartition("/")[2].partition("_")[0])
        if emotion in MIKELS:
            names.append(path)
            values.append(MIKELS.index(emotion))
        else:
            others.append(path)
    if not names:
        found = others[0] if others else "no image"
        msg = (
            f"{tree.place}: expected images named <emotion>_<id>.jpg, with sad for sadness; found {found!r}; "
            f"give the folder testImages_artphoto, {BY_HAND}"
        )
        raise CorpusError(msg)
    files = [name.rpartition("/")[2] for name in names]
    ids = files if len(set(files)) == len(files) else names
    index = Index(
        np.array(ids),
        emotion_labels(MIKELS, values, "the artist's intention, from the name of the file"),
        {"default": Split("default", stratified(ids, values, seed=options["seed"]), source="made")},
        corpus={"name": "artphoto", "options": dict(options)},
    )
    notes = (f"{len(others)} images are not named after an emotion and were left out",) if others else ()
    return Reading(index, tree.source(np.array(names)), notes, tree.census().left_out)


def read_abstract(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read the table of votes, whose names stand in single quotes."""
    tree = open_tree(data)
    path = find_one(tree, ["ABSTRACT_groundTruth.csv", "abstract*.csv"], layout=_LAYOUT)
    table = table_of(tree, path, quote="'")
    titles = [spelled(title) for title in table.header]
    missing = [one for one in MIKELS if one not in titles]
    if missing or titles[0] in MIKELS:
        expected = "a column of file names, and Amusement, Anger, Awe, Content, Disgust, Excitement, Fear, Sad"
        raise table.misfit(None, expected=expected, found=", ".join(table.header))
    names = [cell.strip("'\" ") for cell in table.cells(0)]
    table.refuse_twice(names)
    columns = [table.numbers(titles.index(one), remedy="votes are whole numbers") for one in MIKELS]
    votes = np.nan_to_num(np.stack(columns, axis=1))
    values = majority(votes)
    labels = emotion_labels(MIKELS, values, "most of the votes of about 14 people; a tie is no label")
    spread = ratings(shares(votes), (0.0, 1.0), "shares of the votes", name="distribution", outputs=MIKELS)
    index = Index(
        np.array(names),
        {**labels, "distribution": spread},
        {"default": Split("default", stratified(names, values.tolist(), seed=options["seed"]), source="made")},
        corpus={"name": "abstract", "options": dict(options)},
    )
    n_ties = int((values < 0).sum())
    notes = (f"{n_ties} images have a tie of votes, hence no label in 'emotion' and 'polarity'",) if n_ties else ()
    return Reading(index, Pictures(tree, ("testImages_abstract", "images")).source(names), notes)


_ABOUT: dict[str, Any] = {
    "obtain": "imageemotion.org; give the zip or the folder it unpacks to",
    "licence": "no licence is known to us; the images belong to their owners",
    "citation": "Machajdik, Hanbury, Affective Image Classification using Features Inspired by Psychology and Art "
    "Theory, ACM Multimedia 2010",
    "splits": {"default": "70/10/20, stratified, seeded; there is no official one"},
    "options": {"seed": Option(0, "seed of the split", minimum=0)},
}
ARTPHOTO = Corpus(
    name="artphoto",
    title="ArtPhoto: 806 artistic photographs in eight emotions",
    reader=read_artphoto,
    tasks={
        "emotion": "single: Mikels' eight; sad in the file names is sadness",
        "polarity": "single: negative, positive; amusement, awe, contentment and excitement are positive",
    },
    defects=("the label is what the artist wanted, not what people feel",),
    published={"images": 806},
    **_ABOUT,
)
ABSTRACT = Corpus(
    name="abstract",
    title="Abstract: 280 abstract paintings with votes for eight emotions",
    reader=read_abstract,
    tasks={
        "emotion": "single: the most votes; a tie is no label",
        "polarity": "single: negative, positive; from the emotion",
        "distribution": "regression: shares of the votes, 0 to 1",
    },
    defects=("52 of the 280 paintings have a tie of votes", "file names stand in single quotes"),
    published={"images": 280},
    **_ABOUT,
)
