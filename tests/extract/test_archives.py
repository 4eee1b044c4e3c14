"""Tar and zip read in place: long names, threads, hostile members, damage."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import tempfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.errors import CorpusError, RefusedImageError, UnreadableError
from extract.inputs.files import canonical
from extract.inputs.trees import open_tree
from features_store import Status

LONG = "/".join(["folder" * 12] * 4) + "/picture.jpg"  # over 255 characters: no tar header holds it


def make_tar(path: Path, files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_480_000_000
            archive.addfile(info, io.BytesIO(data))
    return path


def contents(n: int = 40) -> dict[str, bytes]:
    random = np.random.default_rng(0)
    sizes = [0, 1, 511, 512, 513, 70_000, *random.integers(1, 5000, n - 7).tolist()]
    files = {f"data/{at:03}/{at}é.jpg": random.bytes(size) for at, size in enumerate(sizes)}
    return {**files, LONG: b"deep"}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_against_the_standard_library(form: int, tmp_path: Path) -> None:
    """Each member has the name, the bytes and the time that tarfile gives it."""
    files = contents()
    if form == tarfile.USTAR_FORMAT:
        del files[LONG]
    tree = open_tree(make_tar(tmp_path / "a.tar", files, form))
    names = np.array(sorted(files))
    assert tree.images() == names.tolist()
    source = tree.source(names)
    assert [source.read(row) for row in range(len(names))] == [files[name] for name in names.tolist()]
    assert {source.modified(row) for row in range(len(names))} == {1_480_000_000.0}
    assert [tree.size(name) for name in names.tolist()] == [len(files[name]) for name in names.tolist()]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip(method: int, tmp_path: Path) -> None:
    """Stored and deflated members are read."""
    files = contents()
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    tree = open_tree(tmp_path / "a.zip")
    source = tree.source(np.array(list(files)))
    assert [source.read(row) for row in range(len(files))] == list(files.values())


def test_threads_and_processes(tmp_path: Path) -> None:
    """Many threads read one archive at once, and a source can be sent to another process."""
    files = contents()
    source = open_tree(make_tar(tmp_path / "a.tar", files)).source(np.array(list(files)))
    rows = list(range(len(files))) * 20
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(source.read, rows))
    assert found == [list(files.values())[row] for row in rows]
    assert pickle.loads(pickle.dumps(source)).read(5) == source.read(5)


def test_a_member_that_is_missing(tmp_path: Path) -> None:
    """An image that is not in the archive is found out when it is read."""
    tree = open_tree(make_tar(tmp_path / "a.tar", {"a.jpg": b"x"}))
    with pytest.raises(RefusedImageError, match=r"holds no b\.jpg") as caught:
        tree.source(np.array(["b.jpg"])).read(0)
    assert caught.value.status == Status.MISSING
    with pytest.raises(CorpusError, match=r"holds no b\.txt"):
        tree.read("b.txt")


def test_hostile_members_are_left_out(tmp_path: Path) -> None:
    """Links, devices, absolute names and names that lead upwards are no members."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("/etc/passwd.jpg", "../up.jpg", "a/../../up.jpg", "./good.jpg", "C:/x.jpg", "back\\slash.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"kind{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    tree = open_tree(path)
    assert tree.images() == ["good.jpg"]
    assert tree.read("good.jpg") == b"abc"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("../up.jpg", b"abc")
        packed.writestr("good.jpg", b"abc")
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
    assert open_tree(tmp_path / "a.zip").images() == ["good.jpg"]


def test_forged_sizes(tmp_path: Path) -> None:
    """A size that the file does not hold is refused before any memory is taken for it."""
    path = make_tar(tmp_path / "a.tar", {"a.jpg": b"x" * 100})
    raw = bytearray(path.read_bytes())
    info = tarfile.TarInfo("a.jpg")
    info.size = 1 << 40
    raw[:512] = info.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(raw)
    with pytest.raises(CorpusError, match=r"cut: its member 'a\.jpg' would end at byte 1099511628288"):
        open_tree(path)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", b"\0" * 5_000_000)
    forged = (tmp_path / "bomb.zip").read_bytes().replace((5_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    (tmp_path / "bomb.zip").write_bytes(forged)
    with pytest.raises(RefusedImageError, match="11 of 10 bytes"):
        open_tree(tmp_path / "bomb.zip").source(np.array(["a.jpg"])).read(0)


def test_damage(tmp_path: Path) -> None:
    """A compressed, a cut and an overwritten archive are each refused with what to do."""
    path = make_tar(tmp_path / "a.tar", contents())
    raw = path.read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(raw))
    with pytest.raises(CorpusError, match=r"decompress it once \(gunzip --keep a\.tar\.gz\)"):
        open_tree(tmp_path / "a.tar.gz")
    (tmp_path / "cut.tar").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(CorpusError, match="is cut"):
        open_tree(tmp_path / "cut.tar")
    (tmp_path / "bad.tar").write_bytes(raw[:1024] + b"x" * 512 + raw[1536:])
    with pytest.raises(CorpusError, match="is damaged: at byte"):
        open_tree(tmp_path / "bad.tar")
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 and nothing else")
    with pytest.raises(CorpusError, match="no whole zip"):
        open_tree(tmp_path / "bad.zip")


def test_random_damage_never_escapes(tmp_path: Path) -> None:
    """Whatever byte is turned over, the outcome is a table or one of the two errors."""
    raw = make_tar(tmp_path / "a.tar", {"a.jpg": b"x" * 900, LONG: b"y" * 10, "b.jpg": b"z"}).read_bytes()
    random = np.random.default_rng(1)
    for _ in range(150):
        copy = bytearray(raw)
        for at in random.integers(0, len(copy), 3).tolist():
            copy[at] = int(random.integers(256))
        (tmp_path / "b.tar").write_bytes(copy[: int(random.integers(1, len(copy) + 1))])
        try:
            tree = open_tree(tmp_path / "b.tar")
            source = tree.source(np.array(tree.images() or ["none.jpg"]))
            for row in range(len(source)):
                assert len(source.read(row)) <= len(raw)
        except (CorpusError, RefusedImageError):
            pass


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_wrong_checksum_is_undecodable(method: int, tmp_path: Path) -> None:
    """A stored member with one flipped byte, or one whose directory holds another checksum, is never read as good."""
    path = tmp_path / "a.zip"
    data = np.random.default_rng(0).bytes(3000)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.jpg", data)
        archive.writestr("b.jpg", data[::-1])
    raw = bytearray(path.read_bytes())
    if method == zipfile.ZIP_STORED:
        raw[raw.index(data) + 1500] ^= 1
    else:
        at = raw.index(b"PK\x01\x02")
        raw[at + 16] ^= 1  # the checksum of the first member, in the directory
    path.write_bytes(raw)
    tree = open_tree(path)
    source = tree.source(np.array(["a.jpg", "b.jpg"]))
    with pytest.raises(RefusedImageError, match="checksum of the zip member is wrong") as caught:
        source.read(0)
    assert caught.value.status == Status.UNDECODABLE
    assert source.read(1) == data[::-1]
    with pytest.raises(CorpusError, match="checksum"):
        tree.read("a.jpg")


def test_a_member_larger_than_a_picture_is_too_large(tmp_path: Path) -> None:
    """64 MiB are enough for a picture, in either kind of archive; a table may have more."""
    large = b"\0" * ((64 << 20) + 1)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.jpg", large)
    make_tar(tmp_path / "a.tar", {"a.jpg": large})
    for path in (tmp_path / "a.zip", tmp_path / "a.tar"):
        tree = open_tree(path)
        with pytest.raises(RefusedImageError, match="at most 67108864 are read") as caught:
            tree.source(np.array(["a.jpg"])).read(0)
        assert caught.value.status == Status.TOO_LARGE
        assert len(tree.read("a.jpg")) == len(large)


def test_an_archive_that_goes_away_is_no_property_of_its_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run stops; the images are not called missing."""
    from extract.inputs import files as sources

    monkeypatch.setattr(sources, "PAUSE", 0.0)
    path = make_tar(tmp_path / "a.tar", {"a.jpg": b"x"})
    source = pickle.loads(pickle.dumps(open_tree(path).source(np.array(["a.jpg"]))))
    path.unlink()
    with pytest.raises(UnreadableError, match="No such file"):
        source.read(0)


# ---- archives that lie ----------------------------------------------------------------------------------------------


def header(name: str, size: bytes = b"", kind: bytes = b"0", magic: bytes = b"ustar\x0000") -> bytes:
    """Write the header of a tar's member with whatever bytes stand in its size, and a right checksum."""
    block = bytearray(512)
    block[: len(name)] = name.encode()
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[257:265] = magic
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(**records: str | bytes) -> bytes:
    body = b""
    for key, value in records.items():
        text = f" {key}=".encode() + (value.encode() if isinstance(value, str) else value) + b"\n"
        length = len(text) + 1
        while len(str(length)) + len(text) != length:
            length += 1
        body += str(length).encode() + text
    return header("pax", f"{len(body):011o}".encode(), b"x") + padded(body)


GOOD = header("b.jpg", b"00000000003") + padded(b"abc")
LONG_NAME = header("././@LongLink", b"00000004000", b"L")
LIES = {
    "a size of 5,000 digits": pax(size="9" * 5000) + GOOD,
    "a negative size in a record": pax(size="-512") + GOOD,
    "a size in other digits": pax(size="\u0663") + GOOD,
    "a record longer than its header": header("x", b"00000000012", b"x") + padded(b"99 path=ab\n") + GOOD,
    "a record length of 5,000 digits": header("x", f"{5000:011o}".encode(), b"x") + padded(b"9" * 5000) + GOOD,
    "a record without a key": header("x", b"00000000010", b"x") + padded(b"8 abcde\n") + GOOD,
    "a negative octal size": header("a.jpg", b"-0000001000") + GOOD,
    "a size with underscores": header("a.jpg", b"0000_000003") + padded(b"abc") + GOOD,
    "a negative binary size": header("a.jpg", b"\xff" * 12) + GOOD,
    "a binary size of 2^95": header("a.jpg", b"\x80" + b"\xff" * 11) + GOOD,
    "a name of two MiB": header("././@LongLink", b"10000000", b"L") + bytes(1 << 21) + GOOD,
    "a name that is not there": LONG_NAME,
    "a header that refers to itself": header("a.jpg", b"77777777777") + GOOD,
}


@pytest.mark.parametrize("lie", LIES)
def test_tars_that_lie(lie: str, tmp_path: Path, command_line: Callable[..., tuple[int, str, str]]) -> None:
    """Each ends in one sentence and exit code 2, at once, with little memory."""
    (tmp_path / "a.tar").write_bytes(LIES[lie] + bytes(1024))
    code, out, err = command_line("check", "folder", "--data", tmp_path / "a.tar", "--lists-only")
    assert (code, out) == (2, ""), (out, err)
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) < 1000


@pytest.mark.parametrize(
    ("rebuilt", "words"),
    [
        (lambda one, other: one[:2048], "is cut: it ends at byte 2048 behind 1 headers"),
        (lambda one, other: one[:2048] + one[2048:2300], "is cut"),
        (lambda one, other: one + other, "has an end at byte 4096 and another member at byte 10240"),
        (lambda one, other: one[:2048] + bytes(4096) + one[2048:], "another member at byte 6144"),
    ],
    ids=["cut between members", "cut in a header", "two joined", "a page of zeros"],
)
def test_no_member_is_lost_in_silence(rebuilt: Callable[[bytes, bytes], bytes], words: str, tmp_path: Path) -> None:
    """A tar ends in a block of zeros, and has nothing behind it; padding of any length is allowed."""
    one = make_tar(tmp_path / "1.tar", {"a/1.jpg": bytes([1] * 1333), "b/2.jpg": b"2" * 1242}, tarfile.USTAR_FORMAT)
    other = make_tar(tmp_path / "2.tar", {"c/3.jpg": b"3"}, tarfile.USTAR_FORMAT).read_bytes()
    whole = one.read_bytes()
    (tmp_path / "bad.tar").write_bytes(rebuilt(whole, other))
    with pytest.raises(CorpusError, match=words):
        open_tree(tmp_path / "bad.tar").images()
    one.write_bytes(whole + bytes(3 << 20))
    assert open_tree(one).images() == ["a/1.jpg", "b/2.jpg"]


def test_tars_that_only_look_odd(tmp_path: Path) -> None:
    """Folders with a size, chains of long names and records for the whole archive are read as tarfile reads them."""
    raw = (
        header("d/", b"00000000777", b"5")
        + header("v7/", b"", b"\0")
        + pax(comment="\u00e9")
        + pax(path="long/" + "x" * 300 + ".jpg")
        + GOOD
        + header("././@LongLink", b"00000000016", b"L")
        + padded(b"other/name.jpg")
        + GOOD
        + header("g", b"00000000013", b"g")
        + padded(b"11 x=abcde\n")
        + header("S.jpg", b"00000000003", b"S")
        + padded(b"abc")
        + GOOD
    )
    (tmp_path / "a.tar").write_bytes(raw + bytes(1024))
    tree = open_tree(tmp_path / "a.tar")
    assert tree.images() == ["b.jpg", "long/" + "x" * 300 + ".jpg", "other/name.jpg"]
    assert {tree.read(name) for name in tree.images()} == {b"abc"}
    assert tree.census().left_out == {"a file with holes in the archive (pack it without --sparse)": 1}


def make_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytearray:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return bytearray(path.read_bytes())


def test_zips_that_lie(tmp_path: Path) -> None:
    """Overlapping members, offsets and sizes that no file has: a sentence; a wrong checksum: a row."""
    path = tmp_path / "a.zip"
    raw = make_zip(path, {"a.jpg": b"first" * 50, "b.jpg": b"second" * 50})
    first, second = (at for at in range(len(raw)) if raw[at : at + 4] == b"PK\x01\x02")

    def write(at: int, value: bytes) -> None:
        copy = bytearray(raw)
        copy[at : at + len(value)] = value
        path.write_bytes(copy)

    write(second + 42, (0).to_bytes(4, "little"))  # the second member begins where the first does
    with pytest.raises(CorpusError, match="reaches into what follows it"):
        open_tree(path)
    write(first + 20, (400).to_bytes(4, "little"))  # the first one reaches into the second
    with pytest.raises(CorpusError, match="reaches into what follows it"):
        open_tree(path)
    for at, size in ((42, 4), (20, 4)):
        write(second + at, b"\xfe" + b"\xff" * (size - 1))
        with pytest.raises(CorpusError, match=r"a\.zip is"):
            open_tree(path)
    write(first + 16, b"\0\0\0\0")  # CRC-32
    source = open_tree(path).source(np.array(["a.jpg", "b.jpg"]))
    with pytest.raises(RefusedImageError, match="checksum") as caught:
        source.read(0)
    assert caught.value.status == Status.UNDECODABLE
    assert source.read(1) == b"second" * 50
    extra = b"\x01\x00\x18\x00" + b"\xff" * 24  # zip64: sizes and offset of 2^64 - 1
    info = zipfile.ZipInfo("a.jpg")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, b"abc")
    whole = bytearray(path.read_bytes())
    at = whole.index(b"PK\x01\x02")
    entry = whole[at : at + 46 + 5]
    entry[20:28], entry[30:32], entry[42:46] = b"\xff" * 8, len(extra).to_bytes(2, "little"), b"\xff" * 4
    end = whole[at + 51 :]
    end[12:16] = (len(entry) + len(extra)).to_bytes(4, "little")
    path.write_bytes(whole[:at] + entry + extra + end)
    with pytest.raises(CorpusError, match=r"a\.zip is"):
        open_tree(path)


def test_random_damage_of_zips_never_escapes(tmp_path: Path) -> None:
    """Whatever byte is turned over, a member has the bytes that were packed, or is refused."""
    files = {"a.jpg": b"x" * 900, "b/c.jpg": bytes(range(256)) * 3}
    path = tmp_path / "a.zip"
    random = np.random.default_rng(2)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raw = make_zip(path, files, method)
        for _ in range(200):
            copy = bytearray(raw)
            for at in random.integers(0, len(copy), 2).tolist():
                copy[at] = int(random.integers(256))
            path.write_bytes(copy)
            try:
                tree = open_tree(path)
            except CorpusError:
                continue
            names = tree.images()
            source = tree.source(np.array(names or ["none.jpg"]))
            for row in range(len(source)):
                try:
                    assert source.read(row) in files.values()
                except RefusedImageError:
                    continue


MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/caf\u00e9.jpg", "b/cafe\u0301.jpg", "./a/1.jpg"]),
        st.binary(max_size=40),
        st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None, database=None)
@given(members=MEMBERS, place=st.integers(0, 999), flip=st.integers(1, 255))
def test_any_zip_gives_its_members_or_is_refused(members: list, place: int, flip: int) -> None:
    """Two members of one name are refused; with one byte changed, what is read is what was written, or nothing."""
    names = [canonical(name) for name, _, _ in members]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile, about names that are there twice
        path = Path(folder) / "x.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content, method in members:
                archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
        if len({*names}) < len(names):
            with pytest.raises(CorpusError, match="two files or folders of the name"):
                open_tree(path)
            return
        files = open_tree(path).source(np.array(names))
        assert [files.read(row) for row in range(len(names))] == [content for _, content, _ in members]
        data = bytearray(path.read_bytes())
        data[place * len(data) // 1000] ^= flip
        path.write_bytes(data)
        try:
            files = open_tree(path).source(np.array(names))
        except CorpusError:
            return
        for row, (_, content, _) in enumerate(members):
            with suppress(RefusedImageError):
                assert files.read(row) == content


def test_a_zip_of_holes_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Two gigabytes that take no space on a disk, and an end that calls all of it the directory."""
    with (tmp_path / "x.zip").open("wb") as file:
        file.write(b"PK\3\4")
        file.seek(2**31 - 22)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 2**31 - 100, 78, 0))
    tracemalloc.start()
    with pytest.raises(CorpusError, match="directory claims"):
        open_tree(tmp_path / "x.zip")
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()
