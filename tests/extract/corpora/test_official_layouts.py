"""Each corpus in its official layout, with its known defects: ids, labels, splits and groups as written by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from layouts import MAKERS, Expected, picture, text

from extract.corpora import CORPORA, Dataset, find_corpus
from extract.errors import RefusedImageError
from features_store import open_store, write_index
from features_store.meaning import parted

OWN = {"emoji", "folder", "csv", "list"}  # made here, or the user's
NAMES = sorted(MAKERS)
PUBLISHED = ("b-t4sa*/*", "t4sa2/*", "emoset/*", "twitter-ldl/default", "emotionroi/default", "twitter1/folds-*")
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
        assert published or not parted(split, index.groups).any(), split.name
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


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("name", sorted(set(CORPORA) - OWN))
def test_records_are_complete(name: str) -> None:
    """Each record says what it is, how to get it, under which terms, whom to cite, and what is wrong with it."""
    corpus = CORPORA[name]
    assert corpus.name == name
    for field in ("title", "obtain", "licence", "citation", "tasks", "splits", "defects", "reader"):
        assert getattr(corpus, field), field
    with pytest.raises(dataclasses.FrozenInstanceError):
        corpus.name = "other"  # type: ignore[misc]
    for key, count in corpus.published.items():
        assert count > 0
        if key != "images":
            task_or_split, _, rest = key.partition("/")
            assert rest, key
            assert task_or_split in corpus.tasks or task_or_split in corpus.splits, key


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
