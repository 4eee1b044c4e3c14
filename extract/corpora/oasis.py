"""OASIS and SMID: open sets of photographs with norms, rated online."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.dataset import Corpus, Reading
from extract.corpora.norms import REMEDY, Layout, ends_of, norms_of, reading_of, table_and_columns
from extract.corpora.vocabulary import ratings, single
from extract.inputs.trees import open_tree

CATEGORIES = ("animal", "object", "person", "scene")
FOUNDATIONS = ("harm", "fairness", "ingroup", "authority", "purity")
_OASIS = Layout(
    name="oasis",
    files=("OASIS.csv",),
    image=("Theme",),
    valence=("Valence_mean",),
    arousal=("Arousal_mean",),
    ends=(1.0, 7.0),
    source="mean of ratings on a scale from 1 to 7, online (MTurk)",
)
_SMID = Layout(
    name="smid",
    files=("SMID_norms.csv",),
    image=("img_name", ""),
    valence=("valence_mean",),
    arousal=("arousal_mean",),
    ends=(1.0, 5.0),
    source="mean of ratings, online",
    folders=("img", "SMID_images_400px"),
)


def read_oasis(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read ``OASIS.csv``; ids are the themes."""
    tree = open_tree(data)
    norms = norms_of(tree, _OASIS, options)
    table, _ = table_and_columns(tree, _OASIS, options)
    if "Category" not in table.header:
        return reading_of(tree, _OASIS, norms, options)
    # One copy says Scene, another Scenery.
    words = [
        {"scenery": "scene"}.get(cell.lower(), cell.lower()) for cell in table.cells(table.header.index("Category"))
    ]
    for row, word in enumerate(words):
        if word not in CATEGORIES:
            table.refuse(row, f"a category ({', '.join(CATEGORIES)})", word, REMEDY)
    labels = single("category", CATEGORIES, [CATEGORIES.index(word) for word in words], "what the picture shows")
    return reading_of(tree, _OASIS, replace(norms, further={"category": labels}), options)


def read_smid(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read ``SMID_norms.csv``; the column of the images may have no title."""
    tree = open_tree(data)
    norms = norms_of(tree, _SMID, options)
    table, _ = table_and_columns(tree, _SMID, options)
    titles = [title.lower() for title in table.header]
    ends, further = ends_of("smid", options["range"]), {}
    for name, outputs in (("moral", ("moral",)), ("foundations", FOUNDATIONS)):
        if all(f"{one}_mean" in titles for one in outputs):
            columns = [table.numbers(titles.index(f"{one}_mean"), remedy=REMEDY, empty=("", "NA")) for one in outputs]
            further[name] = ratings(np.stack(columns, axis=1), ends, _SMID.source, name=name, outputs=outputs)
    return reading_of(tree, _SMID, replace(norms, further=further), options)


OASIS = Corpus(
    name="oasis",
    title="OASIS: 900 photographs with valence and arousal",
    obtain="osf.io/6pnd7, open; give the folder with OASIS.csv and images/",
    licence="open on OSF; its page states the terms",
    citation="Kurdi, Lozano, Banaji, Introducing the Open Affective Standardized Image Set, "
    "Behavior Research Methods 2017",
    reader=read_oasis,
    tasks={
        "valence_arousal": "regression: means, 1 to 7",
        "category": "single: animal, object, person, scene",
    },
    splits={"default": "70/10/20, seeded; there is no official one"},
    defects=(
        "the author's table ends its lines with a carriage return alone",
        "two themes end in a blank, and a category is Scene in one copy and Scenery in another: both are mended",
    ),
    options=_OASIS.options(),
    published={
        "images": 900,
        "category/person": 346,
        "category/scene": 220,
        "category/object": 200,
        "category/animal": 134,
    },
)
SMID = Corpus(
    name="smid",
    title="SMID: the Socio-Moral Image Database, with valence and arousal",
    obtain="osf.io/2rqad; give the folder with SMID_norms.csv and SMID_images_400px/img/",
    licence="its page on OSF states the terms",
    citation="Crone, Bode, Murawski, Laham, The Socio-Moral Image Database, PLOS ONE 2018",
    reader=read_smid,
    tasks={
        "valence_arousal": "regression: means, 1 to 5",
        "moral": "regression: mean, 1 to 5, where the column is there",
        "foundations": f"regression: means of {', '.join(FOUNDATIONS)}, 1 to 5, where the columns are there",
    },
    splits={"default": "70/10/20, seeded; there is no official one"},
    defects=("the column of the image names has no title in some copies, and its names no suffix: both are read",),
    options=_SMID.options(),
)
