"""Where images may come from: a folder, a list, a table, an archive, a URL; the blocks are the same."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from extract import pipeline
from extract.corpora import find_corpus
from extract.errors import CorpusError, RefusedImageError, UnreadableError
from extract.settings import RunSettings
from features_store import Status, open_store


@pytest.fixture
def corpus(class_folder: Path) -> Path:
    """The class folder, one file of it cut."""
    whole = (class_folder / "cats" / "0.jpg").read_bytes()
    (class_folder / "cats" / "4.jpg").write_bytes(whole[:-100])
    return class_folder


def make_tar(root: Path, path: Path, *, top: str = ".") -> Path:
    with tarfile.open(path, "w") as archive:
        archive.add(root, arcname=top)
    return path


def make_zip(root: Path, path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in root.rglob("*.*"):
            archive.write(file, file.relative_to(root))
    return path


def bucket(root: Path, name: str) -> str:
    """Copy a folder, or a file, to fsspec's file system in memory; returns its URL."""
    fsspec = pytest.importorskip("fsspec", reason="URLs need the extra 'remote'")
    memory = fsspec.filesystem("memory")
    for file in [root] if root.is_file() else [one for one in root.rglob("*") if one.is_file()]:
        memory.pipe_file(f"/{name}/{file.relative_to(root.parent).as_posix()}", file.read_bytes())
    return f"memory://{name}/{root.name}"


def block_of(toy, name: str, data: Path | str, store: Path, **options: str):
    """The block of a corpus, its ids beside it."""
    reading = find_corpus(name).read(data, options)
    pipeline.run(
        reading,
        [toy],
        store,
        RunSettings(device="cpu", batch_size=4, max_failed="100%"),
    )
    return reading.index, open_store(store).blocks["toy.hash"]


def places(corpus: Path, tmp_path: Path) -> dict[str, Path | str]:
    tar = make_tar(corpus, tmp_path / "i.tar", top="packed")
    zipped = make_zip(corpus, tmp_path / "i.zip")
    found: dict[str, Path | str] = {"tar": tar, "zip": zipped}
    found["stored zip"] = make_zip(corpus, tmp_path / "stored.zip", zipfile.ZIP_STORED)
    found["url"] = bucket(corpus, tmp_path.name)
    found["tar behind a url"] = bucket(tar, tmp_path.name)
    found["zip behind a url"] = bucket(zipped, tmp_path.name)
    return found


def test_a_folder_is_the_same_packed_and_far_away(corpus, tmp_path, toy):
    index, block = block_of(toy, "folder", corpus, tmp_path / "store")
    assert block.status[:, 0].tolist().count(Status.TRUNCATED) == 1
    for words, data in places(corpus, tmp_path).items():
        other_index, other = block_of(toy, "folder", data, tmp_path / words)
        assert other_index.ids.tolist() == index.ids.tolist(), words
        assert np.array_equal(other_index.splits["default"].values, index.splits["default"].values), words
        assert other.vectors[...].tobytes() == block.vectors[...].tobytes(), words
        assert np.array_equal(other.status, block.status), words
        assert other.stored_seal == block.stored_seal, words


def test_a_list_and_a_table_take_images_from_a_folder_an_archive_or_a_url(corpus, tmp_path, toy):
    names = [f"{name}/{at}.jpg" for name in ("drinks", "cats") for at in range(4)]
    (corpus / "images.txt").write_text("\n".join(f"{name}\t{name.split('/')[0]}" for name in names) + "\n\n")
    (corpus / "labels.csv").write_text("image,kind\n" + "".join(f"{name},{name[0]}\n" for name in names))
    _, expected = block_of(toy, "folder", corpus, tmp_path / "store")
    by_id = {name: expected.vectors[[0, 1, 2, 3, 5, 6, 7, 8][row], 0] for row, name in enumerate(sorted(names))}
    tar = make_tar(corpus, tmp_path / "i.tar")
    for (reader, task), file in {("list", "label"): "images.txt", ("csv", "kind"): "labels.csv"}.items():
        given = {"single": "kind"} if reader == "csv" else {}
        beside = tmp_path / file
        beside.write_bytes((corpus / file).read_bytes())
        for number, (data, root) in enumerate(
            [(corpus, "."), (beside, "i.tar"), (beside, "images"), (tar, "."), (bucket(corpus, tmp_path.name), ".")]
        ):
            index, block = block_of(toy, reader, data, tmp_path / f"{reader}{number}", root=root, **given)
            assert index.ids.tolist() == names
            assert all(np.array_equal(block.vectors[row, 0], by_id[name]) for row, name in enumerate(names))
            classes = index.labels[task].task.classes
            assert [classes[at][0] for at in index.labels[task].values] == [name[0] for name in names]
            assert index.corpus["options"].get("root", ".") == root
            assert index.corpus["options"]["file"] == file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no image"),
        ("a.jpg\nb.jpg\na.jpg\n", "'a.jpg' stands on line 1 too"),
        ("../a.jpg\n", r"'../a.jpg' names no image below"),
        ("/etc/a.jpg\n", "lies outside"),
        (b"\xff\xfe\xfa", "cannot be read as utf-8"),
    ],
)
def test_wrong_lists_are_named(tmp_path, text, words):
    (tmp_path / "images.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CorpusError, match=words):
        find_corpus("list").read(tmp_path)


def test_a_list_without_labels_and_an_image_that_is_not_there(tmp_path):
    (tmp_path / "images.txt").write_text("b.jpg\na.jpg\n")
    reading = find_corpus("list").read(tmp_path)
    assert not reading.index.labels
    with pytest.raises(RefusedImageError) as refused:
        reading.files.read(0)
    assert refused.value.status == Status.MISSING


def test_links_and_ways_out_of_a_tar_are_left_out_and_counted(corpus, tmp_path):
    path = make_tar(corpus, tmp_path / "i.tar")
    with tarfile.open(path, "a") as archive:
        for name, target in (("./cats/link.jpg", "/etc/passwd"), ("../up.jpg", "")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = (tarfile.SYMTYPE, target) if target else (tarfile.REGTYPE, "")
            archive.addfile(member)
    reading = find_corpus("folder").read(path)
    assert len(reading.index) == len(find_corpus("folder").read(corpus).index)
    words = "1 a name that leads out of the archive, or has a backslash, 1 a symbolic link in the archive"
    assert reading.notes[-1] == f"files left out: 2: {words}"
    assert sum(reading.index.corpus["left_out"].values()) == 2


# ---- URLs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense://x", "nonsense://x cannot be opened: Protocol not known"),
        ("memory://no-such-bucket/x", "there is no such folder or archive"),
    ],
)
def test_wrong_urls_are_named(url, words):
    pytest.importorskip("fsspec", reason="URLs need the extra 'remote'")
    with pytest.raises(CorpusError, match=words):
        find_corpus("folder").read(url)


def test_a_network_that_fails_is_asked_again_and_then_the_run_stops(corpus, tmp_path, monkeypatch):
    from extract.inputs import files as sources

    reading = find_corpus("folder").read(bucket(corpus, tmp_path.name))
    memory = __import__("fsspec").filesystem("memory")
    calls = []

    def flaky(path, *_arguments, **_options):
        calls.append(path)
        if len(calls) < failures:
            raise ConnectionResetError(path)
        return b"bytes"

    monkeypatch.setattr(sources, "PAUSE", 0.0)
    monkeypatch.setattr(type(memory), "cat_file", lambda _self, path, *_a, **_o: flaky(path))
    failures = 3
    assert reading.files.read(0) == b"bytes"
    assert len(calls) == 3
    failures = 99
    with pytest.raises(UnreadableError, match="cannot be read"):
        reading.files.read(0)


def test_the_command_line_takes_a_url(command_line, corpus, tmp_path):
    code, out, _ = command_line(
        "run",
        "folder",
        "--data",
        bucket(corpus, tmp_path.name),
        "--store",
        tmp_path / "s",
        "--encoders",
        "lowlevel",
        "--max-failed",
        "2",
    )
    assert code == 0
    assert "8 written, 1 truncated" in out
