"""Your own images: folders, tables and lists, and errors that say what is wrong."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from extract.corpora import find_corpus
from extract.corpora.labels import case_note
from extract.corpora.splits import draw_parts
from extract.errors import CorpusError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def table(root: Path, text: str, name: str = "labels.csv") -> Path:
    (root / name).write_text(text, encoding="utf-8")
    return root


# ---- folder ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_class_folders(tmp_path):
    touch(tmp_path, "joy/a.jpg", "joy/deeper/b.PNG", "anger/c.webp", "anger/notes.txt", "loose.jpg")
    reading = find_corpus("folder").read(tmp_path)
    labels = reading.index.labels["label"]
    assert labels.task.classes == ("anger", "joy")
    found = dict(zip(reading.index.ids.tolist(), labels.values.tolist(), strict=True))
    assert found == {"anger/c.webp": 0, "joy/a.jpg": 1, "joy/deeper/b.PNG": 1, "loose.jpg": -1}
    assert reading.files.read(reading.index.ids.tolist().index("joy/a.jpg")) == b"joy/a.jpg"
    assert any("1 images lie in no class folder" in note for note in reading.notes)


def test_a_folder_with_train_val_test(tmp_path):
    touch(tmp_path, "train/joy/a.jpg", "train/fear/b.jpg", "val/joy/c.jpg", "test/fear/d.jpg")
    index = find_corpus("folder").read(tmp_path, {"task": "emotion"}).index
    parts = dict(zip(index.ids.tolist(), index.splits["default"].values.tolist(), strict=True))
    assert parts == {"train/joy/a.jpg": 0, "train/fear/b.jpg": 0, "val/joy/c.jpg": 1, "test/fear/d.jpg": 2}
    assert index.labels["emotion"].task.classes == ("fear", "joy")


def test_a_class_may_be_called_test_if_that_is_asked_for(tmp_path):
    touch(tmp_path, "test/a.jpg", "joy/b.jpg")
    with pytest.raises(CorpusError, match=r"'test' is named like a part.*--option layout=classes"):
        find_corpus("folder").read(tmp_path)
    index = find_corpus("folder").read(tmp_path, {"layout": "classes"}).index
    assert index.labels["label"].task.classes == ("joy", "test")


@pytest.mark.parametrize(
    "paths",
    [
        ("joy/train/a.jpg", "joy/test/b.jpg", "fear/train/c.jpg", "fear/test/d.jpg"),
        ("train_set/joy/a.jpg", "test_set/joy/b.jpg"),
        ("images-train2017/joy/a.jpg", "images-val2017/joy/b.jpg", "more/c.jpg"),
    ],
)
def test_a_split_that_lies_otherwise_is_not_drawn_anew_in_silence(tmp_path, paths):
    """Parts below the classes, and parts with longer names: training would see test images."""
    touch(tmp_path, *paths)
    with pytest.raises(CorpusError, match=r"named like parts of a split \(.*--option layout=classes"):
        find_corpus("folder").read(tmp_path)
    assert len(find_corpus("folder").read(tmp_path, {"layout": "classes"}).index) == len(paths)


def test_one_class_may_have_a_word_of_a_split_in_its_name(tmp_path):
    touch(tmp_path, "train ride/a.jpg", "joy/b.jpg")
    assert len(find_corpus("folder").read(tmp_path).index) == 2


def test_ids_are_normalised_and_the_file_is_still_found(tmp_path):
    name = unicodedata.normalize("NFD", "freude/müde.jpg")
    touch(tmp_path, name)
    reading = find_corpus("folder").read(tmp_path)
    assert reading.index.ids.tolist() == ["freude/müde.jpg"]
    assert reading.files.read(0) == name.encode()


def test_a_folder_without_images_is_refused(tmp_path):
    touch(tmp_path, "joy/notes.txt")
    with pytest.raises(CorpusError, match="holds no image file; it needs one sub-folder per class"):
        find_corpus("folder").read(tmp_path)


def test_the_seeded_split_does_not_depend_on_the_order_of_the_images():
    ids = [f"{n}.jpg" for n in range(200)]
    strata = [n % 3 for n in range(200)]
    one = draw_parts(ids, strata, seed=0)
    other = draw_parts(ids[::-1], strata[::-1], seed=0)[::-1]
    assert np.array_equal(one, other)
    assert not np.array_equal(one, draw_parts(ids, strata, seed=1))
    assert Counter(one.tolist())[0] in range(138, 143)


# ---- csv ------------------------------------------------------------------------------------------------------------

MIXED = """image,polarity,joy,anger,valence,arousal,part,tweet
a.jpg,positive,1,0,7.5,3,train,t1
sub/b.jpg,negative,0,1,2.5,8,val,t1
c.jpg,,,,,,test,
d.jpg,positive,1,1,5,,train,t2
"""


def test_a_table_of_all_kinds_at_once(tmp_path):
    table(tmp_path, MIXED)
    given = {"single": "polarity", "multi": "emotion=joy|anger", "regression": "va=valence|arousal@1..9"}
    index = find_corpus("csv").read(tmp_path, {**given, "split": "part", "group": "tweet"}).index
    assert index.ids.tolist() == ["a.jpg", "sub/b.jpg", "c.jpg", "d.jpg"]
    assert index.labels["polarity"].task.classes == ("negative", "positive")
    assert index.labels["polarity"].values.tolist() == [1, 0, -1, 1]
    assert index.labels["emotion"].values.tolist() == [[1, 0], [0, 1], [255, 255], [1, 1]]
    assert index.labels["va"].task.range == (1.0, 9.0)
    assert index.labels["va"].known.tolist() == [True, True, False, False]
    assert index.splits["default"].values.tolist() == [0, 1, 2, 0]
    assert index.groups.tolist() == [0, 0, -1, 1]


def test_names_in_one_cell_folds_suffix_and_another_delimiter(tmp_path):
    touch(tmp_path, "pictures/1.jpg")
    table(tmp_path, "id;tags;fold\n1;joy|awe;0\n2;awe;1\n3;;2\n", "t.csv")
    given = {"image": "id", "multi": "tags", "split": "fold", "suffix": ".jpg", "root": "pictures", "delimiter": ";"}
    reading = find_corpus("csv").read(tmp_path / "t.csv", given)
    assert reading.index.labels["tags"].task.classes == ("awe", "joy")
    assert reading.index.labels["tags"].values.tolist() == [[1, 1], [1, 0], [255, 255]]
    assert reading.index.splits["default"].kind == "folds"
    assert reading.files.read(0) == b"pictures/1.jpg"


def test_one_folder_around_the_classes_is_told(tmp_path):
    touch(tmp_path, "data/a/1.jpg", "data/b/2.jpg")
    notes = find_corpus("folder").read(tmp_path, {}).notes
    assert f"every image has the class 'data'; if its folders are the classes (a, b), give {tmp_path / 'data'}" in notes
    assert not any("every image" in note for note in find_corpus("folder").read(tmp_path / "data", {}).notes)


def test_classes_that_a_spreadsheet_makes_two_of_one():
    """An odd blank, wide letters, a whole number with decimals; numbers that differ are no such pair."""
    for other in ("a\u00a0b", "A b", "a  b", "\uff41 b"):
        assert case_note(("a b", other)).startswith("classes that look alike are kept apart: ")
    assert case_note(("1", "1.0")).endswith(": 1, 1.0")
    assert case_note(("a b", "a\u00a0b")).endswith(": a b, a\\u00a0b")
    assert not case_note(("1", "10", "1.5", "1.50", "a.0"))


def test_names_that_look_alike_are_told_and_commas_in_a_cell_refused(tmp_path):
    table(tmp_path, 'image,mood,tags\n1.jpg,joy,"a,b"\n2.jpg,joy\u200b,c\n3.jpg,Awe,a\n')
    reading = find_corpus("csv").read(tmp_path, {"single": "mood"})
    assert "classes that look alike are kept apart: joy, joy\\u200b" in reading.notes
    with pytest.raises(CorpusError, match=r"line 2: expected names separated by ; or \| in column 'tags'; found 'a,b'"):
        find_corpus("csv").read(tmp_path, {"multi": "tags"})


def test_old_line_ends_and_latin_1(tmp_path):
    (tmp_path / "labels.csv").write_bytes("image,label\ré.jpg,x\rf.jpg,y\r".encode("latin-1"))
    index = find_corpus("csv").read(tmp_path, {"single": "label", "encoding": "latin-1"}).index
    assert index.ids.tolist() == ["é.jpg", "f.jpg"]
    with pytest.raises(CorpusError, match=r"cannot be read.*encoding="):
        find_corpus("csv").read(tmp_path, {"single": "label"})


def test_groups_stay_together_in_the_seeded_split(tmp_path):
    rows = "".join(f"{n}.jpg,{n // 4}\n" for n in range(80))
    table(tmp_path, "image,tweet\n" + rows)
    index = find_corpus("csv").read(tmp_path, {"group": "tweet"}).index
    parts = index.splits["default"].values.reshape(20, 4)
    assert (parts == parts[:, :1]).all()
    assert len(set(parts.ravel().tolist())) == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"single": "polarty"}, r"unknown column .*'polarty' \(did you mean 'polarity'\?\)"),
        ({"image": "file"}, "unknown column.*'file'"),
        ({"multi": "emotion=joy|valence"}, r"line 2: expected 0 or 1.* in column 'valence'; found '7.5'"),
        ({"regression": "polarity"}, "line 2: expected a number in column 'polarity'; found 'positive'"),
        ({"regression": "v=valence@1..5"}, r"line 2: expected a value within the scale 1..5 .*; found '7.5'"),
        ({"regression": "v=valence@1..x"}, r"the scale of 'v=valence@1..x' must be LOW..HIGH"),
        ({"split": "tweet"}, "line 2: expected a part .* in column 'tweet'; found 't1'"),
        ({"file": "other.csv"}, "there is no table .*other.csv"),
        ({"root": "nowhere"}, "there is no folder"),
    ],
)
def test_a_wrong_mapping_names_row_column_and_value(tmp_path, given, words):
    table(tmp_path, MIXED)
    with pytest.raises(CorpusError, match=words):
        find_corpus("csv").read(tmp_path, given)


@pytest.mark.parametrize("path", ["../a.jpg", "/etc/passwd", "x/../../a.jpg", "."])
def test_paths_that_leave_the_folder_are_refused(tmp_path, path):
    table(tmp_path, f"image,label\n{path},x\n")
    with pytest.raises(CorpusError, match=r"lies outside|names no image below"):
        find_corpus("csv").read(tmp_path, {"single": "label"})
