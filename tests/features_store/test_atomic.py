"""Files of folders that a stranger may have made: what is opened, and what is refused without being touched."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from features_store import UnsafeFileError, open_regular, read_regular
from features_store.atomic import typed_path


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the user's, outside of the folder."""
    path = tmp_path / "victim.txt"
    path.write_text("precious")
    return path


def _link(folder: Path, victim: Path) -> Path:
    (folder / "x").symlink_to(victim)
    return folder / "x"


def _dangling(folder: Path, victim: Path) -> Path:
    (folder / "x").symlink_to(victim.with_name("not there"))
    return folder / "x"


def _second_name(folder: Path, victim: Path) -> Path:
    os.link(victim, folder / "x")
    return folder / "x"


def _pipe(folder: Path, victim: Path) -> Path:
    os.mkfifo(folder / "x")
    return folder / "x"


def _socket(folder: Path, victim: Path) -> Path:
    here = os.open(".", os.O_RDONLY)
    os.chdir(folder)  # the path of a socket is at most 108 bytes long
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("x")
    finally:
        os.fchdir(here)
        os.close(here)
    return folder / "x"


def _folder(folder: Path, victim: Path) -> Path:
    (folder / "x").mkdir()
    return folder / "x"


def _device(folder: Path, victim: Path) -> Path:
    return Path("/dev/zero")


@pytest.mark.parametrize("mode", ["rb", "r+b", "ab", "a+b"])
@pytest.mark.parametrize("make", [_link, _dangling, _second_name, _pipe, _socket, _folder, _device])
def test_only_regular_files_are_opened(tmp_path, victim, make, mode) -> None:
    """Everything else is refused at once, in every mode, and what it leads to stays as it was."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UnsafeFileError, match=r"regular|second name"):
        open_regular(make(folder, victim), mode=mode)
    assert victim.read_text() == "precious"
    assert not victim.with_name("not there").exists()


def test_regular_files(tmp_path) -> None:
    """A plain file is read, appended and changed; a missing one is made only by the modes that append."""
    path = tmp_path / "x"
    for mode in ("rb", "r+b"):
        with pytest.raises(FileNotFoundError):
            open_regular(path, mode=mode)
    with open_regular(path, mode="ab") as file:
        file.write(b"one")
    with open_regular(path, mode="a+b") as file:
        file.write(b" two")
    with open_regular(path, mode="r+b") as file:
        file.write(b"ONE")
    assert read_regular(path, 7) == b"ONE two"


def test_limit(tmp_path) -> None:
    """A file over the limit is refused unread, and one that says it is empty is read to the limit only."""
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(20 * 2**30)  # of holes
    for read in (lambda: read_regular(path, 100), lambda: read_regular(path, 100, links=True)):
        with pytest.raises(UnsafeFileError, match="at most 100"):
            read()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_file_that_does_not_say_its_size() -> None:
    """The limit holds for what is read, whatever the size that was promised."""
    with pytest.raises(UnsafeFileError, match="more than the 100 bytes"):
        read_regular("/proc/self/maps", 100)


def test_links_where_they_are_allowed(tmp_path, victim) -> None:
    """Images of a corpus may be links, soft and hard, but not to a device or a pipe."""
    for number, make in enumerate((_link, _second_name)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert read_regular(make(folder, victim), 100, links=True) == b"precious"
    os.mkfifo(tmp_path / "pipe")
    for number, target in enumerate(("/dev/zero", tmp_path / "pipe")):
        (tmp_path / f"link{number}").symlink_to(target)
        with pytest.raises(UnsafeFileError, match="regular"):
            read_regular(tmp_path / f"link{number}", 100, links=True)


def test_a_typed_path_may_be_a_link(tmp_path, victim) -> None:
    """The user's own link is followed once, to its end; a plain path stays as it was typed."""
    (tmp_path / "far").symlink_to(victim)
    (tmp_path / "near").symlink_to("far")
    assert read_regular(typed_path(tmp_path / "near"), 100) == b"precious"
    assert typed_path("some/relative.h5") == Path("some/relative.h5")


def test_the_temporary_beside_a_file_is_no_second_name(tmp_path) -> None:
    """A writer that was killed between naming its file and removing the temporary leaves a file that can be read."""
    (tmp_path / ".x.a1b2.part").write_bytes(b"new")
    os.link(tmp_path / ".x.a1b2.part", tmp_path / "x")
    assert read_regular(tmp_path / "x", 10) == b"new"
    (tmp_path / ".y.a1b2.part").mkdir()
    (tmp_path / ".y.a1b2.part" / "y").write_bytes(b"new")
    os.link(tmp_path / ".y.a1b2.part" / "y", tmp_path / "y")
    assert read_regular(tmp_path / "y", 10) == b"new"


_SWAP = """
import os, sys
link, plain, victim = sys.argv[1:]
while True:
    os.symlink(victim, plain + ".link")
    os.replace(plain + ".link", link)
    open(plain, "w").write("plain")
    os.replace(plain, link)
"""


def test_a_name_that_is_swapped_all_the_time(tmp_path, victim) -> None:
    """Between the look and the opening nothing can be slipped in: the victim is never read or changed."""
    place = tmp_path / "x"
    swapping = subprocess.Popen([sys.executable, "-c", _SWAP, str(place), str(tmp_path / "plain"), str(victim)])
    try:
        while not place.exists():
            assert swapping.poll() is None
        seen: set[object] = set()
        for _ in range(2000):
            try:
                with open_regular(place, mode="r+b") as file:
                    seen.add(file.read(5))
            except (UnsafeFileError, OSError) as error:
                seen.add(type(error).__name__)
        assert b"preci" not in seen
        assert b"plain" in seen
    finally:
        swapping.kill()
        swapping.wait()
