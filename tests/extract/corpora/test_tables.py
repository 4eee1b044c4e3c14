"""Tables: parted as the csv module's strict reader does, or refused with file and line."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from layouts import MAKERS, text

from extract.corpora import find_corpus
from extract.errors import CorpusError
from features_store import AffectoryError
from features_store.schema import MAX_CLASSES

GIVEN = {"single": "label"}


def read(root: Path, table: str, **options: str) -> dict[str, str]:
    """Return label by image."""
    text(root / "labels.csv", table)
    index = find_corpus("csv").read(root, {**GIVEN, **options}).index
    labels = index.labels["label"]
    words = [*labels.task.classes, ""]
    return {name: words[value] for name, value in zip(index.ids.tolist(), labels.values.tolist(), strict=True)}


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ('image,label\na.jpg,"joy\nb.jpg,sad\nc.jpg,joy\n', "line 2"),  # never closed
        ('image,label\na.jpg,"joy\nb.jpg,"sad"\nc.jpg,joy\n', "line 2"),  # closed by another row's quote
        ('image,label\na.jpg,joy\n"b.jpg,sad\nc.jpg",joy\n', "line 3"),  # closed neatly, one cell over two rows
        ("image,label\na.jpg,joy\nb,c.jpg,yes\n", "line 3"),  # an unquoted comma
        ("image,label\na.jpg,joy\nb.jpg\n", "line 3"),
        ("image,label\na.jpg,joy,\n", "line 2"),
        ('image,label,note\na.jpg,joy,"one\ntwo"\nb.jpg,sad\n', "line 4"),  # counted behind a cell of two lines
        ('image,label,note\na.jpg,joy,"one\ntwo"\nb.jpg,sad,"\n', "line 4"),
        ('image,label,note\na.jpg,joy,"one\nb.jpg,sad,two"\nc.jpg,sad,\n', "line 3"),  # in a column that is not read
        ('image,label\n\n\na.jpg,joy\n"b.jpg"x,sad\n', "line 5"),
        ("image,label\ra.jpg,joy\rb.jpg,sad,x\r", "line 3"),  # old line ends
        ("image,label\na.jpg,joy\nb.jpg,sad\na.jpg,joy\n", "line 4"),
        ('image,label,note\na.jpg,joy,"1\n2"\nb.jpg,sad,\n./a.jpg,joy,\n', "line 5"),
        ("image,label\na.jpg,joy\n,sad\n", "line 3"),
    ],
)
def test_broken_tables_are_refused_by_line(table: str, where: str, tmp_path: Path) -> None:
    """Each breaks another rule; the message names the table and the line of the file."""
    with pytest.raises(CorpusError) as caught:
        read(tmp_path, table)
    assert "labels.csv" in str(caught.value)
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_same_of_official_tables(tmp_path: Path) -> None:
    """A quote left open in an official table does not swallow rows."""
    for number, (old, new, where) in enumerate(
        [
            ("Object,", '"Object,', "line 2"),
            ("Object,Pixabay", "Object,Pix,abay", "line 2"),
            ("4,1.2,102,", "4,", "line 3"),
        ]
    ):
        made = MAKERS["oasis"](tmp_path / str(number))
        table = tmp_path / str(number) / "OASIS.csv"
        table.write_text(table.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
        with pytest.raises(AffectoryError, match=rf"OASIS\.csv, {where}"):
            find_corpus("oasis").read(made.data)


def test_columns_of_one_title(tmp_path: Path) -> None:
    """Two columns of one title, in two Unicode forms too, are refused where they are used, and only there."""
    for title in ("label", " label "):
        with pytest.raises(CorpusError, match="more than one column 'label'"):
            read(tmp_path, f"image,label,{title}\na.jpg,joy,sad\n")
    with pytest.raises(CorpusError, match="more than one column"):
        read(tmp_path, "image,caf\u00e9,cafe\u0301\na.jpg,joy,sad\n", single="caf\u00e9")
    assert read(tmp_path, "image,label,note,note\na.jpg,joy,1,2\n") == {"a.jpg": "joy"}
    made = MAKERS["ied"](tmp_path / "ied")
    text(tmp_path / "ied/table.csv", "filename,valence,valence,arousal\nx/1.jpg,5,6,4\n")
    with pytest.raises(AffectoryError, match="one column 'valence'"):
        find_corpus("ied").read(made.data)


@pytest.mark.parametrize("word", ["none", "NA", "null", "nan", "N/A", "None"])
def test_only_the_empty_cell_is_no_label(word: str, tmp_path: Path) -> None:
    """A class may have any name; which words mean no label is said by an option."""
    table = f"image,label,tags,score\na.jpg,{word},{word};b,1\nb.jpg,joy,,2\nc.jpg,,b,\n"
    assert read(tmp_path, table) == {"a.jpg": word, "b.jpg": "joy", "c.jpg": ""}
    assert read(tmp_path, table, none=f"x|{word}") == {"a.jpg": "", "b.jpg": "joy", "c.jpg": ""}
    tags = find_corpus("csv").read(tmp_path, {"multi": "tags"}).index.labels["tags"]
    assert set(tags.task.classes) == {word, "b"}
    text(tmp_path / "labels.csv", f"image,score\na.jpg,{word}\nb.jpg,2\nc.jpg,3\n")
    with pytest.raises(
        CorpusError, match=f"line 2: expected a number in column 'score'; found '{word}'.*--option none={word}"
    ):
        find_corpus("csv").read(tmp_path, {"regression": "score"})
    scores = find_corpus("csv").read(tmp_path, {"regression": "score", "none": word}).index.labels["score"]
    assert scores.known.tolist() == [False, True, True]
    folder = tmp_path / "folders"
    name = word.replace("/", "")
    for one in (name, "joy"):
        text(folder / one / "1.jpg", one)
    assert set(find_corpus("folder").read(folder).index.labels["label"].task.classes) == {name, "joy"}


@pytest.mark.parametrize("cell", ["1_000", "\u0663", "infinity", "1e99", "0x1", "1,5"])
def test_numbers_that_only_python_reads(cell: str, tmp_path: Path) -> None:
    """What is no plain number, or is none that float32 holds, is refused."""
    text(tmp_path / "labels.csv", f'image,score\na.jpg,1\nb.jpg,"{cell}"\n')
    with pytest.raises(CorpusError, match=r"line 3: expected a number in column 'score'"):
        find_corpus("csv").read(tmp_path, {"regression": "score"})


def test_a_column_of_zeros_and_ones_is_one_label(tmp_path: Path) -> None:
    """``multi=joy`` of a 0/1 column is the label joy, not the labels 0 and 1."""
    text(tmp_path / "labels.csv", "image,joy,tags\na.jpg,1,x\nb.jpg,0,x;y\nc.jpg,,y\n")
    index = find_corpus("csv").read(tmp_path, {"multi": "joy,tags"}).index
    assert index.labels["joy"].task.classes == ("joy",)
    assert index.labels["joy"].values.tolist() == [[1], [0], [255]]
    assert index.labels["tags"].task.classes == ("x", "y")


def test_a_single_label_has_one_column(tmp_path: Path) -> None:
    """``single=t=a|b`` is refused; a text of several lines, whatever its commas, is no row of another image."""
    text(tmp_path / "labels.csv", 'image,a,note\na.jpg,x,"one\ntwo, three, four"\nb.jpg,y,\n')
    with pytest.raises(CorpusError, match=r"single=t=a\|note names 2 columns"):
        find_corpus("csv").read(tmp_path, {"single": "t=a|note"})
    assert find_corpus("csv").read(tmp_path, {"single": "a"}).index.ids.tolist() == ["a.jpg", "b.jpg"]


def test_a_column_without_any_label(tmp_path: Path) -> None:
    """A task needs one label at least; the message names the column."""
    text(tmp_path / "labels.csv", "image,label\na.jpg,\nb.jpg,\n")
    for kind in ("single", "multi"):
        with pytest.raises(CorpusError, match="column 'label' holds no label"):
            find_corpus("csv").read(tmp_path, {kind: "label"})


def test_more_classes_than_codes(tmp_path: Path) -> None:
    """A column of 32,768 different words is refused in a sentence, in tables, lists and folders."""
    n = MAX_CLASSES + 1
    text(tmp_path / "labels.csv", "image,label\n" + "".join(f"{at}.jpg,{at}\n" for at in range(n)))
    with pytest.raises(CorpusError, match=f"{n} classes; at most {MAX_CLASSES}"):
        find_corpus("csv").read(tmp_path, GIVEN)
    text(tmp_path / "images.txt", "".join(f"{at}.jpg\t{at}\n" for at in range(n)))
    with pytest.raises(CorpusError, match=f"{n} classes"):
        find_corpus("list").read(tmp_path)


def test_what_was_read_is_recorded(tmp_path: Path) -> None:
    """The index names the table that was given and the folder of its images, and no path of this machine."""
    text(tmp_path / "pictures/a.jpg", "a")
    text(tmp_path / "ratings.csv", "image,label\na.jpg,joy\n")
    options = {**GIVEN, "root": "pictures"}
    recorded = find_corpus("csv").read(tmp_path / "ratings.csv", options).index.corpus["options"]
    assert (recorded["file"], recorded["root"]) == ("ratings.csv", "pictures")
    again = {key: str(value) for key, value in recorded.items()}
    for data in (tmp_path, tmp_path / "ratings.csv"):
        assert find_corpus("csv").read(data, again).files.read(0) == b"a"
    far = {**GIVEN, "root": str(tmp_path / "pictures"), "file": str(tmp_path / "ratings.csv")}
    assert str(tmp_path) not in str(find_corpus("csv").read(tmp_path, far).index.corpus)


def test_lists_that_say_an_image_twice(tmp_path: Path) -> None:
    """Official lists, too, are refused by the line of the second time."""
    made = MAKERS["b-t4sa"](tmp_path)
    path = tmp_path / "b-t4sa_imgs/b-t4sa_test.txt"
    path.write_text(path.read_text(encoding="utf-8") + "\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(AffectoryError, match=r"b-t4sa_test\.txt, line 3.*line 1 too"):
        find_corpus("b-t4sa").read(made.data)
    made = MAKERS["twitter1"](tmp_path / "t")
    path = tmp_path / "t/twitter_five_agrees.txt"
    path.write_text(path.read_text(encoding="utf-8") + "11_21_AbC-d_E.jpg 0\n", encoding="utf-8")
    with pytest.raises(AffectoryError, match=r"line 4.*each image once"):
        find_corpus("twitter1").read(made.data)


def test_a_list_line_with_a_strange_line_break(tmp_path: Path) -> None:
    """Only line feeds and carriage returns end a line; a third cell is refused."""
    text(tmp_path / "images.txt", "a\u2028b.jpg\tx\nc.jpg\ty\n")
    assert find_corpus("list").read(tmp_path).index.ids.tolist() == ["a\u2028b.jpg", "c.jpg"]
    text(tmp_path / "images.txt", "a.jpg\tx\nc.jpg\ty\tz\n")
    with pytest.raises(CorpusError, match="line 2: 3 cells"):
        find_corpus("list").read(tmp_path)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=st.text(alphabet='ab.,"\n\r; ', max_size=40))
@example(body='a,"b\nc,d\n')
@example(body='a,"b"\n"c\nd",e\n')
def test_any_text(body: str) -> None:
    """Whatever stands in a file, the labels are those of the strict reader, row by row, or the file is refused."""
    with tempfile.TemporaryDirectory() as folder:
        whole = f"image,label\n{body}"
        try:
            found = read(Path(folder), whole)
        except AffectoryError:
            return
        plain = whole.replace("\r\n", "\n").replace("\r", "\n")
        rows = [row for row in csv.reader(io.StringIO(plain), strict=True) if any(cell.strip() for cell in row)][1:]
        assert list(found.values()) == [row[1].strip() for row in rows]
        assert all(len(row) == 2 for row in rows)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(labels=st.lists(st.text(alphabet="abN A,;\"'\u00e9|", max_size=6), min_size=1, max_size=6))
def test_written_tables_come_back(labels: list[str]) -> None:
    """What Python's writer writes is read with the same labels on the same images, whatever quotes it needs."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerows([["image", "label"], *([f"{at}.jpg", label] for at, label in enumerate(labels))])
    assume(any(label.strip() for label in labels))
    with tempfile.TemporaryDirectory() as folder:
        found = read(Path(folder), file.getvalue())
    assert list(found.values()) == [label.strip() for label in labels]


def test_errors_on_the_command_line(tmp_path: Path, command_line: Callable[..., tuple[int, str, str]]) -> None:
    """One sentence and exit code 2."""
    text(tmp_path / "labels.csv", 'image,label\na.jpg,"joy\n')
    code, out, err = command_line("check", "csv", "--data", tmp_path, "--option", "single=label")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert np.all([piece in err for piece in ("labels.csv, line 2", "quote")])
