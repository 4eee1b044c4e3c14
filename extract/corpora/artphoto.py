"""ArtPhoto and Abstract: the two sets of Machajdik and Hanbury."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.dataset import Dataset, labelled
from extract.corpora.labels import MIKELS, emotion_votes, emotion_word, emotions, majority
from extract.corpora.pictures import Pictures
from extract.corpora.splits import seeded_split
from extract.corpora.tables import read_table
from extract.corpora.texts import BY_HAND, find_one
from extract.errors import CorpusError
from extract.inputs.trees import open_tree


def read_artphoto(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read the emotion of each image from its file name, before the first ``_``."""
    tree = open_tree(data)
    images = tree.images()
    words = [emotion_word(path.rpartition("/")[2].partition("_")[0]) for path in images]
    paths = [path for path, word in zip(images, words, strict=True) if word in MIKELS]
    if not paths:
        raise CorpusError(
            f"{tree.place}: expected images named <emotion>_<id>.jpg, with sad for sadness; found "
            f"{(images or ['no image'])[0]!r}; give the folder testImages_artphoto, {BY_HAND}"
        )
    values = [MIKELS.index(word) for word in words if word in MIKELS]
    files, n_others = [path.rpartition("/")[2] for path in paths], len(images) - len(paths)
    ids = files if len(set(files)) == len(files) else paths
    return labelled(
        name,
        options,
        ids,
        tree.source(np.array(paths)),
        labels=emotions(MIKELS, values, "the artist's intention, from the name of the file"),
        splits=[seeded_split("default", ids, values, seed=options["seed"])],
        notes=[f"{n_others} images are not named after an emotion and were left out" if n_others else ""],
        left_out=tree.census().left_out,
    )


def read_abstract(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read the table of votes, with names in single quotes."""
    tree = open_tree(data)
    layout = "testImages_abstract/ and ABSTRACT_groundTruth.csv"
    table = read_table(tree, find_one(tree, ["ABSTRACT_groundTruth.csv", "abstract*.csv"], layout=layout), quote="'")
    titles = [emotion_word(title) for title in table.header]
    if not {*MIKELS} <= {*titles} or titles[0] in MIKELS:
        expected = "a column of file names, and Amusement, Anger, Awe, Content, Disgust, Excitement, Fear, Sad"
        raise table.misfit(None, expected=expected, found=", ".join(table.header))
    names = [cell.strip("'\" ") for cell in table.cells(0)]
    table.refuse_twice(names)
    columns = [table.numbers(titles.index(one), remedy="votes are whole numbers") for one in MIKELS]
    votes = np.nan_to_num(np.stack(columns, axis=1))
    n_ties = int((majority(votes) < 0).sum())
    return labelled(
        name,
        options,
        names,
        Pictures(tree, ("testImages_abstract", "images")).files(names),
        labels=emotion_votes(MIKELS, votes, "most of the votes of about 14 people; a tie is no label"),
        splits=[seeded_split("default", names, majority(votes), seed=options["seed"])],
        notes=[f"{n_ties} images have a tie of votes, hence no label in 'emotion' and 'polarity'" if n_ties else ""],
    )
