"""Every corpus: a complete card, and in its official layout, with its known defects, the labels written by hand."""

from __future__ import annotations

import dataclasses
import doctest
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import MAKERS, Expected, picture, pictures, text

import extract
from extract.corpora import CORPORA, Corpus, Dataset, Option, find_corpus
from extract.corpora.dataset import labelled
from extract.corpora.labels import single
from extract.corpora.splits import seeded_split
from extract.encoders import PROFILES
from extract.errors import CorpusError, RefusedImageError
from extract.inputs.trees import open_tree
from features_store import open_store, write_index

OWN = {"emoji", "folder", "csv", "list"}  # made here, or the user's
NAMES = sorted(MAKERS)
PUBLISHED = ("b-t4sa*/*", "t4sa2/*", "emoset/*", "twitter-ldl/default", "emotionroi/default", "twitter1/f*-*")
PUBLISHED += ("mediaeval21/*", "fi/serra*")
DEAD = {"crowdflower": [1]}  # rows whose image is missing on purpose


def check_against(reading: Dataset, expected: Expected) -> None:
    """Compare a reading with what was written by hand."""
    index = reading.index
    assert index.ids.tolist() == expected.ids
    assert set(index.labels) == set(expected.labels)
    for task, wanted in expected.labels.items():
        values = index.labels[task].values
        if index.labels[task].task.kind == "regression":
            np.testing.assert_allclose(values, np.array(wanted, dtype=float), rtol=1e-6)
        else:
            assert values.tolist() == wanted, task
    for split, wanted in expected.splits.items():
        assert index.splits[split].values.tolist() == wanted, split
    assert "default" in index.splits
    name = str(index.corpus["name"])
    for split in index.splits.values():  # what is dealt here is made, and keeps groups whole
        published = any(fnmatch(f"{name}/{split.name}", pattern) for pattern in PUBLISHED)
        assert split.source == ("published" if published else "made"), split.name
        assert published or not split.crossed(index.groups).any(), split.name
    groups = None if index.groups is None else index.groups.tolist()
    assert groups == expected.groups


@pytest.mark.parametrize("name", NAMES)
def test_reading(name: str, tmp_path: Path) -> None:
    """Ids, labels, splits and groups are right, and every image that is there is found."""
    expected = MAKERS[name](tmp_path)
    reading = find_corpus(name).read(expected.data, expected.options)
    check_against(reading, expected)
    assert reading.index.corpus["name"] == name
    assert str(tmp_path) not in str(dict(reading.index.corpus))
    missing = []
    for row in range(len(reading.index)):
        try:
            assert reading.files.read(row)[:2] in (b"\xff\xd8", b"BM", b"\x89P")
        except RefusedImageError:
            missing.append(row)
    assert missing == DEAD.get(name, [])
    (tmp_path / "store").mkdir()
    write_index(tmp_path / "store/index.h5", reading.index)  # every corpus can be stored
    assert open_store(tmp_path / "store").labels.keys() == expected.labels.keys()


@pytest.mark.parametrize("name", ["b-t4sa", "emotion6", "dirti"])
def test_extract_run(name: str, tmp_path: Path, command_line: Callable[..., tuple[int, str, str]]) -> None:
    """``extract run NAME`` writes the index that was read."""
    expected = MAKERS[name](tmp_path / "corpus")
    options = [text for key, value in expected.options.items() for text in ("--option", f"{key}={value}")]
    arguments = ["--data", expected.data, "--store", tmp_path / "store", "--encoders", "lowlevel", "--limit", 1]
    code, _, err = command_line("run", name, *arguments, *options)
    assert code == 0, err
    store = open_store(tmp_path / "store")
    assert store.ids.tolist() == expected.ids
    assert set(store.labels) == set(expected.labels)


def test_every_corpus_has_a_layout() -> None:
    """No corpus of the table goes without a test."""
    assert set(CORPORA) - OWN - {"jndataset"} == set(MAKERS)


@pytest.mark.parametrize("name", CORPORA)
def test_cards_are_complete(name: str, tmp_path: Path) -> None:
    """Each card says what it is, how to get it, under which terms, whom to cite, and what is wrong with it."""
    corpus = CORPORA[name]
    assert corpus.name == name
    needed = ("title", "obtain", "licence") if name in OWN else ("title", "obtain", "licence", "citation", "tasks")
    for field in (*needed, "splits", *(() if name in OWN else ("defects",))):
        assert getattr(corpus, field), field
    assert corpus.default_profile in PROFILES
    for key, count in corpus.published.items():
        assert count > 0
        if key != "images":
            task_or_split, _, rest = key.partition("/")
            assert rest, key
            assert task_or_split in corpus.tasks or task_or_split in corpus.splits, key
    place = {member: tmp_path / "nowhere" for member in corpus.members} or tmp_path / "nowhere"
    with pytest.raises(CorpusError, match=f"unknown option of corpus '{name}' 'nonsense'"):
        corpus.read(place, {"nonsense": "1"})
    if name != "emoji":  # which draws what is missing
        with pytest.raises(CorpusError):
            corpus.read(place)


def test_unknown_corpora_and_options_from_python(tmp_path: Path) -> None:
    """An unknown corpus lists the valid ones; options of any type are checked as on the command line."""
    with pytest.raises(CorpusError, match=r"unknown corpus 'emojis' \(did you mean 'emoji'\?\)"):
        extract.read_corpus("emojis")
    made = MAKERS["oasis"](tmp_path)
    assert len(extract.read_corpus("oasis", made.data, seed=3).index) == 3
    with pytest.raises(CorpusError, match="option 'seed' of corpus 'oasis' must be at least 0"):
        extract.read_corpus("oasis", made.data, seed=-1)
    with pytest.raises(CorpusError, match="needs --data oasis=PATH --data emomadrid=PATH"):
        extract.read_corpus("union:oasis,emomadrid", made.data)


def test_a_corpus_of_ones_own_is_a_reader_and_a_card(tmp_path: Path) -> None:
    """The recipe: a function that ends in `labelled`, and what the card says; all else is done for it."""

    def read(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
        tree = open_tree(data)
        ids = np.array(tree.images())
        labels = single("mood", ("calm", "tense"), [at % 2 for at in range(len(ids))], "by hand")
        split = seeded_split("default", ids.tolist(), labels.values, seed=options["seed"])
        left_out = tree.census().left_out
        return labelled(name, options, ids, tree.source(ids), labels=[labels], splits=[split], left_out=left_out)

    card = {"name": "mine", "title": "mine", "obtain": "ask me", "licence": "mine"}
    corpus = Corpus(**card, reader=read, options={"seed": Option(0, "seed", minimum=0)})
    pictures(tmp_path, [f"{at}.jpg" for at in range(10)])
    text(tmp_path / "notes.txt", "not a picture")
    dataset = corpus.read(tmp_path, {"seed": "7"})
    assert dict(dataset.index.corpus["options"]) == {"seed": 7}
    assert np.bincount(dataset.index.splits["default"].values).tolist() == [7, 1, 2]
    assert dataset.notes == ("files left out: 1: 1 .txt (no picture)",)
    with pytest.raises(CorpusError, match="corpus 'mine' needs one --data PATH; ask me"):
        corpus.read()


def test_the_example_of_read_corpus() -> None:
    """What the docstring shows is what happens."""
    import extract.corpora

    done = doctest.testmod(extract.corpora)
    assert (done.failed, done.attempted > 5) == (0, True)


@pytest.mark.parametrize(
    ("name", "option", "path"),
    [
        ("oasis", "file", "OASIS.csv"),
        ("dirti", "file", "norms.csv"),
        ("emomadrid", "names", "image_names.txt"),
        ("t4sa", "table", "t4sa_text_sentiment.tsv"),
        ("b-t4sa", "lists", "b-t4sa_imgs/b-t4sa_{part}.txt"),
        ("mediaeval21", "test", "testset.csv"),
        ("vso-603", "list", "mine.txt"),
    ],
)
def test_no_path_of_this_machine_is_stored(name: str, option: str, path: str, tmp_path: Path) -> None:
    """A path that is given as an option is stored by its name, in a union too; the corpus is found again by it."""
    made, other = MAKERS[name](tmp_path / "a"), MAKERS["ied"](tmp_path / "b")
    given = {**made.options, option: str(made.data / path)}
    index = find_corpus(name).read(made.data, given).index
    assert index.corpus["options"][option] == Path(path).name
    again = {key: str(value) for key, value in index.corpus["options"].items()}
    assert find_corpus(name).read(made.data, again).index.digest == index.digest
    prefixed = {f"{name}.{key}": value for key, value in given.items()}
    union = find_corpus(f"union:{name},ied").read({name: made.data, "ied": other.data}, prefixed)
    assert str(tmp_path) not in str(union.index.corpus)


def test_published_lists_that_do_not_fit_are_reported(tmp_path: Path) -> None:
    """Lists, folds and names that are missing are in the notes; a list or a fold that is there twice is refused."""
    fi = MAKERS["fi"](tmp_path / "fi").data
    (fi / "split_1/FI_val.csv").unlink()
    train = fi / "split_1/FI_train.csv"
    train.write_text(train.read_text() + "awe/awe_7777.jpg,2\nsadness/sadness_0002.jpg,0\n")
    notes = " ".join(find_corpus("fi").read(fi).notes)
    for piece in (
        "split 'serra-1': split_1/FI_val.csv is not there",
        "1 names on its lists have no image in the corpus (the first is 'awe/awe_7777.jpg')",
        "1 images stand on two of its lists; the later list is used (the first is 'sadness/sadness_0002.jpg')",
        "serra-2, serra-3, serra-4, serra-5",
    ):
        assert piece in notes
    twitter = MAKERS["twitter1"](tmp_path / "twitter").data
    folds = twitter / "ground_truth/five_agrees"
    text(folds / "test4/test.txt", "1_2_gone.jpg 1\n")
    notes = " ".join(find_corpus("twitter1").read(twitter).notes)
    for piece in ("test5/test.txt of five_agrees/ are not there", "1_2_gone.jpg", "five folds of three, four"):
        assert piece in notes
    text(folds / "test4/test.txt", "1_2_gone.jpg\n")
    with pytest.raises(CorpusError, match=r"test4/test\.txt, line 1: expected"):
        find_corpus("twitter1").read(twitter)
    text(folds / "test4/test.txt", "1_2_gone.jpg 1\n")
    text(twitter / "copied/five_agrees/test4/test.txt", "1_2_gone.jpg 1\n")
    with pytest.raises(CorpusError, match="twice"):
        find_corpus("twitter1").read(twitter)
    roi = MAKERS["emotionroi"](tmp_path / "roi").data
    text(roi / "EmotionROI/training_testing_split/testing.txt", "anger/232.jpg\nanger/300.jpg\n")
    assert "'anger/300.jpg'" in " ".join(find_corpus("emotionroi").read(roi).notes)


def test_votes_of_fi(tmp_path: Path) -> None:
    """A table of votes may have a single row; images are found by the last part of their urls."""
    text(tmp_path / "agg/awe_1.csv", "1,http://x/a.jpg,1,4\n2,http://x/b.jpg?q,3,2\n")
    text(tmp_path / "agg/fear_1.csv", "1,http://x/a.jpg,1,4\n")
    for seed, name in enumerate(("awe/a.jpg", "fear/a.jpg")):
        picture(tmp_path / "images" / name, seed)
    dataset = find_corpus("fi").read(tmp_path)
    assert dataset.index.ids.tolist() == ["awe/a.jpg", "fear/a.jpg"]
    assert dataset.index.labels["emotion"].values.tolist() == [2, 6]
    text(tmp_path / "agg/fear_1.csv", "1,http://x/a.jpg,one,4\n2,x,1,1\n3,y\n")
    with pytest.raises(CorpusError, match=r"fear_1\.csv, line 3: expected '<number>,<url>"):
        find_corpus("fi").read(tmp_path)


@pytest.mark.parametrize("name", ["b-t4sa", "oasis", "emotionroi", "fi", "gaped", "mediaeval21"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_archives_read_like_folders(name: str, kind: str, tmp_path: Path) -> None:
    """A tar or a zip of the official folder gives the same index and the same bytes."""
    import shutil

    expected = MAKERS[name](tmp_path / "corpus")
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "corpus"))
    corpus = find_corpus(name)
    packed, plain = corpus.read(archive), corpus.read(expected.data)
    check_against(packed, expected)
    for row in range(len(plain.index)):
        assert packed.files.read(row) == plain.files.read(row)
    assert packed.index.digest == plain.index.digest


def test_without_its_test_set_or_with_given_folders_the_source_changes(tmp_path: Path) -> None:
    """Parts that somebody gave are published; those that are dealt in their place are made."""

    def source(name: str, data: Path, **options: str) -> str:
        return find_corpus(name).read(data, options).index.splits["default"].source

    mediaeval = MAKERS["mediaeval21"](tmp_path / "m").data
    (mediaeval / "testset.csv").unlink()
    assert source("mediaeval21", mediaeval) == "made"
    for at, part in enumerate(("train", "val", "test")):
        picture(tmp_path / "given" / part / "joy" / f"{at}.jpg", at)
        picture(tmp_path / "fi" / part / "awe" / f"{at}.jpg", at)
    assert source("folder", tmp_path / "given") == "published"
    assert source("folder", tmp_path / "given", layout="classes") == "made"
    assert source("fi", tmp_path / "fi") == "published"
    text(tmp_path / "labels.csv", "image,label,part,fold\na.jpg,x,train,0\nb.jpg,y,test,1\n")
    assert source("csv", tmp_path, single="label", split="part") == "published"
    assert source("csv", tmp_path, single="label", split="fold") == "published"
    assert source("csv", tmp_path, single="label") == "made"
    union = find_corpus("union:b-t4sa,vso-603")
    places = {name: MAKERS[name](tmp_path / name).data for name in union.members}
    assert union.read(places).index.splits["default"].source == "published"


def test_a_store_whose_splits_have_no_source_goes_on(
    tmp_path: Path, command_line: Callable[..., tuple[int, str, str]]
) -> None:
    """A store of format 1.0 says nothing of who made its splits; the reader that says it now resumes the store."""
    data = MAKERS["b-t4sa"](tmp_path / "corpus").data
    index = find_corpus("b-t4sa").read(data).index
    bare = {name: dataclasses.replace(split, source="") for name, split in index.splits.items()}
    (tmp_path / "store").mkdir()
    write_index(tmp_path / "store" / "index.h5", dataclasses.replace(index, splits=bare))
    code, _, err = command_line(
        *("run", "b-t4sa", "--data", data, "--store", tmp_path / "store", "--encoders", "lowlevel", "--limit", 1)
    )
    assert code == 0, err
    assert open_store(tmp_path / "store").splits["default"].source == ""
    write_index(tmp_path / "store" / "0.h5", index)  # beside a dump that does say it
    assert open_store(tmp_path / "store").splits["default"].source == "published"
