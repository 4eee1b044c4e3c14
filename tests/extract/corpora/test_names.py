"""Names: whatever folders, archives and tables call an image, each id is one file, and reads that file's own bytes."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from layouts import text

from extract.corpora import find_corpus
from extract.errors import CorpusError
from extract.inputs.trees import open_tree
from features_store import AffectoryError

E_NFC, E_NFD = "caf\u00e9", "cafe\u0301"
RAW = st.sampled_from(
    [
        *(b"a.jpg", b"A.jpg", b"./a.jpg", b"b//c.jpg", b"b/c.jpg", b"b/./c.jpg", b"%E4.jpg", b"calm/x", b"calm/x.jpg"),
        *(b"\xe4.jpg", b"\xf6.jpg", b"calm/\xe4.jpg", b"calm/%E4.jpg", b"\xff\xfe.jpg", b"a.jfif", b".b.jpg"),
        *(f"{one}/x.jpg".encode() for one in (E_NFC, E_NFD, "\u212a", "K", "stra\u00dfe", "strasse")),
    ]
)
JPEG = b"\xff\xd8\xff\xe0 and no more, but number "
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    return root


def make_tar(path: Path, members: list[tuple[bytes, bytes]], form: int) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(os.fsdecode(name))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def one_file_each(place: Path, expected: dict[bytes, bytes]) -> None:
    """Either the place is refused in a sentence, or each file is an image of its own, with its own bytes."""
    try:
        reading = find_corpus("folder").read(place, {"layout": "classes"})
    except AffectoryError:
        kept = {unicodedata.normalize("NFC", os.fsdecode(os.path.normpath(name))) for name in expected}
        escaped = {one.encode("utf-8", "surrogateescape").replace(b"\xe4", b"%E4") for one in kept}
        visible = [name for name in expected if not name.endswith(b".b.jpg")]
        # It may be refused only because two files would have one name, or because there is no picture.
        assert len(escaped) < len(expected) or not visible
        return
    found = [reading.files.read(row) for row in range(len(reading.index))]
    assert sorted(found) == sorted(data for name, data in expected.items() if not name.endswith(b".b.jpg"))
    assert len(set(reading.index.ids.tolist())) == len(found)


@SETTINGS
@given(names=st.lists(RAW, min_size=1, max_size=6, unique=True), form=st.sampled_from([tarfile.GNU_FORMAT, 0, 2]))
@example(names=[b"calm/\xe4.jpg", b"calm/\xf6.jpg", b"tense/\xe4.jpg", b"tense/\xf6.jpg"], form=tarfile.GNU_FORMAT)
@example(names=[b"\xe4.jpg", b"%E4.jpg"], form=tarfile.GNU_FORMAT)
@example(names=[b"b//c.jpg", b"b/c.jpg"], form=tarfile.GNU_FORMAT)
def test_members_of_a_tar(names: list[bytes], form: int) -> None:
    """Two members are never one image, in whatever bytes their names are written."""
    members = [(name, JPEG + str(at).encode()) for at, name in enumerate(names)]
    with tempfile.TemporaryDirectory() as folder:
        one_file_each(make_tar(Path(folder) / "a.tar", members, form), dict(members))


@SETTINGS
@given(names=st.lists(RAW, min_size=1, max_size=6, unique=True))
@example(names=[b"calm/\xe4.jpg", b"calm/\xf6.jpg"])
def test_files_of_a_folder(names: list[bytes]) -> None:
    """Two files are never one image; a file whose name is not UTF-8 has an id all the same."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "corpus"
        expected: dict[bytes, bytes] = {}
        for at, name in enumerate(names):
            place = root / os.fsdecode(os.path.normpath(name))
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                place.write_bytes(JPEG + str(at).encode())
                expected[os.path.normpath(name)] = place.read_bytes()
        one_file_each(root, expected)


def test_latin_1_names_have_ids_of_their_own(tmp_path: Path) -> None:
    """The bytes that are not UTF-8 stand in the ids as %XX, and the note says so."""
    members = [
        (f"{one}/".encode() + byte + b".jpg", one.encode() + byte) for one in "ab" for byte in (b"\xe4", b"\xf6")
    ]
    reading = find_corpus("folder").read(make_tar(tmp_path / "a.tar", members, tarfile.GNU_FORMAT))
    assert reading.index.ids.tolist() == ["a/%E4.jpg", "a/%F6.jpg", "b/%E4.jpg", "b/%F6.jpg"]
    assert [reading.files.read(row) for row in range(4)] == [b"a\xe4", b"a\xf6", b"b\xe4", b"b\xf6"]
    assert any("4 file names are not UTF-8" in note for note in reading.notes)


def test_a_name_that_is_twice_in_a_zip_is_refused(tmp_path: Path) -> None:
    """The last of two members does not win in silence."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("calm/a.jpg", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("calm/a.jpg", b"2")
    with pytest.raises(CorpusError, match=r"two files or folders of the name 'calm/a\.jpg'"):
        open_tree(tmp_path / "a.zip")


# ---- tables that name images ----------------------------------------------------------------------------------------


def photo_tweets(root: Path, lines: str) -> list[bytes]:
    text(root / "mine.txt", lines)
    reading = find_corpus("vso-603").read(root)
    return [reading.files.read(row) for row in range(len(reading.index))]


def test_names_that_differ_in_case_are_different_images(tmp_path: Path) -> None:
    """``a.jpg`` and ``A.jpg`` read their own files; a single file goes to the name that is written as it is."""
    touch(tmp_path / "images", "a.jpg", "A.jpg", "B.JPG")
    assert photo_tweets(tmp_path, "a.jpg 1\nA.jpg 0\nb.jpg 1\n") == [b"a.jpg", b"A.jpg", b"B.JPG"]
    (tmp_path / "images/A.jpg").unlink()
    reading = find_corpus("vso-603").read(tmp_path)
    assert reading.files.read(0) == b"a.jpg"
    with pytest.raises(AffectoryError, match="No such file"):
        reading.files.read(1)


@pytest.mark.parametrize(
    ("files", "line", "pieces"),
    [
        (["images/x.jpg", "extra/x.jpg"], "x.jpg", ["images/x.jpg", "extra/x.jpg"]),
        (["images/X.jpg", "images/x.JPG"], "x.jpg", ["images/X.jpg", "images/x.JPG"]),
        (["images/x.jpg", "images/x.png"], "x", ["images/x.jpg", "images/x.png"]),
        (["a/b/x.jpg", "c/b/x.jpg"], "b/x.jpg", ["a/b/x.jpg", "c/b/x.jpg"]),
    ],
)
def test_what_two_files_fit_is_refused_by_both_paths(
    files: list[str], line: str, pieces: list[str], tmp_path: Path
) -> None:
    """An ambiguous name is refused, whichever file a walk finds first."""
    touch(tmp_path, *files)
    with pytest.raises(CorpusError) as caught:
        photo_tweets(tmp_path, f"{line} 1\n")
    assert all(piece in str(caught.value) for piece in pieces)


def test_two_names_never_share_a_file(tmp_path: Path) -> None:
    """Two names that fit one file only without case are refused by both."""
    touch(tmp_path, "images/Aa.jpg")
    with pytest.raises(CorpusError, match=r"'aa\.jpg' and 'aA\.jpg' both stand for the file images/Aa\.jpg"):
        photo_tweets(tmp_path, "aa.jpg 1\naA.jpg 0\n")


def test_the_path_as_it_stands_comes_first(tmp_path: Path) -> None:
    """A full path is never taken for another file of the same name, and the official folder is part of the path."""
    touch(tmp_path, "images/x.jpg", "extra/x.jpg", "x.jpg")
    assert photo_tweets(tmp_path, "x.jpg 1\nextra/x.jpg 0\nimages/x.jpg 0\n") == [
        b"x.jpg",
        b"extra/x.jpg",
        b"images/x.jpg",
    ]
    root = touch(tmp_path / "oasis", "images/Acorns 1.jpg", "thumbs/Acorns 1.jpg")
    text(root / "OASIS.csv", ",Theme,Category,Valence_mean,Arousal_mean\nI1,Acorns 1,Object,4,3\n")
    assert find_corpus("oasis").read(root).files.read(0) == b"images/Acorns 1.jpg"


@pytest.mark.parametrize("corpus", ["csv", "list"])
@pytest.mark.parametrize("packed", [False, True])
def test_tables_and_folders_meet_in_nfc(corpus: str, packed: bool, tmp_path: Path) -> None:
    """A table written in one Unicode form finds the files of the other, in a folder and in an archive."""
    root = touch(tmp_path / "c", f"{E_NFD}/1.jpg", "x/2.jpg")
    if packed:
        make_tar(tmp_path / "i.tar", [(f"{E_NFD}/1.jpg".encode(), f"{E_NFD}/1.jpg".encode())], tarfile.GNU_FORMAT)
    table = {"csv": ("labels.csv", f"image,label\n{E_NFC}/1.jpg,x\n"), "list": ("images.txt", f"{E_NFC}/1.jpg\tx\n")}
    text(root / table[corpus][0], table[corpus][1])
    given = {"csv": {"single": "label"}, "list": {}}[corpus] | ({"root": "../i.tar"} if packed else {})
    reading = find_corpus(corpus).read(root, given)
    assert reading.index.ids.tolist() == [f"{E_NFC}/1.jpg"]
    assert reading.files.read(0) == f"{E_NFD}/1.jpg".encode()


def test_classes_in_two_unicode_forms_are_one(tmp_path: Path) -> None:
    """``café`` is one class, in folders, tables and lists; two files of one name in it are refused."""
    root = touch(tmp_path / "folders", f"{E_NFC}/1.jpg", f"{E_NFD}/2.jpg")
    try:
        classes = find_corpus("folder").read(root).index.labels["label"].task.classes
    except CorpusError:
        classes = (E_NFC,)  # refused as twins: never two classes
    assert classes == (E_NFC,)
    table = touch(tmp_path / "table", "1.jpg", "2.jpg")
    text(table / "labels.csv", f"image,label\n1.jpg,{E_NFC}\n2.jpg,{E_NFD}\n")
    labels = find_corpus("csv").read(table, {"single": "label"}).index.labels["label"]
    assert (labels.task.classes, labels.values.tolist()) == ((E_NFC,), [0, 0])
    text(table / "images.txt", f"1.jpg\t{E_NFC}\n2.jpg\t{E_NFD}\n")
    assert find_corpus("list").read(table).index.labels["label"].task.classes == (E_NFC,)


NAMES = st.lists(
    st.builds(
        "".join,
        st.tuples(st.sampled_from(["", "images/", "b/", "B/", "a/b/"]), st.sampled_from("aAxX\u00e9"), st.just(".jpg")),
    ),
    min_size=1,
    max_size=5,
    unique=True,
)


@SETTINGS
@given(files=NAMES, listed=NAMES)
def test_lookup_property(files: list[str], listed: list[str]) -> None:
    """A name reads a file that ends in it, at least without case; no two names read one file; an exact path itself."""
    with tempfile.TemporaryDirectory() as folder:
        root = touch(Path(folder), *files)
        text(root / "mine.txt", "".join(f"{name} 1\n" for name in listed))
        try:
            reading = find_corpus("vso-603").read(root, {"list": "mine.txt"})
        except CorpusError:
            return
        seen: list[str] = []
        for row, name in enumerate(reading.index.ids.tolist()):
            try:
                path = reading.files.read(row).decode()
            except AffectoryError:
                assert name not in files
                continue
            seen.append(path)
            assert f"/{path}".casefold().endswith(f"/{name}".casefold())
            assert name not in files or path == name
        assert len(set(seen)) == len(seen)


def test_a_name_that_is_not_utf8_on_the_command_line(
    tmp_path: Path, command_line: Callable[..., tuple[int, str, str]]
) -> None:
    """Such a file is extracted and listed like any other."""
    from PIL import Image

    root = tmp_path / "c"
    for name in (b"calm/\xe4.jpg", b"calm/b.jpg", b"tense/c.jpg"):
        place = root / os.fsdecode(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "wb") as file:
            Image.fromarray(np.full((16, 16, 3), len(name), np.uint8)).save(file, "JPEG")
    code, out, err = command_line("run", "folder", "--data", root, "--store", tmp_path / "s", "--encoders", "lowlevel")
    assert code == 0, err
    assert "3 written" in out
    assert "1 file names are not UTF-8" in err
