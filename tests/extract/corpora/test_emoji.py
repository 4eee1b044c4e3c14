"""The emoji corpus: labels from the counts of the ranking, pictures drawn here."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from extract.corpora import find_corpus
from extract.errors import CorpusError
from extract.inputs.images import make_decoder


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    return find_corpus("emoji").read(tmp_path_factory.mktemp("emoji"), {"min_occurrences": "300"})


def ranking() -> dict[str, dict[str, str]]:
    package = Path(importlib.util.find_spec("emosent").submodule_search_locations[0])
    with (package / "data" / "Emoji_Sentiment_Data_v1.0.csv").open(encoding="utf-8") as file:
        return {f"{ord(row['Emoji']):04X}.png": row for row in csv.DictReader(file) if len(row["Emoji"]) == 1}


def test_emoji_labels_follow_from_the_counts(emoji):
    rows = ranking()
    index = emoji.index
    names = index.labels["polarity"].task.classes
    for at, image_id in enumerate(index.ids.tolist()):
        row = rows[image_id]
        assert int(row["Occurrences"]) >= 300
        counts = np.array([int(row[name.capitalize()]) for name in names])
        assert counts[index.labels["polarity"].values[at]] == counts.max()
        assert index.labels["evokes"].values[at].tolist() == (counts / counts.sum() >= 0.3).tolist()
        expected = (counts[2] - counts[0]) / counts.sum()
        assert index.labels["valence"].values[at, 0] == pytest.approx(expected)


def test_emoji_pictures_are_drawn_in_colour_and_not_cut_off(emoji):
    decode = make_decoder()
    pictures = [decode(emoji.files.read(row)).astype(int) for row in range(12)]
    assert {picture.shape for picture in pictures} == {(320, 320, 3)}
    assert sum(np.ptp(picture, axis=2).max() > 60 for picture in pictures) > 6
    for picture in pictures:
        edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert edge.min() == 255
        assert picture.min() < 128


def test_emoji_sizes_at_the_documented_thresholds(tmp_path, monkeypatch):
    from extract.corpora import emoji as module

    monkeypatch.setattr(module, "draw_pictures", lambda *_: None)  # the pictures are not what is counted
    sizes = {n: len(find_corpus("emoji").read(tmp_path, {"min_occurrences": str(n)}).index) for n in (1, 5, 20, 100)}
    assert sizes == {1: 767, 5: 637, 20: 415, 100: 190}


def test_emoji_is_split_70_10_20_by_polarity(emoji):
    parts, polarity = emoji.index.splits["default"].values, emoji.index.labels["polarity"].values
    for label in np.unique(polarity):
        counts = np.bincount(parts[polarity == label], minlength=3)
        n = counts.sum()
        assert counts.tolist() == [n - round(0.1 * n) - round(0.2 * n), round(0.1 * n), round(0.2 * n)]


def test_bad_options_are_refused(tmp_path):
    for given, words in (({"min_occurrences": "x"}, "whole number"), ({"min_occurrences": "0"}, "at least 1")):
        with pytest.raises(CorpusError, match=words):
            find_corpus("emoji").read(tmp_path, given)
    with pytest.raises(CorpusError, match="no emoji"):
        find_corpus("emoji").read(tmp_path, {"min_occurrences": "1000000"})
