"""What is read of a folder and what is not: layouts, formats, links; each file that is left out is counted."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import MAKERS, picture, text
from PIL import Image

from extract.corpora import find_corpus
from extract.corpora.splits import draw_parts
from extract.errors import CorpusError
from features_store import open_store

Run = Callable[..., tuple[int, str, str]]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        text(root / name, name)
    return root


def parts_and_classes(root: Path, **options: str) -> dict[str, tuple[int, str]]:
    index = find_corpus("folder").read(root, options).index
    labels = index.labels["label"]
    words = [*labels.task.classes, ""]
    rows = zip(index.splits["default"].values.tolist(), labels.values.tolist(), strict=True)
    return {name: (part, words[value]) for name, (part, value) in zip(index.ids.tolist(), rows, strict=True)}


PARTED = ("train/joy/a.jpg", "train/fear/b.jpg", "val/joy/c.jpg", "test/fear/d.jpg")
PARTED_IS = {
    "train/joy/a.jpg": (0, "joy"),
    "train/fear/b.jpg": (0, "fear"),
    "val/joy/c.jpg": (1, "joy"),
    "test/fear/d.jpg": (2, "fear"),
}


@pytest.mark.parametrize("stray", [["preview.jpg"], ["unlabeled/1.jpg"], ["extra/joy/1.jpg", "x.png"], ["a/b/c/1.jpg"]])
@pytest.mark.parametrize("packed", [False, True])
def test_strays_do_not_change_the_layout(stray: list[str], packed: bool, tmp_path: Path) -> None:
    """The folders decide that there are parts; what lies beside them is named in a note and counted."""
    root = touch(tmp_path / "c", *PARTED, *stray)
    if packed:
        with tarfile.open(tmp_path / "c.tar", "w") as archive:
            archive.add(root, "c")
        root = tmp_path / "c.tar"
    assert parts_and_classes(root) == PARTED_IS
    reading = find_corpus("folder").read(root)
    assert any(all(name in note for name in stray) for note in reading.notes)
    assert reading.index.corpus["left_out"]["beside train/, val/, test/"] == len(stray)


def test_a_class_named_like_a_part(tmp_path: Path) -> None:
    """It is an error unless it is asked for: beside other classes, and below a part."""
    root = touch(tmp_path / "a", "train/1.jpg", "test/2.jpg", "joy/3.jpg")
    with pytest.raises(CorpusError, match="named like a part"):
        find_corpus("folder").read(root)
    assert {word for _, word in parts_and_classes(root, layout="classes").values()} == {"train", "test", "joy"}
    root = touch(tmp_path / "b", "train/Test/1.jpg", "train/joy/2.jpg", "test/joy/3.jpg")
    with pytest.raises(CorpusError, match="class folder 'Test' is named like a part"):
        find_corpus("folder").read(root)
    assert parts_and_classes(root, layout="parts")["train/Test/1.jpg"] == (0, "Test")
    root = touch(tmp_path / "c", "train/steam/1.jpg", "car/red/2.jpg", "plane/3.jpg")
    with pytest.raises(CorpusError, match=r"'train'.*'car'"):
        find_corpus("folder").read(root)
    with pytest.raises(CorpusError, match="no folder named like a part"):
        find_corpus("folder").read(touch(tmp_path / "d", "joy/1.jpg"), {"layout": "parts"})
    with pytest.raises(CorpusError, match="auto, parts, classes"):
        find_corpus("folder").read(root, {"layout": "x"})


def test_the_folder_above_the_corpus(tmp_path: Path) -> None:
    """A folder that holds nothing but the folder of the parts is gone into, whatever images lie beside."""
    touch(tmp_path / "above", *(f"photos/{name}" for name in PARTED), "logo.png")
    assert parts_and_classes(tmp_path / "above") == PARTED_IS


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def test_formats(tmp_path: Path, command_line: Run) -> None:
    """JPEG under any suffix, AVIF and JPEG 2000 are read; all else is counted by reason in `run`, `check`, `info`."""
    root = tmp_path / "c"
    image = Image.open(io.BytesIO(jpeg(0)))
    for number, name in enumerate(["calm/a.jfif", "calm/b.jpg_large", "calm/c", "tense/d.JPE"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(number))
    image.save(root / "tense/e.avif", "AVIF")
    image.save(root / "tense/f.jp2", "JPEG2000")
    for name in (
        "lost/1.heic",
        "lost/2.HEIC",
        "never/1.psd",
        "never/2.eps",
        "never/3.pdf",
        "tense/notes.txt",
        "odd/x.gibberish",
    ):
        text(root / name, "no picture")
    (root / "tense/.hidden.jpg").write_bytes(jpeg(9))
    code, out, err = command_line("run", "folder", "--data", root, "--store", tmp_path / "s", "--encoders", "lowlevel")
    assert code == 0, err
    assert "6 written" in out
    for piece in (
        "files left out: 8",
        "2 .heic",
        "1 .psd",
        "1 .eps",
        "1 .pdf",
        "1 .txt",
        "1 .gibberish",
        "1 hidden",
        "lost",
        "never",
    ):
        assert piece in err, piece
    left_out = open_store(tmp_path / "s").corpus["left_out"]
    assert sum(left_out.values()) == 8
    code, out, err = command_line("check", "folder", "--data", root)
    assert code == 0, err
    assert "8 files were left out" in out
    assert "2 .heic" in out
    record = json.loads(command_line("check", "folder", "--data", root, "--json")[1])
    assert record["files_left_out"] == left_out


def test_a_folder_of_nothing_that_is_read(tmp_path: Path) -> None:
    """The error says what there is."""
    touch(tmp_path, "calm/1.heic", "calm/2.psd")
    with pytest.raises(CorpusError, match=r"holds no image file.*1 \.heic.*1 \.psd"):
        find_corpus("folder").read(tmp_path)


@pytest.mark.parametrize("target", [".", "..", "../..", "joy"])
def test_links_to_folders(target: str, tmp_path: Path) -> None:
    """A link to a folder that is read anyway, or to one above, adds no image; a link elsewhere does."""
    root = touch(tmp_path / "c", "joy/1.jpg", "joy/2.jpg", "fear/3.jpg")
    (root / "a-link").symlink_to(target)
    (root / "fear/link").symlink_to("../joy")
    reading = find_corpus("folder").read(root)
    assert reading.index.ids.tolist() == ["fear/3.jpg", "joy/1.jpg", "joy/2.jpg"]
    assert sum(reading.index.corpus["left_out"].values()) == 2
    touch(tmp_path / "elsewhere", "9.jpg")
    (root / "more").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to("loop")
    assert "more/9.jpg" in find_corpus("folder").read(root).index.ids.tolist()


def test_a_folder_that_may_not_be_read_is_counted(tmp_path: Path) -> None:
    """It does not vanish in silence."""
    root = touch(tmp_path, "joy/1.jpg", "shut/2.jpg")
    (root / "shut").chmod(0)
    try:
        if os.access(root / "shut", os.R_OK):
            pytest.skip("this user may read everything")
        assert "a folder that may not be read" in find_corpus("folder").read(root).index.corpus["left_out"]
    finally:
        (root / "shut").chmod(0o700)


def test_hard_links_in_a_tar_are_images(tmp_path: Path) -> None:
    """A hard link has the bytes of its target; one to nothing is left out with that reason."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, target in (("joy/1.jpg", ""), ("fear/2.jpg", "joy/1.jpg"), ("fear/3.jpg", "joy/none.jpg")):
            info = tarfile.TarInfo(name)
            info.size = 0 if target else 3
            info.type, info.linkname = (tarfile.LNKTYPE if target else tarfile.REGTYPE), target
            archive.addfile(info, None if target else io.BytesIO(b"abc"))
    reading = find_corpus("folder").read(tmp_path / "a.tar")
    assert reading.index.ids.tolist() == ["fear/2.jpg", "joy/1.jpg"]
    assert [reading.files.read(row) for row in range(2)] == [b"abc", b"abc"]
    assert reading.index.corpus["left_out"] == {"a hard link whose file is not in the archive": 1}


def test_images_outside_the_class_folders_are_counted(tmp_path: Path) -> None:
    """A corpus of class folders says how many images it does not read."""
    made = MAKERS["emotionroi"](tmp_path)
    reading = find_corpus("emotionroi").read(made.data)
    assert reading.index.corpus["left_out"]["in no folder of a class"] == 3  # the stimuli maps


# ---- splits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_class", [1, 2, 3, 4])
def test_small_classes_leave_no_part_empty(per_class: int, tmp_path: Path) -> None:
    """Ten classes of two pictures have a test and a validation part."""
    touch(tmp_path, *(f"class {at}/{n}.jpg" for at in range(10) for n in range(per_class)))
    reading = find_corpus("folder").read(tmp_path)
    counts = np.bincount(reading.index.splits["default"].values, minlength=3)
    assert counts.min() >= 1
    assert counts[0] >= len(reading.index) / 2
    assert not any("has no image in its part" in note for note in reading.notes)


def test_parts_that_cannot_be_filled_are_noted(tmp_path: Path) -> None:
    """Two images make two parts, and a note."""
    touch(tmp_path, "joy/1.jpg", "fear/2.jpg")
    reading = find_corpus("folder").read(tmp_path)
    assert sorted(reading.index.splits["default"].values.tolist()) == [0, 2]
    assert any("split 'default' has no image in its part validation" in note for note in reading.notes)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    strata=st.lists(st.integers(-1, 5), min_size=1, max_size=40),
    groups=st.lists(st.integers(-1, 4), min_size=40, max_size=40),
    seed=st.integers(0, 3),
)
def test_partition_property(strata: list[int], groups: list[int], seed: int) -> None:
    """Groups stay whole, no part is empty where three units are there, and the order of the images does not matter."""
    ids = [f"{at}.jpg" for at in range(len(strata))]
    of = np.array(groups[: len(ids)])
    parts = draw_parts(ids, strata, of, seed=seed)
    for group in set(of[of >= 0].tolist()):
        assert len(set(parts[of == group].tolist())) == 1
    n_units = len(set(of[of >= 0].tolist())) + int((of < 0).sum())
    assert len(set(parts.tolist())) == min(n_units, 3)
    assert (parts == 0).any()
    alone = draw_parts(ids, strata, seed=seed)
    assert alone.tolist() == draw_parts(ids[::-1], strata[::-1], seed=seed)[::-1].tolist()


def test_mediaeval_keeps_equal_images_together(tmp_path: Path) -> None:
    """The pairs of equal images lie in one part of every split that is made here."""
    made = MAKERS["mediaeval21"](tmp_path)
    head, *rows = (tmp_path / "devset.csv").read_text(encoding="utf-8").splitlines()
    for at in range(60):
        picture(tmp_path / f"images/pair{at}a.jpg", at + 100)
        (tmp_path / f"images/pair{at}b.jpg").write_bytes((tmp_path / f"images/pair{at}a.jpg").read_bytes())
        word = ("negative", "neutral", "positive")[at % 3]
        rows += [f"pair{at}{one},{word},{','.join('0' * 17)}" for one in "ab"]
    text(tmp_path / "devset.csv", "\n".join([head, *rows]) + "\n")
    index = find_corpus("mediaeval21").read(made.data).index
    pairs = {f"pair{at}": [index.ids.tolist().index(f"pair{at}{one}") for one in "ab"] for at in range(60)}
    for split in index.splits.values():
        assert all(split.values[a] == split.values[b] for a, b in pairs.values())
        assert (split.values == 1).sum() > 10


def test_fi_keeps_equal_images_together(tmp_path: Path) -> None:
    """With all copies kept, they are groups, and no split made here separates them."""
    index = find_corpus("fi").read(MAKERS["fi"](tmp_path).data, {"equal": "keep"}).index
    assert sorted(np.unique(index.groups, return_counts=True)[1].tolist()) == [2, 2, 5]
    assert not any(split.crossed(index.groups).any() for split in index.splits.values() if split.source == "made")
