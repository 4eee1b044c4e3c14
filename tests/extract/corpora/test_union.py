"""Several corpora as one: prefixes, scales, vocabularies, splits, groups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layouts import MAKERS, picture

from extract.corpora import CORPORA, find_corpus
from extract.corpora.labels import rescaled
from extract.errors import CorpusError
from features_store import AffectoryError


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """A small corpus of each kind, by name."""
    found = {}
    for name in (*CORPORA["jndataset"].members, "emotion6", "fi", "twitter1", "b-t4sa", "vso-603"):
        found[name] = MAKERS[name](tmp_path / name).data
    return found


DIRTI = {
    "dirti.image": "Nummer",
    "dirti.valence": "Valenz",
    "dirti.arousal": "Erregung",
    "dirti.delimiter": ";",
}


def test_ratings_are_rescaled(places: dict[str, Path]) -> None:
    """Valence and arousal by ((v - oldmin)(newmax - newmin) / (oldmax - oldmin)) + newmin, worked out by hand."""
    corpus = find_corpus("union:oasis,gaped,emomadrid")
    reading = corpus.read({name: places[name] for name in corpus.members})
    index = reading.index
    assert index.ids.tolist() == [
        *("oasis/Acorns 1", "oasis/Crosswalk 1", "oasis/War 2"),
        *("gaped/A/A001.bmp", "gaped/A/A002.bmp", "gaped/Sp/Sp001.bmp"),
        *("emomadrid/EM0001.jpg", "emomadrid/EM0002.jpg"),
    ]
    labels = index.labels["valence_arousal"]
    assert labels.task.range == (1.0, 9.0)
    wanted = [
        [(4.68627451 - 1) * 8 / 6 + 1, (2.346938776 - 1) * 8 / 6 + 1],
        [5.0, (3.5 - 1) * 8 / 6 + 1],
        [0.5 * 8 / 6 + 1, 4.25 * 8 / 6 + 1],
        [8.5 * 0.08 + 1, 70.25 * 0.08 + 1],
        [12 * 0.08 + 1, 60 * 0.08 + 1],
        [30.5 * 0.08 + 1, 55 * 0.08 + 1],
        [0.5 * 2 + 1, 3.75 * 2 + 1],
        [2.25 * 2 + 1, 0 * 2 + 1],
    ]
    np.testing.assert_allclose(labels.values, wanted, rtol=1e-6)
    # The category of OASIS and that of GAPED have no class in common, but one name: the classes are put side by side.
    assert index.labels["category"].task.classes == (
        "animal",
        "object",
        "person",
        "scene",
        "A",
        "H",
        "N",
        "P",
        "Sn",
        "Sp",
    )
    assert index.labels["category"].values.tolist() == [1, 3, 3, 4, 4, 9, -1, -1]
    assert [reading.files.read(row)[:1] for row in range(len(index))] == [b"\xff"] * 3 + [b"B"] * 3 + [b"\xff"] * 2


def test_range_of_a_member_is_an_option(places: dict[str, Path]) -> None:
    """OASIS taken for a scale of 1 to 9, as a study did, stays as it is."""
    corpus = find_corpus("union:oasis,emomadrid")
    data = {name: places[name] for name in corpus.members}
    values = corpus.read(data, {"oasis.range": "1..9"}).index.labels["valence_arousal"].values
    np.testing.assert_allclose(values[1], [4, 3.5])
    values = corpus.read(data, {"range": "0..1"}).index.labels["valence_arousal"].values
    np.testing.assert_allclose(values[1], [0.5, 2.5 / 6], rtol=1e-6)


def test_rescaling_at_the_ends() -> None:
    """Ends go to ends, the middle to the middle, nothing to nothing."""
    values = rescaled(np.array([[-2.0, 0.0], [2.0, np.nan]]), (-2, 2), (1, 9))
    np.testing.assert_array_equal(values, [[1, 5], [9, np.nan]])


def test_jndataset(places: dict[str, Path]) -> None:
    """The union of seven, with the split of the study: a tenth, then a quarter of the rest."""
    corpus = CORPORA["jndataset"]
    assert corpus.members == ("ied", "dirti", "emomadrid", "gaped", "smid", "oasis", "naps")
    index = corpus.read({name: places[name] for name in corpus.members}, DIRTI).index
    assert len(index) == 2 + 2 + 2 + 3 + 2 + 3 + 2
    assert index.labels["valence_arousal"].known.all()
    assert np.bincount(index.splits["thesis"].values).tolist() == [10, 4, 2]  # 16: ceil(1.6) = 2, ceil(14 / 4) = 4
    assert index.groups is None


def test_vocabularies_are_united_by_name(places: dict[str, Path]) -> None:
    """Equal names are one class; a map is explicit, and says so in the task's source."""
    corpus = find_corpus("union:emotion6,fi")
    data = {name: places[name] for name in corpus.members}
    plain = corpus.read(data).index.labels["emotion"]
    assert plain.task.classes == (
        *("anger", "disgust", "fear", "joy", "sadness", "surprise"),
        *("amusement", "awe", "contentment", "excitement"),
    )
    assert [plain.task.classes[value] for value in plain.values.tolist()] == [
        *("disgust", "joy", "fear"),
        *("amusement", "amusement", "sadness"),
    ]
    mapped = corpus.read(data, {"map": "emotion6.emotion:joy>amusement|surprise>excitement"}).index.labels["emotion"]
    assert "joy" not in mapped.task.classes
    assert [mapped.task.classes[value] for value in mapped.values.tolist()][1] == "amusement"
    assert "joy > amusement" in mapped.task.source
    with pytest.raises(AffectoryError, match=r"unknown class of emotion6\.emotion"):
        corpus.read(data, {"map": "emotion6.emotion:glee>joy"})


def test_polarities_two_and_three(places: dict[str, Path]) -> None:
    """A task of two classes joins one of three; groups stay apart; parts stay what they were."""
    corpus = find_corpus("union:b-t4sa,twitter1")
    data = {name: places[name] for name in corpus.members}
    index = corpus.read(data, {"map": "twitter1.three=polarity"}).index
    labels = index.labels["polarity"]
    assert labels.task.classes == ("negative", "neutral", "positive")
    assert labels.values.tolist() == [2, 2, 0, 1, 1, 0, 1, 2, 0, 2, 2, 0, 0, 2]
    assert index.groups is not None
    assert index.groups.tolist() == [0, 0, -1, 1, 1, -1, -1, -1, -1, 2, 2, -1, -1, -1]
    assert index.splits["default"].values[:9].tolist() == [0, 0, 0, 0, 0, 0, 1, 2, 2]
    assert index.labels["five"].values.tolist() == [-1] * 9 + [1, 1, 0, -1, -1]


@pytest.mark.parametrize(
    ("name", "piece"),
    [
        ("union:oasis", "two or more"),
        ("union:oasis,oasis", "each once"),
        ("union:oasis,oassis", "did you mean 'oasis'"),
        ("union:oasis,jndataset", "is a union itself"),
    ],
)
def test_wrong_names(name: str, piece: str) -> None:
    """A union that cannot be is refused by name."""
    with pytest.raises(CorpusError, match=piece):
        find_corpus(name)


def test_places_on_the_command_line(
    places: dict[str, Path], command_line: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """``--data NAME=PATH`` for each member; what is missing or unknown is named."""
    pairs = [f"oasis={places['oasis']}", f"emomadrid={places['emomadrid']}"]
    given = [text for pair in pairs for text in ("--data", pair)]
    arguments = ["--store", tmp_path / "s", "--encoders", "lowlevel", "--limit", 1]
    code, out, err = command_line("run", "union:oasis,emomadrid", *given, *arguments)
    assert code == 0, err
    assert "store" in out
    code, _, err = command_line("run", "union:oasis,emomadrid", *given[:2])
    assert (code, "--data emomadrid=PATH" in err) == (2, True)
    code, _, err = command_line("run", "union:oasis,emomadrid", *given, "--data", "gaped=/x")
    assert (code, "unknown member" in err) == (2, True)
    code, _, err = command_line("run", "union:oasis,emomadrid", "--data", places["oasis"])
    assert (code, "--data NAME=PATH" in err) == (2, True)


def test_the_store_of_a_union_is_verified(
    places: dict[str, Path], command_line: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """``verify --recompute`` reads the images of each member again, from places by name."""
    from typer.testing import CliRunner

    from features_store.__main__ import app

    table = tmp_path / "own" / "ratings.csv"
    picture(table.parent / "pics/1.jpg", 1)
    table.write_text("image,mood\npics/1.jpg,calm\n", encoding="utf-8")
    given = ["--data", f"oasis={places['oasis']}", "--data", f"csv={table}", "--option", "csv.single=mood"]
    store = tmp_path / "s"
    code, _, err = command_line("run", "union:oasis,csv", *given, "--store", store, "--encoders", "lowlevel")
    assert code == 0, err
    ended = CliRunner().invoke(app, ["verify", str(store), "--recompute", "4", *given[:4]])
    assert ended.exit_code == 0, ended.output
    assert "worst cosine drift of 4 rows" in ended.output
    ended = CliRunner().invoke(app, ["verify", str(store), "--recompute", "1", "--data", str(places["oasis"])])
    assert ended.exit_code != 0
    assert "--data oasis=PATH --data csv=PATH" in str(ended.exception)
