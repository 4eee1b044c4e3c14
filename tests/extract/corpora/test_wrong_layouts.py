"""A layout that does not fit gives an error with what was expected, what was found, the line, and the way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from layouts import MAKERS, text

from extract.corpora import find_corpus
from features_store import AffectoryError

# corpus, file, what is replaced in it by what, and pieces of the message
WRONG = [
    ("b-t4sa", "b-t4sa_imgs/b-t4sa_train.txt", "-1.jpg 2", "-1.jpg 7", "line 1", "0 negative, 1 neutral", "-1.jpg 7"),
    ("b-t4sa", "b-t4sa_imgs/b-t4sa_test.txt", "784393626990194688-1.jpg 0", "oops", "line 2", "expected", "oops"),
    ("t4sa", "t4sa_text_sentiment.tsv", "TWID\tNEG", "ID\tNEG", "line 1", "TWID NEG NEU POS", "ID"),
    ("t4sa", "t4sa_text_sentiment.tsv", "\t1\t0\t0", "\tx\t0\t0", "line 3", "three numbers", "768840000000000005"),
    ("t4sa2", "bal_T4SA2.0_val.csv", "jpg,0", "jpg,9", "line 1", "15233", ",9"),
    ("twitter1", "twitter_five_agrees.txt", "other.png 0", "other.png 2", "line 3", "0 negative, 1 positive", "png 2"),
    ("vso-603", "mine.txt", "negative", "angry", "line 3", "--option negative=", "c,d.jpg"),
    ("mediaeval21", "devset.csv", "T2.4: Disgust", "X", "line 1", "'T2.4'", "T2.5: Anger"),
    ("mediaeval21", "devset.csv", "neutral,1", "meh,1", "line 2", "negative, neutral, positive", "meh"),
    ("mediaeval21", "devset.csv", "negative,0", "negative,2", "line 3", "0 or 1 in column 'T2.1: Joy'", "2"),
    ("crowdflower", "image-Sentiment-polarity-DFE.csv", "Highly negative,0.7", "Bad,0.7", "line 4", "level", "bad"),
    ("crowdflower", "image-Sentiment-polarity-DFE.csv", "imageurl", "link", "line 1", "'imageurl'", "link"),
    ("oasis", "OASIS.csv", "Valence_mean", "Val", "line 1", "'Valence_mean'", "--option valence=COLUMN"),
    ("oasis", "OASIS.csv", "4.68627451", "9.7", "line 2", "within 1..7", "--option range=LOW..HIGH"),
    ("oasis", "OASIS.csv", ",4,1.2", ",x,1.2", "line 3", "a number in column 'Valence_mean'", "'x'"),
    ("oasis", "OASIS.csv", "Scenery", "Landscape", "line 4", "animal, object, person, scene", "landscape"),
    ("gaped", "GAPED/GAPED/A_with SD.txt", "A002.bmp 12 (1) 60", "A002.bmp", "line 4", "valence  (sd)", "A002"),
    ("gaped", "GAPED/GAPED/A_with SD.txt", "8.5", "850", "line 2", "within 0..100", "850"),
    (
        "naps",
        "NAPS_valence_arousal_2014.csv",
        "6,5;",
        "high;",
        "line 1",
        "a number in column '#6'",
        "--option valence=COLUMN",
    ),
    ("iaps", "AllSubjects_1-20.txt", "valmn", "mean", "expected a header", "'valmn'", "--option valence=COLUMN"),
    ("smid", "SMID_norms.csv", "arousal_mean", "act", "line 1", "'arousal_mean'", "--option arousal=COLUMN"),
    ("emomadrid", "MeanValence.txt", "-1.5\n", "", "MeanValence.txt", "(2)", "1 lines"),
    ("emomadrid", "MeanValence.txt", "-1.5", "-3", "line 1", "within -2..2", "-3"),
    ("dirti", "norms.csv", "Erregung", "Y", "line 1", "'Erregung'", "--option image=COLUMN"),
    ("ied", "table.csv", "5,4", "5,?", "line 2", "a number in column 'arousal'", "?"),
    ("emotion6", "Emotion6/ground_truth.txt", "[arousal]", "[a]", "line 1", "arousal", "[image_filename]"),
    ("emotion6", "Emotion6/ground_truth.txt", "fear/2.jpg", "love/2.jpg", "line 4", "anger, disgust", "love/2.jpg"),
    ("emotionroi", "EmotionROI/training_testing_split/testing.txt", "anger/232", "232", "line 1", "<n>.jpg", "232.jpg"),
    ("fi", "split_1/FI_val.csv", "jpg,2", "jpg,1", "line 2", "0 or 2", "jpg,1"),
    ("abstract", "ABSTRACT_groundTruth.csv", "'Awe'", "'Wow'", "line 1", "Awe", "Wow"),
    ("abstract", "ABSTRACT_groundTruth.csv", "0,3,0", "0,no,0", "line 2", "a number in column 'Anger'", "no"),
    ("emoset", "val.json", '"anger"', '"love"', "row 1", "[emotion, image path, annotation path]", "love"),
    ("emoset", "test.json", "[[", "[", "line 1", "a JSON list", "Extra data"),
    ("flickr-ldl", "ground_truth.txt", "Awe", "Wow", "line 1", "missing: awe", "Wow"),
    ("flickr-ldl", "ground_truth.txt", "6 2", "6 x", "line 2", "a number in column 'Awe'", "'x'"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: f"{case[0]}:{case[3]}")
def test_explained_error(case: tuple[str, ...], tmp_path: Path) -> None:
    """The message names file, line, expectation, finding, and ends in what to do by hand."""
    name, file, old, new, where, expected, found = case
    made = MAKERS[name](tmp_path)
    path = tmp_path / file
    content = path.read_bytes().decode("latin-1")
    assert old in content
    path.write_bytes(content.replace(old, new, 1).encode("latin-1"))
    with pytest.raises(AffectoryError) as caught:
        find_corpus(name).read(made.data, made.options)
    message = str(caught.value)
    for piece in (Path(file).name, where, expected, found, "--option"):
        assert piece in message, message
    assert "\n" not in message


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_nothing_there(name: str, tmp_path: Path, command_line: Callable[..., tuple[int, str, str]]) -> None:
    """An empty folder, a missing one and a file that is no archive each give one sentence and exit code 2."""
    (tmp_path / "empty").mkdir()
    text(tmp_path / "no.tar", "this is no tar\n" * 100)
    for place in ("empty", "absent", "no.tar"):
        code, out, err = command_line("check", name, "--data", tmp_path / place)
        assert code == 2
        assert out == ""
        assert re.fullmatch(r"error: [^\n]+\n", err), err
        assert place in err


@pytest.mark.parametrize(
    ("name", "option", "piece"),
    [
        ("oasis", "range=7..1", "LOW..HIGH"),
        ("oasis", "range=wide", "LOW..HIGH"),
        ("oasis", "colour=red", "unknown option"),
        ("oasis", "valence=Joy", "Valence_mean"),
        ("naps", "valence=#99", "7 columns"),
        ("fi", "equal=maybe", "drop or keep"),
        ("mediaeval21", "all_zero=maybe", "keep or unlabelled"),
        ("crowdflower", "confidence=sure", "number from 0 to 1"),
        ("crowdflower", "confidence=1", "smaller"),
        ("b-t4sa", "lists=x.txt", "{part}"),
        ("b-t4sa-tfm", "train=30", "give --option train="),
        ("b-t4sa-tfm", "test=4", "not divisible by 3"),
        ("t4sa2", "variant=../x", "variant"),
    ],
)
def test_options_are_checked(name: str, option: str, piece: str, tmp_path: Path) -> None:
    """A wrong option is named, with what is valid."""
    made = MAKERS[name](tmp_path)
    with pytest.raises(AffectoryError, match=re.escape(piece)):
        find_corpus(name).read(made.data, {**made.options, **dict([option.split("=", 1)])})


def test_tables_outside_are_not_read(tmp_path: Path) -> None:
    """A list that names images outside the corpus is refused."""
    made = MAKERS["b-t4sa"](tmp_path)
    text(tmp_path / "b-t4sa_imgs/b-t4sa_val.txt", "../../etc/passwd.jpg 1\n")
    with pytest.raises(AffectoryError, match="component"):
        find_corpus("b-t4sa").read(made.data)


def test_two_tables_are_ambiguous(tmp_path: Path) -> None:
    """Two tables that could be meant are named, and one can be chosen."""
    made = MAKERS["ied"](tmp_path)
    text(tmp_path / "other.csv", "filename,valence,arousal\nx/1.jpg,1,1\n")
    with pytest.raises(AffectoryError, match=r"holds 2 files .*other\.csv, table\.csv"):
        find_corpus("ied").read(made.data)
    chosen = find_corpus("ied").read(made.data, {"file": "other.csv"})
    assert chosen.index.labels["valence_arousal"].values.tolist() == [[1.0, 1.0]]
